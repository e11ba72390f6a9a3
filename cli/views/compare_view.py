"""A `CompareRun` as tables, a plot of characters, CSV rows and a page."""

from collections.abc import Iterator, Mapping, Sequence
from string import ascii_lowercase
from typing import TYPE_CHECKING, Any

from ...profilers.runs.compare_run import METRICS, Compared, CompareRun, Difference, Differences, Front, figure
from ...profilers.stats import Estimate
from . import roofline_view
from .figures import exact, short, signed
from .sketch import Mark, Scale, sketch, wide
from .table import Grid, drawn, exactly, ns

if TYPE_CHECKING:
    from rich.console import RenderableType

_ABREAST = 4
"""Models side by side that a screen has room for; more become rows."""
_ALWAYS = ("params", "macs", "flops", "elementwise_flops", "activations", "bytes", "compulsory_bytes", "peak_memory")
_COSTS = ("MACs", "parameters", "FFT FLOPs", "elementwise FLOPs", "activations", "bytes")
"""The names of `Part.costs`, in order."""
UNDER_ROOFS = "What bounds them"


def tables(run: CompareRun, most: int | None = None) -> Iterator["RenderableType"]:
    """The figures, verdicts on times, the plot, the differences, and what speaks against the figures.

    Args:
        most: lines of differences that are shown.
    """
    from rich.text import Text

    if run.partial:
        yield Text("PARTIAL: stopped before its end", style="bold yellow")
    yield drawn(figures(run))
    if len(run.models) > _ABREAST:
        yield Text(f"\n{run.models[0].model} = 1", style="bold")
        yield drawn(ratios(run))
    for text in sources(run):
        yield Text(text, style="dim")
    if run.time:
        for verdict in run.time.comparisons:
            yield Text(verdict.sentence, style={"faster": "green", "slower": "red"}.get(verdict.verdict, ""))
    for item in run.differences:
        yield Text(f"\n{heading(run, item)}", style="bold")
        yield drawn(differences(item, most))
        yield from (Text(text, style="dim") for text in remarks(item, most))
    if run.front:
        yield Text(f"\n{front_heading(run.front)}", style="bold")
        yield from map(exactly, _plot(run.front))
        yield drawn(front(run.front))
    yield from (Text(text, style="yellow") for text in warnings(run))
    if run.roofline:
        yield Text(f"\n{UNDER_ROOFS}", style="bold")
        yield from roofline_view.tables(run.roofline, by_op=False)


def figures(run: CompareRun) -> Grid:
    """Models as columns with their ratios to the first, or as rows where they are more than a screen is wide."""
    names = shown(run)
    if len(run.models) > _ABREAST:
        columns = (("model", "left"), ("input", "left"), *((METRICS[name].label, "right") for name in names))
        return Grid(columns, tuple((item.model, _inputs(item), *(_cell(item, name) for name in names)) for item in run.models))
    first, *others = run.models
    columns = (
        ("", "left"),
        (first.model, "right"),
        *(pair for item in others for pair in ((item.model, "right"), ("", "right"))),
    )
    rows = [("input", _inputs(first), *(cell for item in others for cell in (_inputs(item), "")))]
    for name in names:
        cells = [cell for item in others for cell in (_cell(item, name), _ratio(item, first, name))]
        rows.append((METRICS[name].label, _cell(first, name), *cells))
        if name == "latency":
            intervals = [cell for item in others for cell in (_interval(item.latency_ns), "")]
            rows.append(("99 % interval", _interval(first.latency_ns), *intervals))
    return Grid(columns, tuple(rows))


def ratios(run: CompareRun) -> Grid:
    """Each figure over the first model's."""
    names = [name for name in shown(run) if METRICS[name].unit != "%"]
    columns = (("model", "left"), *((METRICS[name].label, "right") for name in names))
    first = run.models[0]
    return Grid(columns, tuple((item.model, *(_ratio(item, first, name) for name in names)) for item in run.models))


def shown(run: CompareRun) -> list[str]:
    """The metrics of the table: the counted ones, and what any of the models has else."""
    return [name for name in METRICS if name in _ALWAYS or any(figure(item, name) for item in run.models)]


def _cell(item: Compared, name: str) -> str:
    return exact(figure(item, name), METRICS[name].unit)


def _ratio(item: Compared, first: Compared, name: str) -> str:
    """As ``x1.36``; of shares in percent the difference in points."""
    own, base = figure(item, name), figure(first, name)
    if own is None or base is None:
        return ""
    if METRICS[name].unit == "%":
        return f"{own - base:+.1f}"
    return f"x{own / base:.3f}" if base else ""


def _inputs(item: Compared) -> str:
    return f"{', '.join(item.counted.inputs)} {item.counted.dtype}, {item.counted.mode}"


def _interval(found: Estimate | None) -> str:
    if found is None:
        return "n/a"
    if found.low is None or found.high is None:
        return f"none from {found.samples}"
    return f"[{ns(found.low)}, {ns(found.high)}]"


def sources(run: CompareRun) -> Iterator[str]:
    """Where accuracies are from."""
    by_source: dict[str, list[str]] = {}
    for item in run.models:
        if item.accuracy:
            by_source.setdefault(item.accuracy.source, []).append(item.model)
    yield from (f"top-1 of {', '.join(models)}: {source}" for source, models in by_source.items())


def warnings(run: CompareRun) -> Iterator[str]:
    """What is unknown, and what was noted while counting and timing."""
    for item in run.models:
        for missed in item.counted.uncounted:
            yield f"uncounted in {item.model}: {missed.operator}, {missed.calls} calls: no rule, cost unknown, in no total"
        yield from (f"note on {item.model}: {note}" for note in item.counted.notes)
    if run.time:
        yield from (f"warning: {warning}" for warning in run.time.warnings)


