"""What every rank does, as plain data: the programs that a run executes and that a cost model walks. No torch.

A method is a function from sizes to a `Plan`: for every rank a *program* for the forward pass and one for the backward, a
flat sequence of operations that are carried out in order. Sends and receives don't block; the first operation that needs a
piece waits for it. What crosses between ranks is a `Piece`, whose bytes follow from its kind, tokens and heads alone.

Letters: B batch, H query heads, G key and value heads, D head size, N ranks, S tokens of the whole sequence.
"""

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property

from ..errors import BadInput
from .layout import Tokens, count, tiles

Heads = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Strategy:
    """What a method of sequence-parallel attention is, for lists and help; the method's file holds its `plan`."""

    title: str
    summary: str
    source: str
    layouts: tuple[str, ...] = ("contiguous", "zigzag", "striped")
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Field:
    """One tensor of a message: (B, heads, tokens, D), or (B, heads, tokens) for a number per query.

    ``wide`` fields are in float32 (float64 for float64) whatever the inputs' dtype: sums and logarithms of sums lose too much
    in 16 bits.
    """

    name: str
    wide: bool = False
    per_row: bool = False


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of message: whose rows it speaks of (queries ``q`` or keys and values ``kv``), and what it carries, wide first.

    A ``result`` is taken in by a `Merge`; one that is for ``home`` goes to the rank's own rows, not to those it gathered.
    """

    family: str
    fields: tuple[Field, ...]
    result: bool = False
    home: bool = False


_LSE, _DELTA = Field("lse", wide=True, per_row=True), Field("delta", wide=True, per_row=True)
KINDS = {
    "q": Kind("q", (Field("q"),)),
    "kv": Kind("kv", (Field("k"), Field("v"))),
    # A partial result, to be merged; and one that is complete, to be put in its place.
    "o": Kind("q", (_LSE, Field("out")), result=True),
    "out": Kind("q", (Field("out"),), result=True, home=True),
    # What it takes to differentiate for foreign queries; delta, the sum over D of dO O, stands for the output: D times less.
    "bundle": Kind("q", (_LSE, _DELTA, Field("q"), Field("do"))),
    "do": Kind("q", (Field("do"),)),
    # Partial gradients, summed wide; and complete ones.
    "dq": Kind("q", (Field("dq", wide=True),), result=True),
    "dkv": Kind("kv", (Field("dk", wide=True), Field("dv", wide=True)), result=True),
    "dkv_part": Kind("kv", (Field("dk", wide=True), Field("dv", wide=True)), result=True, home=True),
    "dq_whole": Kind("q", (Field("dq"),), result=True, home=True),
    "dkv_whole": Kind("kv", (Field("dk"), Field("dv")), result=True, home=True),
}


@dataclass(frozen=True, slots=True)
class Sizes:
    """What a program needs to know of the tensors: B, H, G, D and the bytes of one element of the inputs."""

    batch: int
    heads: int
    kv_heads: int
    head_dim: int
    itemsize: int = 2

    @property
    def wide(self) -> int:
        """Bytes of one element of a wide field."""
        return max(4, self.itemsize)


@dataclass(frozen=True, slots=True)
class Piece:
    """Some rows of one kind: tokens (in the order of the sequence's stretches) of some heads, counted in the kind's own heads.

    ``holder`` is the rank that made a partial result; inputs are the same wherever they are, and have -1. ``round`` tells
    apart pieces that make the same journey again.
    """

    kind: str
    tokens: Tokens
    heads: Heads
    holder: int = -1
    round: int = 0

    def numel(self, sizes: Sizes) -> tuple[int, int]:
        """Elements of the message, those of the inputs' dtype and those that are wide."""
        rows = sizes.batch * (self.heads[1] - self.heads[0]) * count(self.tokens)
        narrow = wide = 0
        for part in KINDS[self.kind].fields:
            number = rows * (1 if part.per_row else sizes.head_dim)
            narrow, wide = narrow + number * (not part.wide), wide + number * part.wide
        return narrow, wide

    def bytes(self, sizes: Sizes) -> int:
        """Exact bytes of the message: there is no header."""
        narrow, wide = self.numel(sizes)
        return narrow * sizes.itemsize + wide * sizes.wide


@dataclass(frozen=True, slots=True)
class Recv:
    """Post a receive. Channels of different numbers can be under way at once; within one, order is kept."""

    step: int
    piece: Piece
    source: int
    channel: int


@dataclass(frozen=True, slots=True)
class Send:
    """Post a send of a piece that is here: received, gathered or made from this rank's own tensors."""

    step: int
    piece: Piece
    target: int
    channel: int


@dataclass(frozen=True, slots=True)
class _Block:
    """Queries against keys; ``pairs`` are the (query, key) pairs of a head that the mask leaves."""

    step: int
    q: Piece
    kv: Piece
    causal: bool

    @property
    def pairs(self) -> int:
        return sum(tile.pairs for tile in tiles(self.q.tokens, self.kv.tokens, self.causal))


class Attend(_Block):
    """Attention of a block, merged into the running result of its queries at this rank: 4 D FLOPs a pair."""

    __slots__ = ()


class Grad(_Block):
    """A block's gradients, added to those of its queries, keys and values at this rank: 10 D FLOPs a pair (five products)."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Merge:
    """Take a received result in: merge, add or put it where its rows are held."""

    step: int
    piece: Piece


@dataclass(frozen=True, slots=True)
class Gather:
    """Put pieces together, in the order of the sequence; ``keep`` it for the backward pass."""

    step: int
    into: Piece
    parts: tuple[Piece, ...]
    keep: bool = True


@dataclass(frozen=True, slots=True)
class Keep:
    """Take this rank's own part out of what was computed on gathered pieces: a message to oneself, without the message."""

    step: int
    piece: Piece


Op = Recv | Send | Attend | Grad | Merge | Gather | Keep
Program = tuple[Op, ...]


@dataclass
class Account:
    """Messages and bytes, from a plan or from a run: by (source, target) link and by kind."""

    degree: int
    links: Counter[tuple[int, int]] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    messages: Counter[tuple[int, int]] = field(default_factory=Counter)

    def add(self, kind: str, source: int, target: int, size: int) -> None:
        """Count one message."""
        self.links[source, target] += size
        self.kinds[kind] += size
        self.messages[source, target] += 1

    def __add__(self, other: "Account") -> "Account":
        both = (self.links + other.links, self.kinds + other.kinds, self.messages + other.messages)
        return Account(self.degree, *both)

    @property
    def egress(self) -> tuple[int, ...]:
        """Bytes that each rank sends."""
        return tuple(sum(size for (source, _), size in self.links.items() if source == rank) for rank in range(self.degree))

    @property
    def ingress(self) -> tuple[int, ...]:
        """Bytes that each rank receives."""
        return tuple(sum(size for (_, target), size in self.links.items() if target == rank) for rank in range(self.degree))

    @property
    def total(self) -> int:
        """All bytes that cross between ranks."""
        return sum(self.links.values())


@dataclass(frozen=True)
class Plan:
    """All ranks' programs of one method for one case, and the tokens that each rank holds."""

    shares: tuple[Tokens, ...]
    heads: int
    kv_heads: int
    causal: bool
    forward: tuple[Program, ...]
    backward: tuple[Program, ...]

    @property
    def degree(self) -> int:
        """Ranks."""
        return len(self.shares)

    def account(self, sizes: Sizes, backward: bool = False) -> Account:
        """The messages of the forward programs, or of the backward ones."""
        account = Account(self.degree)
        for rank, program in enumerate(self.backward if backward else self.forward):
            for op in program:
                if isinstance(op, Send):
                    account.add(op.piece.kind, rank, op.target, op.piece.bytes(sizes))
        return account

    def pairs(self, backward: bool = False) -> tuple[int, ...]:
        """(query, key) pairs that each rank computes, summed over heads."""
        return tuple(
            sum(op.pairs * (op.q.heads[1] - op.q.heads[0]) for op in program if isinstance(op, Attend | Grad))
            for program in (self.backward if backward else self.forward)
        )

    @cached_property
    def tags(self) -> dict[tuple[bool, int, int, Piece], int]:
        """A number for every message, by (backward, source, target, piece): unique among those from a source to a target.

        Raises:
            AssertionError: when a method sends the same piece twice over a link.
        """
        found: dict[tuple[bool, int, int, Piece], int] = {}
        for backward, programs in enumerate((self.forward, self.backward)):
            for rank, program in enumerate(programs):
                sent: Counter[int] = Counter()
                for op in program:
                    if isinstance(op, Send):
                        key = (bool(backward), rank, op.target, op.piece)
                        assert key not in found, f"sent twice: {op}"
                        found[key] = 2 * sent[op.target] + backward
                        sent[op.target] += 1
        return found


def divisors(number: int) -> list[int]:
    """The numbers that divide it, ascending."""
    return [small for small in range(1, number + 1) if number % small == 0]


def check_heads(heads: int, kv_heads: int) -> None:
    """Raise BadInput unless every key and value head serves the same number of query heads."""
    if kv_heads < 1 or heads < 1 or heads % kv_heads:
        raise BadInput(f"{heads} query heads can't share {kv_heads} key and value heads", "the second has to divide the first")
