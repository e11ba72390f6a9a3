"""Attention that torch runs as one kernel: told apart, and holding in memory what that kernel holds.

`counter` asks for the decomposed form, whose operators every device has. Its scores are then no tensors of the run, and what
autograd keeps is not the scores but queries, keys, values and output, as FlashAttention does (Dao et al., arXiv 2205.14135,
section 3.1). The one number a row that the kernel keeps besides, the log of the sum, is left out.
"""

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

ATTENTION = torch.nn.functional.scaled_dot_product_attention
_NAMES = ("query", "key", "value")
_RANK = 4


def is_fused(
    q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0, *args: Any, **kwargs: Any
) -> bool:
    """Whether torch has one kernel for it on the CPU, by the conditions of its ``sdp_utils_cpp.cpp``."""
    if not all(isinstance(x, Tensor) and x.ndim == _RANK and x.shape[-1] == q.shape[-1] for x in (q, k, v)):
        return False
    return dropout_p == 0.0 and not (attn_mask is not None and attn_mask.requires_grad and torch.is_grad_enabled())


def operands(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], tuple[Any, ...], dict[str, Any]]:
    """A call of `ATTENTION` as (query, key, value), the settings after them, and the options."""
    options = dict(kwargs)
    first = tuple(args[place] if place < len(args) else options.pop(name) for place, name in enumerate(_NAMES))
    return first, args[len(_NAMES) :], options


def keep(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    """The same operands, and a list of what the backward pass will need: it is emptied when that has run.

    Where nothing has a gradient, the list keeps nothing.
    """
    if not torch.is_grad_enabled() or not (q.requires_grad or k.requires_grad or v.requires_grad):
        return q, k, v, []
    kept: list[Tensor] = []
    with _disable_current_modes():
        kept += [x.detach() for x in (q, k, v)]  # by themselves they would refer to the graph that refers to them
        return (*_Keep.apply(kept, q, k, v), kept)


class _Keep(torch.autograd.Function):
    """The identity, which lets go of what was kept once the gradients of its operands are there."""

    @staticmethod
    def forward(ctx: Any, kept: list[Tensor], *operands: Tensor) -> tuple[Tensor, ...]:
        ctx.kept = kept
        return tuple(x.view_as(x) for x in operands)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        ctx.kept.clear()
        return (None, *gradients)
