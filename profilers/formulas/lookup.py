"""Look-ups: gathers and scatters move data and compute nothing, unless they add up what they find."""

from typing import Any

from torch import Tensor

from ..cost import FREE, Cost
from .pointwise import is_floating
from .table import formula, free

_BAG_MAX = 2
"""The mode of an embedding bag that takes the maximum."""

free(
    *(
        f"aten::{name}"
        for name in (
            "embedding embedding_renorm gather index _unsafe_index index_select take take_along_dim masked_select nonzero "
            "scatter index_copy index_fill searchsorted bucketize one_hot nonzero_static argwhere masked_scatter"
        ).split()
    ),
    family="lookup",
)


@formula("aten::_embedding_bag", "aten::_embedding_bag_forward_only")
def embedding_bag(out: Any, weight: Tensor, indices: Tensor, offsets: Tensor, *args: Any, **kwargs: Any) -> Cost:
    """A row added (or compared) for each index, and multiplied first where each has a weight of its own."""
    return Cost(elementwise_flops=indices.numel() * weight.shape[1] * (2 if _weighted(args, kwargs) else 1))


def _weighted(args: Any, kwargs: Any) -> bool:
    """Whether there are ``per_sample_weights``: the one tensor among the settings."""
    return any(isinstance(item, Tensor) for item in (*args, kwargs.get("per_sample_weights")))


@formula("aten::_embedding_bag_dense_backward", "aten::_embedding_bag_backward")
def embedding_bag_backward(out: Any, grad: Tensor, indices: Tensor, *args: Any, **kwargs: Any) -> Cost:
    """The bag's gradient is added to the row of each index, weighted first where each has a weight; a maximum has one row."""
    table_rows = next(place for place, item in enumerate(args) if not isinstance(item, Tensor))
    mode, settings = args[table_rows + 2], args[table_rows + 1 :]
    if mode == _BAG_MAX:
        return Cost(elementwise_flops=grad.numel())
    return Cost(elementwise_flops=indices.numel() * grad.shape[1] * (2 if _weighted(settings, kwargs) else 1))


@formula("aten::_embedding_bag_per_sample_weights_backward")
def embedding_bag_weights_backward(out: Tensor, grad: Tensor, *args: Any, **kwargs: Any) -> Cost:
    """The gradient of each index's weight: the bag's gradient times the row, added up over the row."""
    return Cost(elementwise_flops=2 * out.numel() * grad.shape[1])


@formula("aten::scatter_add", "aten::scatter_reduce", "aten::index_add", "aten::index_reduce")
def scatter_add(out: Tensor, x: Tensor, dim: int, index: Tensor, source: Tensor, *args: Any, **kwargs: Any) -> Cost:
    """An addition for each element of the source."""
    return Cost(elementwise_flops=source.numel()) if is_floating(source) else FREE


@formula("aten::index_put", "aten::_index_put_impl", "aten::_unsafe_index_put")
def index_put(out: Tensor, x: Tensor, indices: Any, values: Tensor, accumulate: bool = False, *args: Any) -> Cost:
    """Free, unless it accumulates."""
    return Cost(elementwise_flops=values.numel()) if accumulate and is_floating(values) else FREE


@formula("aten::embedding_dense_backward")
def embedding_backward(out: Tensor, grad: Tensor, *args: Any, **kwargs: Any) -> Cost:
    """An addition for each element of the incoming gradient."""
    return Cost(elementwise_flops=grad.numel())
