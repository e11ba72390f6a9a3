"""Sums and means over some sides."""

from typing import Any

import torch
from torch import Tensor

from .table import kernel


@kernel("mean")
def _mean(x: Tensor, *args: Any, **kwargs: Any) -> Tensor | None:
    return _sum(x, *args, **kwargs) if x.is_floating_point() else None


@kernel("sum")
def _sum(x: Tensor, dim: Any = None, keepdim: bool = False, **kwargs: Any) -> Tensor | None:
    axes = [dim] if isinstance(dim, int) else dim
    kind = kwargs.get("dtype")
    whole = x.dtype in (torch.int64, torch.int32) and kind == x.dtype  # without being told, sums of integers widen
    if not axes or not (whole or (x.is_floating_point() and kind is None)):
        return None
    if any(not -x.ndim <= axis < x.ndim for axis in axes):
        return None
    gone = {axis % x.ndim for axis in axes}
    if len(gone) < len(axes):
        return None
    return x.new_empty([1 if i in gone else n for i, n in enumerate(x.shape) if keepdim or i not in gone])
