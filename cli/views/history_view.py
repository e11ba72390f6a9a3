"""A `HistoryRun` as trends on the terminal, CSV rows and pictures."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...models.errors import BadInput
from ...profilers.runs.history_run import Change, HistoryRun, Point, Series
from .table import add, exactly, has_unicode, ns, table_of

if TYPE_CHECKING:
    from rich.console import RenderableType

_BARS, _PLAIN_BARS = "▁▂▃▄▅▆▇█", "_.-=+*#@"
_NEWEST = 40
_ROWS = 8
_PANELS = 24
"""More would make a picture that no program opens."""


def tables(run: HistoryRun) -> Iterator["RenderableType"]:
    """Each series as a line with its trend, or one alone as a chart; then the changes, by commit."""
    from rich.text import Text

    table = table_of(run.model, ("metric", "left"), ("now", "right"), ("since first", "right"), ("trend", "left"), ("", "left"))
    for series in run.series:
        add(table, series.name, amount(series.points[-1].value, series.unit), _since(series), trend(series), where(series))
    yield table
    if len(run.series) == 1 and len({point.value for point in run.series[0].points}) > 1:
        yield from map(exactly, _chart(run.series[0]))
    for series in run.series:
        alone = sum(other.name == series.name for other in run.series) == 1
        for change in series.changes:
            told = sentence(series, change) + ("" if alone else f", {where(series)}")
            yield Text(told, style="green" if change.word == "better" else "red")
            yield from (Text(line, style="dim") for line in parts_of(change))
    if not any(series.changes for series in run.series):
        yield Text("no change found", style="dim")
    yield from (Text(f"note: {note}", style="yellow") for note in run.notes)


def rows(run: HistoryRun) -> Iterator[Mapping[str, Any]]:
    """A line for each point; ``change`` says that a new level begins there."""
    for series in run.series:
        changed = {change.place: change.word for change in series.changes}
        for place, point in enumerate(series.points):
            yield {
                "target": series.target,
                "metric": series.name,
                "unit": series.unit,
                "kind": series.kind,
                "workload": series.workload,
                "machine": series.machine,
                "commit": point.commit,
                "dirty": point.dirty,
                "branch": point.branch,
                "date": point.date,
                "value": point.value,
                "low": "" if point.low is None else point.low,
                "high": "" if point.high is None else point.high,
                "runs": point.runs,
                "change": changed.get(place, ""),
            }


def amount(value: float, unit: str) -> str:
    """A figure with its unit; whole numbers in full."""
    if unit == "ns":
        return ns(value)
    number = f"{int(value):,}" if float(value).is_integer() else f"{value:,.4g}"
    return f"{number} {unit}".rstrip() if unit not in ("MACs", "FLOPs", "parameters", "elements", "calls") else number


def where(series: Series) -> str:
    """What sets a series apart from others of its name."""
    words = [series.workload, f"on {series.processor or 'machine'} {series.machine}" if series.machine else ""]
    return ", ".join(word for word in words if word)


def name_of(point: Point | Change) -> str:
    """A commit's first ten digits, with a + for a tree that differed; the date where there is no commit."""
    return (point.commit[:10] + ("+" if point.dirty else "")) or point.date[:19]


def percent(ratio: float | None) -> str:
    """A ratio as the difference that it makes."""
    if ratio is None:
        return "from 0"
    return f"{100 * (ratio - 1):+.2g} %" if abs(ratio - 1) < 0.1 else f"{100 * (ratio - 1):+.0f} %"


def sentence(series: Series, change: Change) -> str:
    """A change that can be read aloud."""
    arrow = "→" if has_unicode() else "->"
    before, after = amount(change.before, series.unit), amount(change.after, series.unit)
    told = f"{change.word}: {series.name} {before} {arrow} {after} ({percent(change.ratio)})"
    return f"{told} at {name_of(change)}, {change.date[:10]}"


