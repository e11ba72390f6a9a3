"""Fourier transforms of contiguous tensors."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .table import kernel

COMPLEX = {torch.float32: torch.complex64, torch.float64: torch.complex128}
_REAL = {kind: real for real, kind in COMPLEX.items()}


def _is_plain_transform(x: Tensor, dims: Sequence[int]) -> bool:
    """Over the last sides in their order, and not over all: of a contiguous tensor every library's result is contiguous too."""
    return (
        0 < len(dims) < x.ndim and list(dims) == list(range(x.ndim - len(dims), x.ndim)) and x.is_contiguous() and x.numel() > 0
    )


@kernel("_fft_r2c")
def _fft_r2c(x: Tensor, dims: Sequence[int], normalization: int, onesided: bool) -> Tensor | None:
    if x.dtype not in COMPLEX or not onesided or not _is_plain_transform(x, dims):
        return None
    return x.new_empty((*x.shape[:-1], x.shape[-1] // 2 + 1), dtype=COMPLEX[x.dtype])


@kernel("_fft_c2r")
def _fft_c2r(x: Tensor, dims: Sequence[int], normalization: int, last: int) -> Tensor | None:
    if x.dtype not in _REAL or x.shape[-1:] != (last // 2 + 1,) or not _is_plain_transform(x, dims):
        return None
    return x.new_empty((*x.shape[:-1], last), dtype=_REAL[x.dtype])
