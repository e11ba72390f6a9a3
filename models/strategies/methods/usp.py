"""USP: Ulysses inside groups of neighbouring ranks, a ring across them (Fang and Zhao, arXiv 2405.07719).

Heads limit the size of the groups only, and the ring has N / group members. The ring may be of keys and values, or TokenRing.
"""

from ...errors import BadInput
from ..exchange import exchange_plan, fits
from ..layout import Tokens
from ..plan import Plan, Strategy, divisors

STRATEGY = Strategy(
    title="USP",
    summary="Ulysses inside groups of ranks, ring attention or TokenRing across the groups",
    source="Fang and Zhao, arXiv 2405.07719",
    layouts=("contiguous", "zigzag"),
    options=("group", "across", "chunks"),
)


def plan(
    shares: tuple[Tokens, ...],
    heads: int,
    kv_heads: int,
    causal: bool,
    group: int | None = None,
    across: str = "ring",
    chunks: int = 4,
) -> Plan:
    """All ranks' programs.

    Args:
        group: ranks of a Ulysses group; by default the largest that the heads and the ranks allow.
        across: ``ring`` or ``tokenring``.
        chunks: of TokenRing's queries.

    Raises:
        BadInput: when the ranks don't divide into the groups, or the heads inside one.
    """
    if across not in ("ring", "tokenring"):
        raise BadInput(f"no ring named {across!r} to go across groups", "one of ring, tokenring")
    if group is None:
        group = max((size for size in divisors(len(shares)) if fits(heads, kv_heads, size)), default=1)
    return exchange_plan(shares, heads, kv_heads, causal, group, _column if across == "ring" else _row, chunks)


def _column(ranks: list[int]) -> tuple[tuple[int, ...], ...]:
    return tuple((rank,) for rank in ranks)


def _row(ranks: list[int]) -> tuple[tuple[int, ...], ...]:
    return (tuple(ranks),)
