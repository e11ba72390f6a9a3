"""Look-ups, and operators that move or make data."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .layout import is_axis, is_channels_last
from .table import kernel


@kernel("embedding")
def _embedding(weight: Tensor, indices: Tensor, *args: Any) -> Tensor | None:
    if weight.ndim != 2 or indices.dtype not in (torch.int64, torch.int32):
        return None
    return weight.new_empty((*indices.shape, weight.shape[1]))


@kernel("_embedding_bag", "_embedding_bag_forward_only")
def _embedding_bag(
    weight: Tensor,
    indices: Tensor,
    offsets: Tensor,
    scale: bool = False,
    mode: int = 0,
    sparse: bool = False,
    given: Tensor | None = None,
    last_offset: bool = False,
    padding: int = -1,
) -> tuple[Tensor, ...] | None:
    unusual = mode != 0 or last_offset or weight.ndim != 2 or indices.ndim != 1 or offsets.ndim != 1
    kinds = indices.dtype == offsets.dtype and indices.dtype in (torch.int64, torch.int32) and weight.is_floating_point()
    if unusual or not kinds or (given is not None and (given.shape != indices.shape or given.dtype != weight.dtype)):
        return None
    bags = len(offsets)
    sums = weight.new_empty((bags, weight.shape[1]))
    return sums, indices.new_empty(indices.shape), indices.new_empty(bags), indices.new_empty(0)


@kernel("arange")
def _arange(*bounds: Any, dtype: Any = None, device: Any = None, layout: Any = None, pin_memory: Any = None) -> Tensor | None:
    start, end, step = (*((0, *bounds) if len(bounds) == 1 else bounds), 1)[:3]
    whole = all(isinstance(bound, int) for bound in bounds)
    if not whole or step <= 0 or end < start or device is None or torch.device(device).type != "meta":
        return None
    return torch.empty(-((start - end) // step), dtype=dtype or torch.int64, device="meta")


@kernel("repeat")
def _repeat(x: Tensor, repeats: Sequence[int]) -> Tensor | None:
    if len(repeats) < x.ndim or min(repeats, default=0) < 1:
        return None
    sides = (*[1] * (len(repeats) - x.ndim), *x.shape)
    return x.new_empty([side * times for side, times in zip(sides, repeats, strict=True)])


@kernel("cat")
def _cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor | None:
    if not tensors or not is_axis(tensors[0], dim):
        return None
    first = tensors[0]
    axis = dim % max(first.ndim, 1)
    for tensor in tensors:
        if tensor.dtype != first.dtype or tensor.ndim != first.ndim or tensor.ndim in (0, 5) or is_channels_last(tensor):
            return None
        if any(a != b for i, (a, b) in enumerate(zip(tensor.shape, first.shape, strict=True)) if i != axis):
            return None
    return first.new_empty([n if i != axis else sum(t.shape[axis] for t in tensors) for i, n in enumerate(first.shape)])
