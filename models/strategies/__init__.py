"""Attention over a sequence that is spread over ranks: local shards in, local output out, and an exact account of the messages.

    from mixbench.models import strategies

    strategies.names()  # ['allgather_kv', 'ring', …, 'tokenring', …]
    out = strategies.attend(q, k, v, "tokenring", group, causal=True, layout="zigzag")  # in every rank of the group
    strategies.account("ring", lengths=[4096] * 8, heads=32, kv_heads=8, head_dim=128, itemsize=2).egress

Every method is a plan, plain data (`plan.py`), that a run carries out (`execute.py`) and anybody may walk. Names, plans and
accounts need no torch.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ..errors import BadInput
from ..registry import Registry
from .layout import cut
from .plan import Account, Plan, Sizes, Strategy

if TYPE_CHECKING:
    import torch

__all__ = ["account", "attend", "describe", "make_plan", "names"]

catalogue = Registry(
    kind="method",
    package="strategies.methods",
    attribute="STRATEGY",
    group="mixbench.strategies",
    vocabulary={"Strategy": Strategy},
    listing="mixbench.models.strategies.names() lists all, and `--methods all` takes all",
)


def names() -> list[str]:
    """The methods' names, sorted. A dash in a name may be written for its underscore."""
    return catalogue.names()


def describe(name: str) -> Strategy:
    """What a method is, its source, the layouts and the options that it takes.

    Raises:
        BadInput: when there is no such method.
    """
    return catalogue.describe(name.replace("-", "_"))


def make_plan(
    method: str,
    lengths: Sequence[int],
    heads: int,
    kv_heads: int | None = None,
    causal: bool = False,
    layout: str | None = None,
    **options: Any,
) -> Plan:
    """The programs of all ranks.

    Args:
        lengths: tokens of each rank; `layout.even_lengths` cuts a whole sequence. A rank may have none.
        layout: ``contiguous`` (None), ``zigzag`` or ``striped``: which tokens those are.
        options: the method's own, such as ``chunks``; `describe` names them.

    Raises:
        BadInput: for a method, layout or option that doesn't exist, lengths that the layout can't have, or heads that the
            method can't divide.
    """
    return _plan(
        method.replace("-", "_"), tuple(lengths), heads, kv_heads or heads, causal, layout, tuple(sorted(options.items()))
    )


@lru_cache(maxsize=64)
def _plan(
    method: str,
    lengths: tuple[int, ...],
    heads: int,
    kv_heads: int,
    causal: bool,
    layout: str | None,
    options: tuple[tuple[str, Any], ...],
) -> Plan:
    strategy = describe(method)
    layout = layout or "contiguous"
    if not lengths or min(lengths) < 0:
        raise BadInput(f"no ranks can have {lengths} tokens", "give a number of tokens, from 0 up, for each rank")
    shares = cut(layout, lengths)
    if layout not in strategy.layouts:
        raise BadInput(f"{method} can't work on the layout {layout}", f"it takes {', '.join(strategy.layouts)}")
    for name, _ in options:
        if name not in strategy.options:
            has = f"it has {', '.join(strategy.options)}" if strategy.options else "it has none"
            raise BadInput(f"{method} has no option named {name!r}", has)
    return catalogue.module(method).plan(shares, heads, kv_heads, causal, **dict(options))


def account(
    method: str,
    lengths: Sequence[int],
    heads: int,
    kv_heads: int | None = None,
    head_dim: int = 128,
    itemsize: int = 2,
    batch: int = 1,
    causal: bool = False,
    layout: str | None = None,
    backward: bool = False,
    **options: Any,
) -> Account:
    """The messages of one forward pass, or of one backward pass, in exact bytes: by rank, link and kind.

    Args:
        itemsize: bytes of an element of the inputs.
        backward: those of the backward pass alone, instead.

    Raises:
        BadInput: as `make_plan` does.
    """
    plan = make_plan(method, lengths, heads, kv_heads, causal, layout, **options)
    return plan.account(Sizes(batch, heads, kv_heads or heads, head_dim, itemsize), backward)


def attend(
    q: "torch.Tensor",
    k: "torch.Tensor",
    v: "torch.Tensor",
    method: str = "tokenring",
    group: "torch.distributed.ProcessGroup | None" = None,
    causal: bool = False,
    layout: str | None = None,
    lengths: Sequence[int] | None = None,
    **options: Any,
) -> "torch.Tensor":
    """Exact attention of this rank's queries to the whole sequence, of which every rank of the group holds a part.

    To be called in every rank of ``group`` at the same place of the program; so is the backward pass. Differentiable once.

    Args:
        q: (B, H, S_local, D), this rank's share, in the order that the layout gives it.
        k, v: (B, G, S_local, D); G divides H.
        method: one of `names`.
        group: a process group of torch.distributed; None is the default group. A group of one makes no call.
        layout: which tokens this rank has: ``contiguous`` (None), ``zigzag`` or ``striped``. Rotary positions must follow it:
            `layout.positions(layout.cut(name, lengths)[rank])`.
        lengths: tokens of every rank. Without it ranks tell one another first, a small message more, in which differing shapes
            and settings are found.
        options: the method's own, as for `make_plan`.

    Returns:
        (B, H, S_local, D) in q's dtype.

    Raises:
        BadInput: as `make_plan` does; and when the shapes don't fit one another, within a rank or across ranks.
    """
    from .spread import attend as spread

    return spread(q, k, v, method.replace("-", "_"), group, causal, layout, lengths, options)
