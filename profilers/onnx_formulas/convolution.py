"""Convolutions, of floating point or quantised numbers. Padding is not subtracted; a transposed one works per input element."""

from math import prod

from ..cost import Cost
from ..onnx_graph import Call, Value
from .quantisation import requantised
from .table import contraction, per_result, rule


def _convolution(call: Call, weight: Value, bias: bool) -> Cost:
    """Weight (Cout, Cin / groups, *kernel): each element of the result meets prod(shape[1:]) of it."""
    return contraction(call.out, prod(weight.shape[1:]), added=bias)


@rule("Conv")
def convolution(call: Call) -> Cost:
    """Any dimension, groups, dilation. The bias is elementwise."""
    return _convolution(call, call.input(1), call.optional(2) is not None)


@rule("", fused="FusedConv")
def fused_convolution(call: Call) -> Cost:
    """A convolution, a tensor that is added to it, and the activation behind it, one step an element each."""
    behind = ("activation" in call.attributes) + (call.optional(3) is not None)
    return convolution(call) + per_result(behind, call)


@rule("ConvTranspose")
def transposed(call: Call) -> Cost:
    """Weight (Cin, Cout / groups, *kernel): each element of the input meets prod(shape[1:]) of it."""
    x, out = call.input(0), call.out
    adds = out.size if call.optional(2) is not None and out.floating else 0
    return Cost(x.size * prod(call.input(1).shape[1:]), elementwise_flops=adds, activations=out.size)


@rule("ConvInteger")
def integer_convolution(call: Call) -> Cost:
    """Integers to integers: what rescales them are nodes of their own."""
    return _convolution(call, call.input(1), bias=False)


@rule("QLinearConv", fused="QLinearConv")
def quantised_convolution(call: Call) -> Cost:
    """Integers inside; the bias is an integer too. ONNX Runtime's own has channels last, and the same weight."""
    return _convolution(call, call.input(3), bias=False) + requantised(call.out)


@rule("DeformConv")
def deformable(call: Call) -> Cost:
    """A convolution whose taps lie between pixels: a bilinear sample (7 FLOPs) for each tap and channel, times its mask."""
    x, weight = call.input(0), call.input(1)
    taps = call.out.shape[0] * prod(call.out.shape[2:]) * x.shape[1] * prod(weight.shape[2:])
    masked = call.optional(4) is not None
    return _convolution(call, weight, call.optional(3) is not None) + Cost(elementwise_flops=taps * (7 + masked))
