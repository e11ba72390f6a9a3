"""Ring attention that uses both directions of every link: half of the keys and values goes round each way.

The bytes are those of ring attention, half of them in each direction; under a causal mask only one way round can be cut
short, so a one-way ring may send less in all.
"""

from ..exchange import travel_plan
from ..layout import Tokens
from ..plan import Plan, Strategy
from ..travel import Travel

STRATEGY = Strategy(
    title="Bidirectional ring attention",
    summary="half of the keys and values goes round the ring each way",
    source="ring attention (arXiv 2310.01889), its traffic split over both directions of the links",
)


def plan(shares: tuple[Tokens, ...], heads: int, kv_heads: int, causal: bool) -> Plan:
    """All ranks' programs."""
    grid = tuple((rank,) for rank in range(len(shares)))
    travel = Travel(grid, dict(enumerate(shares)), (0, heads), (0, kv_heads), causal, both_ways=True)
    return travel_plan(shares, heads, kv_heads, travel)
