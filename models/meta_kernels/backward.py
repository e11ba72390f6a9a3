"""Backward passes of pointwise operators, softmax and the embedding, which torch's own kernels work out in Python too."""

from typing import Any

from torch import Tensor

from .layout import is_axis
from .table import kernel


@kernel(
    *(
        f"{name}_backward"
        for name in "silu gelu sigmoid tanh threshold hardtanh hardsigmoid hardswish leaky_relu softplus softshrink".split()
    )
)
def _pointwise_backward(gradient: Tensor, kept: Tensor, *settings: Any, **kwargs: Any) -> Tensor | None:
    """Of the gradient's shape, where both operands are alike and contiguous."""
    alike = gradient.shape == kept.shape and gradient.dtype == kept.dtype and gradient.dtype.is_floating_point
    return gradient.new_empty(gradient.shape) if alike and gradient.is_contiguous() and kept.is_contiguous() else None


@kernel("_softmax_backward_data", "_log_softmax_backward_data")
def _softmax_backward(gradient: Tensor, output: Tensor, dim: int, dtype: Any) -> Tensor | None:
    alike = gradient.shape == output.shape and gradient.dtype == output.dtype == dtype and gradient.dtype.is_floating_point
    if not alike or not gradient.is_contiguous() or not output.is_contiguous() or not is_axis(output, dim):
        return None
    return gradient.new_empty(gradient.shape)


@kernel("embedding_dense_backward")
def _embedding_backward(gradient: Tensor, indices: Tensor, rows: int, padding: int, scaled: bool) -> Tensor | None:
    usual = gradient.dtype.is_floating_point and gradient.ndim == indices.ndim + 1 and gradient.shape[:-1] == indices.shape
    return gradient.new_empty((rows, gradient.shape[-1])) if usual and not indices.dtype.is_floating_point else None
