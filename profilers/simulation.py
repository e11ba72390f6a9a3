"""A discrete-event simulation of ranks that compute and exchange messages: modelled times, never measured ones. No torch.

Each rank goes through its program in order. A transfer begins when both ends have posted it and the latency has passed, runs at
its fair share of the links (`links.share`), which changes whenever another begins or ends, and a rank that waits for it stands
still until its last byte is there.
"""

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..models.errors import BadInput
from .links import Hardware, share

Key = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Compute:
    """The rank is busy for so many seconds."""

    label: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Post:
    """One end of the transfer ``key``: from this rank to ``peer`` when it sends, from ``peer`` to this rank when not."""

    key: Key
    peer: int
    bytes: int
    sends: bool


@dataclass(frozen=True, slots=True)
class Wait:
    """Stand still until the transfer is complete."""

    key: Key


Step = Compute | Post | Wait


@dataclass(frozen=True, slots=True)
class Span:
    """A bar of the time line, in seconds from the start. ``kind`` is "compute", "transfer" or "wait"."""

    rank: int
    kind: str
    label: str
    start: float
    end: float
    peer: int | None = None


@dataclass(slots=True)
class _Transfer:
    source: int
    target: int
    left: float
    begin: float = math.inf
    ready: float = math.inf
    """When its first byte may move."""
    done: float = math.inf


@dataclass(frozen=True, slots=True)
class Simulated:
    """``ends`` are the ranks' times in seconds; the step takes the largest."""

    ends: tuple[float, ...]
    spans: tuple[Span, ...]

    @property
    def seconds(self) -> float:
        """When the last rank is done."""
        return max(self.ends)


def simulate(programs: Sequence[Sequence[Step]], hardware: Hardware) -> Simulated:
    """Run all ranks' programs on a machine.

    Raises:
        BadInput: when they deadlock: a rank waits for what nobody sends.
    """
    return _Run(programs, hardware).play()


class _Run:
    def __init__(self, programs: Sequence[Sequence[Step]], hardware: Hardware) -> None:
        self.programs, self.hardware = programs, hardware
        self.place = [0] * len(programs)
        self.clock = [0.0] * len(programs)
        self.transfers: dict[Key, _Transfer] = {}
        self.posted: dict[Key, float] = {}
        self.spans: list[Span] = []
        self.now = 0.0

    def play(self) -> Simulated:
        ready = [(0.0, rank) for rank in range(len(self.programs))]  # when a rank can go on
        waiting: dict[Key, list[tuple[int, float]]] = {}
        while True:
            while ready and ready[0][0] <= self.now:
                _, rank = heapq.heappop(ready)
                at, key = self._advance(rank)
                if key is not None:
                    waiting.setdefault(key, []).append((rank, at))
                elif at < math.inf:
                    heapq.heappush(ready, (at, rank))
            flows = [flow for flow in self.transfers.values() if flow.done == math.inf and flow.ready <= self.now]
            rates = share([self.hardware.limits(flow.source, flow.target, len(self.programs)) for flow in flows])
            ends = [self.now + flow.left / rate for flow, rate in zip(flows, rates, strict=True)]
            starts = [flow.ready for flow in self.transfers.values() if self.now < flow.ready < math.inf]
            following = min([*ends, *starts, *(at for at, _ in ready[:1])], default=math.inf)
            if following == math.inf:
                break
            for flow, rate, end in zip(flows, rates, ends, strict=True):
                flow.left -= rate * (following - self.now)
                if end <= following:
                    flow.done = following
            self.now = following
            for key in [key for key in waiting if self._done(key)]:
                for rank, since in waiting.pop(key):
                    if self.now > since:
                        self.spans.append(Span(rank, "wait", str(key[0]), since, self.now))
                    self.place[rank] += 1
                    heapq.heappush(ready, (self.now, rank))
        if waiting:
            key, ((rank, _), *_) = next(iter(waiting.items()))
            raise BadInput(f"rank {rank} waits for {key}, which is not sent", "the schedule has a fault")
        for key, flow in self.transfers.items():
            self.spans.append(Span(flow.source, "transfer", str(key[0]), flow.begin, flow.done, flow.target))
        return Simulated(tuple(self.clock), tuple(sorted(self.spans, key=lambda span: (span.start, span.rank))))

    def _done(self, key: Key) -> bool:
        flow = self.transfers.get(key)
        return flow is not None and flow.done <= self.now

    def _advance(self, rank: int) -> tuple[float, Key | None]:
        """Go on at the present moment: until when the rank is busy then, or for which transfer it waits."""
        program, launch = self.programs[rank], self.hardware.launch_s
        self.clock[rank] = self.now
        while self.place[rank] < len(program):
            step = program[self.place[rank]]
            if isinstance(step, Wait):
                if not self._done(step.key):
                    return self.now, step.key
                self.place[rank] += 1
                continue
            self.place[rank] += 1
            if isinstance(step, Compute):
                busy = step.seconds + launch
                self.spans.append(Span(rank, "compute", step.label, self.now, self.now + busy))
            else:
                busy = launch
                self._post(rank, step)
            if busy:
                self.clock[rank] = self.now + busy
                return self.now + busy, None
        return math.inf, None

    def _post(self, rank: int, step: Post) -> None:
        """The second end to be posted starts the transfer."""
        if step.key not in self.posted:
            self.posted[step.key] = self.now
            return
        source, target = (rank, step.peer) if step.sends else (step.peer, rank)
        begin = self.now
        self.transfers[step.key] = _Transfer(source, target, max(step.bytes, 1), begin, begin + self.hardware.latency_s)
