"""Convolutions. Padding is not subtracted; a transposed convolution works per input element."""

from collections.abc import Sequence
from math import prod
from typing import Any

from torch import Tensor

from ..cost import Cost
from .matmul import flops_per_add, real_macs
from .table import formula


def _macs(x: Tensor, weight: Tensor, out_shape: Sequence[int], transposed: bool) -> int:
    """Weight is (Cout, Cin / groups, *kernel), or (Cin, Cout / groups, *kernel) when transposed: either way a position of
    the small side (output, or input when transposed) meets weight.shape[1:] once per channel of its own."""
    positions = x.numel() if transposed else prod(out_shape)
    return positions * prod(weight.shape[1:]) * real_macs(x, weight)


@formula("aten::convolution", "aten::_convolution", "aten::convolution_overrideable")
def convolution(
    out: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    *args: Any,
    **kwargs: Any,
) -> Cost:
    """Any dimension, groups, dilation, transposed or not. The bias is elementwise."""
    adds = 0 if bias is None else out.numel() * flops_per_add(out)
    return Cost(_macs(x, weight, out.shape, transposed), elementwise_flops=adds, activations=out.numel())


@formula("aten::mkldnn_convolution", "aten::cudnn_convolution", "aten::miopen_convolution")
def vendor_convolution(out: Tensor, x: Tensor, weight: Tensor, *args: Any, **kwargs: Any) -> Cost:
    """A convolution that arrives as its library's own operator."""
    has_bias = bool(args) and isinstance(args[0], Tensor)
    return convolution(out, x, weight, args[0] if has_bias else None, None, None, None, False)


@formula("aten::conv_tbc")
def time_first(out: Tensor, x: Tensor, weight: Tensor, bias: Tensor, pad: int = 0) -> Cost:
    """x (T, B, Cin), weight (kernel, Cin, Cout): a convolution over time. Its backward pass arrives as matrix products."""
    inner = prod(weight.shape[:2])
    return Cost(out.numel() * inner * real_macs(x), elementwise_flops=out.numel() * flops_per_add(out), activations=out.numel())


@formula("aten::convolution_backward")
def convolution_backward(
    out: tuple[Tensor | None, ...],
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    bias_sizes: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    *args: Any,
    output_mask: Sequence[bool] = (),
    **kwargs: Any,
) -> Cost:
    """The input's and the weight's gradients cost what the forward pass did, each if asked for; the bias's is a sum."""
    mask = output_mask or args[-1]
    each = _macs(x, weight, grad.shape, transposed)
    return Cost(each * (mask[0] + mask[1]), elementwise_flops=mask[2] * grad.numel() * flops_per_add(grad))


@formula("aten::convolution_backward_overrideable")
def overrideable_backward(out: Any, grad: Tensor, x: Tensor, weight: Tensor, *args: Any, **kwargs: Any) -> Cost:
    """The same for other devices' libraries; it is not given the bias's sizes."""
    return convolution_backward(out, grad, x, weight, None, *args, **kwargs)
