"""Ulysses: all-to-all from tokens to heads, ordinary attention, all-to-all back (Jacobs et al., arXiv 2309.14509).

Bytes per rank: (N - 1) / N B S_l (2 H + 2 G) D b forward, whatever the mask; the same backward where G divides by N, since
q, k and v stay gathered for it. With fewer key and value heads than ranks, each goes to N / G ranks and its gradients come
back in float32.
"""

from ..exchange import exchange_plan
from ..layout import Tokens
from ..plan import Plan, Strategy

STRATEGY = Strategy(
    title="Ulysses",
    summary="all-to-all: every rank gets all tokens of some heads",
    source="Jacobs et al., arXiv 2309.14509",
)


def plan(shares: tuple[Tokens, ...], heads: int, kv_heads: int, causal: bool) -> Plan:
    """All ranks' programs.

    Raises:
        BadInput: when the heads don't divide among the ranks.
    """
    return exchange_plan(shares, heads, kv_heads, causal, len(shares), lambda ranks: (tuple(ranks),))
