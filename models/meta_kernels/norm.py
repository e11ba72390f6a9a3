"""Norms that keep their statistics in their input's dtype."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .layout import is_plain
from .table import kernel

_FULL_PRECISION = (torch.float32, torch.float64)
"""For others a norm keeps its statistics in another dtype than its input's."""


@kernel("native_batch_norm")
def _native_batch_norm(
    x: Tensor, weight: Any, bias: Any, mean: Any, variance: Any, training: bool, momentum: float, eps: float
) -> tuple[Tensor, ...] | None:
    given = [tensor for tensor in (weight, bias, mean, variance) if tensor is not None]
    if training or mean is None or variance is None or x.ndim < 2:
        return None
    if not x.is_contiguous() or x.dtype not in _FULL_PRECISION:
        return None
    if any(tensor.shape != x.shape[1:2] or tensor.dtype != x.dtype for tensor in given):
        return None
    return x.new_empty(x.shape), x.new_empty(x.shape[1]), x.new_empty(x.shape[1])


@kernel("native_layer_norm")
def _native_layer_norm(x: Tensor, shape: Sequence[int], weight: Any, bias: Any, eps: float) -> tuple[Tensor, ...] | None:
    given = [tensor for tensor in (weight, bias) if tensor is not None]
    unusual = not x.is_contiguous() or not shape or x.dtype not in _FULL_PRECISION
    if unusual or list(x.shape[-len(shape) :]) != list(shape):
        return None
    if any(list(tensor.shape) != list(shape) or tensor.dtype != x.dtype for tensor in given):
        return None
    statistics = (*x.shape[: -len(shape)], *[1] * len(shape))
    return x.new_empty(x.shape), x.new_empty(statistics), x.new_empty(statistics)


@kernel("native_group_norm")
def _native_group_norm(
    x: Tensor, weight: Any, bias: Any, batch: int, channels: int, pixels: int, groups: int, eps: float
) -> tuple[Tensor, ...] | None:
    given = [tensor for tensor in (weight, bias) if tensor is not None]
    if not is_plain(x) or x.dtype not in _FULL_PRECISION or groups < 1 or channels % groups:
        return None
    if x.shape[:2] != (batch, channels) or x.numel() != batch * channels * pixels:
        return None
    if any(tensor.shape != (channels,) or tensor.dtype != x.dtype for tensor in given):
        return None
    return x.new_empty(x.shape), x.new_empty((batch, groups)), x.new_empty((batch, groups))
