"""TokenRing inside nodes, ring attention between them: keys and values cross, queries and results stay inside.

The multi-node form of Wang et al., arXiv 2412.20501: rank n ``local`` + l is place l of node n. While keys and values are on
their way to the next node, the queries of a node make their round among the keys that are there.
"""

from ...errors import BadInput
from ..exchange import travel_plan
from ..layout import Tokens
from ..plan import Plan, Strategy
from ..travel import Travel

STRATEGY = Strategy(
    title="TokenRing over nodes",
    summary="keys and values go round between nodes, queries and results inside",
    source="Wang et al., arXiv 2412.20501, its multi-node form",
    options=("local", "chunks"),
)


def plan(
    shares: tuple[Tokens, ...], heads: int, kv_heads: int, causal: bool, local: int | None = None, chunks: int = 4
) -> Plan:
    """All ranks' programs; ``local`` ranks make a node, by default two where the ranks are even in number.

    Raises:
        BadInput: when the ranks don't divide into the nodes.
    """
    degree = len(shares)
    if local is None:
        local = 2 if degree % 2 == 0 else 1
    if local < 1 or degree % local:
        raise BadInput(f"{degree} ranks don't divide into nodes of {local}", "give a `local` that divides them")
    grid = tuple(tuple(range(first, first + local)) for first in range(0, degree, local))
    travel = Travel(grid, dict(enumerate(shares)), (0, heads), (0, kv_heads), causal, chunks=chunks)
    return travel_plan(shares, heads, kv_heads, travel)
