"""A `RooflineRun` as one HTML page: the figures of its tables, and the roofline as a picture."""

from collections.abc import Iterator

from ...profilers.runs.roofline_run import RooflineRun
from . import roofline_chart, roofline_view
from .page import page as skeleton
from .page import paragraphs, table


def page(run: RooflineRun, by_op: bool) -> str:
    """The whole page."""
    names = ", ".join(dict.fromkeys(point.model for point in run.models))
    return skeleton(names or "peaks", "roofline", run.versions, roofline_chart.STYLE, _parts(run, by_op))


def _parts(run: RooflineRun, by_op: bool) -> Iterator[str]:
    if run.partial:
        yield from paragraphs(["PARTIAL: stopped before its end"], "warn")
    yield from under_roofs(run, by_op)


def under_roofs(run: RooflineRun, by_op: bool) -> Iterator[str]:
    """Models, plots and peaks as HTML. Goes with the style of `roofline_chart`."""
    if run.models:
        yield from table(roofline_view.models(run))
        yield from paragraphs([roofline_view.meaning(run)], "faint")
    yield roofline_chart.chart(run)
    for point in run.models if by_op else ():
        yield from paragraphs([roofline_view.heading(run, point)])
        yield from table(roofline_view.operators(point))
        if any(item.traced_ns for item in point.operators):
            yield from paragraphs([roofline_view.TRACED], "faint")
    yield from table(roofline_view.places(run))
    yield from paragraphs(roofline_view.settings(run), "faint")
    notes = dict.fromkeys(note for point in run.models for note in point.notes)
    yield from paragraphs([f"note: {note}" for note in notes], "warn")
    yield from paragraphs([f"warning: {warning}" for warning in run.warnings], "warn")
