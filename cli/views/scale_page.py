"""A `ScaleRun` as one HTML page: its points, and throughput over ranks beside proportional growth."""

from collections.abc import Iterator

from ...profilers.runs.scale_run import ScaleRun
from . import line_chart, scale_view
from .line_chart import Line
from .page import page as skeleton
from .page import paragraphs, table


def page(run: ScaleRun) -> str:
    """The whole page."""
    return skeleton(run.model, "scale", run.versions, line_chart.STYLE, _parts(run))


def _parts(run: ScaleRun) -> Iterator[str]:
    yield from paragraphs([scale_view.subject(run)])
    if run.partial:
        yield from paragraphs([f"PARTIAL: {run.cause}"], "warn")
    yield from table(scale_view.points(run))
    known = tuple((p.degree, p.samples_per_s.value) for p in run.points if p.samples_per_s)
    base = scale_view.base_of(run)
    lines = [Line("measured", "measured", 0, known)]
    if base and len(known) > 1:
        lines.append(Line("proportional to one process", "guide", 0, tuple((degree, base * degree) for degree, _ in known)))
    yield f'<div class="charts">{line_chart.line_chart("Throughput, measured", lines, "samples/s")}</div>'
    yield from paragraphs([scale_view.setting(run)], "faint")
    yield from paragraphs([f"note: {note}" for note in run.notes], "faint")
    yield from paragraphs([f"warning: {warning}" for warning in run.warnings], "warn")
