"""What can be kept of each record as metrics: one function for each type, found by the type. No torch here.

A record without metrics of its own is still kept as a whole. Another part of mixbench adds its record by
``@metrics_of.register``.
"""

from collections.abc import Iterator
from dataclasses import asdict
from functools import singledispatch
from typing import Any

from ..stats import Estimate
from ..store import Figure
from .check_run import Better, CheckRun, Kind
from .compare_run import CompareRun
from .parallel_run import ParallelRun
from .roofline_run import RooflineRun
from .run import ModelResult, Run
from .scale_run import ScaleRun
from .sweep_run import SweepRun
from .timing_run import TimedModel, TimeRun
from .trace_run import TraceRun

_TOTALS = (
    ("params", "parameters"),
    ("macs", "MACs"),
    ("fft_flops", "FLOPs"),
    ("elementwise_flops", "FLOPs"),
    ("activations", "elements"),
)


@singledispatch
def metrics_of(record: Any) -> tuple[Figure, ...]:
    """The figures of a record, in the order in which they are shown.

    Args:
        record: what a command prints, by its type.
    """
    raise TypeError(f"no rule tells the metrics of a {type(record).__name__}: register one with metrics_of")


@metrics_of.register
def _(record: Run) -> tuple[Figure, ...]:
    return tuple(figure for result in record.models for figure in _counted(result))


def _counted(result: ModelResult) -> Iterator[Figure]:
    for name, unit in _TOTALS:
        value = getattr(result.totals, name)
        yield Figure(result.model, result.workload, name, value, unit, "counted", "lower", parts=_parts(result, name))
    unknown = sum(item.calls for item in result.uncounted)
    yield Figure(result.model, result.workload, "uncounted", unknown, "calls", "counted", "lower")


def _parts(result: ModelResult, name: str) -> dict[str, int]:
    """The figure by module: of each, what is in none of its children, so that the parts add up."""
    own: dict[str, int] = {}
    above: list[tuple[int, str]] = []  # the modules around the one at hand, with their depths
    for module in result.modules:
        while above and above[-1][0] >= module.depth:
            above.pop()
        value = getattr(module, name)
        own[module.name] = own.get(module.name, 0) + value
        if above:
            own[above[-1][1]] -= value
        above.append((module.depth, module.name))
    return {part: value for part, value in own.items() if value}


@metrics_of.register
def _(record: TimeRun) -> tuple[Figure, ...]:
    return tuple(figure for item in record.models for figure in _timed(item))


@metrics_of.register
def _(record: CompareRun) -> tuple[Figure, ...]:
    counted = tuple(figure for item in record.models for figure in _counted(item.counted))
    timed = metrics_of(record.time) if record.time else ()
    under = metrics_of(record.roofline) if record.roofline else ()
    return (*counted, *timed, *(figure for figure in under if figure.name != "latency"))  # which is among the timed ones


@metrics_of.register
def _(record: SweepRun) -> tuple[Figure, ...]:
    # Two axes share the point from which both start: by its workload it is one.
    totals = {"-".join((*point.inputs, record.dtype, record.mode)): point.totals for point in record.points}
    return tuple(
        Figure(record.model, workload, name, getattr(found, name), unit, "counted", "lower")
        for workload, found in totals.items()
        for name, unit in _TOTALS
    )


def _timed(item: TimedModel) -> Iterator[Figure]:
    where = " ".join(word for word in (item.workload, item.how, item.runtime) if word)
    for name, found, unit in (("latency", item.latency_ns, "ns"), ("p90", item.p90_ns, "ns"), ("p99", item.p99_ns, "ns")):
        if found:
            yield _measured(item.model, where, name, found, unit)
    if item.samples_per_s:
        yield _measured(item.model, where, "throughput", item.samples_per_s, "samples/s")
    yield Figure(item.model, where, "cold", item.cold_ns, "ns", "measured", "lower")
    if item.memory:
        yield Figure(item.model, where, "peak_memory", item.memory.peak_bytes, "bytes", "measured", "lower")


def _measured(target: str, workload: str, name: str, found: Estimate, unit: str, kind: Kind = "measured") -> Figure:
    better: Better = "lower" if unit == "ns" else "higher"
    return Figure(target, workload, name, found.value, unit, kind, better, found.low, found.high)


@metrics_of.register
def _(record: ScaleRun) -> tuple[Figure, ...]:
    figures = []
    for point in record.points:
        words = (*record.inputs, record.dtype, record.mode, record.how, record.scaling, f"{point.degree} ranks")
        where = " ".join(word for word in (*words, "oversubscribed" if point.oversubscribed else "") if word)
        for name, found, unit in (("step", point.step_ns, "ns"), ("throughput", point.samples_per_s, "samples/s")):
            if found:
                figures.append(_measured(record.model, where, name, found, unit))
        if found := point.efficiency:
            figures.append(_measured(record.model, where, "efficiency", found, "ratio"))
    return tuple(figures)


@metrics_of.register
def _(record: ParallelRun) -> tuple[Figure, ...]:
    about = record.workload
    shape = f"b{about.batch} h{about.heads}/{about.kv_heads} d{about.head_dim} {about.dtype}"
    shape += (" causal" if about.causal else "") + (" backward" if about.backward else "")
    found = []
    for point in record.measured:
        if point.step_ns:
            where = f"{shape} {point.seq_len} tokens {point.degree} ranks"
            found.append(_measured(record.model, where, f"{point.method}_step", point.step_ns, "ns"))
    return tuple(found)


@metrics_of.register
def _(record: TraceRun) -> tuple[Figure, ...]:
    trace = record.trace
    where = " ".join(word for word in (trace.workload, trace.how, trace.engine) if word)
    return (Figure(trace.model, where, "traced", trace.traced_ns, "ns", "measured", "lower"),)


@metrics_of.register
def _(record: RooflineRun) -> tuple[Figure, ...]:
    # Floors move with the peaks that are kept, and modelled ones with a table: what was attained is what a history can follow.
    found = []
    for point in record.models:
        if point.measured:
            where = " ".join(word for word in (point.workload, point.how, point.runtime) if word)
            found.append(_measured(point.model, where, "latency", point.measured.latency_ns, "ns"))
            share = point.measured.unfused_share
            found.append(Figure(point.model, where, "attained", share, "ratio", "measured", "higher"))
    return tuple(found)


@metrics_of.register
def _(record: CheckRun) -> tuple[Figure, ...]:
    return tuple(Figure(**asdict(item.metric), workload="check") for item in record.judgements)
