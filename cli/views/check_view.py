"""A `CheckRun` as tables and as CSV rows: what changed, why, and the word on the whole."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING, Any

from ...profilers.runs.check_run import CheckRun, Culprit, Judgement
from .table import add, table_of

if TYPE_CHECKING:
    from rich.console import RenderableType

_CULPRITS = 3
"""Parts that are named for each metric."""


def tables(run: CheckRun) -> Iterator["RenderableType"]:
    """A line for each metric that changed or fails, with its culprits; a line for all others of a target; and the word."""
    from rich.text import Text

    columns = (("target", "left"), ("metric", "left"), ("base", "right"), ("new", "right"), ("change", "right"))
    table = table_of("", *columns, ("budget", "right"), ("", "left"))
    for target, group in groupby(run.judgements, key=lambda item: item.metric.target):
        loud, quiet = [], dict[str, int]()
        for item in group:
            if item.fails or item.word in ("worse", "better") or (item.word == "cannot tell" and item.base is not None):
                loud.append(item)
            else:
                quiet[item.word] = quiet.get(item.word, 0) + 1
        for verdict, count in quiet.items():
            cells = (f"{count} metric{'s' if count > 1 else ''}", "", "", "", "", verdict)
            add(table, target, *cells, style="yellow" if verdict == "cannot tell" else None)
        for item in loud:
            style = "bold red" if item.fails else "green" if item.word == "better" else "yellow"
            add(table, target, item.metric.name, *figures(item), item.limit, word(item), style=style)
    yield table
    for item in run.judgements:
        yield from (Text(f"  {item.metric.target}  {line}") for line in lines(item))
        if item.metric.kind == "measured" and item.base is not None:
            yield Text(f"  {item.metric.target}  {item.metric.name}{_interval(item)}: {item.reason}")
    for note in run.notes:
        yield Text(f"note: {note}", style="dim")
    yield Text(sentence(run), style="bold red" if run.failed else "bold yellow" if run.undecided else "bold")


def rows(run: CheckRun) -> Iterator[Mapping[str, Any]]:
    """A line for each metric; an empty cell is a figure that there is none of."""
    for item in run.judgements:
        metric = {key: value for key, value in asdict(item.metric).items() if key != "parts"}
        row = metric | {"base": item.base, "limit": item.limit, "word": item.word, "fails": item.fails, "reason": item.reason}
        row["culprits"] = "; ".join(lines(item, len(item.culprits)))
        yield {key: "" if value is None else value for key, value in row.items()}


def sentence(run: CheckRun) -> str:
    """The word on the whole check."""
    every = len(run.judgements)
    better = sum(item.word == "better" for item in run.judgements)
    if run.failed:
        failing = [item for item in run.judgements if item.fails]
        names = ", ".join(f"{item.metric.target} {item.metric.name}" for item in failing[:_CULPRITS])
        more = f" and {len(failing) - _CULPRITS} more" if len(failing) > _CULPRITS else ""
        update = ". Meant? `mixbench check --update` accepts what is worse"
        exact = any(item.metric.kind == "counted" for item in failing)
        return f"FAILED, {len(failing)} of {every} metrics: {names}{more}{update if exact else ''}"
    if run.undecided:
        unknown = [item for item in run.judgements if item.word == "cannot tell"]
        reasons = "; ".join(dict.fromkeys(item.reason for item in unknown)) or "not everything could be checked"
        return f"CANNOT TELL, {len(unknown)} of {every} metrics: {reasons}"
    if better:
        return f"passed, {better} of {every} metrics better than the baseline: `mixbench check --update` keeps it so"
    return f"passed, {every} metrics by {run.against}"


def word(item: Judgement) -> str:
    """The verdict in a word or two, with the budget's where it is not kept."""
    if not item.over_budget:
        return item.word
    return "over budget" if item.word in ("same", "cannot tell") else f"{item.word}, over budget"


def figures(item: Judgement) -> tuple[str, str, str]:
    """Base, new and the change between them, as text."""
    new = _number(item.metric.value)
    if item.base is None:
        return "", new, ""
    if item.metric.value == item.base:
        return _number(item.base), new, ""
    share = f"{100 * (item.metric.value - item.base) / abs(item.base):+.2f} %" if item.base else "from 0"
    return _number(item.base), new, share


def _number(value: float) -> str:
    """All digits of a whole number, four of another."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.4g}"


def _interval(item: Judgement) -> str:
    low, high = item.metric.low, item.metric.high
    return "" if low is None or high is None else f" [{low:.3f}, {high:.3f}]"


def lines(item: Judgement, most: int = _CULPRITS) -> Iterator[str]:
    """The parts that changed: ``blocks.3.dfc: +12.4 M MACs (aten::convolution)``."""
    unit = item.metric.unit or item.metric.name
    for part in item.culprits[:most]:
        yield f"{part.part or 'the model itself'}: {change(part)} {unit}" + (f" ({part.operator})" if part.operator else "")
    if len(item.culprits) > most:
        yield f"{item.metric.name}: and {len(item.culprits) - most} more parts"


def change(part: Culprit) -> str:
    """A part's difference with its sign, in three digits with the power that suits it."""
    value = part.new - part.base
    for power, suffix in ((12, " T"), (9, " G"), (6, " M"), (3, " k")):
        if abs(value) >= 10**power:
            return f"{value / 10**power:+.3g}{suffix}"
    return f"{value:+d}"
