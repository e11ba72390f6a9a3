"""The record of one `mixbench time`: what the table shows and what ``--json`` prints. No torch here.

Times are nanoseconds, memory bytes, rates per second; every sample is kept, in the order in which it was taken. The schema
beside this file (``time-1.schema.json``) is generated from these types; a change that a reader could notice raises ``SCHEMA``.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ...models.errors import CannotMeasure
from ..devices.base import Conditions, Memory
from ..machine import Machine
from ..stats import Estimate

if TYPE_CHECKING:
    from ..roofline import Roof
    from ..timing import Measurement, Timing

SCHEMA = 1
FLOOR = 0.02
"""A ratio closer to 1 than this is no difference that mixbench vouches for: two copies of one model differ by as much through
where their weights happen to lie in memory."""
FLOOR_NS = 1_000
"""Nor is one of fewer nanoseconds per call, whatever its share: about what the method itself adds."""

Verdict = Literal["faster", "slower", "same", "cannot tell"]


@dataclass(frozen=True, slots=True)
class Achieved:
    """What the computation reached, and what this machine could.

    Attributes:
        flops: of contractions per call, counted.
        moved_bytes: that one call has to move at least: weights and inputs read once, outputs written once. 0 for a training
            step, for which no such bound is stated.
        roof_flops_per_s, roof_bytes_per_s: measured here, see ``roof_source``; the bandwidth is the one for so many bytes, of
            which caches hold a part (`roofline.Roof.move_s`).
        share: the least possible time over the measured one.
        bound: which roof gives that time.
    """

    flops: int
    moved_bytes: int
    flops_per_s: float
    roof_flops_per_s: float
    roof_bytes_per_s: float
    roof_source: str
    share: float
    bound: Literal["compute", "memory"]


@dataclass(frozen=True, slots=True)
class TimedModel:
    """One model on one workload. Models with the same ``group`` were measured side by side.

    Attributes:
        runtime: "torch" or "onnxruntime".
        how: settings that change the time only: "compiled, channels last".
        cold_ns: the first call, apart; compilation is in it.
        latency_ns: the median of one call.
        p90_ns, p99_ns: None where fewer than ten samples lie beyond.
        samples_per_s, tokens_per_s: of calls issued on end; tokens are None for a model that takes none.
        energy_mj_per_call: None where there is no counter.
    """

    model: str
    workload: str
    inputs: tuple[str, ...]
    dtype: str
    mode: str
    runtime: str
    how: str
    group: int
    samples_per_call: int
    cold_ns: float
    warm_up_calls: int
    steady: bool
    latency_ns: Estimate | None
    p90_ns: Estimate | None
    p99_ns: Estimate | None
    iqr_ns: float | None
    samples_per_s: Estimate | None
    tokens_per_s: Estimate | None
    memory: Memory | None
    achieved: Achieved | None
    energy_mj_per_call: float | None
    notes: tuple[str, ...]
    samples_ns: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """A model beside the first of its group. ``ratio`` is its time over the first's, from samples taken in pairs."""

    model: str
    base: str
    group: int
    ratio: Estimate
    verdict: Verdict
    sentence: str


@dataclass(frozen=True, slots=True)
class TimeRun:
    """One call of the command. ``partial`` says that it was stopped before its end."""

    models: tuple[TimedModel, ...]
    comparisons: tuple[Comparison, ...]
    machine: Machine
    overhead_ns: float
    before: Conditions
    after: Conditions
    warnings: tuple[str, ...]
    partial: bool
    command: str = "time"
    schema: int = SCHEMA


