"""TokenRing, pipelined: queries travel, keys and values stay, and each result returns as soon as it is computed.

After Wang et al., arXiv 2412.20501, whose code hands queries from neighbour to neighbour and returns the results of a step one
step late, the last of them alone: N + 1 units of Q or O in sequence, where ring attention has 2 (N - 1). Here

- results leave at once, in chunks, so that computing one, returning the one before and receiving the next overlap;
- queries go straight from their owner to every holder, ``ahead`` steps before they are needed. Passed on from neighbour to
  neighbour every Q crosses the one link to the next rank, which also carries the result of the longest way back: N units,
  while other links of a mesh carry one. Sent straight every link carries one Q and one result: 2 units, if all of them are
  under way at once, whatever N is. Behind a switch, where a rank's port is all there is, both are the same.

``ahead=0`` passes queries on from neighbour to neighbour, which is what a plain ring of links wants: there a message to a rank
that is j hops away loads j links.

Backward: the queries travel again, with the gradient of their output and two numbers per row; their gradients come back in
partial sums, in float32 for 16-bit inputs; those of keys and values never move.

Bytes per rank, no mask: (N - 1) B S_l H D b one way, (N - 1) B S_l H (D b + w) the other (w bytes of a wide number).
"""

from ...errors import BadInput
from ..exchange import travel_plan
from ..layout import Tokens
from ..plan import Plan, Strategy
from ..travel import Travel

STRATEGY = Strategy(
    title="TokenRing",
    summary="queries travel to every rank that needs them, each result returns to their owner at once",
    source="after Wang et al., arXiv 2412.20501; the direct, pipelined schedule is this project's",
    options=("chunks", "ahead"),
)


def plan(shares: tuple[Tokens, ...], heads: int, kv_heads: int, causal: bool, chunks: int = 2, ahead: int = 3) -> Plan:
    """All ranks' programs.

    Args:
        chunks: into how many pieces a rank's queries are cut.
        ahead: how many steps before their use queries leave for the ranks that use them; 0 passes them on from rank to rank.

    Raises:
        BadInput: when ``ahead`` is below 0.
    """
    if ahead < 0:
        raise BadInput(f"queries can't leave {ahead} steps ahead", "give `ahead` a number from 0 up")
    grid = (tuple(range(len(shares))),)
    travel = Travel(grid, dict(enumerate(shares)), (0, heads), (0, kv_heads), causal, chunks=chunks, ahead=ahead)
    return travel_plan(shares, heads, kv_heads, travel)
