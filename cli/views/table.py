"""What views of measurements share: tables without boxes, times in the unit that suits them, signs that a screen can show."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table


@dataclass(frozen=True, slots=True)
class Grid:
    """A table before it is drawn, on the screen or in a page: (name, side) of its columns, and its rows of text."""

    columns: tuple[tuple[str, str], ...]
    rows: tuple[tuple[str, ...], ...]


def ns(value: float) -> str:
    """A time in the unit that suits it, with three to four digits."""
    micro = "µs" if has_unicode() else "us"
    for size, unit in ((1e9, "s"), (1e6, "ms"), (1e3, micro)):
        if value >= size:
            return f"{value / size:.4g} {unit}"
    return f"{value:.0f} ns"


def about(value: int) -> str:
    """A large integer in three digits and its power; empty for one that can be read at once."""
    for power, suffix in ((12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if value >= 10**power:
            return f"{value / 10**power:.2f} {suffix}"
    return ""


def share(part: int, whole: int) -> str:
    """A part in percent."""
    return f"{100 * part / whole:.1f} %" if whole else ""


def threads(count: int) -> str:
    """How many, in words."""
    return "1 thread" if count == 1 else f"{count} threads"


def has_unicode() -> bool:
    """Whether stdout can show more than ASCII."""
    return "utf" in (sys.stdout.encoding or "").lower()


def table_of(title: str, *columns: tuple[str, str]) -> "Table":
    """A table of (name, side) columns, left or right; without names it has no head. It has to survive a pipe."""
    from rich.table import Table
    from rich.text import Text

    named = any(name for name, _ in columns)
    table = Table(
        title=Text(title, style="bold") if title else None,
        title_justify="left",
        box=None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
        show_header=named,
        header_style="dim",
    )
    for name, side in columns:
        table.add_column(name, justify="right" if side == "right" else "left", overflow="fold")
    return table


def plain(title: str, *columns: str, left: int = 1) -> "Table":
    """A table with ``left`` columns of text, and the rest numbers."""
    return table_of(title, *((name, "left" if index < left else "right") for index, name in enumerate(columns)))


def exactly(text: str, style: str = "") -> "RenderableType":
    """A line of a chart: its characters stay where they are, in pages too."""
    from rich.text import Text

    return Text(text, style=style, no_wrap=True, overflow="ignore")


def small(text: str) -> "RenderableType":
    """A line that may be overlooked."""
    from rich.text import Text

    return Text(text, style="dim")


def add(table: "Table", *cells: Any, style: str | None = None) -> None:
    """A row: integers with commas, and names, which may hold brackets that are no markup."""
    from rich.text import Text

    table.add_row(*(Text(f"{cell:,}" if isinstance(cell, int) else str(cell)) for cell in cells), style=style)


def drawn(grid: Grid) -> "Table":
    """A grid for the screen."""
    table = table_of("", *grid.columns)
    for row in grid.rows:
        add(table, *row)
    return table


def bars(shown: Sequence[tuple[str, float, float | None]], unit: str, solid: bool = True, width: int = 48) -> Iterator[str]:
    """(name, value, goal) as bars of characters, a tick where the goal is; what is not solid is not measured."""
    unicode = has_unicode()
    fill, tick = ("█" if solid else "░", "│") if unicode else ("#" if solid else ":", "|")
    most = max([0.0, *(max(value, goal or 0.0) for _, value, goal in shown)]) or 1.0
    room = max((len(name) for name, *_ in shown), default=0)
    for name, value, goal in shown:
        bar = list(fill * max(1, round(width * value / most)))
        if goal is not None:
            bar += " " * (width + 1 - len(bar))
            bar[round(width * goal / most)] = tick
        yield f"{name:>{room}} {''.join(bar).rstrip():<{width + 1}} {value:.4g} {unit}".rstrip()
