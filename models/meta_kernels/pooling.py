"""Pooling and interpolation of images."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from .layout import is_plain, windows
from .table import kernel


@kernel("avg_pool2d")
def _avg_pool2d(
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor: int | None = None,
) -> Tensor | None:
    if ceil_mode or x.ndim != 4 or not is_plain(x) or not x.is_floating_point() or 0 in x.shape or divisor == 0:
        return None
    if max(padding) * 2 > min(kernel):  # torch refuses some of these
        return None
    sizes = windows(x.shape[2:], kernel, stride, padding, (1,))
    return None if sizes is None else x.new_empty((*x.shape[:2], *sizes))


@kernel("upsample_nearest2d")
def _upsample(x: Tensor, size: Any, *factors: Any) -> Tensor | None:
    if size is None or len(size) != 2 or min(size) < 1 or any(isinstance(factor, list) for factor in factors):
        return None
    if x.ndim != 4 or not is_plain(x) or 0 in x.shape:
        return None
    return x.new_empty((*x.shape[:2], *size))
