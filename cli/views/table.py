"""What views of measurements share: tables without boxes, times in the unit that suits them, signs that a screen can show."""

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table


def ns(value: float) -> str:
    """A time in the unit that suits it, with three to four digits."""
    micro = "µs" if has_unicode() else "us"
    for size, unit in ((1e9, "s"), (1e6, "ms"), (1e3, micro)):
        if value >= size:
            return f"{value / size:.4g} {unit}"
    return f"{value:.0f} ns"


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


def add(table: "Table", *cells: Any) -> None:
    """A row; names may hold brackets, which are no markup."""
    from rich.text import Text

    table.add_row(*(Text(str(cell)) for cell in cells))
