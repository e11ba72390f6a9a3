"""Normalisations, as for PyTorch: statistics four FLOPs an element, normalising two, the affine map two or folded."""

from math import prod

from ..cost import Cost
from ..onnx_graph import Call
from .table import per_element, rule

_STATISTICS, _NORMALISE, _FOLDED = 4, 2, 2


@rule("BatchNormalization")
def batch_norm(call: Call) -> Cost:
    """With given statistics one scale and one shift a channel; in training it has statistics of its own."""
    return per_element((_STATISTICS if call.attributes.get("training_mode") else 0) + _FOLDED, call.input(0))


@rule("InstanceNormalization GroupNormalization")
def grouped(call: Call) -> Cost:
    """Statistics and affine map fold into one scale and one shift a channel and sample."""
    return per_element(_STATISTICS + _FOLDED, call.input(0))


def _layer(call: Call, scale: int, bias: int) -> Cost:
    affine = (call.optional(scale) is not None) + (call.optional(bias) is not None)
    return per_element(_STATISTICS + _NORMALISE + affine, call.input(0))


@rule("LayerNormalization")
def layer_norm(call: Call) -> Cost:
    """Scale and shift belong to an element."""
    return _layer(call, 1, 2)


@rule("", fused="SkipLayerNormalization")
def skip_layer_norm(call: Call) -> Cost:
    """A sum of two inputs, and perhaps a bias, before it."""
    return _layer(call, 2, 3) + per_element(1 + (call.optional(4) is not None), call.input(0))


def _rms(call: Call, scale: int) -> Cost:
    x = call.input(0)
    rows = prod(x.shape[: call.attributes.get("axis", -1)])
    return per_element(3 + (call.optional(scale) is not None), x) + Cost(elementwise_flops=2 * rows)


@rule("RMSNormalization SimplifiedLayerNormalization")
def rms_norm(call: Call) -> Cost:
    """Square, sum, scale, and the weight; a sum and a root a row."""
    return _rms(call, 1)


@rule("", fused="SkipSimplifiedLayerNormalization")
def skip_rms_norm(call: Call) -> Cost:
    """A sum of two inputs, and perhaps a bias, before it."""
    return _rms(call, 2) + per_element(1 + (call.optional(3) is not None), call.input(0))


@rule("LRN")
def local_response(call: Call) -> Cost:
    """Square, the window's sum, scale, bias, power, quotient."""
    return per_element(5 + int(call.attributes["size"]), call.input(0))


@rule("LpNormalization MeanVarianceNormalization")
def other(call: Call) -> Cost:
    """Absolute value or square, sum, quotient; or statistics and normalising."""
    steps = 3 if call.operator == "LpNormalization" else _STATISTICS + _NORMALISE
    return per_element(steps, call.input(0))
