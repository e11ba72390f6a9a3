"""A `CompareRun` as one HTML page: its figures, the plane of two of them, and the differences part by part."""

from collections.abc import Iterator
from html import escape

from ...profilers.runs.compare_run import CompareRun
from . import compare_view, pareto_chart
from .page import page as skeleton
from .page import paragraphs, table


def page(run: CompareRun) -> str:
    """The whole page."""
    first, *others = (item.model for item in run.models)
    title = f"{first} beside {', '.join(others)}" if len(others) < 5 else f"{first} beside {len(others)} others"
    return skeleton(title, "compare", run.versions, pareto_chart.STYLE, _parts(run))


def _parts(run: CompareRun) -> Iterator[str]:
    if run.partial:
        yield from paragraphs(["PARTIAL: stopped before its end"], "warn")
    yield from table(compare_view.figures(run))
    yield from paragraphs(compare_view.sources(run), "faint")
    if run.time:
        yield from paragraphs(item.sentence for item in run.time.comparisons)
    if run.front:
        yield pareto_chart.chart(run)
        yield from table(compare_view.front(run.front))
    for item in run.differences:
        yield f"<h2>{escape(compare_view.heading(run, item))}</h2>"
        yield from table(compare_view.differences(item))
        yield from paragraphs(compare_view.remarks(item, None), "faint")
    yield from paragraphs(compare_view.warnings(run), "warn")
