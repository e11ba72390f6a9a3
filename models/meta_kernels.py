"""Result shapes of common operators on the meta device, without torch's own meta kernels.

torch computes most of them in Python and, on first use, loads its compiler and sympy for it: a second for a number that takes
microseconds. A kernel here is given plain meta tensors and the operator's own arguments; it returns the result, or None for
anything unusual (mixed dtypes, odd strides, errors), and torch's own kernel then runs and explains. Tests compare shapes,
dtypes and strides with torch's: a kernel may be left out, but never differ.
"""

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

_Kernel = Callable[..., Any]
_kernels: dict[str, _Kernel] = {}


def run(operator: torch._ops.OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The operator's result on plain meta tensors, or None where torch's own kernel has to answer."""
    kernel = _kernel_of(operator)
    if kernel is None:
        return None
    tensors = (*args[0], *args[1:]) if args and isinstance(args[0], list | tuple) else args
    for item in tensors:
        if isinstance(item, Tensor) and (type(item) not in (Tensor, torch.nn.Parameter) or not item.is_meta):
            return None
    return kernel(*args, **kwargs)


@cache
def _kernel_of(operator: torch._ops.OpOverload) -> _Kernel | None:
    """None also for the overloads that write into given tensors, as ``out=`` does: those have to be resized and returned."""
    if any(argument.is_out for argument in operator._schema.arguments):
        return None
    return _kernels.get(operator._schema.name.removeprefix("aten::"))


def _kernel(*names: str) -> Callable[[_Kernel], _Kernel]:
    def register(function: _Kernel) -> _Kernel:
        _kernels.update(dict.fromkeys(names, function))
        return function

    return register


_COMPLEX = {torch.float32: torch.complex64, torch.float64: torch.complex128}
_REAL = {kind: real for real, kind in _COMPLEX.items()}


# Pointwise operators ------------------------------------------------------------------------------------------------


def _broadcast(shapes: list[torch.Size]) -> tuple[int, ...] | None:
    rank = max(map(len, shapes))
    result = [1] * rank
    for shape in shapes:
        for axis, size in enumerate(shape, rank - len(shape)):
            if result[axis] == 1:
                result[axis] = size
            elif size not in (1, result[axis]):
                return None
    return tuple(result)


def _dense_strides(tensor: Tensor) -> list[int] | None:
    """Strides of a new tensor without gaps whose sides are nested in the order of this one's; None for expanded sides."""
    strides = [0] * tensor.ndim
    expected = 1
    for stride, size, axis in sorted(zip(tensor.stride(), tensor.shape, range(tensor.ndim), strict=True)):
        if stride == 0 and size != 1:
            return None
        strides[axis] = expected
        expected *= size
    return strides


def _broadcasts_plainly(tensors: Sequence[Tensor]) -> bool:
    """Whether the result of contiguous tensors is contiguous. Where shapes differ, torch looks at the strides of sides of one
    element as well, which may be anything."""
    return all(tensor.shape == tensors[0].shape for tensor in tensors) or all(map(_has_usual_strides, tensors))


def _has_usual_strides(tensor: Tensor) -> bool:
    """Those of a new tensor of its shape."""
    expected = 1
    for size, stride in zip(reversed(tensor.shape), reversed(tensor.stride()), strict=True):
        if stride != expected:
            return False
        expected *= max(size, 1)
    return True


def _has_complex(*numbers: Any) -> bool:
    return any(isinstance(number, complex) for number in numbers)


def _pointwise(operands: Sequence[Any], dtype: torch.dtype | None = None, complex_too: bool = False) -> Tensor | None:
    """A new tensor of the broadcast shape, contiguous or laid out as the first operand is, which has the first say."""
    tensors = [item for item in operands if isinstance(item, Tensor)]
    kinds = {tensor.dtype for tensor in tensors}
    if len(kinds) != 1 or _has_complex(*operands):
        return None
    kind = kinds.pop()
    if not kind.is_floating_point and (dtype is None or kind.is_complex) and not (kind.is_complex and complex_too):
        return None
    shape = _broadcast([tensor.shape for tensor in tensors])
    if shape is None:
        return None
    if all(tensor.is_contiguous() for tensor in tensors):
        if not _broadcasts_plainly(tensors):
            return None
        return tensors[0].new_empty(shape, dtype=dtype or kind)
    strides = _dense_strides(tensors[0]) if tensors[0].shape == shape else None
    return None if strides is None else torch.empty_strided(shape, strides, dtype=dtype or kind, device="meta")


@_kernel(
    *(
        "abs relu hardtanh clamp clamp_min clamp_max sigmoid hardsigmoid hardswish tanh silu gelu "
        "leaky_relu elu exp log sqrt rsqrt reciprocal pow sin cos erf maximum minimum softplus softshrink square".split()
    )
)
def _same_dtype(*operands: Any, **kwargs: Any) -> Tensor | None:
    return None if _has_complex(*kwargs.values()) else _pointwise(operands)


@_kernel("add", "sub", "mul", "neg")
def _arithmetic(*operands: Any, **kwargs: Any) -> Tensor | None:
    """Integers stay what they are, as long as nothing else takes part."""
    first = operands[0]
    same = (type(item) is int or (isinstance(item, Tensor) and item.dtype == first.dtype) for item in operands)
    whole = all(same) and not kwargs
    integers = whole and first.dtype in (torch.int64, torch.int32)
    if _has_complex(*kwargs.values()):
        return None
    return _pointwise(operands, first.dtype if integers else None, complex_too=True)


@_kernel("complex")
def _complex(real: Tensor, imaginary: Tensor) -> Tensor | None:
    return _pointwise((real, imaginary), _COMPLEX[real.dtype]) if real.dtype in _COMPLEX else None


@_kernel("div")
def _div(*operands: Any, **kwargs: Any) -> Tensor | None:
    if kwargs.get("rounding_mode") is not None:
        return None
    first = operands[0]
    return _pointwise(operands, None if first.is_floating_point() else torch.get_default_dtype())


@_kernel("eq", "ne", "lt", "le", "gt", "ge")
def _comparison(*operands: Any) -> Tensor | None:
    return _pointwise(operands, torch.bool)


@_kernel("where")
def _where(condition: Tensor, a: Any = None, b: Any = None) -> Tensor | None:
    tensors = [item for item in (a, b) if isinstance(item, Tensor)]
    if len(tensors) != 2 or a.dtype != b.dtype or condition.dtype != torch.bool:
        return None
    if not all(item.is_contiguous() for item in (condition, a, b)) or not _broadcasts_plainly((condition, a, b)):
        return None
    shape = _broadcast([condition.shape, a.shape, b.shape])
    return None if shape is None else a.new_empty(shape)


@_kernel("masked_fill")
def _masked_fill(x: Tensor, mask: Tensor, value: Any) -> Tensor | None:
    if isinstance(value, Tensor | complex) or mask.dtype != torch.bool or not x.is_contiguous():
        return None
    if _broadcast([x.shape, mask.shape]) != tuple(x.shape):
        return None
    return x.new_empty(x.shape)


@_kernel(
    *(
        "add_ sub_ mul_ div_ neg_ relu_ hardtanh_ clamp_ clamp_min_ sigmoid_ hardsigmoid_ hardswish_ tanh_ silu_ leaky_relu_ "
        "elu_ exp_ sqrt_ rsqrt_ pow_".split()
    )
)
def _in_place(x: Tensor, *operands: Any, **kwargs: Any) -> Tensor | None:
    others = [item for item in operands if isinstance(item, Tensor)]
    if any(item.dtype != x.dtype for item in others) or not x.is_floating_point() or "rounding_mode" in kwargs:
        return None
    if _has_complex(*operands, *kwargs.values()):
        return None
    return x if _broadcast([x.shape, *(item.shape for item in others)]) == tuple(x.shape) else None


@_kernel("tril", "triu")
def _triangle(x: Tensor, *args: Any) -> Tensor | None:
    return x.new_empty(x.shape) if x.is_contiguous() and x.ndim >= 2 else None


@_kernel("_softmax", "_log_softmax", "_safe_softmax")
def _like_contiguous(x: Tensor, dim: int, to_full: bool = False, **kwargs: Any) -> Tensor | None:
    unusual = not x.is_contiguous() or not x.is_floating_point() or to_full or kwargs.get("dtype") is not None
    return None if unusual or not _is_axis(x, dim) else x.new_empty(x.shape)


def _is_axis(x: Tensor, dim: int) -> bool:
    """A number has one axis to name, and no other."""
    rank = max(x.ndim, 1)
    return -rank <= dim < rank


# Contractions -------------------------------------------------------------------------------------------------------


def _product(rank: int, a: Tensor, b: Tensor, *result_dtype: torch.dtype) -> Tensor | None:
    if result_dtype or a.dtype != b.dtype or a.ndim != rank or b.ndim != rank:
        return None
    if a.shape[:-2] != b.shape[:-2] or a.shape[-1] != b.shape[-2]:
        return None
    return a.new_empty((*a.shape[:-1], b.shape[-1]))


def _added_product(rank: int, added: Tensor, a: Tensor, b: Tensor, *result_dtype: torch.dtype, **kwargs: Any) -> Tensor | None:
    result = _product(rank, a, b, *result_dtype)
    if result is None or added.dtype != a.dtype or _broadcast([added.shape, result.shape]) != tuple(result.shape):
        return None
    return result


for _rank, _plain, _added in ((2, "mm", "addmm"), (3, "bmm", "baddbmm")):
    _kernel(_plain)(partial(_product, _rank))
    _kernel(_added)(partial(_added_product, _rank))


def _is_plain(x: Tensor) -> bool:
    """Contiguous, and not channels-last by the strides of sides of one element, as some tensors are both."""
    return x.is_contiguous() and (x.ndim < 4 or (x.stride(-1) == 1 and not _is_channels_last(x)))


def _is_channels_last(tensor: Tensor) -> bool:
    """As torch tells from the strides where it has to choose a layout: channels innermost, then columns, rows and batch."""
    if tensor.ndim != 4 or 0 in tensor.shape or tensor.stride(1) == 0:
        return False
    least = 0
    for axis in (1, 3, 2, 0):
        if tensor.stride(axis) < least or (axis == 0 and least == tensor.stride(1)):
            return False
        least = tensor.stride(axis) * tensor.shape[axis]
    return True


@_kernel("convolution")
def _convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Tensor | None:
    if transposed or x.ndim != weight.ndim or x.shape[1] != weight.shape[1] * groups or weight.shape[0] % groups:
        return None
    if x.dtype != weight.dtype:
        # torch's meta kernel lets this pass, and then counts a model that can't run.
        raise RuntimeError(f"a convolution takes an input and a weight of one dtype, not {x.dtype} and {weight.dtype}")
    if bias is not None and (bias.dtype != x.dtype or bias.shape != weight.shape[:1]):
        return None
    if not (_is_plain(x) and weight.is_contiguous()):
        return None
    sizes = _windows(x.shape[2:], weight.shape[2:], stride, padding, dilation)
    return None if sizes is None else x.new_empty((x.shape[0], weight.shape[0], *sizes))


def _windows(
    sides: Sequence[int], kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> list[int] | None:
    """How many windows fit along each side; a single setting serves all sides. None when one has no room for any, or when a
    setting has no meaning."""
    settings = [
        list(setting) * len(sides) if len(setting) == 1 else list(setting)
        for setting in (kernel, stride or kernel, padding, dilation)
    ]
    if any(len(setting) != len(sides) for setting in settings) or min(settings[1]) < 1:
        return None
    rows = zip(sides, *settings, strict=True)
    counts = [(side + 2 * pad - gap * (width - 1) - 1) // step + 1 for side, width, step, pad, gap in rows]
    return counts if min(counts) >= 1 else None


# Fourier transforms -------------------------------------------------------------------------------------------------


def _is_plain_transform(x: Tensor, dims: Sequence[int]) -> bool:
    """Over the last sides in their order, and not over all: of a contiguous tensor every library's result is contiguous too."""
    return (
        0 < len(dims) < x.ndim and list(dims) == list(range(x.ndim - len(dims), x.ndim)) and x.is_contiguous() and x.numel() > 0
    )


@_kernel("_fft_r2c")
def _fft_r2c(x: Tensor, dims: Sequence[int], normalization: int, onesided: bool) -> Tensor | None:
    if x.dtype not in _COMPLEX or not onesided or not _is_plain_transform(x, dims):
        return None
    return x.new_empty((*x.shape[:-1], x.shape[-1] // 2 + 1), dtype=_COMPLEX[x.dtype])


@_kernel("_fft_c2r")
def _fft_c2r(x: Tensor, dims: Sequence[int], normalization: int, last: int) -> Tensor | None:
    if x.dtype not in _REAL or x.shape[-1:] != (last // 2 + 1,) or not _is_plain_transform(x, dims):
        return None
    return x.new_empty((*x.shape[:-1], last), dtype=_REAL[x.dtype])


# Norms, pooling, reductions, look-ups -------------------------------------------------------------------------------


_FULL_PRECISION = (torch.float32, torch.float64)
"""For others a norm keeps its statistics in another dtype than its input's."""


@_kernel("native_batch_norm")
def _native_batch_norm(
    x: Tensor, weight: Any, bias: Any, mean: Any, variance: Any, training: bool, momentum: float, eps: float
) -> tuple[Tensor, ...] | None:
    given = [tensor for tensor in (weight, bias, mean, variance) if tensor is not None]
    if training or mean is None or variance is None or x.ndim < 2:
        return None
    if not x.is_contiguous() or x.dtype not in _FULL_PRECISION:
        return None
    if any(tensor.shape != x.shape[1:2] or tensor.dtype != x.dtype for tensor in given):
        return None
    return x.new_empty(x.shape), x.new_empty(x.shape[1]), x.new_empty(x.shape[1])


@_kernel("native_layer_norm")
def _native_layer_norm(x: Tensor, shape: Sequence[int], weight: Any, bias: Any, eps: float) -> tuple[Tensor, ...] | None:
    given = [tensor for tensor in (weight, bias) if tensor is not None]
    unusual = not x.is_contiguous() or not shape or x.dtype not in _FULL_PRECISION
    if unusual or list(x.shape[-len(shape) :]) != list(shape):
        return None
    if any(list(tensor.shape) != list(shape) or tensor.dtype != x.dtype for tensor in given):
        return None
    statistics = (*x.shape[: -len(shape)], *[1] * len(shape))
    return x.new_empty(x.shape), x.new_empty(statistics), x.new_empty(statistics)


@_kernel("native_group_norm")
def _native_group_norm(
    x: Tensor, weight: Any, bias: Any, batch: int, channels: int, pixels: int, groups: int, eps: float
) -> tuple[Tensor, ...] | None:
    given = [tensor for tensor in (weight, bias) if tensor is not None]
    if not _is_plain(x) or x.dtype not in _FULL_PRECISION or groups < 1 or channels % groups:
        return None
    if x.shape[:2] != (batch, channels) or x.numel() != batch * channels * pixels:
        return None
    if any(tensor.shape != (channels,) or tensor.dtype != x.dtype for tensor in given):
        return None
    return x.new_empty(x.shape), x.new_empty((batch, groups)), x.new_empty((batch, groups))


@_kernel("avg_pool2d")
def _avg_pool2d(
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor: int | None = None,
) -> Tensor | None:
    if ceil_mode or x.ndim != 4 or not _is_plain(x) or not x.is_floating_point() or 0 in x.shape or divisor == 0:
        return None
    if max(padding) * 2 > min(kernel):  # torch refuses some of these
        return None
    sizes = _windows(x.shape[2:], kernel, stride, padding, (1,))
    return None if sizes is None else x.new_empty((*x.shape[:2], *sizes))


@_kernel("upsample_nearest2d")
def _upsample(x: Tensor, size: Any, *factors: Any) -> Tensor | None:
    if size is None or len(size) != 2 or min(size) < 1 or any(isinstance(factor, list) for factor in factors):
        return None
    if x.ndim != 4 or not _is_plain(x) or 0 in x.shape:
        return None
    return x.new_empty((*x.shape[:2], *size))


@_kernel("mean")
def _mean(x: Tensor, *args: Any, **kwargs: Any) -> Tensor | None:
    return _sum(x, *args, **kwargs) if x.is_floating_point() else None


@_kernel("sum")
def _sum(x: Tensor, dim: Any = None, keepdim: bool = False, **kwargs: Any) -> Tensor | None:
    axes = [dim] if isinstance(dim, int) else dim
    kind = kwargs.get("dtype")
    whole = x.dtype in (torch.int64, torch.int32) and kind == x.dtype  # without being told, sums of integers widen
    if not axes or not x.is_contiguous() or not (whole or (x.is_floating_point() and kind is None)):
        return None
    if any(not -x.ndim <= axis < x.ndim for axis in axes):
        return None
    gone = {axis % x.ndim for axis in axes}
    if len(gone) < len(axes):
        return None
    return x.new_empty([1 if i in gone else n for i, n in enumerate(x.shape) if keepdim or i not in gone])


@_kernel("embedding")
def _embedding(weight: Tensor, indices: Tensor, *args: Any) -> Tensor | None:
    if weight.ndim != 2 or indices.dtype not in (torch.int64, torch.int32):
        return None
    return weight.new_empty((*indices.shape, weight.shape[1]))


@_kernel("_embedding_bag", "_embedding_bag_forward_only")
def _embedding_bag(
    weight: Tensor,
    indices: Tensor,
    offsets: Tensor,
    scale: bool = False,
    mode: int = 0,
    sparse: bool = False,
    given: Tensor | None = None,
    last_offset: bool = False,
    padding: int = -1,
) -> tuple[Tensor, ...] | None:
    unusual = mode != 0 or last_offset or weight.ndim != 2 or indices.ndim != 1 or offsets.ndim != 1
    kinds = indices.dtype == offsets.dtype and indices.dtype in (torch.int64, torch.int32) and weight.is_floating_point()
    if unusual or not kinds or (given is not None and (given.shape != indices.shape or given.dtype != weight.dtype)):
        return None
    bags = len(offsets)
    sums = weight.new_empty((bags, weight.shape[1]))
    return sums, indices.new_empty(indices.shape), indices.new_empty(bags), indices.new_empty(0)


@_kernel("arange")
def _arange(*bounds: Any, dtype: Any = None, device: Any = None, layout: Any = None, pin_memory: Any = None) -> Tensor | None:
    start, end, step = (*((0, *bounds) if len(bounds) == 1 else bounds), 1)[:3]
    whole = all(isinstance(bound, int) for bound in bounds)
    if not whole or step <= 0 or end < start or device is None or torch.device(device).type != "meta":
        return None
    return torch.empty(-((start - end) // step), dtype=dtype or torch.int64, device="meta")


@_kernel("repeat")
def _repeat(x: Tensor, repeats: Sequence[int]) -> Tensor | None:
    if len(repeats) < x.ndim or min(repeats, default=0) < 1:
        return None
    sides = (*[1] * (len(repeats) - x.ndim), *x.shape)
    return x.new_empty([side * times for side, times in zip(sides, repeats, strict=True)])


@_kernel("cat")
def _cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor | None:
    if not tensors or not _is_axis(tensors[0], dim):
        return None
    first = tensors[0]
    axis = dim % max(first.ndim, 1)
    for tensor in tensors:
        if tensor.dtype != first.dtype or tensor.ndim != first.ndim or tensor.ndim in (0, 5) or _is_channels_last(tensor):
            return None
        if any(a != b for i, (a, b) in enumerate(zip(tensor.shape, first.shape, strict=True)) if i != axis):
            return None
    return first.new_empty([n if i != axis else sum(t.shape[axis] for t in tensors) for i, n in enumerate(first.shape)])
