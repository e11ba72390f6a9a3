"""Carrying out one rank's program on real tensors, over any transport.

The run is a generator that pauses where it has to wait for a message that is not there: a transport between processes blocks
instead and never lets it pause; the one inside a process lets another rank go on meanwhile.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from . import layout
from .block import attend_block, block_gradients, merge_into, stand_in, wide
from .buffers import early, fields, pieces_of, slots
from .layout import Tokens, count, tiles
from .plan import KINDS, Account, Attend, Gather, Grad, Heads, Keep, Merge, Op, Piece, Program, Recv, Send, Sizes

Mode = Literal["whole", "compute", "messages"]
Timeline = list[tuple[Op, int, int]]
_places = lru_cache(maxsize=4096)(layout.places)
_tiles = lru_cache(maxsize=4096)(tiles)


@dataclass(eq=False)
class Message:
    """A send or a receive that was posted: its bytes must not be touched before it is done."""

    op: Send | Recv
    buffer: Tensor
    tag: int
    work: Any = None
    finished: bool = False


class Transport(Protocol):
    """How bytes cross. A program posts in order; messages of a pair of ranks and a channel have different tags.

    ``tagged`` says that tags tell messages apart, so that a receive may be posted long before its message, see `buffers.early`.
    """

    tagged: bool

    def post(self, message: Message) -> None:
        """Start a message, without waiting for anything."""

    def flush(self) -> None:
        """No further message belongs together with those that were posted: computation follows, or another step."""

    def done(self, message: Message) -> bool:
        """True when it is done; a transport between processes waits until it is."""


@dataclass(eq=False)
class Rows:
    """Tensors over the same tokens and heads: q, do, out, lse, delta, dq of queries; k, v, dk, dv of keys and values."""

    tokens: Tokens
    heads: Heads
    tensors: dict[str, Tensor] = field(default_factory=dict)

    def holds(self, piece: Piece) -> bool:
        """Are all of the piece's rows and heads among these?"""
        inside = self.heads[0] <= piece.heads[0] and piece.heads[1] <= self.heads[1]
        return inside and _places(self.tokens, piece.tokens) is not None

    def views(self, name: str, piece: Piece) -> list[Tensor]:
        """The piece's rows of one tensor, stretch by stretch."""
        heads = slice(piece.heads[0] - self.heads[0], piece.heads[1] - self.heads[0])
        places = _places(self.tokens, piece.tokens)
        assert places is not None, f"{piece} is not among {self.tokens}"
        return [self.tensors[name][:, heads, rows] for rows in places]

    def view(self, name: str, piece: Piece) -> Tensor:
        """The piece's rows of one tensor, which lie side by side."""
        (only,) = self.views(name, piece)
        return only

    def total(self, name: str, like: str) -> None:
        """Make sure that there is a wide sum to add to."""
        if name not in self.tensors:
            self.tensors[name] = torch.zeros_like(self.tensors[like], dtype=wide(self.tensors[like].dtype))

    def gradient_inputs(self) -> None:
        """delta from the output, or something that stands in for the output from delta, whichever is lacking."""
        have = self.tensors
        if "delta" not in have:
            have["delta"] = (have["do"].to(have["lse"].dtype) * have["out"].to(have["lse"].dtype)).sum(-1)
        if "out" not in have:
            have["out"] = stand_in(have["do"], have["delta"])


