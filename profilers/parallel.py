"""Inside a rank: sequence-parallel attention methods, timed against each other whole, computing only, and with messages only.

All methods of a job run in the same processes, in rounds of random order (the same on every rank), each behind a barrier; the
rank times its own part, and the slowest rank's is the round's. One process alone runs torch's own attention: what the
efficiency is measured against.
"""

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter_ns
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..models.strategies.execute import Mode, State
from ..models.strategies.layout import cut, positions
from ..models.strategies.shards import shard
from ..models.strategies.spread import Session, open_session
from .devices.base import Device, find
from .stats import median
from .timing import collector_off
from .workers import World

ALONE = "one process"
CHECKED_ROWS = 256
"""Queries per rank whose output is compared with attention in float64; all of them where there are no more."""
_WARM_CALLS, _MIN_ROUNDS, _MAX_ROUNDS = 3, 16, 400
MODES: tuple[Mode, ...] = ("whole", "compute", "messages")


@dataclass(frozen=True, slots=True)
class Method:
    """A method with its layout and options; ``label`` is what the user sees."""

    name: str
    layout: str = "contiguous"
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def label(self) -> str:
        """``ring``, ``ring zigzag``, ``tokenring chunks=4``."""
        layout = "" if self.layout == "contiguous" else f" {self.layout}"
        return self.name.replace("_", "-") + layout + "".join(f" {name}={value}" for name, value in self.options)


@dataclass(frozen=True, slots=True)
class AttentionJob:
    """What is measured at one degree; travels to the ranks. ``lengths`` are the tokens of each rank."""

    methods: tuple[Method, ...]
    lengths: tuple[int, ...]
    batch: int = 1
    heads: int = 8
    kv_heads: int = 8
    head_dim: int = 64
    dtype: str = "float32"
    causal: bool = False
    backward: bool = False
    seconds: float = 4.0
    rounds: int | None = None
    seed: int = 0


@dataclass(slots=True)
class MethodTimes:
    """What one rank found out about one method.

    Attributes:
        samples_ns: by mode, this rank's own time of every round.
        sent: bytes that this rank truly sent in one pass, by target.
        max_error: largest absolute difference from float64 attention, over `CHECKED_ROWS` rows.
        working_bytes: peak memory of a call beyond its inputs; None where nobody counts it.
        timeline: (operation, kind of piece, start, end) in ns from the barrier, of one call.
    """

    samples_ns: dict[str, list[float]] = field(default_factory=lambda: {mode: [] for mode in MODES})
    sent: Counter[int] = field(default_factory=Counter)
    max_error: float = 0.0
    working_bytes: int | None = None
    timeline: tuple[tuple[str, str, int, int], ...] = ()


class Work:
    """One method on one rank's shard, as calls.

    Args:
        session: None for one process alone.
    """

    def __init__(self, job: AttentionJob, session: Session | None, shards: Sequence[Tensor]) -> None:
        self.job, self.session = job, session
        self.q, self.k, self.v, self.do = shards
        self.out = self.q

    def call(self, mode: Mode = "whole", timeline: Any = None) -> None:
        """One pass forward, and backward where the job asks for it."""
        if self.session is None:
            self._alone()
            return
        state = self.session.state(self.q, self.k, self.v)
        self.session.run(state, mode=mode, timeline=timeline)
        if mode == "whole":
            self.out = state.output()
        if self.job.backward:
            again = self._resumed(state)
            self.session.run(again, backward=True, mode=mode, timeline=timeline)

    def _alone(self) -> None:
        gqa = self.job.heads != self.job.kv_heads
        with torch.set_grad_enabled(self.job.backward):
            q, k, v = (tensor.detach().requires_grad_(self.job.backward) for tensor in (self.q, self.k, self.v))
            out = F.scaled_dot_product_attention(q, k, v, is_causal=self.job.causal, enable_gqa=gqa)
            if self.job.backward:
                out.backward(self.do)
        self.out = out.detach()

    def _resumed(self, state: State) -> State:
        """The state before the backward pass, as autograd would keep it."""
        assert self.session is not None
        again = self.session.state(self.q, self.k, self.v)
        have = state.home["q"].tensors
        if "lse" in have:
            again.home["q"].tensors.update(out=state.output(), lse=have["lse"])
        kept = [(family, rows.tokens, rows.heads, list(rows.tensors)) for family, rows in state.gathered.items()]
        again.keep(kept, [tensor for rows in state.gathered.values() for tensor in rows.tensors.values()])
        again.start_backward(self.do)
        return again


