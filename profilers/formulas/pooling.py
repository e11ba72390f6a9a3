"""Pooling and interpolation: what each element of the result takes from its window. Nearest neighbours are copies."""

from collections.abc import Sequence
from math import prod
from typing import Any

from torch import Tensor

from ..cost import Cost
from .matmul import contraction
from .pointwise import steps
from .table import formula, free

free(
    *(f"aten::{name}{suffix}" for name in ("upsample_nearest", "_upsample_nearest_exact") for suffix in ("1d", "2d", "3d")),
    "aten::max_unpool2d",
    "aten::max_unpool3d",
    family="pooling",
)


def _window(kernel: Any, dimensions: int) -> int:
    sides = [kernel] if isinstance(kernel, int) else list(kernel)
    return prod(sides * dimensions if len(sides) == 1 else sides)


@formula("aten::avg_pool1d", "aten::avg_pool2d", "aten::avg_pool3d", "aten::max_pool1d")
@formula("aten::max_pool2d_with_indices", "aten::max_pool3d_with_indices", "aten::max_pool2d", "aten::max_pool3d")
@formula("aten::max_pool1d_with_indices", "aten::mkldnn_max_pool2d", "aten::quantized_max_pool2d")
def pool(out: Any, x: Tensor, kernel: Any, *args: Any, **kwargs: Any) -> Cost:
    """An addition or comparison for each element of the window, the quotient included."""
    first = out[0] if isinstance(out, tuple) else out
    return steps(_window(kernel, x.ndim - 2), first)


@formula(
    *(f"aten::{kind}{dimensions}d" for kind in ("adaptive_avg_pool", "adaptive_max_pool") for dimensions in (1, 2, 3)),
    "aten::_adaptive_avg_pool2d",
    "aten::_adaptive_avg_pool3d",
)
def adaptive_pool(out: Any, x: Tensor, size: Sequence[int], *args: Any, **kwargs: Any) -> Cost:
    """Windows from floor(i n / m) to ceil((i + 1) n / m): their sizes summed, which overlaps may make more than n."""
    first = out[0] if isinstance(out, tuple) else out
    sides = zip(x.shape[-len(size) :], first.shape[-len(size) :], strict=True)
    window = prod(sum(-((i + 1) * n // -m) - i * n // m for i in range(m)) for n, m in sides)
    return Cost(elementwise_flops=window * prod(x.shape[: -len(size)]))


def _interpolation(taps: int, *names: str) -> None:
    @formula(*names)
    def rule(out: Tensor, *args: Any, **kwargs: Any) -> Cost:
        return steps(2 * taps - 1, out)


# A weighted sum of the neighbours: as many products as taps, one addition less. The weights are left out, being shared.
_interpolation(2, "aten::upsample_linear1d")
_interpolation(4, "aten::upsample_bilinear2d", "aten::_upsample_bilinear2d_aa", "aten::grid_sampler_2d")
_interpolation(8, "aten::upsample_trilinear3d", "aten::grid_sampler_3d")
_interpolation(16, "aten::upsample_bicubic2d", "aten::_upsample_bicubic2d_aa")


@formula(
    *(
        f"aten::{name}_backward"
        for name in (
            "avg_pool2d avg_pool3d max_pool2d_with_indices max_pool3d_with_indices adaptive_max_pool2d adaptive_max_pool3d "
            "_adaptive_avg_pool2d _adaptive_avg_pool3d upsample_nearest1d upsample_nearest2d upsample_nearest3d "
            "_upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d upsample_linear1d "
            "upsample_bilinear2d upsample_bicubic2d upsample_trilinear3d _upsample_bilinear2d_aa _upsample_bicubic2d_aa "
            "grid_sampler_2d grid_sampler_3d"
        ).split()
    )
)
def spread(out: Any, grad: Tensor, *args: Any, **kwargs: Any) -> Cost:
    """One addition for each element of the larger side: every gradient is handed back to its window."""
    first = out[0] if isinstance(out, tuple) else out
    return steps(1, first if first.numel() > grad.numel() else grad)


@formula("aten::affine_grid_generator")
def affine_grid(out: Tensor, theta: Tensor, size: Sequence[int], align_corners: bool) -> Cost:
    """Where a grid sampler looks: theta (N, D, D + 1) times each homogeneous coordinate, a product of matrices.

    Coordinates of corners that are not aligned are scaled first: a product and a quotient for each along each side.
    """
    scaled = 0 if align_corners else 2 * sum(size[2:])
    return contraction(out, theta.shape[-1], theta) + Cost(elementwise_flops=scaled)
