"""A whole tensor cut into the ranks' shares, and put together again; `layout.cut` says which tokens those are."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .layout import Tokens, positions


def shard(x: Tensor, tokens: Tokens, dim: int = 2) -> Tensor:
    """A rank's share of a whole tensor along its token dimension: a view where the share is one stretch."""
    before = (slice(None),) * (dim % x.ndim)
    parts = [x[(*before, slice(part.start, part.stop, part.step))] for part in tokens]
    if len(parts) == 1:
        return parts[0]
    return torch.cat(parts, dim) if parts else x[(*before, slice(0, 0))]


def unshard(parts: Sequence[Tensor], shares: Sequence[Tokens], dim: int = 2) -> Tensor:
    """The whole tensor from every rank's share: the inverse of `shard`."""
    order = torch.tensor([place for share in shares for place in positions(share)], dtype=torch.int64, device=parts[0].device)
    return torch.cat(list(parts), dim).index_select(dim, order.argsort())
