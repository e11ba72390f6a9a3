"""Markdown and plain pages from the very tables that a terminal shows: nothing is formatted twice.

What a view yields is read back as blocks: words, tables, and lines whose characters have to stand where they stand.
"""

import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from .page import page as skeleton
from .page import table as table_of_page
from .table import Grid

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

_INDENT = "\u2003"
"""Twice a space at the beginning of a cell: a space that neither Markdown nor HTML drops."""
_MARKUP = re.compile(r"([\\`*\[\]<>|~$&]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))")
"""Signs that Markdown knows; within a word an underscore means nothing."""
_OPENING = re.compile(r"^(?=[-+#=])|^(\d+)(?=[.)])")
"""What at the beginning of a line would make it a list, a heading or a rule."""


@dataclass(frozen=True, slots=True)
class Words:
    """A line of text; ``kind`` is as `page.paragraphs` has it, or "loud"."""

    text: str
    kind: str


@dataclass(frozen=True, slots=True)
class Figure:
    """Lines drawn with characters."""

    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Listing:
    """A table with its title, which may be empty."""

    title: str
    grid: Grid


Block = Words | Figure | Listing


def markdown(items: Iterable["RenderableType"]) -> str:
    """GitHub-flavoured Markdown; no text of a cell or line becomes markup."""
    parts = []
    for block in blocks(items):
        match block:
            case Words(text, kind):
                parts.append(f"**{_plain(text)}**" if kind == "loud" else _OPENING.sub(r"\1\\", _plain(text)))
            case Figure(lines):
                fence = "`" * max(3, 1 + max((len(run) for line in lines for run in re.findall("`+", line)), default=0))
                parts.append("\n".join([fence, *lines, fence]))
            case Listing(title, grid):
                parts += [f"### {_plain(title)}"] if title else []
                parts.append("\n".join(_rows(grid)))
    return "\n\n".join(parts) + "\n"


def page(record: Any, items: Iterable["RenderableType"]) -> str:
    """The tables as a page that runs no script, for a record that has no page of its own."""
    return skeleton("", record.command, getattr(record, "versions", {}), "", _parts(items))


def blocks(items: Iterable["RenderableType"]) -> Iterator[Block]:
    """What a view yields, in order, drawn lines that follow each other as one figure."""
    drawn: list[str] = []
    for block in (found for item in items for found in _blocks(item)):
        if isinstance(block, Figure):
            drawn += block.lines
            continue
        if drawn:
            yield Figure(tuple(drawn))
            drawn = []
        yield block
    if drawn:
        yield Figure(tuple(drawn))


def _blocks(item: "RenderableType") -> Iterator[Block]:
    from rich.console import Console, Group
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    match item:
        case Text():
            if item.no_wrap:
                yield Figure(tuple(item.plain.strip("\n").splitlines()))
            elif item.plain.strip():
                yield Words(" ".join(item.plain.split()), _kind(str(item.style)))
        case Table():
            title = " ".join(str(item.title or "").split())
            yield Listing(title, _grid(item))
        case Group():
            yield from (block for inner in item.renderables for block in _blocks(inner))
        case Padding():
            yield from _blocks(item.renderable)
        case _:  # whatever it is, it can be drawn
            buffer = io.StringIO()
            Console(file=buffer, width=120, highlight=False).print(item)
            yield Figure(tuple(line.rstrip() for line in buffer.getvalue().splitlines()))


def _kind(style: str) -> str:
    words = style.split()
    if {"yellow", "red"} & set(words):
        return "warn"
    return "loud" if "bold" in words else "faint" if "dim" in words else ""


def _grid(table: "Table") -> Grid:
    columns = tuple((str(column.header) if table.show_header else "", column.justify) for column in table.columns)
    rows = zip(*([_cell(cell) for cell in column.cells] for column in table.columns), strict=True)
    return Grid(columns, tuple(rows))


def _cell(cell: Any) -> str:
    text = str(cell).replace("\n", " ")
    indent = len(text) - len(text.lstrip(" "))
    return _INDENT * (indent // 2) + text.strip()


def _plain(text: str) -> str:
    return _MARKUP.sub(r"\\\1", text)


def _rows(grid: Grid) -> Iterator[str]:
    yield f"| {' | '.join(_plain(name) for name, _ in grid.columns)} |"
    yield f"|{'|'.join('---:' if side == 'right' else '---' for _, side in grid.columns)}|"
    yield from (f"| {' | '.join(map(_plain, row))} |" for row in grid.rows)


def _parts(items: Iterable["RenderableType"]) -> Iterator[str]:
    for block in blocks(items):
        match block:
            case Words(text, kind):
                marked = f"<b>{escape(text)}</b>" if kind == "loud" else escape(text)
                yield f'<p class="{kind}">{marked}</p>' if kind in ("faint", "warn") else f"<p>{marked}</p>"
            case Figure(lines):
                yield "\n".join(['<pre class="wide">', *map(escape, lines), "</pre>"])
            case Listing(title, grid):
                yield from [f"<h2>{escape(title)}</h2>"] if title else []
                yield from table_of_page(grid)
