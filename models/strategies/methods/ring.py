"""Ring attention: keys and values go round, queries stay (Liu et al., arXiv 2310.01889).

At step s rank r attends to the keys and values of rank r - s and passes them on meanwhile. In the backward pass the
gradients of keys and values travel with them, a sum that every rank adds its part to, and then go home. Under a causal mask
nothing goes further than it is seen; the published codes send everything all the way.

Bytes per rank, no mask: (N - 1) 2 B S_l G D b forward; backward the same and (N - 1) 2 B S_l G D w (w bytes of a wide number).
"""

from ..exchange import travel_plan
from ..layout import Tokens
from ..plan import Plan, Strategy
from ..travel import Travel

STRATEGY = Strategy(
    title="Ring attention",
    summary="keys and values go round the ring, each rank keeps its queries",
    source="Liu et al., arXiv 2310.01889; zigzag as in github.com/zhuzilin/ring-flash-attention; striped arXiv 2311.09431",
)


def plan(shares: tuple[Tokens, ...], heads: int, kv_heads: int, causal: bool) -> Plan:
    """All ranks' programs."""
    grid = tuple((rank,) for rank in range(len(shares)))
    return travel_plan(shares, heads, kv_heads, Travel(grid, dict(enumerate(shares)), (0, heads), (0, kv_heads), causal))
