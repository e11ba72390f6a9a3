"""Pooling and interpolation, as for PyTorch: what each element of the result takes from its window. Nearest ones are copies."""

from math import prod

from ..cost import FREE, Cost
from ..onnx_graph import Call
from .quantisation import requantised
from .table import contraction, free, per_element, per_result, rule

free("MaxUnpool", family="pooling")
_TAPS = {"linear": 2, "bilinear": 2, "cubic": 4, "bicubic": 4}


@rule("AveragePool MaxPool LpPool")
def pool(call: Call) -> Cost:
    """An addition or comparison for each element of the window, the quotient included."""
    return per_result(prod(call.attributes["kernel_shape"]), call)


@rule("GlobalAveragePool GlobalMaxPool GlobalLpPool")
def global_pool(call: Call) -> Cost:
    """The window is the whole map."""
    return per_element(1, call.input(0))


@rule("", fused="QLinearAveragePool QLinearGlobalAveragePool")
def quantised_pool(call: Call) -> Cost:
    """Integers are added up, and the result rescaled."""
    return requantised(call.out)


def _weighted(taps: int, call: Call) -> Cost:
    """As many products as taps, one addition less; the weights are left out, being shared."""
    return per_result(2 * taps - 1, call)


@rule("Resize Upsample")
def resize(call: Call) -> Cost:
    """Over the dimensions behind batch and channels, unless those change too or the node names its axes."""
    mode = call.attributes.get("mode", b"nearest").decode()
    if mode not in _TAPS:
        return FREE
    before, after = call.input(0).shape, call.out.shape
    changed = [index for index, sizes in enumerate(zip(before, after, strict=True)) if sizes[0] != sizes[1]]
    axes = call.attributes.get("axes") or (range(2, len(before)) if all(index > 1 for index in changed) else changed)
    return _weighted(_TAPS[mode] ** len(axes), call)


@rule("GridSample")
def grid_sample(call: Call) -> Cost:
    """Samples between pixels."""
    mode = call.attributes.get("mode", b"linear").decode()
    return _weighted(_TAPS[mode] ** (len(call.out.shape) - 2), call) if mode in _TAPS else FREE


@rule("AffineGrid")
def affine_grid(call: Call) -> Cost:
    """theta (N, D, D + 1) times each homogeneous coordinate; coordinates of corners that are not aligned are scaled first."""
    sides = call.out.shape[1:-1]
    scaled = 0 if call.attributes.get("align_corners") else 2 * sum(sides)
    return contraction(call.out, call.input(0).shape[-1]) + Cost(elementwise_flops=scaled)
