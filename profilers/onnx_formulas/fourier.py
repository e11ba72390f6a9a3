"""Fourier transforms along one axis, idealised as for PyTorch: 5 N log2 N FLOPs for N complex points, half of it for real ones.

A transform over two axes is two nodes here, the second one complex: 5 (W/2 + 1) H log2 H more for a real map's columns, where
PyTorch's one operator counts 2.5 H W log2 H W for both.
"""

from math import log2

from ..cost import Cost
from ..onnx_graph import Call, ShapeUnknownError
from .table import rule


@rule("DFT")
def dft(call: Call) -> Cost:
    """(..., N, ..., 1 or 2) with real and imaginary part in the last dimension."""
    x, out = call.input(0), call.out
    axis = _axis(call)
    length = call.optional(1)
    asked = int(length.content.item()) if length is not None and length.content is not None else 0
    backward = bool(call.attributes.get("inverse")) and bool(call.attributes.get("onesided"))
    real = out if backward else x
    points = asked or max(x.shape[axis], out.shape[axis])
    transforms = real.size // real.shape[-1] // real.shape[axis]
    per_point = 2.5 if real.shape[-1] == 1 else 5.0
    return Cost(fft_flops=round(per_point * transforms * points * log2(points)) if points > 1 else 0)


def _axis(call: Call) -> int:
    """An input from opset 20 on, where it is the last but one by default; an attribute before, 1 by default."""
    if call.version < 20:
        return int(call.attributes.get("axis", 1))
    given = call.optional(2)
    if given is None:
        return -2
    if given.content is None:
        raise ShapeUnknownError
    return int(given.content.item())
