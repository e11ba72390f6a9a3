"""A `RooflineRun` as tables, sentences and CSV rows; its plots are in `roofline_plot`."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ...profilers.roofline import Level
from ...profilers.runs.roofline_run import ModelPoint, OperatorPoint, Place, RooflineRun
from ...profilers.stats import Estimate
from .roofline_lines import charts, peak_rate, rate
from .roofline_plot import plot
from .table import Grid, drawn, exactly, ns

if TYPE_CHECKING:
    from rich.console import RenderableType

_NOT_A_TIME = "modelled, not measured: no launches, no caches, every kernel at its peak"
TRACED = "traced: all calls under torch's profiler, which lengthens them; ? where it saw other calls than were counted"
_DTYPES = ("float32", "bfloat16", "float16", "float64", "int8")


def tables(run: RooflineRun, by_op: bool) -> Iterator["RenderableType"]:
    """One model in full, or several as rows; operators if asked for; plots; peaks; and what speaks against the figures."""
    from rich.text import Text

    if run.partial:
        yield Text("PARTIAL: stopped before its end", style="bold yellow")
    if len(run.models) == 1:
        yield Text(heading(run, run.models[0]), style="bold")
        yield drawn(_whole(run.models[0]))
    elif run.models:
        yield drawn(models(run))
    if run.models:
        yield Text(meaning(run), style="dim")
    for point in run.models if by_op else ():
        yield Text(f"\n{heading(run, point)}", style="bold")
        yield drawn(operators(point))
        if any(item.traced_ns for item in point.operators):
            yield Text(TRACED, style="dim")
    for chart in charts(run):
        yield Text("")
        yield from map(exactly, plot(chart))
    yield Text("")
    yield drawn(places(run))
    yield from (Text(line, style="dim") for line in settings(run))
    for note in dict.fromkeys(note for point in run.models for note in point.notes):
        yield Text(f"note: {note}", style="yellow")
    for warning in run.warnings:
        yield Text(f"warning: {warning}", style="yellow")


def rows(run: RooflineRun, by_op: bool) -> Iterator[Mapping[str, Any]]:
    """A line for each model and place, or for each of their operators; of peaks alone a line for each place and dtype."""
    for place in run.places if not run.models else ():
        for dtype, peak in place.flops_per_s.items():
            yield {
                "place": place.name,
                "kind": place.kind,
                "dtype": dtype,
                "flops_per_s": peak,
                "memory_bytes_per_s": place.levels[-1].bytes_per_s,
                "memory_read_bytes_per_s": _cell(place.levels[-1].read_bytes_per_s),
                "fastest_bytes_per_s": place.levels[0].bytes_per_s,
                "memory_bytes": place.memory_bytes,
                "threads": _cell(place.threads),
                "source": place.source,
            }
    for point in run.models:
        head = {"model": point.model, "workload": point.workload, "place": point.place, "kind": point.kind}
        if by_op:
            yield from (head | {key: _cell(value) for key, value in asdict(item).items()} for item in point.operators)
        else:
            yield head | _row(point, run)


def _row(point: ModelPoint, run: RooflineRun) -> dict[str, Any]:
    left_out = ("model", "workload", "place", "kind", "inputs", "operators", "measured", "notes")
    row = {key: _cell(value) for key, value in asdict(point).items() if key not in left_out}
    reached = point.measured
    latency = reached.latency_ns if reached else None
    return row | {
        "latency_ns": latency.value if latency else "",
        "low_ns": _cell(latency and latency.low),
        "high_ns": _cell(latency and latency.high),
        "unfused_share": reached.unfused_share if reached else "",
        "compulsory_share": reached.compulsory_share if reached else "",
        "partial": run.partial,
    }


def _cell(value: Any) -> Any:
    return "" if value is None else value


def heading(run: RooflineRun, point: ModelPoint) -> str:
    """The model, on what it runs, and where."""
    words = [*point.inputs, point.dtype, point.mode, *([point.how] if point.how else []), point.runtime]
    place = run.place(point)
    return f"{point.model}  {', '.join(words)}; {'modelled on ' if place.kind == 'modelled' else 'on '}{place.title}"


def meaning(run: RooflineRun) -> str:
    """What the floors are, in a line."""
    said = "floor, unfused: every operator on its own; compulsory: weights, inputs and outputs moved once, and the peak"
    if any(point.measured and point.mode == "train" for point in run.models):
        said += "; the update is in the measured step, and in no floor"
    return f"{said}; {_NOT_A_TIME}" if any(place.kind == "modelled" for place in run.places) else said


def _whole(point: ModelPoint) -> Grid:
    """One model, a figure a line."""
    modelled = "modelled " if point.kind == "modelled" else ""
    other = point.fft_flops + point.elementwise_flops
    moved, least = point.read_bytes + point.written_bytes, point.compulsory_read_bytes + point.compulsory_written_bytes
    lines = [
        ("FLOPs of contractions", f"{point.flops:,}", f"and {other:,} elementwise and of Fourier transforms"),
        ("bytes, unfused", _mb(moved), f"{_intensity(point.intensity)} FLOPs per byte; an upper bound"),
        ("bytes, compulsory", _mb(least), f"{_intensity(point.compulsory_intensity)} FLOPs per byte; a lower bound"),
        (f"{modelled}floor, unfused", ns(point.unfused_floor_ns), f"{_bound(point.unfused_bound)}, {_parts(point)}"),
        (f"{modelled}floor, compulsory", ns(point.compulsory_floor_ns), _bound(point.compulsory_bound)),
    ]
    if point.measured:
        reached = point.measured
        lines += [
            ("measured, median", ns(reached.latency_ns.value), _interval(reached.latency_ns)),
            ("attained", _share(reached.unfused_share), "of what the unfused floor allows"),
            ("", _share(reached.compulsory_share), "of what the compulsory floor allows"),
        ]
    if point.kind == "modelled":
        lines.append(("memory", *_memory(point)))
    return Grid((("", "left"), ("", "right"), ("", "left")), tuple(lines))


def models(run: RooflineRun) -> Grid:
    """A row for each model and place; a run has measured places or modelled ones, and so has its table."""
    modelled = any(place.kind == "modelled" for place in run.places)
    timed = any(point.measured for point in run.models)
    word = "modelled " if modelled else ""
    columns = [("model", "left"), *([("hardware", "left")] if modelled else []), ("FLOPs", "right"), ("FLOP/byte", "right")]
    columns += [(f"{word}floor, unfused", "right"), ("bound", "left"), (f"{word}floor, compulsory", "right"), ("bound", "left")]
    if timed:
        columns += [("measured", "right"), ("99 % interval", "left"), ("of unfused", "right"), ("of compulsory", "right")]
    if modelled:
        columns += [("needs", "right"), ("", "left")]
    lines = []
    for point in run.models:
        cells = [point.model, *([run.place(point).title] if modelled else []), f"{point.flops:,}", _intensity(point.intensity)]
        cells += [ns(point.unfused_floor_ns), point.unfused_bound, ns(point.compulsory_floor_ns), point.compulsory_bound]
        if timed and (reached := point.measured):
            cells += [ns(reached.latency_ns.value), _ends(reached.latency_ns)]
            cells += [_share(reached.unfused_share), _share(reached.compulsory_share)]
        if modelled:
            cells += _memory(point)
        lines.append(tuple(cells))
    return Grid(tuple(columns), tuple(lines))


def operators(point: ModelPoint) -> Grid:
    """A row for each operator that computes or moves, the longest floor first."""
    names = ("operator", "calls", "FLOPs", "other FLOPs", "read", "written", "FLOP/byte", "floor", "of all floors")
    traced = any(item.traced_ns is not None for item in point.operators)
    columns = (*((name, "right" if index else "left") for index, name in enumerate(names)), ("bound", "left"))
    columns += (("traced", "right"), ("floor of it", "right")) if traced else ()
    whole = sum(item.floor_ns for item in point.operators) or 1.0
    shown = [item for item in point.operators if item.floor_ns or not item.family]  # views and allocations do nothing
    return Grid(columns, tuple((*_operator(item, whole), *(_traced(item) if traced else ())) for item in shown))


def _operator(item: OperatorPoint, whole: float) -> tuple[str, ...]:
    mixed = (
        f", {100 * item.compute_bound_ns / item.floor_ns:.0f} % compute" if 0 < item.compute_bound_ns < item.floor_ns else ""
    )
    return (
        item.operator if item.family else f"{item.operator} (no rule)",
        f"{item.calls:,}",
        f"{item.flops:,}",
        f"{item.other_flops:,}",
        _mb(item.read_bytes),
        _mb(item.written_bytes),
        _intensity(item.intensity),
        ns(item.floor_ns),
        f"{100 * item.floor_ns / whole:.1f} %",
        f"{item.bound}{mixed}",
    )


def _traced(item: OperatorPoint) -> tuple[str, str]:
    if not item.traced_ns:
        return "?", ""
    return ns(item.traced_ns), _share(item.floor_ns / item.traced_ns)


def places(run: RooflineRun) -> Grid:
    """A row for each place: its peaks by dtype, its bandwidths, its memory."""
    dtypes = [name for name in _DTYPES if any(name in place.flops_per_s for place in run.places)]
    cached = any(len(place.levels) > 1 for place in run.places)
    columns = [("peaks", "left"), ("name", "left"), *((name, "right") for name in dtypes), ("bandwidth", "right")]
    columns += [("fastest cache", "right")] if cached else []
    columns.append(("memory", "right"))
    lines = []
    for place in run.places:
        cells = [f"{place.title}, {place.kind}", place.name]
        cells += [peak_rate(name, place.flops_per_s[name]) if name in place.flops_per_s else "n/a" for name in dtypes]
        cells.append(_bandwidth(place.levels[-1]))
        cells += [_bandwidth(place.levels[0])] if cached else []
        lines.append((*cells, f"{place.memory_bytes / 1e9:.4g} GB"))
    return Grid(tuple(columns), tuple(lines))


def _bandwidth(level: Level) -> str:
    reading = f", reading {rate(level.read_bytes_per_s, 'B/s')}" if level.read_bytes_per_s else ""
    return f"{rate(level.bytes_per_s, 'B/s')}{reading}"


def settings(run: RooflineRun) -> Iterator[str]:
    """Where the peaks are from, in a line for each place."""
    for place in run.places:
        threads = "" if place.threads is None else f"{place.threads} thread{'s' if place.threads != 1 else ''}; "
        doubt = "" if place.verified else " (not checked there)"
        yield f"{place.name}: {threads}{place.source}{doubt}{_missing(place)}"


def _missing(place: Place) -> str:
    return "".join(f"; no {name}: {why}" for name, why in place.missing.items())


def _parts(point: ModelPoint) -> str:
    whole = sum(item.floor_ns for item in point.operators)
    if not whole:
        return "no operator has a floor"
    share = sum(item.compute_bound_ns for item in point.operators) / whole
    return f"{100 * share:.0f} % of it in calls that arithmetic bounds, {100 * (1 - share):.0f} % in calls that bytes bound"


def _memory(point: ModelPoint) -> tuple[str, str]:
    if point.needed_bytes is None:
        return "n/a", "not known whether it fits"
    return _mb(point.needed_bytes), "fits" if point.fits else "DOES NOT FIT"


def _bound(bound: str) -> str:
    return "no bound" if bound == "none" else f"{bound}-bound"


def _share(share: float) -> str:
    return f"{100 * share:.1f} %" + (" (see note)" if share > 1 else "")


def _intensity(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3g}"


def _mb(value: int) -> str:
    return f"{value / 1e6:,.4g} MB"


def _interval(found: Estimate) -> str:
    return f"{100 * found.level:.0f} % interval {_ends(found)}, {found.samples} calls"


def _ends(found: Estimate) -> str:
    if found.low is None or found.high is None:
        return f"none from {found.samples}"
    return f"[{ns(found.low)}, {ns(found.high)}]"