def heading(run: CompareRun, item: Differences) -> str:
    """What the differences are between."""
    first, second = (model.model for model in run.models)
    return f"{item.by}s of {second} that differ from those of {first}, matched by {item.matched}: how much more or less"


def differences(item: Differences, most: int | None = None) -> Grid:
    """A line for each that differs; below a module the operators that do."""
    columns = ((item.by, "left"), ("", "left"), ("in", "left"), ("calls", "right"), *((name, "right") for name in _COSTS))
    rows = []
    for part in item.items[:most]:
        rows.append(_difference(part, ""))
        if len(part.operators) > 1:
            rows += [_difference(inner, "  ") for inner in part.operators]
    return Grid(columns, tuple(rows))


def _difference(item: Difference, indent: str) -> tuple[str, ...]:
    where = {"both": "both", "first": "first only", "second": "second only"}[item.found_in]
    calls = item.second.calls - item.first.calls
    kind = "" if item.kind == item.name else item.kind
    return (indent + (item.name or "(the model itself)"), kind, where, signed(calls) if calls else "", *map(signed, item.more))


def remarks(item: Differences, most: int | None) -> Iterator[str]:
    """What the table leaves out."""
    total = [sum(gaps) for gaps in zip(*(part.more for part in item.items), strict=True)] or [0] * len(_COSTS)
    words = ", ".join(f"{signed(gap)} {name}" for gap, name in zip(total, _COSTS, strict=True) if gap)
    yield f"together {words or 'no difference'}; {item.same:,} {item.by}s cost the same in both"
    if most is not None and len(item.items) > most:
        yield f"{len(item.items) - most:,} smaller differences not shown: --csv and --json have all"


def front_heading(found: Front) -> str:
    """What the plane shows."""
    x, y = METRICS[found.x], METRICS[found.y]
    return f"{y.label} over {x.label}; on the front, in capitals, are those that no other beats in both"


def _signs(found: Front) -> list[str]:
    """A letter for each; stars and points where there are not enough."""
    if len(found.placed) > len(ascii_lowercase):
        return ["*" if item.on_front else "." for item in found.placed]
    letters = zip(ascii_lowercase, found.placed, strict=False)
    return [letter.upper() if item.on_front else letter for letter, item in letters]


def _plot(found: Front) -> Iterator[str]:
    marks = [Mark(item.x, item.y, sign) for item, sign in zip(found.placed, _signs(found), strict=True)]
    yield from sketch(marks, _scale(found.x, [mark.x for mark in marks]), _scale(found.y, [mark.y for mark in marks]))
    yield ""


def _scale(name: str, values: Sequence[float]) -> Scale:
    item = METRICS[name]
    return Scale(item.label, lambda value: short(value, item.unit), wide(values))


def front(found: Front) -> Grid:
    """A line for each model from the left, and those that have not both figures."""
    x, y = METRICS[found.x], METRICS[found.y]
    columns = (("", "left"), ("model", "left"), (x.label, "right"), (y.label, "right"), ("", "left"))
    rows = [
        (sign, item.model, short(item.x, x.unit), short(item.y, y.unit), "front" if item.on_front else f"behind {item.behind}")
        for item, sign in zip(found.placed, _signs(found), strict=True)
    ]
    return Grid(columns, (*rows, *(("", item.model, "", "", f"not shown: {item.why}") for item in found.unplaced)))


def rows(run: CompareRun) -> Iterator[Mapping[str, Any]]:
    """A line for each model; or for each part that differs, when those were asked for."""
    if run.differences:
        first, second = (item.model for item in run.models)
        for found in run.differences:
            for part in found.items:
                yield from _lines(found.by, "", part, first, second)
        return
    on_front = {item.model: item.on_front for item in run.front.placed} if run.front else {}
    for item in run.models:
        line: dict[str, Any] = {"model": item.model, "workload": item.counted.workload}
        for name, metric in METRICS.items():
            value = figure(item, name)
            suffix = {"ns": "_ns", "%": "_percent"}.get(metric.unit, "")
            line[f"{name}{suffix}"] = "" if value is None else value
        latency = item.latency_ns
        line["latency_low_ns"] = latency.low if latency and latency.low is not None else ""
        line["latency_high_ns"] = latency.high if latency and latency.high is not None else ""
        line["top1_source"] = item.accuracy.source if item.accuracy else ""
        for point in run.roofline.models if run.roofline else ():
            if point.model == item.model:
                line[f"{point.place}_unfused_floor_ns"] = point.unfused_floor_ns
                line[f"{point.place}_compulsory_floor_ns"] = point.compulsory_floor_ns
        line["uncounted_calls"] = sum(missed.calls for missed in item.counted.uncounted)
        yield line | ({"on_front": on_front.get(item.model, "")} if run.front else {})


def _lines(by: str, inside: str, part: Difference, first: str, second: str) -> Iterator[Mapping[str, Any]]:
    line: dict[str, Any] = {"first": first, "second": second, "by": by, "inside": inside, "name": part.name, "kind": part.kind}
    line["found_in"] = part.found_in
    names = ("macs", "params", "fft_flops", "elementwise_flops", "activations", "bytes")
    for name, a, b in zip(names, part.first.costs, part.second.costs, strict=True):
        line |= {f"{name}_first": a, f"{name}_second": b, f"{name}_more": b - a}
    yield line
    for operator in part.operators:
        yield from _lines("operator", part.name or ".", operator, first, second)
