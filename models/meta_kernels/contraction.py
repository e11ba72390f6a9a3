"""Matrix products and convolutions."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .layout import broadcast, is_plain, windows
from .table import kernel


def _product(rank: int, a: Tensor, b: Tensor, *result_dtype: torch.dtype) -> Tensor | None:
    if result_dtype or a.dtype != b.dtype or a.ndim != rank or b.ndim != rank:
        return None
    if a.shape[:-2] != b.shape[:-2] or a.shape[-1] != b.shape[-2]:
        return None
    return a.new_empty((*a.shape[:-1], b.shape[-1]))


def _added_product(rank: int, added: Tensor, a: Tensor, b: Tensor, *result_dtype: torch.dtype, **kwargs: Any) -> Tensor | None:
    result = _product(rank, a, b, *result_dtype)
    if result is None or added.dtype != a.dtype or broadcast([added.shape, result.shape]) != tuple(result.shape):
        return None
    return result


for _rank, _plain, _added in ((2, "mm", "addmm"), (3, "bmm", "baddbmm")):
    kernel(_plain)(partial(_product, _rank))
    kernel(_added)(partial(_added_product, _rank))


@kernel("convolution")
def _convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Tensor | None:
    if transposed or x.ndim != weight.ndim or x.shape[1] != weight.shape[1] * groups or weight.shape[0] % groups:
        return None
    if x.dtype != weight.dtype:
        # torch's meta kernel lets this pass, and then counts a model that can't run.
        raise RuntimeError(f"a convolution takes an input and a weight of one dtype, not {x.dtype} and {weight.dtype}")
    if bias is not None and (bias.dtype != x.dtype or bias.shape != weight.shape[:1]):
        return None
    if not (is_plain(x) and weight.is_contiguous()):
        return None
    sizes = windows(x.shape[2:], weight.shape[2:], stride, padding, dilation)
    return None if sizes is None else x.new_empty((x.shape[0], weight.shape[0], *sizes))