@dataclass(eq=False)
class State:
    """What a rank holds: its own rows, and those that it gathered, by family."""

    home: dict[str, Rows]
    gathered: dict[str, Rows] = field(default_factory=dict)

    def output(self) -> Tensor:
        """The output for this rank's own queries, in their dtype."""
        have = self.home["q"].tensors
        return have["out"].to(have["q"].dtype) if "out" in have else torch.zeros_like(have["q"])

    def copy(self) -> "State":
        """The same tensors, to be added to without touching this one."""

        def again(family: dict[str, Rows]) -> dict[str, Rows]:
            return {name: Rows(rows.tokens, rows.heads, dict(rows.tensors)) for name, rows in family.items()}

        return State(again(self.home), again(self.gathered))

    def keep(self, layout: list[tuple[str, Tokens, Heads, list[str]]], tensors: list[Tensor]) -> None:
        """Put back gathered rows: for each family its tokens, heads and tensors' names, and the tensors in that order."""
        rest = iter(tensors)
        for family, tokens, heads, names in layout:
            self.gathered[family] = Rows(tokens, heads, {name: next(rest) for name in names})

    def start_backward(self, do: Tensor) -> None:
        """Take the output's gradient; outputs go back to the inputs' dtype, in which delta is the public operator's."""
        for rows in (self.home["q"], *([self.gathered["q"]] if "q" in self.gathered else [])):
            if "out" in rows.tensors:
                rows.tensors["out"] = rows.tensors["out"].to(rows.tensors["q"].dtype)
        self.home["q"].tensors["do"] = do

    def gradient(self, name: str) -> Tensor:
        """The gradient of this rank's own q, k or v (``dq``, ``dk``, ``dv``), in its dtype."""
        have = self.home["q" if name == "dq" else "kv"].tensors
        like = have[name[1]]
        return have[name].to(like.dtype) if name in have else torch.zeros_like(like)


def rows_of(tokens: Tokens, sizes: Sizes, queries: Mapping[str, Tensor], keys: Mapping[str, Tensor]) -> State:
    """A rank's own rows, from its local tensors."""
    return State({"q": Rows(tokens, (0, sizes.heads), {**queries}), "kv": Rows(tokens, (0, sizes.kv_heads), {**keys})})


class Executor:
    """A rank's program with its buffers, to be run any number of times, one at a time.

    Attributes:
        account: what was truly sent, summed over all runs.
        buffers: the memory of the messages, laid out once.
    """

    def __init__(
        self,
        program: Program,
        rank: int,
        degree: int,
        sizes: Sizes,
        dtype: torch.dtype,
        device: torch.device,
        tag: Callable[[int, int, Piece], int],
        transport: Transport,
    ) -> None:
        program = early(program) if transport.tagged else program
        self.program, self.rank, self.sizes, self.transport, self.tag = program, rank, sizes, transport, tag
        self.account = Account(degree)
        self.slot, room = slots(program, sizes)
        # Zeros, so that a run without messages computes on numbers.
        self.buffers = [torch.zeros(size, dtype=torch.uint8, device=device) for size in room]
        self.fields = {piece: fields(self.buffers[slot], piece, sizes, dtype) for piece, slot in self.slot.items()}
        last: dict[tuple[str, Tokens, Heads, int], int] = {}
        for index, op in enumerate(program):
            last.update((_rows_key(piece), index) for piece in pieces_of(op))
        self.last_uses: dict[int, list[tuple[str, Tokens, Heads, int]]] = {}
        for key, index in last.items():
            self.last_uses.setdefault(index, []).append(key)

    def run(self, state: State, mode: Mode = "whole", timeline: Timeline | None = None) -> Iterator[None]:
        """Carry the program out on ``state``, which it changes.

        Args:
            mode: ``compute`` leaves the messages out and computes on what the buffers hold; ``messages`` sends the buffers as
                they are and computes nothing. Either is for timing only.
            timeline: gets (operation, start, end) in ns of the monotonic clock; on a GPU, of the moments of issue.
        """
        run = _Run(self, state, mode)
        step = 0
        passing = {KINDS[op.into.kind].family for op in self.program if isinstance(op, Gather) and not op.keep}
        for index, op in enumerate(self.program):
            start = time.perf_counter_ns() if timeline is not None else 0
            if op.step != step:
                self.transport.flush()
                step = op.step
            yield from run.do(op)
            for key in self.last_uses.get(index, ()):
                run.foreign.pop(key, None)  # its gradients may be as large as all messages
            if timeline is not None:
                timeline.append((op, start, time.perf_counter_ns()))
        yield from run.finish()
        for family in passing:
            state.gathered.pop(family, None)


def _rows_key(piece: Piece) -> tuple[str, Tokens, Heads, int]:
    return KINDS[piece.kind].family, piece.tokens, piece.heads, piece.round


