"""A portability report as a table of runtimes, and what breaks each."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ...export.portability.record import Breaker, RuntimeReport
from .table import add, table_of

if TYPE_CHECKING:
    from rich.console import RenderableType

_SHOWN, _NAMED = 4, 3
"""Breakers of a runtime, and nodes of a breaker, that a screen has room for."""


def tables(reports: Sequence[RuntimeReport]) -> Iterator["RenderableType"]:
    """A row for each runtime; then what it leaves to the CPU and why, and where all this is written."""
    from rich.text import Text

    left, right = "left", "right"
    columns = (("runtime", left), ("parts", right), ("nodes taken", right), ("MACs taken", right), ("what breaks it", left))
    table = table_of("", *columns)
    for report in reports:
        nodes = f"{report.taken_nodes:,} of {report.nodes:,}"
        add(table, report.title, report.partitions, nodes, _share(report.taken_macs, report.macs), _verdict(report))
    yield table
    for report in reports:
        for line in _lines(report):
            yield Text(line)
    for report in reports:
        for note in (*report.notes, *(f"not checked: {item}" for item in report.unchecked)):
            yield Text(f"note on {report.title}: {note}", style="yellow")
    for report in reports:
        yield Text(f"{report.title}: by {report.source}", style="dim")


def rows(reports: Sequence[RuntimeReport]) -> Iterator[Mapping[str, Any]]:
    """A line for each runtime."""
    for report in reports:
        row = asdict(report)
        for key in ("breakers", "unchecked", "notes"):
            del row[key]
        yield row | {"breakers": " ".join(dict.fromkeys(item.operator for item in report.breakers))}


def _verdict(report: RuntimeReport) -> str:
    if report.whole:
        return "nothing: it takes all in one piece"
    if not report.taken_nodes:
        return "it takes nothing"
    return ", ".join(dict.fromkeys(item.operator for item in report.breakers)) or "its own inputs"


def _lines(report: RuntimeReport) -> Iterator[str]:
    for item in report.breakers[:_SHOWN]:
        yield f"{report.title}: {item.operator}, {_where(item)}: {item.reason}; {_remedy(item)}"
    if (more := len(report.breakers) - _SHOWN) > 0:
        yield f"{report.title}: and {more} more, which --json lists"
    if report.partitions_if_rewritten != report.partitions:
        yield f"{report.title}: with these rewrites {_parts(report.partitions_if_rewritten)}, if it takes what they make"


def _where(item: Breaker) -> str:
    more = len(item.nodes) - _NAMED
    named = ", ".join(item.nodes[:_NAMED]) + (f" and {more} more" if more > 0 else "")
    return f"{len(item.nodes)} x ({named})" if len(item.nodes) > 1 else named


def _remedy(item: Breaker) -> str:
    without = f"{_parts(item.partitions_if_mended)} without it"
    return f"{without}; rewrite: {item.rewrite}" if item.rewrite else without


def _parts(count: int) -> str:
    return f"{count} part{'s' if count != 1 else ''}"


def _share(part: int, whole: int) -> str:
    # Never round a gap away, nor a little to nothing.
    if part == whole:
        return "100 %" if whole else ""
    return f"{min(max(100 * part / whole, 0.1 if part else 0.0), 99.9):.1f} %"