def time_methods(world: World, job: AttentionJob) -> dict[str, MethodTimes]:
    """One rank's part: build every method's session, warm up, take turns, then look at memory, errors and a time line."""
    device = find(world.device)
    world.beat("making the inputs")
    whole = _inputs(job, world.device)
    works = {method.label: _work(world, job, method, whole) for method in job.methods}
    if world.degree == 1:
        works = {ALONE: Work(job, None, whole)}
    found = {label: MethodTimes() for label in works}
    turns = [(label, mode) for label in works for mode in (MODES if world.degree > 1 else MODES[:1])]
    usual = {turn: _warm_up(world, device, works[turn[0]], turn) for turn in turns}
    rounds = job.rounds or min(_MAX_ROUNDS, max(_MIN_ROUNDS, round(job.seconds * 1e9 * len(works) / sum(usual.values()))))
    draw = random.Random(job.seed)
    with collector_off():
        for number in range(rounds):
            for label, mode in draw.sample(turns, len(turns)):
                world.beat(f"{label}, {mode}, round {number + 1} of {rounds}")
                world.barrier()
                found[label].samples_ns[mode].append(device.time_ns(_bound(works[label], mode)))
    for label, work in works.items():
        _look_closer(world, job, device, work, whole, found[label])
    return found


def _bound(work: Work, mode: Mode) -> Callable[[], None]:
    return lambda: work.call(mode)


def _inputs(job: AttentionJob, device: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Whole q, k, v and the gradient of the output, the same on every rank: (B, H or G, S, D)."""
    generator = torch.Generator().manual_seed(job.seed)

    def draw(heads: int) -> Tensor:
        shape = (job.batch, heads, sum(job.lengths), job.head_dim)
        return torch.randn(shape, generator=generator).to(device, getattr(torch, job.dtype))

    return draw(job.heads), draw(job.kv_heads), draw(job.kv_heads), draw(job.heads)


def _work(world: World, job: AttentionJob, method: Method, whole: Sequence[Tensor]) -> Work:
    if world.degree == 1:
        return Work(job, None, whole)
    share = cut(method.layout, job.lengths)[world.rank]
    q, k, v, do = (shard(tensor, share).contiguous() for tensor in whole)
    session = open_session(q, k, v, method.name, world.group, job.causal, method.layout, job.lengths, dict(method.options))
    return Work(job, session, (q, k, v, do))


def _warm_up(world: World, device: Device, work: Work, turn: tuple[str, Mode]) -> float:
    """The usual time of a turn in ns, of the slowest rank."""
    times = []
    for number in range(_WARM_CALLS):
        world.beat(f"{turn[0]}, {turn[1]}, warm-up {number + 1}")
        begin = perf_counter_ns()
        work.call(turn[1])
        device.synchronise()
        times.append(world.slowest(perf_counter_ns() - begin))
    return median(times[1:])


def _look_closer(
    world: World, job: AttentionJob, device: Device, work: Work, whole: Sequence[Tensor], found: MethodTimes
) -> None:
    """Bytes truly sent, the error, peak memory and the time line, each from a call of its own."""
    label = work.session.plan.degree if work.session else 1
    world.beat(f"a look at memory and messages, degree {label}")
    before = _sent(work)
    world.barrier()
    work.call()
    found.sent = Counter({target: size - before[target] for target, size in _sent(work).items()})
    world.beat("the error")
    found.max_error = _error(world, job, work, whole)
    world.beat("a time line")
    line: list[Any] = []
    world.barrier()
    start = perf_counter_ns()
    work.call(timeline=line)
    found.timeline = tuple((type(op).__name__.lower(), _kind(op), begin - start, end - start) for op, begin, end in line)
    world.prepare("peak memory")  # torch's profiler counts it, whose first use imports much
    world.barrier()
    found.working_bytes = device.memory(work.call, 0).working_bytes


def _kind(op: Any) -> str:
    piece = getattr(op, "piece", None) or getattr(op, "q", None) or op.into
    return str(piece.kind)


def _sent(work: Work) -> Mapping[int, int]:
    """Bytes by target since the session began."""
    total: Counter[int] = Counter()
    if work.session is not None:
        for executor in (work.session.forward, work.session.backward):
            for (_, target), size in executor.account.links.items():
                total[target] += size
    return total


def _error(world: World, job: AttentionJob, work: Work, whole: Sequence[Tensor]) -> float:
    """The largest difference from attention in float64 over some of this rank's rows."""
    if work.session is None:
        places = torch.arange(sum(job.lengths))
    else:
        places = torch.tensor(list(positions(work.session.plan.shares[world.rank])), dtype=torch.int64)
    if not len(places):
        return 0.0
    rows = torch.linspace(0, len(places) - 1, min(len(places), CHECKED_ROWS)).long()
    q, k, v = (tensor.to("cpu", torch.float64) for tensor in whole[:3])
    seen = (torch.arange(k.shape[2]) <= places[rows].unsqueeze(1)) if job.causal else None
    exact = F.scaled_dot_product_attention(q[:, :, places[rows]], k, v, attn_mask=seen, enable_gqa=job.heads != job.kv_heads)
    return float((work.out[:, :, rows.to(work.out.device)].to("cpu", torch.float64) - exact).abs().max())