def stretches(piece: Piece) -> list[Piece]:
    """The piece in parts that lie side by side wherever they are held."""
    return [replace(piece, tokens=(part,)) for part in piece.tokens]


class _Run:
    """One run: what has arrived, what is under way."""

    def __init__(self, executor: Executor, state: State, mode: Mode) -> None:
        self.executor, self.state, self.mode = executor, state, mode
        self.foreign: dict[tuple[str, Tokens, Heads, int], Rows] = {}
        self.coming: dict[Piece, Message] = {}
        self.packed: set[Piece] = set()
        self.under_way: dict[int, list[Message]] = {}

    def do(self, op: Op) -> Iterator[None]:
        if isinstance(op, Recv | Send):
            if self.mode != "compute":
                yield from self.receive(op) if isinstance(op, Recv) else self.send(op)
            elif isinstance(op, Recv):
                self.place(op.piece)
            return
        self.executor.transport.flush()
        if self.mode == "messages":
            return
        for piece in pieces_of(op):
            yield from self.arrived(piece)
        match op:
            case Attend():
                self.attend(op)
            case Grad():
                self.differentiate(op)
            case Merge():
                self.take(self.rows(op.piece, taking=True), op.piece, self.executor.fields[op.piece])
            case Keep():
                self.keep(op.piece)
            case Gather():
                self.gather(op)

    def finish(self) -> Iterator[None]:
        """Nothing is under way when a run ends, so that the buffers can be used again."""
        self.executor.transport.flush()
        for slot in list(self.under_way):
            yield from self.free(slot)

    # Messages.

    def free(self, slot: int) -> Iterator[None]:
        for message in self.under_way.pop(slot, ()):
            yield from self.wait(message)

    def wait(self, message: Message) -> Iterator[None]:
        while not message.finished and not self.executor.transport.done(message):
            yield
        message.finished = True

    def arrived(self, piece: Piece) -> Iterator[None]:
        if piece in self.coming:
            yield from self.wait(self.coming.pop(piece))

    def place(self, piece: Piece) -> None:
        """What is received as an input stands beside this rank's own rows, as views of its buffer."""
        if not KINDS[piece.kind].result:
            self.foreign[_rows_key(piece)] = Rows(piece.tokens, piece.heads, dict(self.executor.fields[piece]))

    def receive(self, op: Recv) -> Iterator[None]:
        slot = self.executor.slot[op.piece]
        yield from self.free(slot)
        self.place(op.piece)
        self.packed.add(op.piece)
        tag = self.executor.tag(op.source, self.executor.rank, op.piece)
        self.coming[op.piece] = message = Message(op, self.executor.buffers[slot], tag)
        self.executor.transport.post(message)
        self.under_way.setdefault(slot, []).append(message)

    def send(self, op: Send) -> Iterator[None]:
        slot, rank = self.executor.slot[op.piece], self.executor.rank
        yield from self.arrived(op.piece)
        if op.piece not in self.packed:
            yield from self.free(slot)
            self.packed.add(op.piece)
            if self.mode == "whole":
                self.pack(op.piece)
        message = Message(op, self.executor.buffers[slot], self.executor.tag(rank, op.target, op.piece))
        self.executor.account.add(op.piece.kind, rank, op.target, message.buffer.numel())
        self.executor.transport.post(message)
        self.under_way.setdefault(slot, []).append(message)

    def pack(self, piece: Piece) -> None:
        rows = self.rows(piece)
        if piece.kind == "bundle":
            rows.gradient_inputs()
        for name, target in self.executor.fields[piece].items():
            self.total(rows, name)
            offset = 0
            for part in rows.views(name, piece):
                target[:, :, offset : offset + part.shape[2]].copy_(part)
                offset += part.shape[2]

    # Rows.

    def rows(self, piece: Piece, taking: bool = False) -> Rows:
        """Where a piece's rows are: among those that came from others, those gathered, or this rank's own.

        Results that are for home are made on gathered rows, and taken in by a rank's own.
        """
        kind = KINDS[piece.kind]
        gathered, home = self.state.gathered.get(kind.family), self.state.home[kind.family]
        if kind.home:
            return home if taking or gathered is None else gathered
        foreign = self.foreign.get(_rows_key(piece))
        return foreign or (gathered if gathered and gathered.holds(piece) else home)

    def total(self, rows: Rows, name: str) -> None:
        if name in ("dq", "dk", "dv"):
            rows.total(name, {"dq": "q", "dk": "k", "dv": "v"}[name])

    def take(self, rows: Rows, piece: Piece, found: Mapping[str, Tensor]) -> None:
        """A result into the rows that it belongs to."""
        if piece.kind == "o":
            self.merge(rows, piece, found["out"], found["lse"], own=False)
            return
        for name, part in found.items():
            self.total(rows, name)
            if name == "out" and name not in rows.tensors:
                rows.tensors[name] = torch.empty_like(rows.tensors["q"])
            offset = 0
            for target in rows.views(name, piece):
                source = part[:, :, offset : offset + target.shape[2]]
                if name == "out":
                    target.copy_(source)
                else:
                    target.add_(source)
                offset += target.shape[2]

    def merge(self, rows: Rows, piece: Piece, out: Tensor, lse: Tensor, own: bool = True) -> None:
        """A partial result into the running one, of which the first may be ``own``, that is, no view of a message."""
        have = rows.tensors
        if own and "out" not in have and piece.heads == rows.heads and piece.tokens == rows.tokens:
            have["out"], have["lse"] = out, lse
            return
        if "out" not in have:
            have["lse"] = lse.new_full(have["q"].shape[:3], -torch.inf)
            have["out"] = torch.zeros_like(have["q"], dtype=lse.dtype)
        have["out"] = have["out"].to(lse.dtype)
        merge_into(rows.view("out", piece), rows.view("lse", piece), out, lse)

    # Computation.

    def attend(self, op: Attend) -> None:
        q, kv = self.rows(op.q), self.rows(op.kv)
        block = attend_block(
            q.view("q", op.q), kv.view("k", op.kv), kv.view("v", op.kv), _tiles(op.q.tokens, op.kv.tokens, op.causal)
        )
        self.merge(q, op.q, *block)

    def differentiate(self, op: Grad) -> None:
        q, kv = self.rows(op.q), self.rows(op.kv)
        q.gradient_inputs()
        for rows, name in ((q, "dq"), (kv, "dk"), (kv, "dv")):
            self.total(rows, name)
        do, queries, out, lse, dq = (q.view(name, op.q) for name in ("do", "q", "out", "lse", "dq"))
        k, v, dk, dv = (kv.view(name, op.kv) for name in ("k", "v", "dk", "dv"))
        block_gradients(do, queries, k, v, out, lse, _tiles(op.q.tokens, op.kv.tokens, op.causal), (dq, dk, dv))

    def gather(self, op: Gather) -> None:
        family = KINDS[op.into.kind].family
        whole = self.state.gathered.get(family)
        if whole is None or whole.tokens != op.into.tokens:
            whole = Rows(op.into.tokens, op.into.heads)
        for name in (part.name for part in KINDS[op.into.kind].fields):
            sources = [(part, self.foreign.get(_rows_key(part), self.state.home[family])) for part in op.parts]
            some = sources[0][1].tensors[name]
            shape = (some.shape[0], op.into.heads[1] - op.into.heads[0], count(op.into.tokens), *some.shape[3:])
            whole.tensors[name] = some.new_empty(shape)
            for part, rows in sources:
                for stretch in stretches(part):
                    whole.view(name, stretch).copy_(rows.view(name, stretch))
        self.state.gathered[family] = whole
        for part in op.parts:
            self.foreign.pop(_rows_key(part), None)  # else a chunk that happens to be of the same tokens would be found there

    def keep(self, piece: Piece) -> None:
        family = KINDS[piece.kind].family
        gathered, home = self.state.gathered[family], self.state.home[family]
        names = [part.name for part in KINDS[piece.kind].fields]
        for name in names:
            self.total(gathered, name)
        for stretch in stretches(piece):
            self.take(home, stretch, {name: gathered.view(name, stretch) for name in names})
