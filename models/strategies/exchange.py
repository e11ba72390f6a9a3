"""Programs that trade tokens for heads inside groups of ranks, and attend on what they gathered.

Every rank of a group gives its tokens of other heads away and gets the group's tokens of its own heads: DeepSpeed-Ulysses
(Jacobs et al., arXiv 2309.14509). Between the groups, ranks that hold the same heads form the grid of a `Travel`; with one
group nothing travels. The combination is USP (Fang and Zhao, arXiv 2405.07719). No torch.

Queries, keys and values, outputs: (N - 1) / N B S_l (2 H + 2 G) D elements per rank where G is divisible by the group. Where
instead the group is a multiple of G, a head of keys and values goes to several ranks.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ..errors import BadInput
from .layout import Tokens, count, joined
from .plan import Gather, Heads, Keep, Merge, Op, Piece, Plan, Program, Recv, Send, check_heads
from .travel import Travel


def fits(heads: int, kv_heads: int, group: int) -> bool:
    """Can this many ranks each take whole heads?"""
    return heads % group == 0 and (kv_heads % group == 0 or group % kv_heads == 0)


def heads_of(index: int, group: int, heads: int, kv_heads: int) -> tuple[Heads, Heads]:
    """The query heads, and the key and value heads, of one rank of a group."""
    size, kv_size = heads // group, max(1, kv_heads // group)
    first = index * kv_heads // group
    return (index * size, (index + 1) * size), (first, first + kv_size)


@dataclass(frozen=True)
class Exchange:
    """One rank's part in the trade inside its group, before and after the attention."""

    rank: int
    group: tuple[int, ...]
    shares: Sequence[Tokens]
    heads: int
    kv_heads: int

    def around(self, inner: Program, backward: bool, last: int) -> Program:
        """The program ``inner`` on gathered pieces, between the two exchanges."""
        before = [("do", 0)] if backward else [("q", 0), ("kv", 1)]
        kv = "dkv_part" if self.kv_heads % len(self.group) else "dkv_whole"
        after = [("dq_whole", 0), (kv, 1)] if backward else [("out", 0)]
        return (*self.gather(before), *inner, *self.scatter(after, last))

    def others(self) -> Iterator[tuple[int, int]]:
        """(the rank that gets from this one, the rank that gives to it), turned so that no rank is everybody's first."""
        size, index = len(self.group), self.group.index(self.rank)
        for offset in range(1, size):
            yield self.group[(index + offset) % size], self.group[(index - offset) % size]

    def heads_at(self, rank: int, family: int) -> Heads:
        return heads_of(self.group.index(rank), len(self.group), self.heads, self.kv_heads)[family]

    def gather(self, kinds: list[tuple[str, int]]) -> Iterator[Op]:
        """Tokens come, heads go."""

        def piece(kind: str, family: int, owner: int, to: int) -> Piece:
            return Piece(kind, self.shares[owner], self.heads_at(to, family))

        for to, source in self.others():
            for kind, family in kinds:
                if count(self.shares[source]):
                    yield Recv(0, piece(kind, family, source, self.rank), source, 0)
                if count(self.shares[self.rank]):
                    yield Send(0, piece(kind, family, self.rank, to), to, 0)
        for kind, family in kinds:
            parts = tuple(piece(kind, family, rank, self.rank) for rank in self.group if count(self.shares[rank]))
            tokens = joined(self.shares[rank] for rank in self.group)
            if parts:
                yield Gather(0, Piece(kind, tokens, self.heads_at(self.rank, family)), parts)

    def scatter(self, kinds: list[tuple[str, int]], step: int) -> Iterator[Op]:
        """Results of these heads go to the tokens' owners."""

        def piece(kind: str, family: int, owner: int, holder: int) -> Piece:
            return Piece(kind, self.shares[owner], self.heads_at(holder, family), holder)

        for to, source in self.others():
            for kind, family in kinds:
                if count(self.shares[self.rank]):
                    yield Recv(step, piece(kind, family, self.rank, source), source, 0)
                if count(self.shares[to]):
                    yield Send(step, piece(kind, family, to, self.rank), to, 0)
        if count(self.shares[self.rank]):
            for kind, family in kinds:
                yield Keep(step, piece(kind, family, self.rank, self.rank))
                for _, source in self.others():
                    yield Merge(step, piece(kind, family, self.rank, source))


def exchange_plan(
    shares: tuple[Tokens, ...],
    heads: int,
    kv_heads: int,
    causal: bool,
    group: int,
    grid: Callable[[list[int]], tuple[tuple[int, ...], ...]],
    chunks: int = 1,
) -> Plan:
    """A plan for groups of ``group`` neighbouring ranks; ``grid`` arranges the ranks that hold the same heads.

    Raises:
        BadInput: when the ranks don't divide into the groups, or the heads don't divide among a group.
    """
    check_heads(heads, kv_heads)
    degree = len(shares)
    if group < 1 or degree % group:
        raise BadInput(f"{degree} ranks don't divide into groups of {group}", "give a group size that divides them")
    if not fits(heads, kv_heads, group):
        what = f"{heads} query heads and {kv_heads} key and value heads don't divide among {group} ranks"
        able = [size for size in range(1, heads + 1) if fits(heads, kv_heads, size)]
        raise BadInput(what, f"groups of {', '.join(map(str, able))} would do; ring and tokenring take any heads")
    groups = [tuple(range(first, first + group)) for first in range(0, degree, group)]
    gathered = dict(enumerate(shares))
    if group > 1:
        gathered = {rank: joined(shares[member] for member in members) for members in groups for rank in members}
    travels = []
    for index in range(group):
        q_heads, k_heads = heads_of(index, group, heads, kv_heads)
        ranks = grid([members[index] for members in groups])
        travels.append(Travel(ranks, gathered, q_heads, k_heads, causal, chunks=chunks, first=1))
    programs: list[list[Program]] = [[], []]
    for rank in range(degree):
        travel = travels[rank % group]
        exchange = Exchange(rank, groups[rank // group], shares, heads, kv_heads)
        for backward in (False, True):
            inner = travel.program(rank, backward)
            whole = inner if group == 1 else exchange.around(inner, backward, 1 + travel.steps)
            programs[backward].append(whole)
    return Plan(shares, heads, kv_heads, causal, tuple(programs[0]), tuple(programs[1]))


def travel_plan(shares: tuple[Tokens, ...], heads: int, kv_heads: int, travel: Travel) -> Plan:
    """The plan of a grid of all ranks, each of which keeps all heads."""
    check_heads(heads, kv_heads)
    forward, backward = (tuple(travel.program(rank, backward) for rank in range(len(shares))) for backward in (False, True))
    return Plan(shares, heads, kv_heads, travel.causal, forward, backward)
