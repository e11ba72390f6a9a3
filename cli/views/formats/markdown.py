"""Markdown for a job's summary page, which GitHub cuts off, whole and without a word, beyond 1 MiB for a step."""

from collections.abc import Iterable, Iterator

from ....profilers.runs.check_run import CheckRun, Judgement
from .. import check_view
from . import Format

_LIMIT = 1024 * 1024
_ROOM = 400
"""Bytes for the note that something was left out."""
_HEAD = ("| target | metric | base | new | change | budget | |", "|---|---|---:|---:|---:|---|---|")
_SIGNS = {"failed": "❌", "undecided": "❔", "passed": "✅"}
_MARKUP = {ord(sign): f"&#{ord(sign)};" for sign in r"\`*_{}[]<>()#+!|~@$" + "\n\r"} | {ord("&"): "&amp;"}


def page(run: CheckRun, limit: int, title: str = "") -> str:
    """The word, what changed or fails, why, and all the rest folded away; in that order what doesn't fit is left out.

    Args:
        limit: in bytes.
        title: lines before everything else.
    """
    state = "failed" if run.failed else "undecided" if run.undecided else "passed"
    lines = [*([title] if title else []), f"### {_SIGNS[state]} mixbench", "", plain(check_view.sentence(run)), ""]
    loud = [item for item in run.judgements if _is_loud(item)]
    loud.sort(key=lambda item: not item.fails)
    quiet = [item for item in run.judgements if not _is_loud(item)]
    changed = (f"- {name(item.metric.target)} {line}" for item in loud for line in map(plain, check_view.lines(item)))
    left_out = 0
    for before, body, after in (
        (_HEAD, map(_row, loud), ("",)),
        ((), changed, ("",)),
        ((), (f"> {plain(note)}" + "\n>" for note in run.notes), ("",)),
        (("<details><summary>all others</summary>", "", *_HEAD), map(_row, quiet), ("", "</details>")),
    ):
        fitting, over = _fitting(body, limit - _ROOM - _size([*lines, *before, *after]))
        left_out += over
        lines += [*before, *fitting, *after] if fitting else []
    if left_out:
        lines += ["", f"*{left_out:,} lines are left out: this page may have {limit:,} bytes.*"]
    return "\n".join(lines).rstrip("\n") + "\n"


def plain(text: str) -> str:
    """Text without any meaning as markup."""
    return text.translate(_MARKUP)


def name(text: str) -> str:
    """A name as code: no mention, link or emphasis can hide in it."""
    return f"<code>{plain(text)}</code>"


def _is_loud(item: Judgement) -> bool:
    return item.fails or item.word in ("worse", "better", "cannot tell")


def _row(item: Judgement) -> str:
    base, new, change = check_view.figures(item)
    word = f"**{check_view.word(item)}**" if item.fails else check_view.word(item)
    metric = item.metric
    cells = (name(metric.target), name(metric.name), base, f"{new} {plain(metric.unit)}", change, plain(item.limit), word)
    return f"| {' | '.join(cells)} |"


def _fitting(lines: Iterable[str], room: int) -> tuple[list[str], int]:
    """The first lines that fit, and how many don't."""
    found: list[str] = []
    rest: Iterator[str] = iter(lines)
    for line in rest:
        room -= _size([line])
        if room < 0:
            return found, 1 + sum(1 for _ in rest)
        found.append(line)
    return found, 0


def _size(lines: Iterable[str]) -> int:
    return sum(len(line.encode()) + 1 for line in lines)


FORMAT = Format(".md", "a job's summary page; at most 1 MiB", lambda run: page(run, _LIMIT))
