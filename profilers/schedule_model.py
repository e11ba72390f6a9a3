"""From a plan of sequence-parallel attention to a modelled time: the same programs that a run executes, priced and simulated.

Each operation of a rank's program becomes what it costs on a machine of `links`: attention by its FLOPs at the rate that
kernels reach there, merging and packing by the bytes that they touch, messages by the simulation's shares of the links. Waits
and the reuse of buffers stand where the executor has them (`models.strategies.execute`). Everything here is modelled.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ..models.strategies.buffers import early, pieces_of, slots
from ..models.strategies.layout import count
from ..models.strategies.plan import Attend, Gather, Grad, Keep, Merge, Op, Piece, Plan, Program, Recv, Send, Sizes
from .links import Hardware
from .simulation import Compute, Post, Simulated, Step, Wait, simulate

_FORWARD_FLOPS, _BACKWARD_FLOPS = 4, 10
"""Per (query, key) pair and feature: two products of multiply-adds, and five in the backward pass."""


@dataclass(frozen=True, slots=True)
class Modelled:
    """One pass of a plan on a machine.

    Attributes:
        seconds: until the slowest rank is done.
        compute_s: of the rank that computes longest, with nothing else going on.
        messages_s: with messages only.
        spans: the time line, see `simulation.Span`.
    """

    seconds: float
    compute_s: float
    messages_s: float
    whole: Simulated

    @property
    def exposed_s(self) -> float:
        """Communication that computing does not hide."""
        return max(0.0, self.seconds - self.compute_s)

    @property
    def overlap(self) -> float:
        """The share of the messages' time that is hidden behind computing: 0 in sequence, 1 hidden whole."""
        hidden = self.compute_s + self.messages_s - self.seconds
        shorter = min(self.compute_s, self.messages_s)
        return min(1.0, max(0.0, hidden / shorter)) if shorter else 0.0


def model(plan: Plan, sizes: Sizes, hardware: Hardware, backward: bool = False) -> Modelled:
    """The time of the forward pass, or with ``backward`` of the backward pass alone."""
    programs = plan.backward if backward else plan.forward
    if hardware.tagged:
        programs = tuple(map(early, programs))

    def total(keep: Callable[[Step], bool]) -> Simulated:
        return simulate([[step for step in whole if keep(step)] for whole in priced], hardware)

    priced = [list(price(program, rank, sizes, hardware)) for rank, program in enumerate(programs)]
    return Modelled(
        seconds=(whole := total(lambda _: True)).seconds,
        compute_s=total(lambda step: isinstance(step, Compute)).seconds,
        messages_s=total(lambda step: not isinstance(step, Compute)).seconds,
        whole=whole,
    )


def price(program: Program, rank: int, sizes: Sizes, hardware: Hardware) -> Iterator[Step]:
    """One rank's program as what it costs and waits for, in order."""
    slot, _ = slots(program, sizes)
    coming: dict[Piece, tuple[object, ...]] = {}
    under_way: dict[int, list[tuple[object, ...]]] = {}
    packed: set[Piece] = set()

    def freed(piece: Piece) -> Iterator[Step]:
        yield from (Wait(key) for key in under_way.pop(slot[piece], ()))

    for op in program:
        if isinstance(op, Recv):
            yield from freed(op.piece)
            key = (op.piece.kind, op.source, rank, op.piece)
            coming[op.piece] = key
            packed.add(op.piece)
            under_way.setdefault(slot[op.piece], []).append(key)
            yield Post(key, op.source, op.piece.bytes(sizes), sends=False)
        elif isinstance(op, Send):
            if op.piece in coming:
                yield Wait(coming.pop(op.piece))
            if op.piece not in packed:
                yield from freed(op.piece)
                packed.add(op.piece)
                yield Compute("pack", 2 * op.piece.bytes(sizes) / hardware.memory_bytes_per_s)
            key = (op.piece.kind, rank, op.target, op.piece)
            under_way.setdefault(slot[op.piece], []).append(key)
            yield Post(key, op.target, op.piece.bytes(sizes), sends=True)
        else:
            yield from (Wait(coming.pop(piece)) for piece in pieces_of(op) if piece in coming)
            yield Compute(_label(op), _seconds(op, sizes, hardware))
    for keys in under_way.values():
        yield from (Wait(key) for key in keys)


def _label(op: Op) -> str:
    return type(op).__name__.lower()


def _seconds(op: Op, sizes: Sizes, hardware: Hardware) -> float:
    """Attention at the rate that kernels reach; everything else by the bytes that it reads and writes."""
    match op:
        case Attend() | Grad():
            heads = op.q.heads[1] - op.q.heads[0]
            factor = _FORWARD_FLOPS if isinstance(op, Attend) else _BACKWARD_FLOPS
            flops = factor * sizes.batch * heads * sizes.head_dim * op.pairs
            return flops / (hardware.flops_per_s * hardware.efficiency)
        case Merge():  # two results read, one written, wide
            rows = sizes.batch * (op.piece.heads[1] - op.piece.heads[0]) * count(op.piece.tokens)
            return 3 * rows * (sizes.head_dim + 1) * sizes.wide / hardware.memory_bytes_per_s
        case Gather():
            return 2 * op.into.bytes(sizes) / hardware.memory_bytes_per_s
        case Keep():
            return 2 * op.piece.bytes(sizes) / hardware.memory_bytes_per_s
    return 0.0
