"""Programs in which pieces travel: keys and values along the columns of a grid of ranks, queries along its rows.

Both families of ring are the two ends of one scheme. On a grid of N x 1 only keys and values move, from rank to rank, and
every rank collects the results of its own queries: ring attention (Liu et al., arXiv 2310.01889). On 1 x N only queries
move, and each partial result is returned straight to the queries' owner: TokenRing (Wang et al., arXiv 2412.20501). On
nodes x local ranks keys and values cross between nodes while queries and results stay inside. No torch.

A piece goes no further than the last rank that needs it. With a causal mask that depends on the way round, and the way with
the fewer bytes is taken; in a zigzag it leaves three quarters of the bytes, for either family.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import zip_longest

from .layout import Tokens, halves
from .plan import Attend, Grad, Heads, Merge, Op, Piece, Program, Recv, Send

__all__ = ["Travel", "sees"]


def sees(queries: Tokens, keys: Tokens, causal: bool) -> bool:
    """Does any of these queries see any of these keys?"""
    if not queries or not keys:
        return False
    return not causal or min(part.start for part in keys) <= max(part[-1] for part in queries)


@dataclass(frozen=True, eq=False)
class Travel:
    """The scheme for one grid of ranks that hold the same heads.

    Args:
        grid: ranks, by node and by place in the node. Keys and values go to the same place of another node.
        shares: the tokens of every rank.
        chunks: into how many pieces a rank's queries are cut, so that hop, computation and return overlap.
        late: results leave one step after they were computed, as in TokenRing's authors' code.
        ahead: if not 0, queries go straight from their owner to every holder, instead of from neighbour to neighbour, and
            leave this many steps before they are needed: so many messages share a mesh.
        both_ways: half of the keys and values goes round each way.
        first: the number of the first step.
    """

    grid: tuple[tuple[int, ...], ...]
    shares: Mapping[int, Tokens]
    q_heads: Heads
    kv_heads: Heads
    causal: bool
    chunks: int = 1
    late: bool = False
    ahead: int = 0
    both_ways: bool = False
    first: int = 0

    def __post_init__(self) -> None:
        # Asked for many times over with the same arguments while the programs of all ranks are written.
        for name in ("kv_pieces", "kv_hops", "held", "q_hops"):
            object.__setattr__(self, name, cache(getattr(self, name)))

    @property
    def nodes(self) -> int:
        """Hops of keys and values, and one."""
        return len(self.grid)

    @property
    def local(self) -> int:
        """Hops of queries, and one."""
        return len(self.grid[0])

    @property
    def steps(self) -> int:
        """Step numbers that a program uses."""
        return self.nodes * (self.local + 1) + 1

    # Keys and values: (tokens, way) pieces of an owner; at hop t they are t nodes along their way.

    def kv_pieces(self, node: int, place: int, way: int = 0) -> tuple[tuple[Tokens, int], ...]:
        """What an owner sends round, each with its way (+1 or -1)."""
        share = self.shares[self.grid[node][place]]
        if self.both_ways:
            parts = halves(share, 2)
            return tuple((part, (1, -1)[(index + node) % 2]) for index, part in enumerate(parts))
        return tuple(((part,), way or self.kv_way) for part in share)

    def kv_hops(self, node: int, tokens: Tokens, way: int) -> tuple[int, ...]:
        """The hops at which a node needs a piece of an owner in ``node``."""
        return tuple(
            hop
            for hop in range(1, self.nodes)
            if any(sees(self.shares[rank], tokens, self.causal) for rank in self.grid[(node + way * hop) % self.nodes])
        )

    @cached_property
    def kv_way(self) -> int:
        """The way round on which keys and values have fewer hops to go."""

        def hops(way: int) -> int:
            owners = [(node, place) for node in range(self.nodes) for place in range(self.local)]
            pieces = [(node, tokens) for node, place in owners for tokens, _ in self.kv_pieces(node, place, way)]
            return sum(len(tokens[0]) * max(self.kv_hops(node, tokens, way), default=0) for node, tokens in pieces)

        return min((1, -1), key=hops)

    def held(self, node: int, place: int, hop: int) -> tuple[tuple[Tokens, int, tuple[int, ...]], ...]:
        """Foreign keys and values here at a hop: tokens, the owner's node, and the hops at which somebody needs them."""
        found = []
        for way in (1, -1):
            owner = (node - way * hop) % self.nodes
            for tokens, its_way in self.kv_pieces(owner, place):
                hops = self.kv_hops(owner, tokens, its_way)
                if its_way == way and hops and hop <= hops[-1]:
                    found.append((tokens, owner, hops))
        return tuple(found)

    def keys_at(self, node: int, place: int, hop: int) -> tuple[Tokens, ...]:
        """The tokens of the pieces of keys and values that a rank can attend to at a hop."""
        if hop:
            return tuple(tokens for tokens, _, _ in self.held(node, place, hop))
        share = self.shares[self.grid[node][place]]
        return (share,) if share else ()

    # Queries: chunks of an owner; at hop s they are s places along the row.

    def q_hops(self, node: int, place: int, tokens: Tokens, hop: int, way: int) -> tuple[int, ...]:
        """The hops at which a chunk meets keys that it sees, while keys and values are at their own ``hop``."""
        return tuple(
            s
            for s in range(1, self.local)
            if any(sees(tokens, keys, self.causal) for keys in self.keys_at(node, (place + way * s) % self.local, hop))
        )

    def chunked(self, node: int, place: int) -> tuple[Tokens, ...]:
        """The chunks of an owner's queries."""
        share = self.shares[self.grid[node][place]]
        return halves(share, max(1, self.chunks // max(1, len(share))))

    @cached_property
    def q_way(self) -> int:
        """The way round on which queries have fewer hops to go."""

        def hops(way: int) -> int:
            return sum(
                len(tokens[0]) * max(self.q_hops(node, place, tokens, hop, way), default=0)
                for node in range(self.nodes)
                for place in range(self.local)
                for tokens in self.chunked(node, place)
                for hop in range(self.nodes)
            )

        return min((1, -1), key=hops)

    def program(self, rank: int, backward: bool = False) -> Program:
        """One rank's operations."""
        node, place = next((m, row.index(rank)) for m, row in enumerate(self.grid) if rank in row)
        return tuple(_Rank(self, node, place, backward).operations())


class _Rank:
    """Writes the program of one rank."""

    def __init__(self, travel: Travel, node: int, place: int, backward: bool) -> None:
        self.travel, self.node, self.place, self.backward = travel, node, place, backward
        self.rank = travel.grid[node][place]
        self.compute = Grad if backward else Attend
        self.q_kind, self.result_kind = ("bundle", "dq") if backward else ("q", "o")
        # Queries out, results back, keys and values out, their gradients back: only a grid that is no line has all four.
        self.kv_channel = 0 if travel.local == 1 else 2

    def operations(self) -> Iterator[Op]:
        travel = self.travel
        for hop in range(travel.nodes):
            step = travel.first + hop * (travel.local + 1)
            yield from self.move_keys(hop, step)
            for s in range(travel.local):
                yield from self.meet(hop, s, step + s)
            if travel.local > 1:
                yield from self.last_results(hop, step + travel.local)
            if self.backward and hop:
                yield from self.move_gradients(hop, step + travel.local)
        if self.backward:
            yield from self.own_gradients(travel.first + travel.steps - 1)

    # Keys and values, along the column.

    def kv(self, tokens: Tokens) -> Piece:
        return Piece("kv", tokens, self.travel.kv_heads)

    def column(self, node: int) -> int:
        return self.travel.grid[node % self.travel.nodes][self.place]

    def move_keys(self, hop: int, step: int) -> Iterator[Op]:
        travel, node, place = self.travel, self.node, self.place
        if hop + 1 < travel.nodes:
            for tokens, owner, _ in travel.held(node, place, hop + 1):
                way = self.way(owner, tokens)
                yield Recv(step, self.kv(tokens), self.column(node - way), self.channel(way))
        here = travel.held(node, place, hop) if hop else self.own_kv()
        for tokens, owner, hops in here:
            if hops and hops[-1] > hop:
                way = self.way(owner, tokens)
                yield Send(step, self.kv(tokens), self.column(node + way), self.channel(way))

    def own_kv(self) -> tuple[tuple[Tokens, int, tuple[int, ...]], ...]:
        pieces = self.travel.kv_pieces(self.node, self.place)
        return tuple((tokens, self.node, self.travel.kv_hops(self.node, tokens, way)) for tokens, way in pieces)

    def way(self, owner: int, tokens: Tokens) -> int:
        return dict(self.travel.kv_pieces(owner, self.place))[tokens]

    def channel(self, way: int, gradient: bool = False) -> int:
        """Each way its own channel where there are two ways, else each kind of message."""
        return self.kv_channel + ((way < 0) != gradient if self.travel.both_ways else gradient)

    def gradient(self, tokens: Tokens, holder: int) -> Piece:
        return Piece("dkv", tokens, self.travel.kv_heads, holder)

    def move_gradients(self, hop: int, step: int) -> Iterator[Op]:
        """The sum so far, and this rank's part, to the next rank that has a part, or home."""
        travel, node = self.travel, self.node
        parts = [(tokens, owner, hops, self.way(owner, tokens)) for tokens, owner, hops in travel.held(node, self.place, hop)]
        parts = [part for part in parts if hop in part[2]]
        for tokens, owner, hops, way in parts:
            if hop != hops[0]:
                yield Merge(step, self.gradient(tokens, self.column(owner + way * hops[hops.index(hop) - 1])))
        # What the others send at the end of this same hop: sums to go on with, and finished ones.
        for later in range(hop + 1, travel.nodes):
            for tokens, owner, hops in travel.held(node, self.place, later):
                if hop in hops and later in hops and hops.index(later) == hops.index(hop) + 1:
                    yield self.gradient_from(tokens, owner, self.way(owner, tokens), hop, step)
        for tokens, way in travel.kv_pieces(node, self.place):
            if hop in travel.kv_hops(node, tokens, way)[-1:]:
                yield self.gradient_from(tokens, node, way, hop, step)
        for tokens, owner, hops, way in parts:
            following = hops[hops.index(hop) + 1 :]
            to = self.column(owner + way * following[0]) if following else self.column(owner)
            yield Send(step, self.gradient(tokens, self.rank), to, self.channel(way, gradient=True))

    def gradient_from(self, tokens: Tokens, owner: int, way: int, hop: int, step: int) -> Recv:
        """The receive of a sum from the rank that adds its part at a hop."""
        holder = self.column(owner + way * hop)
        return Recv(step, self.gradient(tokens, holder), holder, self.channel(way, gradient=True))

    def own_gradients(self, step: int) -> Iterator[Op]:
        for tokens, way in self.travel.kv_pieces(self.node, self.place):
            hops = self.travel.kv_hops(self.node, tokens, way)
            if hops:
                yield Merge(step, self.gradient(tokens, self.column(self.node + way * hops[-1])))

    # Queries, along the row.

    def q(self, tokens: Tokens, hop: int) -> Piece:
        return Piece(self.q_kind, tokens, self.travel.q_heads, round=hop)

    def result(self, tokens: Tokens, holder: int, hop: int) -> Piece:
        return Piece(self.result_kind, tokens, self.travel.q_heads, holder, hop)

    def row(self, place: int) -> int:
        return self.travel.grid[self.node][place % self.travel.local]

    def chunks(self, s: int, hop: int) -> list[tuple[Tokens, tuple[int, ...]]]:
        """The chunks that stand s places from their owner when they are here, and the hops at which they are needed."""
        travel = self.travel
        owner = (self.place - travel.q_way * s) % travel.local
        return [
            (tokens, travel.q_hops(self.node, owner, tokens, hop, travel.q_way)) for tokens in travel.chunked(self.node, owner)
        ]

    def meet(self, hop: int, s: int, step: int) -> Iterator[Op]:
        """Everything of one step: chunk by chunk post the hop, compute, return.

        Receives stand beside the sends of the same hop, which every rank makes at this point: a backend that carries out
        its messages in order, such as NCCL, would wait for ever where a receive stood before an unrelated send.
        """
        travel = self.travel
        moves = self.moves(hop, s, step)
        if s == 0 or travel.late:
            yield from (op for move in moves for op in move)
            moves = []
        if s == 0:
            for keys in travel.keys_at(self.node, self.place, hop):
                share = tuple(part for part in travel.shares[self.rank] if sees((part,), keys, travel.causal))
                if share:
                    yield self.compute(step, Piece("q", share, travel.q_heads), self.kv(keys), travel.causal)
            return
        work = [list(self.work(tokens, hop, step)) if s in hops else [] for tokens, hops in self.chunks(s, hop)]
        merges = self.arrivals(hop, s - self.lag, step)
        if travel.late:
            for ops in (*self.returns(hop, s - 1, step), *work, *merges):
                yield from ops
            return
        for together in zip_longest(moves, work, self.returns(hop, s, step), merges, fillvalue=()):
            yield from (op for ops in together for op in ops)

    @property
    def lag(self) -> int:
        """Steps between a result's computation and its being needed by its owner."""
        return max(1, self.travel.ahead)

    def work(self, tokens: Tokens, hop: int, step: int) -> Iterator[Op]:
        for keys in self.travel.keys_at(self.node, self.place, hop):
            if sees(tokens, keys, self.travel.causal):
                yield self.compute(step, self.q(tokens, hop), self.kv(keys), self.travel.causal)

    def moves(self, hop: int, s: int, step: int) -> list[list[Op]]:
        """Chunk by chunk, the receive of a query chunk for a step to come and the send of one."""
        travel, found = self.travel, []
        if travel.ahead:
            for far in range(1, travel.ahead + 1) if s == 0 else (s + travel.ahead,):
                away = travel.q_way * far
                come = [self.come(t, hop, step, -away) if far in hops else None for t, hops in self.chunks(far, hop)]
                go = [self.go(t, hop, step, away) if far in hops else None for t, hops in self.chunks(0, hop)]
                found += _side_by_side(come, go)
            return found
        come = [
            self.come(t, hop, step, -travel.q_way) if hops and hops[-1] > s else None
            for t, hops in (self.chunks(s + 1, hop) if s + 1 < travel.local else ())
        ]
        go = [self.go(t, hop, step, travel.q_way) if hops and hops[-1] > s else None for t, hops in self.chunks(s, hop)]
        return _side_by_side(come, go)

    def come(self, tokens: Tokens, hop: int, step: int, away: int) -> Recv:
        return Recv(step, self.q(tokens, hop), self.row(self.place + away), 0)

    def go(self, tokens: Tokens, hop: int, step: int, away: int) -> Send:
        return Send(step, self.q(tokens, hop), self.row(self.place + away), 0)

    def returns(self, hop: int, s: int, step: int) -> list[list[Op]]:
        """Chunk by chunk, the send of the result of hop ``s`` to the queries' owner and the receive of one's own."""
        if not s:
            return []
        away = self.travel.q_way * s
        go: list[Op | None] = [
            Send(step, self.result(t, self.rank, hop), self.row(self.place - away), 1) if s in hops else None
            for t, hops in self.chunks(s, hop)
        ]
        holder = self.row(self.place + away)
        come: list[Op | None] = [
            Recv(step, self.result(t, holder, hop), holder, 1) if s in hops else None for t, hops in self.chunks(0, hop)
        ]
        return _side_by_side(come, go)

    def arrivals(self, hop: int, s: int, step: int) -> list[list[Op]]:
        """Chunk by chunk, the merging of the results of hop ``s``."""
        if s < 1:
            return []
        holder = self.row(self.place + self.travel.q_way * s)
        return [[Merge(step, self.result(t, holder, hop))] for t, hops in self.chunks(0, hop) if s in hops]

    def last_results(self, hop: int, step: int) -> Iterator[Op]:
        local = self.travel.local
        if self.travel.late:
            yield from (op for back in self.returns(hop, local - 1, step) for op in back)
        for s in range(max(1, local - self.lag), local):
            yield from (op for merge in self.arrivals(hop, s, step) for op in merge)


def _side_by_side(come: Sequence[Op | None], go: Sequence[Op | None]) -> list[list[Op]]:
    return [[op for op in both if op] for both in zip_longest(come, go)]
