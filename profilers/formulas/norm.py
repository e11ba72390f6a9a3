"""Normalisations. Statistics cost four FLOPs an element (mean one, variance three), normalising two, the affine map two.

A batch norm in inference has its statistics already, and every implementation folds them with the affine map into one scale
and one shift a channel: two FLOPs an element in all.
"""

from math import prod
from typing import Any

from torch import Tensor

from ..cost import Cost
from .pointwise import steps
from .table import formula

_STATISTICS, _NORMALISE, _AFFINE, _FOLDED = 4, 2, 2, 2


def _batch_norm(x: Tensor, training: bool) -> Cost:
    return steps((_STATISTICS if training else 0) + _FOLDED, x)


@formula("aten::native_batch_norm", "aten::_native_batch_norm_legit", "aten::cudnn_batch_norm", "aten::miopen_batch_norm")
def batch_norm(out: Any, x: Tensor, weight: Any, bias: Any, *args: Any, **kwargs: Any) -> Cost:
    """``training`` is the argument after the running statistics; the overload without them always trains."""
    return _batch_norm(x, kwargs.get("training", next((item for item in args if isinstance(item, bool)), True)))


@formula("aten::_native_batch_norm_legit_no_training", "aten::_batch_norm_no_update")
def batch_norm_inference(out: Any, x: Tensor, *args: Any, **kwargs: Any) -> Cost:
    """With given statistics."""
    return _batch_norm(x, training=False)


@formula("aten::_batch_norm_with_update")
def batch_norm_update(out: Any, x: Tensor, *args: Any, **kwargs: Any) -> Cost:
    """With the batch's own statistics."""
    return _batch_norm(x, training=True)


@formula("aten::native_layer_norm")
def layer_norm(out: Any, x: Tensor, shape: Any, weight: Any = None, bias: Any = None, *args: Any) -> Cost:
    """The scale and the shift belong to an element, so nothing can be folded."""
    return steps(_STATISTICS + _NORMALISE + (weight is not None) + (bias is not None), x)


@formula("aten::native_group_norm")
def group_norm(out: Any, x: Tensor, *args: Any, **kwargs: Any) -> Cost:
    """A group's statistics and a channel's affine map fold into one scale and one shift a channel and sample."""
    return steps(_STATISTICS + _FOLDED, x)


@formula("aten::_fused_rms_norm")
def rms_norm(out: Any, x: Tensor, shape: Any, weight: Any = None, *args: Any, **kwargs: Any) -> Cost:
    """Square, sum, scale, and the weight where there is one; a sum and a root a row. As its decomposed form counts."""
    rows = prod(x.shape[: x.ndim - len(shape)])
    return steps(3 + (weight is not None), x) + Cost(elementwise_flops=2 * rows)


@formula(
    "aten::native_batch_norm_backward",
    "aten::batch_norm_backward",
    "aten::cudnn_batch_norm_backward",
    "aten::native_layer_norm_backward",
    "aten::native_group_norm_backward",
    "aten::_fused_rms_norm_backward",
)
def norm_backward(out: Any, grad: Tensor, *args: Any, **kwargs: Any) -> Cost:
    """Eleven an element: two sums of products (4), the input's gradient from them (5), the scale's gradient's product (2)."""
    return steps(11, grad)


@formula("aten::_weight_norm_interface", "aten::renorm")
def weight_norm(out: Any, v: Tensor, *args: Any, **kwargs: Any) -> Cost:
    """Square, sum, scale."""
    return steps(3, v)


@formula("aten::_weight_norm_interface_backward")
def weight_norm_backward(out: Any, grad: Tensor, *args: Any, **kwargs: Any) -> Cost:
    """Product, sum, and the difference of two scaled tensors."""
    return steps(5, grad)
