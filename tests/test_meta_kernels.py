"""The cheap meta kernels say what torch's own say, or leave the answer to them."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils import _pytree as pytree

from mixbench.models import meta, meta_kernels
from mixbench.models.meta_kernels import table

aten = torch.ops.aten
Arguments = tuple[Any, ...]


@st.composite
def tensors(draw: st.DrawFn, shape: tuple[int, ...] | None = None, dtype: torch.dtype = torch.float32) -> Tensor:
    """A meta tensor: contiguous, permuted, sliced, expanded or channels-last."""
    if shape is None:
        shape = tuple(draw(st.lists(st.integers(1, 4), min_size=0, max_size=4)))
    kind = draw(st.sampled_from(["contiguous", "contiguous", "permuted", "sliced", "expanded", "channels_last"]))
    if kind == "permuted" and shape:
        order = draw(st.permutations(range(len(shape))))
        back = sorted(range(len(shape)), key=lambda axis: order[axis])
        return torch.empty([shape[axis] for axis in order], dtype=dtype, device="meta").permute(back)
    if kind == "sliced" and shape:
        return torch.empty((*shape[:-1], 2 * shape[-1]), dtype=dtype, device="meta")[..., ::2]
    if kind == "expanded" and shape:
        return torch.empty((1, *shape[1:]), dtype=dtype, device="meta").expand(shape)
    if kind == "channels_last" and len(shape) == 4:
        return torch.empty(shape, dtype=dtype, device="meta").to(memory_format=torch.channels_last)
    return torch.empty(shape, dtype=dtype, device="meta")


def described(result: Any) -> list[Any]:
    """Shape, dtype and the strides that matter of each tensor in a result."""
    return [
        (
            tuple(leaf.shape),
            leaf.dtype,
            [stride for stride, size in zip(leaf.stride(), leaf.shape, strict=True) if size > 1] if leaf.numel() else [],
        )
        for leaf in pytree.tree_leaves(result)
        if isinstance(leaf, Tensor)
    ]


def assert_agrees(operator: Any, args: Arguments, kwargs: dict[str, Any] | None = None) -> bool:
    """Whether the kernel answered, after checking that it answered as torch does; where torch raises it must not answer."""
    kwargs = kwargs or {}
    ours = meta_kernels.run(operator, args, kwargs)
    try:
        theirs = operator(*args, **kwargs)
    except (RuntimeError, IndexError, NotImplementedError, ValueError, UserWarning):
        assert ours is None, (operator, args)
        return False
    if ours is None:
        return False
    assert described(ours) == described(theirs), (operator, args)
    return True


BINARY = "add.Tensor sub.Tensor mul.Tensor div.Tensor maximum.default minimum.default pow.Tensor_Tensor".split()
COMPARE = "eq.Tensor ne.Tensor lt.Tensor le.Tensor gt.Tensor ge.Tensor".split()
UNARY = (
    "neg abs relu hardtanh sigmoid hardsigmoid hardswish tanh silu gelu leaky_relu elu exp log sqrt rsqrt reciprocal sin cos "
    "erf softplus softshrink square clamp"
).split()
BACKWARD: dict[str, Arguments] = {
    **dict.fromkeys("silu gelu sigmoid tanh hardsigmoid hardswish".split(), ()),
    "threshold": (0.0,),
    "hardtanh": (-1.0, 1.0),
    "leaky_relu": (0.1, False),
    "softplus": (1.0, 20.0),
    "softshrink": (0.5,),
}
"""Backward passes, with their arguments after the gradient and what was kept of the forward pass."""
SCALAR = (
    "add.Scalar sub.Scalar mul.Scalar div.Scalar pow.Tensor_Scalar eq.Scalar gt.Scalar clamp_min.default clamp_max.default"
).split()
IN_PLACE = (
    "add_ sub_ mul_ div_ neg_ relu_ hardtanh_ clamp_ clamp_min_ sigmoid_ hardsigmoid_ hardswish_ tanh_ silu_ leaky_relu_ elu_ "
    "exp_ sqrt_ rsqrt_ pow_"
).split()
TAKES_OPERAND = ("add_", "sub_", "mul_", "div_", "pow_")


def overload(name: str) -> Any:
    packet, _, which = name.partition(".")
    return getattr(getattr(aten, packet), which or "default")


@settings(max_examples=150, deadline=None)
@given(data=st.data(), name=st.sampled_from(BINARY + COMPARE))
def test_binary_operators_broadcast_and_lay_out_like_torch(data: st.DataObject, name: str) -> None:
    a = data.draw(tensors())
    shape = tuple(data.draw(st.sampled_from([1, size])) for size in a.shape)[data.draw(st.integers(0, a.ndim)) :]
    b = data.draw(st.one_of(tensors(shape), tensors()))
    assert_agrees(overload(name), (a, b))
    assert_agrees(overload(name), (b, a))


@settings(max_examples=150, deadline=None)
@given(x=tensors(), name=st.sampled_from(UNARY))
def test_unary_operators_keep_the_layout(x: Tensor, name: str) -> None:
    args: Arguments = (x, 0.0, 6.0) if name == "clamp" else (x,)
    assert_agrees(overload(name), args)


@settings(max_examples=80, deadline=None)
@given(x=st.one_of(tensors(), tensors(dtype=torch.int64), tensors(dtype=torch.bfloat16)), name=st.sampled_from(SCALAR))
def test_operators_with_a_number_keep_layout_and_dtype(x: Tensor, name: str) -> None:
    assert_agrees(overload(name), (x, 2.0))
    assert_agrees(overload(name), (x, 2))
    assert_agrees(aten.pow.Scalar, (2.0, x))


@settings(max_examples=100, deadline=None)
@given(data=st.data(), name=st.sampled_from(IN_PLACE))
def test_in_place_operators_return_their_first_operand(data: st.DataObject, name: str) -> None:
    x = data.draw(tensors())
    operand = data.draw(st.one_of(tensors(x.shape[1:]), tensors()))
    if name in TAKES_OPERAND:
        if x.is_contiguous():
            assert_agrees(overload(f"{name}.Tensor"), (x, operand))
        return
    args: Arguments = (x, 0.0, 1.0) if name == "clamp_" else (x, 0.0) if name == "clamp_min_" else (x,)
    if 0 not in [stride for stride, size in zip(x.stride(), x.shape, strict=True) if size > 1]:
        assert meta_kernels.run(overload(name), args, {}) in (None, x) or meta_kernels.run(overload(name), args, {}) is x


@settings(max_examples=100, deadline=None)
@given(data=st.data(), batch=st.integers(1, 3), m=st.integers(1, 4), k=st.integers(1, 4), n=st.integers(1, 4))
def test_products_of_matrices(data: st.DataObject, batch: int, m: int, k: int, n: int) -> None:
    wrong = data.draw(st.sampled_from([0, 0, 0, 1]))
    a, b = data.draw(tensors((m, k))), data.draw(tensors((k + wrong, n)))
    assert_agrees(aten.mm.default, (a, b))
    assert_agrees(aten.addmm.default, (data.draw(tensors((n,))), a, b))
    assert_agrees(aten.addmm.default, (data.draw(tensors((m, n + wrong))), a, b), {"beta": 2})
    a, b = data.draw(tensors((batch, m, k))), data.draw(tensors((batch + wrong, k, n)))
    assert_agrees(aten.bmm.default, (a, b))
    assert_agrees(aten.baddbmm.default, (data.draw(tensors((1, m, n))), a, b))


@settings(max_examples=150, deadline=None)
@given(
    data=st.data(),
    dimensions=st.integers(1, 3),
    groups=st.integers(1, 3),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
    dilation=st.integers(1, 2),
    transposed=st.booleans(),
    bias=st.booleans(),
)
def test_convolutions(
    data: st.DataObject,
    dimensions: int,
    groups: int,
    stride: int,
    padding: int,
    dilation: int,
    transposed: bool,
    bias: bool,
) -> None:
    into, out = groups * data.draw(st.integers(1, 2)), groups * data.draw(st.integers(1, 2))
    wrong = data.draw(st.sampled_from([0, 0, 0, 1]))
    x = data.draw(tensors((2, into + wrong, *(data.draw(st.integers(1, 6)) for _ in range(dimensions)))))
    kernel = tuple(data.draw(st.integers(1, 3)) for _ in range(dimensions))
    weight = torch.empty((out, into // groups, *kernel), device="meta")
    settings_ = ([stride], [padding], [dilation], transposed, [0], groups)
    assert_agrees(aten.convolution.default, (x, weight, torch.empty(out, device="meta") if bias else None, *settings_))


def test_a_convolution_of_mixed_dtypes_fails_as_it_would_on_a_device() -> None:
    x, weight = torch.empty(1, 2, 4, 4, dtype=torch.int64, device="meta"), torch.empty(3, 2, 1, 1, device="meta")
    with pytest.raises(RuntimeError, match=r"one dtype, not torch\.int64 and torch\.float32"):
        meta_kernels.run(aten.convolution.default, (x, weight, None, [1], [0], [1], False, [0], 1), {})


@settings(max_examples=80, deadline=None)
@given(data=st.data(), training=st.booleans(), affine=st.booleans())
def test_norms(data: st.DataObject, training: bool, affine: bool) -> None:
    x = data.draw(tensors((2, 3, 4, data.draw(st.integers(1, 3)))))
    channel = torch.empty(data.draw(st.sampled_from([3, 3, 4])), device="meta")
    scale = (channel, channel) if affine else (None, None)
    assert_agrees(aten.native_batch_norm.default, (x, *scale, channel, channel, training, 0.1, 1e-5))
    shape = list(x.shape[data.draw(st.integers(1, 3)) :])
    weight = torch.empty(shape, device="meta")
    assert_agrees(aten.native_layer_norm.default, (x, shape, *((weight, weight) if affine else (None, None)), 1e-5))
    half = x.to(torch.bfloat16)
    assert_agrees(aten.native_layer_norm.default, (half, shape, None, None, 1e-5))


@settings(max_examples=80, deadline=None)
@given(data=st.data(), channels=st.integers(1, 4), groups=st.integers(1, 2), affine=st.booleans())
def test_group_norms(data: st.DataObject, channels: int, groups: int, affine: bool) -> None:
    dtype = data.draw(st.sampled_from([torch.float32, torch.float32, torch.bfloat16]))
    x = data.draw(tensors((2, channels, data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))), dtype))
    channel = torch.empty(data.draw(st.sampled_from([channels, channels, 5])), device="meta")
    scale = (channel, channel) if affine else (None, None)
    assert_agrees(aten.native_group_norm.default, (x, *scale, 2, channels, x[0, 0].numel(), groups, 1e-5))


@settings(max_examples=100, deadline=None)
@given(data=st.data(), normalization=st.integers(0, 2), onesided=st.booleans(), even=st.booleans())
def test_fourier_transforms(data: st.DataObject, normalization: int, onesided: bool, even: bool) -> None:
    dtype = data.draw(st.sampled_from([torch.float32, torch.float64]))
    shape = tuple(data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4)))
    x = data.draw(tensors(shape, dtype))
    trailing = list(range(data.draw(st.integers(0, x.ndim - 1)), x.ndim))
    anything = st.lists(st.integers(0, x.ndim - 1), min_size=1, max_size=3, unique=True)
    dims = data.draw(st.one_of(st.just(trailing), anything))
    assert_agrees(aten._fft_r2c.default, (x, dims, normalization, onesided))
    last = 2 * x.shape[dims[-1]] - 1 - even
    assert_agrees(aten._fft_c2r.default, (data.draw(tensors(shape, torch.complex64)), dims, normalization, last))


@settings(max_examples=100, deadline=None)
@given(data=st.data(), name=st.sampled_from("add.Tensor sub.Tensor mul.Tensor neg.default abs.default exp.default".split()))
def test_complex_numbers(data: st.DataObject, name: str) -> None:
    shape = tuple(data.draw(st.lists(st.integers(1, 3), max_size=4)))
    a, b = (data.draw(tensors(shape, data.draw(st.sampled_from([torch.complex64, torch.complex128])))) for _ in range(2))
    assert_agrees(overload(name), (a, b) if name.endswith("Tensor") else (a,))
    assert_agrees(overload(name), (a, b.real) if name.endswith("Tensor") else (a.conj(),))
    assert_agrees(aten.complex.default, (data.draw(tensors(shape)), data.draw(tensors(shape))))


@settings(max_examples=80, deadline=None)
@given(data=st.data(), kernel=st.integers(1, 4), stride=st.integers(1, 3), padding=st.integers(0, 1), ceil_mode=st.booleans())
def test_pooling_and_interpolation(data: st.DataObject, kernel: int, stride: int, padding: int, ceil_mode: bool) -> None:
    x = data.draw(tensors((2, 3, data.draw(st.integers(1, 7)), data.draw(st.integers(1, 7)))))
    assert_agrees(aten.avg_pool2d.default, (x, [kernel, kernel], [stride], [padding] if kernel > 1 else [0], ceil_mode))
    assert_agrees(aten.avg_pool2d.default, (x, [kernel]))
    assert_agrees(aten.upsample_nearest2d.default, (x, [data.draw(st.integers(0, 5)), 3]))
    assert_agrees(aten.upsample_nearest2d.vec, (x, [4, 3], None))


@settings(max_examples=80, deadline=None)
@given(x=tensors(), keepdim=st.booleans(), axes=st.lists(st.integers(-4, 3), max_size=2, unique=True))
def test_reductions_and_softmax(x: Tensor, keepdim: bool, axes: list[int]) -> None:
    unique = len({axis % max(x.ndim, 1) for axis in axes}) == len(axes)
    if unique:
        assert_agrees(aten.mean.dim, (x, axes, keepdim))
        assert_agrees(aten.sum.dim_IntList, (x, axes, keepdim))
    for name in ("_softmax", "_log_softmax"):
        assert_agrees(overload(name), (x, -1, False))
    assert_agrees(aten._safe_softmax.default, (x, -1))
    assert_agrees(aten.tril.default, (x,))
    assert_agrees(aten.triu.default, (x, 1))


@settings(max_examples=150, deadline=None)
@given(data=st.data(), name=st.sampled_from(list(BACKWARD)))
def test_backward_passes_of_pointwise_operators(data: st.DataObject, name: str) -> None:
    gradient = data.draw(tensors())
    kept = data.draw(tensors(tuple(gradient.shape)))
    assert_agrees(overload(f"{name}_backward"), (gradient, kept, *BACKWARD[name]))


@settings(max_examples=80, deadline=None)
@given(data=st.data(), rows=st.integers(1, 4), width=st.integers(1, 4))
def test_backward_passes_of_softmax_and_embeddings(data: st.DataObject, rows: int, width: int) -> None:
    gradient = data.draw(tensors((2, rows, width)))
    output = data.draw(tensors((2, rows, width)))
    for operator in (aten._softmax_backward_data.default, aten._log_softmax_backward_data.default):
        assert_agrees(operator, (gradient, output, data.draw(st.integers(-3, 2)), torch.float32))
    indices = data.draw(tensors((2, rows), torch.int64))
    assert_agrees(aten.embedding_dense_backward.default, (gradient, indices, 7, -1, False))


@settings(max_examples=80, deadline=None)
@given(data=st.data(), axis=st.integers(-2, 1), count=st.integers(1, 3))
def test_look_ups_choices_and_concatenation(data: st.DataObject, axis: int, count: int) -> None:
    shape = tuple(data.draw(st.lists(st.integers(1, 3), min_size=2, max_size=4)))
    pieces = []
    for _ in range(count):
        sides = list(shape)
        sides[axis] = data.draw(st.integers(1, 3))
        pieces.append(data.draw(tensors(tuple(sides))))
    assert_agrees(aten.cat.default, (pieces, axis))
    x = data.draw(tensors(shape))
    condition = torch.empty(shape[-1:], dtype=torch.bool, device="meta")
    assert_agrees(aten.where.self, (condition, x, data.draw(tensors(shape))))
    assert_agrees(aten.masked_fill.Scalar, (x, condition, 0.0))
    assert_agrees(aten.embedding.default, (data.draw(tensors((5, 3))), torch.empty(shape, dtype=torch.int64, device="meta")))
    assert_agrees(aten.repeat.default, (x, [2, *([1] * len(shape))]))
    assert_agrees(aten.repeat.default, (x, [1]))


@settings(max_examples=40, deadline=None)
@given(start=st.integers(-5, 5), length=st.integers(-3, 9), step=st.integers(1, 3), floating=st.booleans())
def test_ranges(start: int, length: int, step: int, floating: bool) -> None:
    options = {"device": torch.device("meta"), "pin_memory": False} | ({"dtype": torch.float32} if floating else {})
    assert_agrees(aten.arange.start_step, (start, start + length, step), options)
    assert_agrees(aten.arange.start, (start, start + length), options)
    assert_agrees(aten.arange.default, (length,), options)
    assert_agrees(aten.arange.default, (2.5,), options)


def test_common_cases_are_answered_and_not_only_left_to_torch() -> None:
    """Else the kernels could all return None and every test above would pass."""
    x, channel = torch.empty(2, 4, 6, 6, device="meta"), torch.empty(4, device="meta")
    weight, matrix = torch.empty(8, 2, 3, 3, device="meta"), torch.empty(3, 3, device="meta")
    spectrum = torch.empty(2, 4, 6, 6, device="meta", dtype=torch.complex64)
    assert assert_agrees(aten.mul.Tensor, (spectrum, spectrum))
    answered: dict[str, Callable[[], bool]] = {
        "convolution": lambda: assert_agrees(
            aten.convolution.default, (x, weight, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 2)
        ),
        "native_batch_norm": lambda: assert_agrees(
            aten.native_batch_norm.default, (x, channel, channel, channel, channel, False, 0.1, 1e-5)
        ),
        "native_layer_norm": lambda: assert_agrees(aten.native_layer_norm.default, (x, [6], None, None, 1e-5)),
        "native_group_norm": lambda: assert_agrees(aten.native_group_norm.default, (x, channel, channel, 2, 4, 36, 2, 1e-5)),
        "_fft_r2c": lambda: assert_agrees(aten._fft_r2c.default, (x, [2, 3], 1, True)),
        "_fft_c2r": lambda: assert_agrees(aten._fft_c2r.default, (spectrum, [2, 3], 1, 11)),
        "complex": lambda: assert_agrees(aten.complex.default, (x, x)),
        "avg_pool2d": lambda: assert_agrees(aten.avg_pool2d.default, (x, [2, 2], [2, 2])),
        "upsample_nearest2d": lambda: assert_agrees(aten.upsample_nearest2d.vec, (x, [12, 12], None)),
        "cat": lambda: assert_agrees(aten.cat.default, ([x, x], 1)),
        "mean": lambda: assert_agrees(aten.mean.dim, (x, [-1, -2], True)),
        "sum": lambda: assert_agrees(aten.sum.dim_IntList, (x, [1])),
        "mm": lambda: assert_agrees(aten.mm.default, (matrix, matrix)),
        "bmm": lambda: assert_agrees(aten.bmm.default, (x[0], x[0])),
        "addmm": lambda: assert_agrees(aten.addmm.default, (matrix[0], matrix, matrix)),
        "baddbmm": lambda: assert_agrees(aten.baddbmm.default, (x[0], x[0], x[0])),
        "where": lambda: assert_agrees(aten.where.self, (x.bool(), x, x)),
        "masked_fill": lambda: assert_agrees(aten.masked_fill.Scalar, (x, x.bool(), 0.0)),
        "embedding": lambda: assert_agrees(
            aten.embedding.default, (matrix, torch.empty(2, 2, dtype=torch.int64, device="meta"))
        ),
        "arange": lambda: assert_agrees(aten.arange.default, (5,), {"device": torch.device("meta")}),
        "repeat": lambda: assert_agrees(aten.repeat.default, (matrix, [2, 1])),
        "embedding_dense_backward": lambda: assert_agrees(
            aten.embedding_dense_backward.default, (matrix, torch.empty(3, dtype=torch.int64, device="meta"), 9, -1, False)
        ),
    }
    for name, rest in BACKWARD.items():
        answered[f"{name}_backward"] = lambda name=name, rest=rest: assert_agrees(  # type: ignore[misc]
            overload(f"{name}_backward"), (x, x, *rest)
        )
    for name in ("_softmax", "_log_softmax"):
        answered[f"{name}_backward_data"] = lambda name=name: assert_agrees(  # type: ignore[misc]
            overload(f"{name}_backward_data"), (x, x, -1, torch.float32)
        )
    for name in (*UNARY, "tril", "triu"):
        arguments: Arguments = (x, 0.0, 1.0) if name == "clamp" else (x,)
        answered[name] = lambda name=name, arguments=arguments: assert_agrees(overload(name), arguments)  # type: ignore[misc]
    for name in BINARY + COMPARE:
        answered[name.partition(".")[0]] = lambda name=name: assert_agrees(overload(name), (x.mT, x.mT))  # type: ignore[misc]
    for name in ("_softmax", "_log_softmax"):
        answered[name] = lambda name=name: assert_agrees(overload(name), (x, -1, False))  # type: ignore[misc]
    answered["_safe_softmax"] = lambda: assert_agrees(aten._safe_softmax.default, (x, -1))
    for name in ("clamp_min", "clamp_max"):
        answered[name] = lambda name=name: assert_agrees(overload(name), (x, 0.0))  # type: ignore[misc]
    ids = torch.empty(3, dtype=torch.int64, device="meta")
    for name in ("_embedding_bag", "_embedding_bag_forward_only"):
        answered[name] = lambda name=name: assert_agrees(overload(name), (matrix, ids, ids))  # type: ignore[misc]
    for name in IN_PLACE:
        operands: Arguments = (0.0,) if name in ("clamp_", "clamp_min_") else (2.0,) if name in TAKES_OPERAND else ()
        which = f"{name}.Scalar" if name in TAKES_OPERAND else name
        answered[name] = lambda which=which, operands=operands: meta_kernels.run(overload(which), (x, *operands), {}) is x  # type: ignore[misc]
    assert set(answered) == set(table._kernels), "every kernel is tried here"
    for name, run in answered.items():
        assert run(), f"{name} left a common case to torch"


@settings(max_examples=150, deadline=None)
@given(data=st.data(), name=st.sampled_from("add.Tensor mul.Tensor div.Tensor eq.Tensor maximum.default".split()))
def test_sides_of_one_element_may_have_any_stride(data: st.DataObject, name: str) -> None:
    def odd(shape: tuple[int, ...]) -> Tensor:
        strides = [1] * len(shape)
        for axis in reversed(range(len(shape) - 1)):
            strides[axis] = strides[axis + 1] * shape[axis + 1]
        free = [data.draw(st.integers(1, 9)) if size == 1 else stride for size, stride in zip(shape, strides, strict=True)]
        return torch.empty_strided(shape, free, device="meta")

    shape = tuple(data.draw(st.lists(st.sampled_from([1, 1, 2, 3]), min_size=1, max_size=5)))
    a, b = odd(shape), odd(tuple(data.draw(st.sampled_from([1, size])) for size in shape)[data.draw(st.integers(0, 4)) :])
    for first, second in ((a, b), (b, a)):
        assert_agrees(overload(name), (first, second))
        assert_agrees(aten.where.self, (torch.empty(shape[-1:], dtype=torch.bool, device="meta"), first, second))


@settings(max_examples=100, deadline=None)
@given(data=st.data(), axis=st.integers(0, 3), channels_last=st.booleans())
def test_maps_may_be_contiguous_and_channels_last_at_once(data: st.DataObject, axis: int, channels_last: bool) -> None:
    batch, channels, height, width = shape = tuple(data.draw(st.sampled_from([1, 1, 2, 3])) for _ in range(4))
    x = torch.empty(batch, height, width, channels, device="meta").permute(0, 3, 1, 2)
    x = x if channels_last else torch.empty(shape, device="meta")
    assert_agrees(aten.cat.default, ([x, x], axis))
    assert_agrees(aten.cat.default, ([x, torch.empty(shape, device="meta")], axis))
    weight = torch.empty(data.draw(st.integers(1, 3)), channels, 1, 1, device="meta")
    assert_agrees(aten.convolution.default, (x, weight, None, [1], [0], [1], False, [0], 1))
    assert_agrees(aten.avg_pool2d.default, (x, [1, 1]))
    assert_agrees(aten.upsample_nearest2d.default, (x, [2, 3]))
    assert_agrees(aten.native_group_norm.default, (x, None, None, batch, channels, height * width, 1, 1e-5))


M = {"device": "meta"}
MAP, MATRIX, ROW, NUMBER = torch.empty(2, 4, 6, 6, **M), torch.empty(3, 3, **M), torch.empty(3, **M), torch.empty((), **M)  # type: ignore[call-overload]
BATCH, INTEGERS, EMPTY = torch.empty(2, 3, 3, **M), MATRIX.to(torch.int64), torch.empty(2, 0, 4, 4, **M)  # type: ignore[call-overload]
CHANNEL, KERNEL = torch.empty(4, **M), torch.empty(8, 4, 3, 3, **M)  # type: ignore[call-overload]


def convolution(stride: list[int], padding: list[int], dilation: list[int], groups: int = 1) -> Arguments:
    return (MAP, KERNEL, None, stride, padding, dilation, False, [0, 0], groups)


@pytest.mark.parametrize(
    ("operator", "args", "kwargs"),
    [
        (aten.add.Tensor, (MATRIX, MATRIX), {"alpha": 1j}),
        (aten.add.Tensor, (INTEGERS, INTEGERS), {"alpha": 2.0}),
        (aten.add_.Tensor, (MATRIX, BATCH), {}),
        (aten.div.Tensor_mode, (MATRIX, ROW[:2]), {"rounding_mode": None}),
        (aten.where.self, (MATRIX, MATRIX, MATRIX), {}),
        (aten.masked_fill.Scalar, (MATRIX, MATRIX.to(torch.uint8), 0.0), {}),
        (aten.masked_fill.Scalar, (MATRIX, MATRIX.bool(), 1j), {}),
        (aten.tril.default, (ROW,), {}),
        (aten._log_softmax.default, (MATRIX, -3, False), {}),
        (aten._safe_softmax.default, (NUMBER, 1), {}),
        (aten.mm.default, (BATCH, BATCH), {}),
        (aten.mm.default, (NUMBER, NUMBER), {}),
        (aten.bmm.default, (MATRIX, MATRIX), {}),
        (aten.addmm.default, (BATCH, BATCH, BATCH), {}),
        (aten.baddbmm.default, (MATRIX, MATRIX, MATRIX), {}),
        (aten.convolution.default, convolution([0], [0], [1]), {}),
        (aten.convolution.default, convolution([1], [0], [9]), {}),
        (aten.convolution.default, convolution([1], [0], [1], groups=3), {}),
        (aten.native_batch_norm.default, (MAP, None, None, None, None, False, 0.1, 1e-5), {}),
        (aten.native_batch_norm.default, (MAP, ROW, ROW, CHANNEL, CHANNEL, False, 0.1, 1e-5), {}),
        (aten.native_layer_norm.default, (MATRIX, [], None, None, 1e-5), {}),
        (aten.native_layer_norm.default, (MATRIX, [4], None, None, 1e-5), {}),
        (aten.native_group_norm.default, (CHANNEL, None, None, 4, 1, 1, 1, 1e-5), {}),
        (aten.native_group_norm.default, (MAP, None, None, 2, 4, 36, 0, 1e-5), {}),
        (aten.native_group_norm.default, (MAP, None, None, 2, 4, 36, 3, 1e-5), {}),
        (aten.avg_pool2d.default, (MAP, [2, 2, 2]), {}),
        (aten.avg_pool2d.default, (MAP, [2], [0, 0]), {}),
        (aten.avg_pool2d.default, (MAP, [2], [1], [2]), {}),
        (aten.avg_pool2d.default, (MAP, [2], [1], [0], False, True, 0), {}),
        (aten.avg_pool2d.default, (EMPTY, [2]), {}),
        (aten.upsample_nearest2d.default, (MAP, [3]), {}),
        (aten.upsample_nearest2d.default, (MAP, [3, 0]), {}),
        (aten.upsample_nearest2d.vec, (MAP, [3, 3], [2.0, 2.0]), {}),
        (aten.mean.dim, (MATRIX, [0, -2]), {}),
        (aten.sum.dim_IntList, (MATRIX, [2]), {}),
        (aten.mean.dim, (INTEGERS, [0]), {"dtype": torch.int64}),
        (aten.cat.default, ([MATRIX, MATRIX], 2), {}),
        (aten.cat.default, ([ROW], -2), {}),
        (aten.cat.default, ([MATRIX, MAP],), {}),
        (aten.cat.default, ([],), {}),
        (aten.repeat.default, (MATRIX, [2]), {}),
        (aten.repeat.default, (MATRIX, [2, -1]), {}),
        (aten.embedding.default, (ROW, INTEGERS), {}),
        (aten.arange.start_step, (0, 3, 0), M),
        (aten.arange.start, (3, 0), M),
    ],
    ids=lambda item: str(item) if isinstance(item, torch._ops.OpOverload) else "",
)
def test_what_torch_refuses_is_left_to_torch(operator: Any, args: Arguments, kwargs: dict[str, Any]) -> None:
    """A kernel that answers here has a model counted that can't run."""
    refusals = (RuntimeError, IndexError, NotImplementedError, ValueError, AssertionError, ZeroDivisionError)
    with pytest.raises(refusals):
        operator(*args, **kwargs)
    assert meta_kernels.run(operator, args, kwargs) is None


