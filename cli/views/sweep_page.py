"""A `SweepRun` as one HTML page: for each axis its points, its curves, and how they grow."""

from collections.abc import Iterator
from html import escape

from ...profilers.axes import Axis
from ...profilers.runs.sweep_run import METRICS, SweepRun, value
from . import line_chart, sweep_view
from .line_chart import Line
from .page import page as skeleton
from .page import paragraphs, table


def page(run: SweepRun) -> str:
    """The whole page."""
    return skeleton(run.model, "sweep", run.versions, line_chart.STYLE, _parts(run))


def charts(run: SweepRun, axis: Axis) -> Iterator[str]:
    """A figure for each panel, both of its axes logarithmic."""
    colours = {name: place for place, name in enumerate(METRICS)}
    for title, (unit, names) in sweep_view.PANELS.items():
        lines = []
        for name in names:
            known = tuple((p.size, cost) for p in run.along(axis) if (cost := value(p, name)))
            if known:
                lines.append(Line(METRICS[name][0], "measured", colours[name] % line_chart.COLOURS, known))
        yield line_chart.line_chart(title, lines, unit, log=True, over=sweep_view.NAMES[axis])


def _parts(run: SweepRun) -> Iterator[str]:
    yield from paragraphs([sweep_view.subject(run)])
    for axis in run.axes:
        yield f"<h2>{escape(sweep_view.heading(run, axis))}</h2>"
        yield from table(sweep_view.points(run, axis))
        yield f'<div class="charts">{"".join(charts(run, axis))}</div>'
        yield from paragraphs(sweep_view.sentences(run, axis))
    yield from paragraphs(sweep_view.warnings(run), "warn")
