"""Pointwise operators, and softmax, whose result has its input's shape too."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .fourier import COMPLEX
from .layout import broadcast, broadcasts_plainly, dense_strides, is_axis, is_expanded
from .table import kernel


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
    shape = broadcast([tensor.shape for tensor in tensors])
    if shape is None:
        return None
    contiguous = all(tensor.is_contiguous() for tensor in tensors)
    if contiguous and not broadcasts_plainly(tensors):
        return None
    if contiguous or (len(tensors) == 1 and is_expanded(tensors[0])):
        return tensors[0].new_empty(shape, dtype=dtype or kind)
    strides = dense_strides(tensors[0]) if tensors[0].shape == shape else None
    return None if strides is None else torch.empty_strided(shape, strides, dtype=dtype or kind, device="meta")


@kernel(
    *(
        "abs relu hardtanh clamp clamp_min clamp_max sigmoid hardsigmoid hardswish tanh silu gelu "
        "leaky_relu elu exp log sqrt rsqrt reciprocal pow sin cos erf maximum minimum softplus softshrink square".split()
    )
)
def _same_dtype(*operands: Any, **kwargs: Any) -> Tensor | None:
    return None if _has_complex(*kwargs.values()) else _pointwise(operands)


@kernel("add", "sub", "mul", "neg")
def _arithmetic(*operands: Any, **kwargs: Any) -> Tensor | None:
    """Integers stay what they are, as long as nothing else takes part."""
    first = operands[0]
    same = (type(item) is int or (isinstance(item, Tensor) and item.dtype == first.dtype) for item in operands)
    whole = all(same) and not kwargs
    integers = whole and first.dtype in (torch.int64, torch.int32)
    if _has_complex(*kwargs.values()):
        return None
    return _pointwise(operands, first.dtype if integers else None, complex_too=True)


@kernel("complex")
def _complex(real: Tensor, imaginary: Tensor) -> Tensor | None:
    return _pointwise((real, imaginary), COMPLEX[real.dtype]) if real.dtype in COMPLEX else None


@kernel("div")
def _div(*operands: Any, **kwargs: Any) -> Tensor | None:
    if kwargs.get("rounding_mode") is not None:
        return None
    first = operands[0]
    return _pointwise(operands, None if first.is_floating_point() else torch.get_default_dtype())


@kernel("eq", "ne", "lt", "le", "gt", "ge")
def _comparison(*operands: Any) -> Tensor | None:
    return _pointwise(operands, torch.bool)


@kernel("where")
def _where(condition: Tensor, a: Any = None, b: Any = None) -> Tensor | None:
    tensors = [item for item in (a, b) if isinstance(item, Tensor)]
    if len(tensors) != 2 or a.dtype != b.dtype or condition.dtype != torch.bool:
        return None
    if not all(item.is_contiguous() for item in (condition, a, b)) or not broadcasts_plainly((condition, a, b)):
        return None
    shape = broadcast([condition.shape, a.shape, b.shape])
    return None if shape is None else a.new_empty(shape)


@kernel("masked_fill")
def _masked_fill(x: Tensor, mask: Tensor, value: Any) -> Tensor | None:
    if isinstance(value, Tensor | complex) or mask.dtype != torch.bool or not x.is_contiguous():
        return None
    if broadcast([x.shape, mask.shape]) != tuple(x.shape):
        return None
    return x.new_empty(x.shape)


@kernel(
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
    return x if broadcast([x.shape, *(item.shape for item in others)]) == tuple(x.shape) else None


@kernel("tril", "triu")
def _triangle(x: Tensor, *args: Any) -> Tensor | None:
    return x.new_empty(x.shape) if x.is_contiguous() and x.ndim >= 2 else None


@kernel("_softmax", "_log_softmax", "_safe_softmax")
def _like_contiguous(x: Tensor, dim: int, to_full: bool = False, **kwargs: Any) -> Tensor | None:
    unusual = not x.is_contiguous() or not x.is_floating_point() or to_full or kwargs.get("dtype") is not None
    return None if unusual or not is_axis(x, dim) else x.new_empty(x.shape)
