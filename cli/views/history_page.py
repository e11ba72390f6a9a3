"""A `HistoryRun` as one HTML page: a chart for each series with its changes marked by commit, and the changes in words."""

from collections.abc import Iterator
from html import escape

from ...profilers.runs.history_run import HistoryRun, Series
from . import history_view, line_chart
from .page import page as skeleton
from .page import paragraphs, table
from .table import Grid

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 760, 220, 92, 14, 22, 34
_STYLE = """
.trend { min-width: 34rem; } .trend text { font: 11px system-ui, sans-serif; fill: var(--faint); }
.trend .axis { stroke: var(--line); } .trend .span { stroke: var(--faint); stroke-width: 1.5; }
.trend .better { stroke: var(--c2); } .trend .worse { stroke: var(--c3); }
.trend .new { stroke-dasharray: 5 4; }
"""


def page(run: HistoryRun) -> str:
    """The whole page."""
    return skeleton(f"{run.model}: history", "history", run.versions, line_chart.STYLE + _STYLE, _parts(run))


def _parts(run: HistoryRun) -> Iterator[str]:
    for series in run.series:
        yield f"<h2>{escape(series.name)}</h2>"
        yield from paragraphs([history_view.where(series)], "faint")
        yield f'<div class="wide">{"".join(_chart(series))}</div>'
        if series.changes:
            yield from table(_changes(series))
    yield from paragraphs([f"note: {note}" for note in run.notes], "warn")


def _changes(series: Series) -> Grid:
    columns = (("commit", "left"), ("date", "left"), ("before", "right"), ("after", "right"), ("", "right"), ("", "left"))
    rows = []
    for change in series.changes:
        figures = (history_view.amount(value, series.unit) for value in (change.before, change.after))
        parts = "; ".join(line.strip() for line in history_view.parts_of(change))
        name = history_view.name_of(change)
        rows.append(
            (name, change.date[:10], *figures, history_view.percent(change.ratio), f"{change.word}; {parts}".rstrip("; "))
        )
    return Grid(columns, tuple(rows))


def _chart(series: Series) -> Iterator[str]:
    """The points in their order, evenly, between a little below the least and a little above the largest."""
    points = series.points
    ends = [value for point in points for value in (point.value, point.low, point.high) if value is not None]
    low, high = min(ends), max(ends)
    room = 0.08 * (high - low) or 0.05 * abs(high) or 1.0
    low, high = low - room, high + room

    def x(place: float) -> float:
        return _LEFT + 12 + place / max(1, len(points) - 1) * (_WIDTH - _LEFT - _RIGHT - 24)

    def y(value: float) -> float:
        return _HEIGHT - _BOTTOM - (value - low) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    title = f"{series.name} of {series.target}"
    yield f'<svg class="trend" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">'
    for value in sorted({min(ends), max(ends)}):
        yield f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>'
        told = escape(history_view.amount(value, series.unit))
        yield f'<text x="{_LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{told}</text>'
    for place in sorted({0, len(points) - 1}):
        side = "start" if place == 0 else "end"
        name = escape(history_view.name_of(points[place]))
        yield f'<text x="{x(place):.1f}" y="{_HEIGHT - 10}" text-anchor="{side}">{name}</text>'
    for change in series.changes:
        at = x(change.place - 0.5)
        yield f'<line class="{change.word} new" x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP - 8}" y2="{_HEIGHT - _BOTTOM}"/>'
        side = "start" if at < _WIDTH / 2 else "end"
        told = escape(f"{history_view.name_of(change)} {change.word} {history_view.percent(change.ratio)}")
        yield f'<text x="{at + (4 if side == "start" else -4):.1f}" y="{_TOP - 8}" text-anchor="{side}">{told}</text>'
    way = " ".join(f"{x(place):.1f},{y(point.value):.1f}" for place, point in enumerate(points))
    yield f'<polyline class="line l0" fill="none" stroke-width="2" points="{way}"/>'
    for place, point in enumerate(points):
        if point.low is not None and point.high is not None:
            upright = f'x1="{x(place):.1f}" x2="{x(place):.1f}"'
            yield f'<line class="span" {upright} y1="{y(point.low):.1f}" y2="{y(point.high):.1f}"/>'
        runs = f", {point.runs} runs" if point.runs > 1 else ""
        told = f"{history_view.name_of(point)}, {point.date[:10]}: {history_view.amount(point.value, series.unit)}{runs}"
        circle = f'<circle class="d0" cx="{x(place):.1f}" cy="{y(point.value):.1f}" r="3">'
        yield f"{circle}<title>{escape(told)}</title></circle>"
    yield "</svg>"
