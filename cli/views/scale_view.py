"""A `ScaleRun` as a table, a chart and CSV rows."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ...profilers.runs.scale_run import ScalePoint, ScaleRun
from ...profilers.stats import Estimate
from .table import Grid, bars, drawn, exactly, has_unicode

if TYPE_CHECKING:
    from rich.console import RenderableType


def tables(run: ScaleRun) -> Iterator["RenderableType"]:
    """The points, their chart, under which conditions they were taken, and what speaks against them."""
    from rich.text import Text

    yield Text(f"{run.model}  {subject(run)}", style="bold")
    if run.partial:
        yield Text(f"PARTIAL: {run.cause}", style="bold yellow")
    yield drawn(points(run))
    yield Text("")
    yield from map(exactly, _chart(run))
    yield Text(f"\n{setting(run)}", style="dim")
    for note in run.notes:
        yield Text(f"note: {note}", style="yellow")
    for warning in run.warnings:
        yield Text(f"warning: {warning}", style="yellow")


def subject(run: ScaleRun) -> str:
    """What was measured, in a line."""
    how = f", {run.how}" if run.how else ""
    return f"{run.dtype}, {run.mode}{how}; {run.scaling} scaling of {run.parallel}, measured"


def rows(run: ScaleRun) -> Iterator[Mapping[str, Any]]:
    """A line for each degree; an empty cell is a figure that there is none of."""
    for point in run.points:
        row: dict[str, Any] = {
            "model": run.model,
            "mode": run.mode,
            "scaling": run.scaling,
            "degree": point.degree,
            "batch_per_rank": point.batch_per_rank,
            "global_batch": point.global_batch,
            "device": run.device,
            "threads_per_rank": run.threads_per_rank,
        }
        for name in ("step_ns", "samples_per_s", "speed_up", "efficiency"):
            found: Estimate | None = getattr(point, name)
            ends = (found.value, found.low, found.high) if found else (None,) * 3
            row |= zip((name, f"{name}_low", f"{name}_high"), ("" if end is None else end for end in ends), strict=True)
        yield row | {
            "rounds": len(point.slowest_ns),
            "kind": run.kind,
            "status": point.status,
            "oversubscribed": point.oversubscribed,
            "cause": point.cause,
            "partial": run.partial,
        }


def points(run: ScaleRun) -> Grid:
    """A row for each degree."""
    names = ("degree", "batch per rank", "slowest rank", "99 % interval", "samples/s", "speed-up", "efficiency", "interval")
    rows = []
    for point in run.points:
        cells = [str(point.degree), str(point.batch_per_rank)]
        cells += (
            [f"{point.step_ns.value / 1e6:.4g} ms", _interval(point.step_ns, 1e-6, " ms")] if point.step_ns else ["n/a", ""]
        )
        cells.append(f"{point.samples_per_s.value:.4g}" if point.samples_per_s else "n/a")
        cells.append(f"{point.speed_up.value:.2f}" if point.speed_up else "n/a")
        shown = point.efficiency
        cells += [f"{100 * shown.value:.0f} %", _interval(shown, 100, " %")] if shown and point.degree > 1 else ["", ""]
        rows.append((*cells, _mark(point)))
    return Grid((*((name, "right") for name in names), ("", "left")), tuple(rows))


def _mark(point: ScalePoint) -> str:
    """What keeps a point from being taken at its face value."""
    marks = ["oversubscribed: more processes than cores, no scaling"] if point.oversubscribed else []
    if point.status != "measured":
        marks.append(f"{point.status}: {point.cause}")
    return "; ".join(marks)


def _chart(run: ScaleRun) -> Iterator[str]:
    """Throughput as bars, and where proportional growth from degree 1 would be."""
    shown = [(point, point.samples_per_s.value) for point in run.points if point.samples_per_s]
    base = base_of(run)
    lines = [(f"{p.degree:>4}", value, None if p.oversubscribed or not base else base * p.degree) for p, value in shown]
    yield from bars(lines, "samples/s")
    if base and len(shown) > 1:
        yield f"     {'│' if has_unicode() else '|'} proportional to degree 1"


def base_of(run: ScaleRun) -> float:
    """Samples per second of one process that has its cores to itself; 0 when that was not measured."""
    known = (p.samples_per_s.value for p in run.points if p.samples_per_s and p.degree == 1 and not p.oversubscribed)
    return next(known, 0.0)


def setting(run: ScaleRun) -> str:
    """Under which conditions it was measured, in a line."""
    width = run.threads_per_rank
    threads = "1 thread on a core of its own" if width == 1 else f"{width} threads on as many cores"
    repeats = max((point.repeats for point in run.points), default=0)
    often = "once" if repeats == 1 else f"{repeats} times"
    times = f"fresh processes, {often}" if run.started_by == "mixbench" else f"ranks of {run.started_by}, {often}"
    return f"{run.machine.device}, {run.backend}; {threads} for each rank; {times}; {run.machine.clock}, behind a barrier"


def _interval(found: Estimate, scale: float, unit: str) -> str:
    if found.low is None or found.high is None:
        return f"none from {found.samples}"
    return f"[{scale * found.low:.4g}, {scale * found.high:.4g}]{unit}"
