"""The record of one `mixbench scale`: what the table shows and what ``--json`` prints. No torch here.

Times are nanoseconds, rates samples per second. A step is one call of the model on every rank at once; its time is that of the
slowest rank, and every one is kept, in the order in which they were taken, processes one after the other. The schema beside
this file (``scale-1.schema.json``) is generated from these types; a change that a reader could notice raises ``SCHEMA``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from ...models.versions import versions
from ..machine import Machine
from ..stats import LEVEL, Estimate, estimate

SCHEMA = 1
_PART = 1 - (1 - LEVEL) / 2
"""Two intervals of this level hold both their quantities with probability ``LEVEL`` at least (Bonferroni)."""

Status = Literal["measured", "partial", "failed"]


@dataclass(frozen=True, slots=True)
class ScalePoint:
    """One degree: so many processes, each with its part of the batch.

    Attributes:
        status: "measured"; "partial" when it failed after some repeats; "failed" when nothing was measured.
        cause: why it failed, "" when it didn't.
        repeats: how often fresh processes were started for it, or in a joined world how often it had its turn.
        step_ns: median over rounds of the slowest rank's time.
        samples_per_s: global batch over the step's time.
        speed_up: throughput over that of degree 1, see `speed_up`. None without degree 1, and for oversubscribed points.
        efficiency: ``speed_up`` over ``degree``.
        oversubscribed: more processes than cores for them: it measures the scheduler, not scaling.
        rank_ns: median of each rank's own times. Training ranks wait for each other within a step, so theirs are alike.
        slowest_ns: every round's slowest time.
    """

    degree: int
    batch_per_rank: int
    global_batch: int
    status: Status
    cause: str
    repeats: int
    step_ns: Estimate | None
    samples_per_s: Estimate | None
    speed_up: Estimate | None
    efficiency: Estimate | None
    oversubscribed: bool
    rank_ns: tuple[float, ...]
    slowest_ns: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class ScaleRun:
    """One call of the command.

    Attributes:
        scaling: "strong": the global batch is the same at every degree; "weak": the batch of each rank is.
        asked: the degree that was asked for; the points may end before it, see ``notes``.
        kind: all points were measured, none is a model's.
        parallel: what the ranks do together.
        started_by: "mixbench", or who had started the world.
        inputs: of one rank at degree 1.
        partial: whether the sweep ended before its end, and ``cause`` what ended it; its points until then are kept.
    """

    model: str
    inputs: tuple[str, ...]
    dtype: str
    mode: str
    how: str
    scaling: Literal["strong", "weak"]
    parallel: str
    asked: int
    points: tuple[ScalePoint, ...]
    device: str
    backend: str
    threads_per_rank: int
    cores_per_rank: int
    started_by: str
    machine: Machine
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    kind: Literal["measured"] = "measured"
    partial: bool = False
    cause: str = ""
    command: str = "scale"
    schema: int = SCHEMA
    versions: dict[str, str] = field(default_factory=lambda: versions("mixbench", "torch"))


def rate(step: Estimate, global_batch: int) -> Estimate:
    """Samples per second from the time of a step: the slow end of the one is the fast end of the other."""
    low = None if step.high is None else global_batch * 1e9 / step.high
    high = None if step.low is None else global_batch * 1e9 / step.low
    return Estimate(global_batch * 1e9 / step.value, low, high, step.level, step.samples)


def speed_up(base_ns: Sequence[float], base_batch: int, ns: Sequence[float], batch: int) -> Estimate:
    """Throughput over that of the base, from the times of steps that were not taken in pairs.

    The interval is conservative: it reaches from the least rate over the largest to the largest over the least, of two
    intervals that hold both rates together with probability ``LEVEL``.
    """
    base, other = rate(estimate(base_ns, level=_PART), base_batch), rate(estimate(ns, level=_PART), batch)
    known = None not in (base.low, base.high, other.low, other.high)
    low = other.low / base.high if known and other.low and base.high else None
    high = other.high / base.low if known and other.high and base.low else None
    return Estimate(other.value / base.value, low, high, LEVEL, min(base.samples, other.samples))


def over(found: Estimate, degree: int) -> Estimate:
    """A speed-up as efficiency: what each of ``degree`` ranks contributes, 1 at best."""
    low, high = (None if end is None else end / degree for end in (found.low, found.high))
    return Estimate(found.value / degree, low, high, found.level, found.samples)
