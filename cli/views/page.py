"""What every HTML page is made of: one file that loads nothing and runs no script, light or dark as asked, wide or narrow."""

from collections.abc import Iterable, Iterator, Mapping
from html import escape

from .table import Grid

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1b; --paper: #fff; --faint: #6b6b6b; --line: #ddd; --warn: #8a5a00; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e8e8; --paper: #161616; --faint: #a0a0a0; --line: #3a3a3a;
  --warn: #e0b050; } }
body { font: 14px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 2rem auto;
  max-width: 78rem; padding: 0 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; } p.faint, caption { color: var(--faint); }
p.warn { color: var(--warn); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th { text-align: right; color: var(--faint); font-weight: normal; } td { text-align: right; border-top: 1px solid var(--line); }
th:first-child, td:first-child, .left { text-align: left; } th, td { padding: .15rem .6rem .15rem 0; white-space: nowrap; }
td.inner { padding-left: 1.5rem; color: var(--faint); } .wide { overflow-x: auto; }
svg { width: 100%; height: auto; } svg text { font: 10px ui-monospace, monospace; fill: var(--ink); }
"""


def page(title: str, command: str, versions: Mapping[str, str], style: str, parts: Iterable[str]) -> str:
    """The whole page: a head, the parts one after the other, and what made it.

    Args:
        title: plain text; ``parts`` are HTML.
        style: CSS of this kind of page, after the common one.
    """
    made = f"mixbench {command}; {', '.join(f'{name} {number}' for name, number in versions.items())}"
    lines = [
        "<!DOCTYPE html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>mixbench {command}: {escape(title)}</title>',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<link rel="icon" href="data:,">',  # or the browser would ask a server for one
        f"<style>{_STYLE}{style}</style></head><body><h1>{escape(title)}</h1>",
        *parts,
        f'<p class="faint">{escape(made)}</p></body></html>',
    ]
    return "\n".join(lines) + "\n"


def table(grid: Grid) -> Iterator[str]:
    """A table that scrolls sideways by itself where the screen is narrow."""
    sides = ["" if side == "right" else ' class="left"' for _, side in grid.columns]
    yield '<div class="wide"><table><thead><tr>'
    yield "".join(f"<th{side}>{escape(name)}</th>" for side, (name, _) in zip(sides, grid.columns, strict=True))
    yield "</tr></thead><tbody>"
    for row in grid.rows:
        yield f"<tr>{''.join(f'<td{side}>{escape(cell)}</td>' for side, cell in zip(sides, row, strict=True))}</tr>"
    yield "</tbody></table></div>"


def paragraphs(texts: Iterable[str], kind: str = "") -> Iterator[str]:
    """Each text as a paragraph of its own; ``kind`` is "", "faint" or "warn"."""
    mark = f' class="{kind}"' if kind else ""
    yield from (f"<p{mark}>{escape(text)}</p>" for text in texts)