@pytest.mark.parametrize(
    ("operator", "args"),
    [
        (aten.mul_.Scalar, (MATRIX, 1j)),
        (aten._softmax.default, (MATRIX, 2, False)),
        (aten.convolution.default, convolution([1, 1, 1], [0], [1])),
        (aten.convolution.default, convolution([1], [0, 0, 0], [1])),
        (aten.convolution.default, convolution([1], [0], [1, 1, 1])),
    ],
    ids=lambda item: str(item) if isinstance(item, torch._ops.OpOverload) else "",
)
def test_what_only_real_tensors_refuse_is_left_to_torch_as_well(operator: Any, args: Arguments) -> None:
    """torch's own meta kernels let it pass; should they stop to, the counter stops with them."""
    assert meta_kernels.run(operator, args, {}) is None


def test_overloads_that_write_into_given_tensors_or_choose_a_dtype_are_left_to_torch() -> None:
    for name in table._kernels:
        packet = getattr(aten, name)
        for overload_ in (getattr(packet, which) for which in packet.overloads()):
            if any(argument.is_out for argument in overload_._schema.arguments):
                assert table._kernel_of(overload_) is None, overload_
    half = MATRIX.to(torch.bfloat16)
    assert meta_kernels.run(aten.mm.dtype, (half, half, torch.float32), {}) is None
    assert meta_kernels.run(aten.addmm.dtype, (half, half, half, torch.float32), {}) is None


