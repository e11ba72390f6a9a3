"""TokenRing, pipelined: queries go round in chunks, and each result returns as soon as it is computed.

After Wang et al., arXiv 2412.20501, whose code returns the results of a step one step late and the last of them alone: N + 1
units of Q or O in sequence, where ring attention has 2 (N - 1). Here the hop of one chunk, the computation of the next and the
return of the one before overlap, so that N - 1 + 1 / chunks units remain.

Backward: the queries travel again, with the gradient of their output and two numbers per row; their gradients come back in
partial sums, in float32 for 16-bit inputs; those of keys and values never move.

Bytes per rank, no mask: (N - 1) B S_l H D b one way, (N - 1) B S_l H (D b + w) the other (w bytes of a wide number).
"""

from ..exchange import travel_plan
from ..layout import Tokens
from ..plan import Plan, Strategy
from ..travel import Travel

STRATEGY = Strategy(
    title="TokenRing",
    summary="queries go round the ring in chunks, each result returns to their owner at once",
    source="Wang et al., arXiv 2412.20501; the pipelined schedule is this project's",
    options=("chunks",),
)


def plan(shares: tuple[Tokens, ...], heads: int, kv_heads: int, causal: bool, chunks: int = 4) -> Plan:
    """All ranks' programs; ``chunks`` is into how many pieces a rank's queries are cut."""
    grid = (tuple(range(len(shares))),)
    travel = Travel(grid, dict(enumerate(shares)), (0, heads), (0, kv_heads), causal, chunks=chunks)
    return travel_plan(shares, heads, kv_heads, travel)
