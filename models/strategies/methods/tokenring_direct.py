"""TokenRing for a full mesh: queries go straight from their owner to each rank that needs them.

The bytes are those of TokenRing, but no link carries more than one rank's queries and one rank's results, where on the ring
every query crosses each neighbour's link. Queries leave ``ahead`` steps before they are needed, so that many messages share
the mesh; a rank holds that many times its own queries. Close to the ring pass-Q of Yang et al., arXiv 2411.01783.
"""

from ...errors import BadInput
from ..exchange import travel_plan
from ..layout import Tokens
from ..plan import Plan, Strategy
from ..travel import Travel

STRATEGY = Strategy(
    title="TokenRing on a mesh",
    summary="queries go straight to every rank that needs them, results straight back",
    source="after Wang et al., arXiv 2412.20501; the direct schedule is this project's",
    options=("chunks", "ahead"),
)


def plan(shares: tuple[Tokens, ...], heads: int, kv_heads: int, causal: bool, chunks: int = 2, ahead: int = 3) -> Plan:
    """All ranks' programs.

    Args:
        chunks: into how many pieces a rank's queries are cut.
        ahead: how many steps before their use queries leave.

    Raises:
        BadInput: when ``ahead`` is below 1.
    """
    if ahead < 1:
        raise BadInput(f"queries can't leave {ahead} steps ahead", "give `ahead` a number from 1 up")
    grid = (tuple(range(len(shares))),)
    travel = Travel(grid, dict(enumerate(shares)), (0, heads), (0, kv_heads), causal, chunks=chunks, ahead=ahead)
    return travel_plan(shares, heads, kv_heads, travel)