def timed_model(timing: "Timing", group: int, memory: Memory | None, achieved: Achieved | None) -> TimedModel:
    """The record of one timing."""
    from ..stats import quantile

    subject, ordered = timing.subject, sorted(timing.samples)
    calls = timing.throughput
    return TimedModel(
        model=subject.name,
        workload=subject.workload,
        inputs=subject.inputs,
        dtype=subject.dtype,
        mode="train" if subject.grad else "eval",
        runtime=subject.runtime,
        how=subject.how,
        group=group,
        samples_per_call=subject.samples,
        cold_ns=timing.cold_ns,
        warm_up_calls=len(timing.warm_up),
        steady=timing.steady,
        latency_ns=timing.latency if ordered else None,
        p90_ns=timing.percentile(0.9) if ordered else None,
        p99_ns=timing.percentile(0.99) if ordered else None,
        iqr_ns=quantile(ordered, 0.75) - quantile(ordered, 0.25) if ordered else None,
        samples_per_s=_scaled(calls, subject.samples) if calls else None,
        tokens_per_s=_scaled(calls, subject.tokens) if calls and subject.tokens else None,
        memory=memory,
        achieved=achieved,
        energy_mj_per_call=timing.energy_mj,
        notes=subject.notes,
        samples_ns=tuple(timing.samples),
    )


def _scaled(found: Estimate, factor: float) -> Estimate:
    low, high = (None if end is None else end * factor for end in (found.low, found.high))
    return Estimate(found.value * factor, low, high, found.level, found.samples)


def achieved(timing: "Timing", flops: int, read_bytes: int, written_bytes: int, roof: "Roof") -> Achieved:
    """What a timing reached of the machine's roof, as `mixbench roofline` has it: its compulsory floor.

    Raises:
        CannotMeasure: without samples.
    """
    if not timing.samples:
        raise CannotMeasure(f"there is no time of {timing.subject.name} yet", "let it run longer")
    seconds = timing.latency.value / 1e9
    compute, memory = roof.compute_s(flops), roof.move_s(read_bytes, written_bytes)
    moved = read_bytes + written_bytes
    return Achieved(
        flops=flops,
        moved_bytes=moved,
        flops_per_s=flops / seconds,
        roof_flops_per_s=roof.flops_per_s,
        roof_bytes_per_s=moved / memory if moved else roof.memory_bytes_per_s,
        roof_source=roof.source,
        share=max(compute, memory) / seconds,
        bound="compute" if compute >= memory else "memory",
    )


def comparisons(found: "Measurement", group: int) -> tuple[Comparison, ...]:
    """Every model of a measurement beside its first."""
    first, *others = found.timings
    made = []
    for index, other in enumerate(others, 1):
        ratio = found.ratio(index)
        if ratio is not None:
            verdict = judge(ratio, first.latency.value)
            sentence = _sentence(other.subject.name, first.subject.name, ratio, verdict)
            made.append(Comparison(other.subject.name, first.subject.name, group, ratio, verdict, sentence))
    return tuple(made)


def judge(ratio: Estimate, base_ns: float) -> Verdict:
    """Faster or slower if the interval leaves 1 out *and* the difference is beyond the floors; same if it lies within them."""
    if ratio.low is None or ratio.high is None:
        return "cannot tell"
    beyond = abs(ratio.value - 1) > FLOOR and abs(ratio.value - 1) * base_ns > FLOOR_NS
    if beyond and ratio.high < 1:
        return "faster"
    if beyond and ratio.low > 1:
        return "slower"
    within = ratio.low >= 1 - FLOOR and ratio.high <= 1 + FLOOR
    tiny = max(abs(ratio.low - 1), abs(ratio.high - 1)) * base_ns <= FLOOR_NS
    return "same" if within or tiny else "cannot tell"


def _sentence(name: str, base: str, ratio: Estimate, verdict: Verdict) -> str:
    """A verdict that can be read aloud."""
    if ratio.low is None or ratio.high is None:
        return f"{name} against {base}: {ratio.samples} pairs are too few for an interval"
    level = f"{100 * ratio.level:.0f} % interval"
    if verdict == "faster":
        return f"{name} is {1 / ratio.value:.3g} x faster than {base}, {level} {1 / ratio.high:.3g} to {1 / ratio.low:.3g}"
    if verdict == "slower":
        return f"{name} is {ratio.value:.3g} x slower than {base}, {level} {ratio.low:.3g} to {ratio.high:.3g}"
    time = f"takes {ratio.value:.3f} of the time of {base}, {level} {ratio.low:.3f} to {ratio.high:.3f}"
    if verdict == "same":
        return f"{name} {time}: the same within {100 * FLOOR:.0f} %, or {FLOOR_NS / 1000:.0f} us"
    return f"{name} {time}: no difference can be told; more --seconds narrow it"