def parts_of(change: Change) -> Iterator[str]:
    """The modules that a change is made of, the largest three."""
    shown = change.parts[:3]
    for item in shown:
        yield f"  {item.part or 'the model itself'}: {item.new - item.base:+,}"
    if len(change.parts) > len(shown):
        yield f"  and {len(change.parts) - len(shown)} more"


def trend(series: Series) -> str:
    """The newest points as a line of bars between their least and their largest, a ! before each new level."""
    first = max(0, len(series.points) - _NEWEST)
    values = [point.value for point in series.points]
    marks = {change.place for change in series.changes if change.place > first}
    heights = _heights(values[first:], 8)
    bars = _BARS if has_unicode() else _PLAIN_BARS
    cells = (("!" if first + place in marks else "") + bars[height] for place, height in enumerate(heights))
    return ("…" if first and has_unicode() else "") + "".join(cells)


def _heights(values: Sequence[float], steps: int) -> list[int]:
    """Each value as one of so many steps from the least to the largest; all in the middle when there is no difference."""
    low, high = min(values), max(values)
    if low == high:
        return [steps // 2 - 1] * len(values)
    return [min(steps - 1, int(steps * (value - low) / (high - low))) for value in values]


def _since(series: Series) -> str:
    first, last = series.points[0].value, series.points[-1].value
    if len(series.points) == 1:
        return ""
    return "same" if first == last else percent(last / first if first else None)


def _chart(series: Series) -> Iterator[str]:
    """The newest points as a chart of characters; below it a mark where a level begins."""
    first = max(0, len(series.points) - 2 * _NEWEST)
    values = [point.value for point in series.points[first:]]
    heights = _heights(values, 2 * _ROWS)
    full, half, mark = ("█", "▄", "▲") if has_unicode() else ("#", ".", "^")
    labels = [amount(max(values), series.unit), *[""] * (_ROWS - 2), amount(min(values), series.unit)]
    room = max(map(len, labels))
    yield ""
    for row, label in zip(range(_ROWS - 1, -1, -1), labels, strict=True):
        cells = (full if height >= 2 * row + 1 else half if height >= 2 * row else " " for height in heights)
        yield f"{label:>{room}} {''.join(cells)}".rstrip()
    marked = {change.place - first for change in series.changes}
    yield f"{'':>{room}} {''.join(mark if place in marked else ' ' for place in range(len(values)))}".rstrip()


def draw(run: HistoryRun, kind: str) -> bytes:
    """A panel for each series, with its intervals and its changes marked by commit, as PNG or SVG."""
    from . import picture

    count = len(run.series)
    if count > _PANELS:
        raise BadInput(f"{count} series are too many for one picture", f"--metric NAME shows some; at most {_PANELS}")
    with picture.page(kind, width=8, height=0.6 + 2.1 * count, nrows=count, squeeze=False) as (figure, axes, result):
        figure.suptitle(run.model, fontsize=10)
        for series, (place,) in zip(run.series, axes, strict=True):
            scale, unit = (1e-6, "ms") if series.unit == "ns" else (1.0, series.unit)
            steps = range(len(series.points))
            place.plot(steps, [scale * point.value for point in series.points], "o-", markersize=3, linewidth=1)
            for step, point in enumerate(series.points):
                if point.low is not None and point.high is not None:
                    place.plot([step, step], [scale * point.low, scale * point.high], color="0.6", linewidth=1, zorder=0)
            for change in series.changes:
                colour = "tab:green" if change.word == "better" else "tab:red"
                place.axvline(change.place - 0.5, color=colour, linewidth=1, linestyle="--")
                told = f"{name_of(change)} {change.word} {percent(change.ratio)}"
                place.annotate(told, (change.place - 0.4, 1), xycoords=("data", "axes fraction"), va="top", fontsize=7)
            shown = list(steps)[:: max(1, -(-len(series.points) // 10))]
            place.set_xticks(shown, [name_of(series.points[step]) for step in shown], fontsize=6)
            place.set_title(f"{series.name}, {unit}  {where(series)}".rstrip(), fontsize=8, loc="left")
            place.ticklabel_format(axis="y", useOffset=False, style="plain")
            place.margins(y=0.2)
    return result.getvalue()