def test_building_leaves_random_tensors_that_are_not_on_meta_alone() -> None:
    real = torch.zeros(1000)
    with meta.building():
        assert torch.randn(3).is_meta and torch.rand(2, device="meta").is_meta
        assert torch.randn_like(torch.empty(2)).is_meta
        drawn = torch.randn_like(real)
        generated = torch.randn(1000, device="cpu")
    for values in (drawn, generated):
        assert not values.is_meta
        assert 0.5 < values.std() < 2, "filled, and not what lay in memory"


def test_only_plain_meta_tensors_are_answered() -> None:
    assert meta_kernels.run(aten.add.Tensor, (torch.ones(2), torch.ones(2)), {}) is None

    class Marked(Tensor):
        pass

    marked = torch.empty(2, device="meta").as_subclass(Marked)
    assert meta_kernels.run(aten.add.Tensor, (marked, marked), {}) is None
    assert meta_kernels.run(aten.cat.default, ([marked], 0), {}) is None


@pytest.mark.parametrize(
    ("model", "macs"), [("ghostnetv2", 167048288), ("affnet", 1453721088), ("graphwindow-llama2-7b", 1177665404928)]
)
def test_counting_loads_neither_the_compiler_nor_sympy(model: str, macs: int) -> None:
    """Also the private hook that keeps the compiler out: when torch drops it, this says so."""
    program = f"""
import sys, mixbench
count = mixbench.count(mixbench.build("{model}"))
assert count.totals.macs == {macs}
loaded = {{"torch._dynamo", "sympy"}} & set(sys.modules)
assert not loaded, loaded
"""
    subprocess.run([sys.executable, "-c", program], check=True)
