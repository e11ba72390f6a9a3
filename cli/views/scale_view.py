"""A `ScaleRun` as a table, a chart and CSV rows."""

import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ...profilers.runs.scale_run import ScalePoint, ScaleRun
from ...profilers.stats import Estimate

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

_WIDTH = 48


def tables(run: ScaleRun) -> Iterator["RenderableType"]:
    """The points, their chart, under which conditions they were taken, and what speaks against them."""
    from rich.text import Text

    how = f", {run.how}" if run.how else ""
    yield Text(f"{run.model}  {run.dtype}, {run.mode}{how}; {run.scaling} scaling of {run.parallel}, measured", style="bold")
    yield _points(run)
    yield Text("")
    yield from (Text(line) for line in _chart(run))
    yield Text(f"\n{_setting(run)}", style="dim")
    for note in run.notes:
        yield Text(f"note: {note}", style="yellow")
    for warning in run.warnings:
        yield Text(f"warning: {warning}", style="yellow")


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
        }


def _points(run: ScaleRun) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    table.padding = (0, 2, 0, 0)
    names = ("degree", "batch per rank", "slowest rank", "99 % interval", "samples/s", "speed-up", "efficiency", "interval")
    for name in names:
        table.add_column(name, justify="right", header_style="dim")
    table.add_column("", justify="left")
    for point in run.points:
        cells = [str(point.degree), str(point.batch_per_rank)]
        cells += [_time(point.step_ns.value), _interval(point.step_ns, 1e-6, " ms")] if point.step_ns else ["n/a", ""]
        cells.append(f"{point.samples_per_s.value:.4g}" if point.samples_per_s else "n/a")
        cells.append(f"{point.speed_up.value:.2f}" if point.speed_up else "n/a")
        shown = point.efficiency
        cells += [f"{100 * shown.value:.0f} %", _interval(shown, 100, " %")] if shown and point.degree > 1 else ["", ""]
        table.add_row(*map(Text, (*cells, _mark(point))), style="yellow" if _mark(point) else None)
    return table


def _mark(point: ScalePoint) -> str:
    """What keeps a point from being taken at its face value."""
    marks = ["oversubscribed: more processes than cores, no scaling"] if point.oversubscribed else []
    if point.status != "measured":
        marks.append(f"{point.status}: {point.cause}")
    return "; ".join(marks)


def _chart(run: ScaleRun) -> Iterator[str]:
    """Throughput as bars, and where proportional growth from degree 1 would be."""
    shown = [(point, point.samples_per_s.value) for point in run.points if point.samples_per_s]
    base = next((value for point, value in shown if point.degree == 1 and not point.oversubscribed), 0.0)
    fill, tick = ("█", "│") if (sys.stdout.encoding or "").lower().startswith("utf") else ("#", "|")
    most = max([0.0, *(max(value, base * point.degree) for point, value in shown)])
    for point, value in shown:
        bar = list(fill * max(1, round(_WIDTH * value / most)))
        if base and not point.oversubscribed:
            bar += " " * (_WIDTH + 1 - len(bar))
            bar[round(_WIDTH * base * point.degree / most)] = tick
        yield f"{point.degree:>4} {''.join(bar).rstrip():<{_WIDTH + 1}} {value:.4g} samples/s".rstrip()
    if base and len(shown) > 1:
        yield f"     {tick} proportional to degree 1"


def _setting(run: ScaleRun) -> str:
    width = run.threads_per_rank
    threads = "1 thread on a core of its own" if width == 1 else f"{width} threads on as many cores"
    repeats = max((point.repeats for point in run.points), default=0)
    often = "once" if repeats == 1 else f"{repeats} times"
    times = f"fresh processes, {often}" if run.started_by == "mixbench" else f"ranks of {run.started_by}, {often}"
    return f"{run.machine.device}, {run.backend}; {threads} for each rank; {times}; {run.machine.clock}, behind a barrier"


def _time(ns: float) -> str:
    return f"{ns / 1e6:.4g} ms" if ns < 1e9 else f"{ns / 1e9:.4g} s"


def _interval(found: Estimate, scale: float, unit: str) -> str:
    if found.low is None or found.high is None:
        return f"none from {found.samples}"
    return f"[{scale * found.low:.4g}, {scale * found.high:.4g}]{unit}"
