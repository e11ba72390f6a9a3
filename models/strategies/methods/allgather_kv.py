"""All-gather of keys and values: every rank gets all that its queries see, at once, and attends in one call.

What Llama 3 is trained with (arXiv 2407.21783, section 3.3.2) and torch's context parallelism does. Nothing overlaps, and
memory grows with N. They are gathered again for the backward pass, after which the gradients go home in float32.

Bytes per rank, no mask: (N - 1) 2 B S_l G D b forward; under a causal mask only what the receiver sees is sent.
"""

from collections.abc import Iterator

from ..layout import Tokens, joined
from ..plan import Attend, Gather, Grad, Keep, Merge, Op, Piece, Plan, Recv, Send, Strategy, check_heads
from ..travel import sees

STRATEGY = Strategy(
    title="All-gather of keys and values",
    summary="every rank gets all keys and values that its queries see, then attends",
    source="Grattafiori et al., arXiv 2407.21783, section 3.3.2",
)


def plan(shares: tuple[Tokens, ...], heads: int, kv_heads: int, causal: bool) -> Plan:
    """All ranks' programs."""
    check_heads(heads, kv_heads)
    forward, backward = (
        tuple(tuple(_operations(shares, rank, heads, kv_heads, causal, backward)) for rank in range(len(shares)))
        for backward in (False, True)
    )
    return Plan(shares, heads, kv_heads, causal, forward, backward)


def _operations(shares: tuple[Tokens, ...], rank: int, heads: int, kv_heads: int, causal: bool, backward: bool) -> Iterator[Op]:
    def parts(owner: int, reader: int) -> Tokens:
        return tuple(part for part in shares[owner] if sees(shares[reader], (part,), causal))

    def kv(tokens: Tokens) -> Piece:
        return Piece("kv", tokens, (0, kv_heads))

    def gradient(tokens: Tokens, holder: int) -> Piece:
        return Piece("dkv_part", tokens, (0, kv_heads), holder)

    degree, own = len(shares), shares[rank]
    others = [(rank + offset) % degree for offset in range(1, degree)]
    givers = list(reversed(others))
    for source in givers:
        yield from (Recv(0, kv((part,)), source, 0) for part in parts(source, rank))
    for target in others:
        yield from (Send(0, kv((part,)), target, 0) for part in parts(rank, target))
    seen = [(part,) for owner in range(degree) for part in parts(owner, rank)]
    if seen:
        alone = all(owner == rank or not parts(owner, rank) for owner in range(degree))
        # Stripes stay apart: queries of a stripe have a regular diagonal with each of them, not with their weave.
        everything = kv(own if alone else joined(seen, weave=False))
        if not alone:
            yield Gather(0, everything, tuple(map(kv, seen)), keep=False)
        yield (Grad if backward else Attend)(1, Piece("q", own, (0, heads)), everything, causal)
    if backward:
        for reader in givers:
            yield from (Recv(1, gradient((part,), reader), reader, 1) for part in parts(rank, reader))
        for owner in others:
            yield from (Send(1, gradient((part,), rank), owner, 1) for part in parts(owner, rank))
        if seen and not alone:
            yield from (Keep(1, gradient((part,), rank)) for part in parts(rank, rank))
        for reader in givers:
            yield from (Merge(1, gradient((part,), reader)) for part in parts(rank, reader))
