"""TokenRing with its authors' schedule: the results of a step leave while the next is computed, the last ones alone.

Wang et al., arXiv 2412.20501, and github.com/ACA-Lab-SJTU/token-ring: at step s rank r holds the queries of rank r - s, sends
them on, and returns the results of step s - 1 to rank r - (s - 1). Their code has a forward pass for equal lengths only; the
backward pass here follows the same schedule. Results travel in the inputs' dtype, their log-sum-exp in float32.
"""

from ..exchange import travel_plan
from ..layout import Tokens
from ..plan import Plan, Strategy
from ..travel import Travel

STRATEGY = Strategy(
    title="TokenRing, authors' schedule",
    summary="queries go round the ring whole, results return one step late",
    source="Wang et al., arXiv 2412.20501; github.com/ACA-Lab-SJTU/token-ring",
)


def plan(shares: tuple[Tokens, ...], heads: int, kv_heads: int, causal: bool) -> Plan:
    """All ranks' programs."""
    grid = (tuple(range(len(shares))),)
    travel = Travel(grid, dict(enumerate(shares)), (0, heads), (0, kv_heads), causal, late=True)
    return travel_plan(shares, heads, kv_heads, travel)
