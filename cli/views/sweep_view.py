"""A `SweepRun` as tables, plots of characters, sentences on its growth, CSV rows and pictures."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ...profilers.axes import AXES, LETTERS, Axis
from ...profilers.runs.sweep_run import METRICS, SweepPoint, SweepRun, value
from .figures import exact, short
from .sketch import Mark, Scale, sketch
from .table import Grid, drawn, exactly

if TYPE_CHECKING:
    from rich.console import RenderableType

NAMES: Mapping[Axis, str] = {"batch": "batch", "resolution": "resolution", "seq": "sequence length"}
PANELS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "arithmetic": ("MACs, FLOPs", ("macs", "elementwise_flops")),
    "memory": ("bytes", ("bytes", "compulsory_bytes", "peak_memory")),
    "intensity": ("FLOPs a byte", ("intensity",)),
}
"""What is drawn together: the unit and the metrics of each panel."""
_NOTES = 3
_SIGNS = {"macs": "M", "elementwise_flops": "e", "bytes": "b", "peak_memory": "p"}


def tables(run: SweepRun) -> Iterator["RenderableType"]:
    """For each axis its points, how they grow and a plot; then what was refused and noted."""
    from rich.text import Text

    yield Text(f"{run.model}  {subject(run)}", style="bold")
    for axis in run.axes:
        yield Text(f"\n{heading(run, axis)}", style="bold")
        yield drawn(points(run, axis))
        yield Text("")
        yield from (Text(text) for text in sentences(run, axis))
        if len(run.along(axis)) > 1:
            yield Text("")
            yield from map(exactly, _plot(run, axis))
    for warning in warnings(run):
        yield Text(warning, style="yellow")


def subject(run: SweepRun) -> str:
    """What was swept, in a line."""
    return f"{', '.join(run.inputs)} {run.dtype}, {run.mode}"


def heading(run: SweepRun, axis: Axis) -> str:
    """Which axis, and where the others are held."""
    others = [f"{NAMES[other]} {run.held[other]:,}" for other in AXES if other in run.held and other != axis]
    return f"{NAMES[axis]} {LETTERS[axis]}" + (f", at {', '.join(others)}" if others else "")


def points(run: SweepRun, axis: Axis) -> Grid:
    """A row for each size; what is the same at every size is left to the sentences, unless nothing else is there."""
    found = run.along(axis)
    names = [name for name in METRICS if len({value(point, name) for point in found}) > 1 or name == "macs"]
    columns = ((LETTERS[axis], "right"), *((METRICS[name][0], "right") for name in names))
    return Grid(columns, tuple(_row(point, names) for point in found))


def _row(point: SweepPoint, names: list[str]) -> tuple[str, ...]:
    return (f"{point.size:,}", *(exact(value(point, name), METRICS[name][1]) for name in names))


def sentences(run: SweepRun, axis: Axis) -> Iterator[str]:
    """How each metric grows; FLOPs as their MACs do."""
    return (item.sentence for item in run.growth if item.axis == axis and item.metric != "flops")


def warnings(run: SweepRun) -> Iterator[str]:
    """Sizes that are not there, and what was noted."""
    yield from (f"refused: {NAMES[item.axis]} {item.size:,}: {item.why}" for item in run.refused)
    if run.refused and not run.rebuilt:
        axis = run.refused[0].axis
        yield f"if a setting fixes the size, --kwarg NAME={{{axis}}} builds the model anew for each"
    if missed := max(point.uncounted_calls for point in run.points):
        yield f"uncounted: up to {missed:,} calls of operators without a rule; `mixbench flops` names them"
    yield from (f"note: {note}" for note in run.notes[:_NOTES])
    if len(run.notes) > _NOTES:
        yield f"note: {len(run.notes) - _NOTES} more such notes are in --json"


def _plot(run: SweepRun, axis: Axis) -> Iterator[str]:
    """Growth since the smallest size, in logarithms: parallel lines grow by the same power."""
    found = run.along(axis)
    marks = []
    for name, sign in _SIGNS.items():
        known = [(point.size, cost) for point in found if (cost := value(point, name))]
        marks += [Mark(size, cost / known[0][1], sign) for size, cost in known]
    words = "; ".join(f"{sign} {METRICS[name][0]}" for name, sign in _SIGNS.items() if any(m.sign == sign for m in marks))
    x = Scale(NAMES[axis], lambda size: f"{size:,.0f}", log=True)
    yield from sketch(marks, x, Scale(f"times the first ({words})", lambda times: f"x{short(times, '')}", log=True))


def rows(run: SweepRun) -> Iterator[Mapping[str, Any]]:
    """A line for each point."""
    for point in run.points:
        head = {"model": run.model, "axis": point.axis, "size": point.size, "inputs": "; ".join(point.inputs)}
        yield (
            head
            | asdict(point.totals)
            | {
                "peak_activation_bytes": point.peak_activation_bytes,
                "flops_a_byte": value(point, "intensity") or "",
                "uncounted_calls": point.uncounted_calls,
            }
        )


def draw(run: SweepRun, kind: str) -> bytes:
    """A row of panels for each axis, both axes logarithmic, as PNG or SVG."""
    from . import picture

    with picture.page(
        kind, width=4.5 * len(PANELS), height=3.4 * len(run.axes), nrows=len(run.axes), ncols=len(PANELS), squeeze=False
    ) as (figure, grid, result):
        for line, axis in zip(grid, run.axes, strict=True):
            for axes, (title, (unit, names)) in zip(line, PANELS.items(), strict=True):
                _panel(axes, run, axis, names)
                axes.set_title(f"{title}: {unit}", fontsize=9)
        figure.suptitle(f"{run.model}  {subject(run)}", fontsize=9)
    return result.getvalue()


def _panel(axes: Any, run: SweepRun, axis: Axis, names: tuple[str, ...]) -> None:
    found = run.along(axis)
    ends = {item.metric: item.slopes[-1].exponent for item in run.growth if item.axis == axis and item.slopes}
    for name in names:
        known = [(point.size, cost) for point in found if (cost := value(point, name))]
        if known:
            slope = f", {LETTERS[axis]}^{ends[name]:.2f} at the end" if name in ends else ""
            axes.plot(*zip(*known, strict=True), "o-", markersize=3, label=METRICS[name][0] + slope)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.xaxis.set_major_formatter(lambda size, _: f"{size / 1024:g}k" if size >= 8192 else f"{size:,.0f}")
    axes.yaxis.set_major_formatter(lambda cost, _: short(cost, METRICS[names[0]][1]))
    axes.yaxis.set_minor_formatter(lambda cost, _: "")
    axes.set_xlabel(NAMES[axis])
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend(frameon=False)
