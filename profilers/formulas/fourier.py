"""Fourier transforms, idealised: 5 N log2 N FLOPs for a complex transform of N points, half of it for a real one.

N is the product of the transformed sizes. This is the radix-2 figure that the literature quotes for every size; what a
library executes depends on its plan. The scaling of ``norm="ortho"`` is left out.
"""

from collections.abc import Sequence
from math import log2, prod
from typing import Any

from torch import Tensor

from ..cost import Cost
from .table import formula


def _transform(side: Tensor, dims: Sequence[int], per_point: float) -> Cost:
    """``per_point`` x N log2 N for each of the transforms that cover ``side``, rounded to whole FLOPs."""
    points = prod(side.shape[dim] for dim in dims)
    return Cost(fft_flops=round(per_point * side.numel() * log2(points)) if points else 0)


@formula("aten::_fft_r2c")
def real_to_complex(out: Tensor, x: Tensor, dim: Sequence[int], *args: Any, **kwargs: Any) -> Cost:
    """Real input: N is counted on the input, since the output keeps only half the spectrum."""
    return _transform(x, dim, 2.5)


@formula("aten::_fft_c2r")
def complex_to_real(out: Tensor, x: Tensor, dim: Sequence[int], *args: Any, **kwargs: Any) -> Cost:
    """Real output: N is counted on the output."""
    return _transform(out, dim, 2.5)


@formula("aten::_fft_c2c")
def complex_to_complex(out: Tensor, x: Tensor, dim: Sequence[int], *args: Any, **kwargs: Any) -> Cost:
    """Complex on both sides."""
    return _transform(out, dim, 5.0)
