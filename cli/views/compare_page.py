"""A `CompareRun` as one HTML page: figures beside each other, the plane of two of them, roofs, differences part by part, and
all that is known of each model. The record itself is in the page, as in that of a count.
"""

from collections.abc import Iterator
from dataclasses import replace
from html import escape

from ...profilers.runs.compare_run import Compared, CompareRun
from . import compare_view, pareto_chart, report_page, roofline_chart, roofline_page, roofline_view
from .emit import to_json
from .page import links, paragraphs, section, table
from .page import page as skeleton

_STYLE = pareto_chart.STYLE + roofline_chart.STYLE + report_page.STYLE


def page(run: CompareRun) -> str:
    """The whole page."""
    first, *others = (item.model for item in run.models)
    title = f"{first} beside {', '.join(others)}" if len(others) < 5 else f"{first} beside {len(others)} others"
    return skeleton(title, run.command, run.versions, _STYLE, _parts(run), report_page.SCRIPTS, to_json(run, None))


def _parts(run: CompareRun) -> Iterator[str]:
    if run.partial:
        yield from paragraphs(["PARTIAL: stopped before its end"], "warn")
    yield from links(_places(run))
    yield from table(compare_view.figures(run))
    yield from paragraphs(compare_view.sources(run), "faint")
    if run.time:
        yield from paragraphs(item.sentence for item in run.time.comparisons)
    yield from paragraphs(compare_view.warnings(run), "warn")
    if run.front:
        yield pareto_chart.chart(run)
        yield from table(compare_view.front(run.front))
    if run.roofline:
        yield f'<h2 id="roofline">{compare_view.UNDER_ROOFS}</h2>'
        yield from roofline_page.under_roofs(run.roofline, by_op=False)
    for place, item in enumerate(run.differences):
        yield f'<h2 id="differences-{place}">{escape(compare_view.heading(run, item))}</h2>'
        yield from table(compare_view.differences(item))
        yield from paragraphs(compare_view.remarks(item, None), "faint")
    for place, model in enumerate(run.models):
        yield from section(model.model, report_page.anchor(place), report_page.glance(model.counted), _model(run, model, place))
    yield from paragraphs([report_page.MEANING], "faint")


def _places(run: CompareRun) -> Iterator[tuple[str, str]]:
    if run.roofline:
        yield compare_view.UNDER_ROOFS, "roofline"
    yield from ((f"differences by {item.by}", f"differences-{place}") for place, item in enumerate(run.differences))
    yield from ((item.model, report_page.anchor(place)) for place, item in enumerate(run.models))


def _model(run: CompareRun, item: Compared, place: int) -> Iterator[str]:
    yield from report_page.model(replace(item.counted, model=item.model), place)
    for point in run.roofline.models if run.roofline else ():
        if run.roofline and point.model == item.model:
            yield f"<h3>Operators under the roof of {escape(run.roofline.place(point).title)}</h3>"
            yield from table(roofline_view.operators(point))
