"""Look-ups: gathers and scatters move data and compute nothing, unless they add up what they find."""

from typing import Any

from torch import Tensor

from ..cost import FREE, Cost
from .pointwise import is_floating
from .table import formula, free

free(
    *(
        f"aten::{name}"
        for name in (
            "embedding embedding_renorm gather index _unsafe_index index_select take take_along_dim masked_select nonzero "
            "scatter index_copy index_fill searchsorted bucketize one_hot nonzero_static argwhere masked_scatter "
            "_embedding_bag_per_sample_weights_backward"
        ).split()
    ),
    family="lookup",
)


@formula("aten::_embedding_bag", "aten::_embedding_bag_forward_only")
def embedding_bag(out: Any, weight: Tensor, indices: Tensor, *args: Any, **kwargs: Any) -> Cost:
    """A row added (or compared) for each index."""
    return Cost(elementwise_flops=indices.numel() * weight.shape[1])


@formula("aten::scatter_add", "aten::scatter_reduce", "aten::index_add", "aten::index_reduce")
def scatter_add(out: Tensor, x: Tensor, dim: int, index: Tensor, source: Tensor, *args: Any, **kwargs: Any) -> Cost:
    """An addition for each element of the source."""
    return Cost(elementwise_flops=source.numel()) if is_floating(source) else FREE


@formula("aten::index_put", "aten::_index_put_impl", "aten::_unsafe_index_put")
def index_put(out: Tensor, x: Tensor, indices: Any, values: Tensor, accumulate: bool = False, *args: Any) -> Cost:
    """Free, unless it accumulates."""
    return Cost(elementwise_flops=values.numel()) if accumulate and is_floating(values) else FREE


@formula("aten::embedding_dense_backward", "aten::_embedding_bag_dense_backward", "aten::_embedding_bag_backward")
def embedding_backward(out: Tensor, grad: Tensor, indices: Tensor, *args: Any, **kwargs: Any) -> Cost:
    """A row added for each index; a bag's gradient goes to every row in it."""
    return Cost(elementwise_flops=indices.numel() * grad.shape[-1])
