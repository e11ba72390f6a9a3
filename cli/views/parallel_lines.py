"""What charts and time lines of a `ParallelRun` show, before anybody draws them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ...profilers.runs.parallel_run import Bar, MeasuredPoint, ModelledPoint, ParallelRun

Point = MeasuredPoint | ModelledPoint


def work_of(run: ParallelRun, point: Point) -> int:
    """What is the same along a line of the chart: tokens of the whole sequence, with weak scaling of each rank."""
    return point.seq_len // point.degree if run.scaling == "weak" else point.seq_len


def curves(run: ParallelRun, points: Sequence[Point]) -> Iterator[tuple[str, list[tuple[int, float]]]]:
    """(name, [(ranks, tokens/s)]) of every method and length. All begin at one process alone, which has no method."""
    each = " for each rank" if run.scaling == "weak" else ""
    for method in dict.fromkeys(p.method for p in points if p.degree > 1):
        for work in dict.fromkeys(work_of(run, p) for p in points):
            own = [p for p in points if work_of(run, p) == work and (p.method == method or p.degree == 1)]
            if any(p.tokens_per_s for p in own if p.degree > 1):
                yield f"{method}, {work} tokens{each}", [(p.degree, p.tokens_per_s) for p in own if p.tokens_per_s]


@dataclass(frozen=True, slots=True)
class Gantt:
    """The time line of one step of a method. ``scale``: ns per unit of the bars' times."""

    title: str
    bars: tuple[Bar, ...]
    scale: float

    @property
    def end_ns(self) -> float:
        """When its last bar ends."""
        return max(bar.end for bar in self.bars) * self.scale


def gantts(points: Sequence[Point]) -> list[Gantt]:
    """Time lines of every method at the longest sequence and the most ranks there, the fastest first."""
    shown = [p for p in points if p.degree > 1 and _bars(p)]
    most = max(((p.seq_len, p.degree) for p in shown), default=None)
    found = []
    for p in sorted((p for p in shown if (p.seq_len, p.degree) == most), key=_step):
        kind, scale = ("measured", 1.0) if isinstance(p, MeasuredPoint) else ("modelled", 1e9)
        found.append(Gantt(f"{kind}: one step of {p.method} on {p.degree} ranks, {p.seq_len} tokens", _bars(p), scale))
    return found


def _step(point: Point) -> float:
    if isinstance(point, ModelledPoint):
        return point.step_s
    return point.step_ns.value if point.step_ns else 0.0


def way(bar: Bar) -> str:
    """What a bar shows: "compute"; of messages "out" (queries, or keys and values) or "back" (results, gradients); else ""."""
    if bar.lane != "send":
        return "compute" if bar.lane == "compute" else ""
    return "back" if bar.label.split()[-1].startswith(("o", "dq", "dkv")) else "out"


def _bars(point: Point) -> tuple[Bar, ...]:
    return point.bars_ns if isinstance(point, MeasuredPoint) else point.bars_s
