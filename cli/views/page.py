"""What every HTML page is made of: one file that loads nothing, light or dark as asked, wide or narrow, on screen or paper.

A page runs no script unless it is given one of the files beside this one; and what it shows is there without it. Its policy
names each script and style by its hash, so that nothing else can run, load or be sent, whatever a name in it may hold.
"""

from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from html import escape
from pathlib import Path

from .table import Grid

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1b; --paper: #fff; --faint: #6b6b6b; --line: #ddd; --warn: #8a5a00; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e8e8; --paper: #161616; --faint: #a0a0a0; --line: #3a3a3a;
  --warn: #e0b050; } }
body { font: 14px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 2rem auto;
  max-width: 78rem; padding: 0 1rem; overflow-wrap: anywhere; }
a { color: inherit; } h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
.faint, caption { color: var(--faint); }
p.warn { color: var(--warn); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th { text-align: right; color: var(--faint); font-weight: normal; } td { text-align: right; border-top: 1px solid var(--line); }
th:first-child, td:first-child, .left { text-align: left; } th, td { padding: .15rem .6rem .15rem 0; white-space: nowrap; }
td.inner { padding-left: 1.5rem; color: var(--faint); } .wide { overflow-x: auto; }
svg[viewBox] { width: 100%; height: auto; } svg text { font: 10px ui-monospace, monospace; fill: var(--ink); }
.live { display: none; } .scripted .live { display: block; }
@media print { :root { color-scheme: light; --ink: #000; --paper: #fff; --faint: #555; --line: #bbb; --warn: #6b4500; }
  body { margin: 0; max-width: none; padding: 0; font-size: 9pt; } .scripted .live { display: none; }
  .wide { overflow: visible; } th, td { white-space: normal; overflow-wrap: normal; padding-right: .4rem; }
  td.left { overflow-wrap: anywhere; } tr[hidden] { display: table-row; }
  h2, h3, thead { break-after: avoid; } tr, svg, figure { break-inside: avoid; } rect { print-color-adjust: exact; } }
"""
TABLES_STYLE = """
th button { font: inherit; color: inherit; background: none; border: 0; padding: 0; cursor: pointer; text-align: inherit; }
th button:hover, th button:focus-visible, th[aria-sort] button { color: var(--ink); }
th[aria-sort=ascending] button::after { content: " ▲"; } th[aria-sort=descending] button::after { content: " ▼"; }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr)); gap: .6rem; margin: 1rem 0; padding: 0; }
.tiles div { border: 1px solid var(--line); border-radius: .4rem; padding: .5rem .7rem; break-inside: avoid; }
.tiles dt { color: var(--faint); } .tiles dd { margin: 0; font-size: 1.3rem; font-variant-numeric: tabular-nums; }
.tiles dd + dd { font-size: .8rem; color: var(--faint); }
select { font: inherit; color: inherit; background: var(--paper); border: 1px solid var(--line); border-radius: .3rem; }
@media (max-width: 30rem) { .tiles { grid-template-columns: 1fr 1fr; } .tiles dd { font-size: 1.1rem; } }
"""
"""Of `tiles`, and of tables that ``tables.js`` sorts."""
SECTIONS_STYLE = """
details { border-top: 1px solid var(--line); padding: .6rem 0; scroll-margin-top: .5rem; } details + * { margin-top: 1.4rem; }
details + details { margin-top: 0; } summary { cursor: pointer; } summary h2 { display: inline; }
nav { margin: 1rem 0; }
@media print { details::details-content { content-visibility: visible; block-size: auto; } summary { break-after: avoid; } }
"""
"""Of `section`."""


def page(
    title: str,
    command: str,
    versions: Mapping[str, str],
    style: str,
    parts: Iterable[str],
    scripts: Sequence[str] = (),
    record: str = "",
) -> str:
    """The whole page: a head, the parts one after the other, and what made it.

    Args:
        title: plain text, the command's name if empty; ``parts`` are HTML.
        style: CSS of this kind of page, after the common one.
        scripts: names of files in this folder that make the page answer to clicks and keys.
        record: JSON that the scripts find under the id "record", and other programs too.
    """
    made = f"mixbench {command}; {', '.join(f'{name} {number}' for name, number in versions.items())}".removesuffix("; ")
    code = [Path(__file__).with_name(name).read_text(encoding="utf-8") for name in scripts]
    style = _STYLE + style
    named = f"mixbench {command}: {title}" if title else f"mixbench {command}"
    lines = [
        "<!DOCTYPE html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{escape(named)}</title>',
        f'<meta http-equiv="Content-Security-Policy" content="{_policy(style, code)}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<link rel="icon" href="data:,">',  # or the browser would ask a server for one
        f"<style>{style}</style></head><body><h1>{escape(title or named)}</h1>",
        *parts,
        f'<p class="faint">{escape(made)}</p>',
        *([f'<script type="application/json" id="record">{_inert(record)}</script>'] if record else []),
        *(f"<script>{text}</script>" for text in code),
        "</body></html>",
    ]
    return "\n".join(lines) + "\n"


def _policy(style: str, code: Iterable[str]) -> str:
    """Nothing may be loaded or sent; these scripts and this style may stand in the page."""

    def hashes(texts: Iterable[str]) -> str:
        return " ".join(f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'" for text in texts) or "'none'"

    nothing = "default-src 'none'; base-uri 'none'; form-action 'none'"
    return f"{nothing}; img-src data:; style-src {hashes([style])}; script-src {hashes(code)}"


def _inert(text: str) -> str:
    """JSON that is the same to a program that reads it, and holds no sign that HTML knows: no name in it ends the script."""
    return text.translate({ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&"})


def table(grid: Grid, sortable: bool = False, depths: Sequence[int] = ()) -> Iterator[str]:
    """A table that scrolls sideways by itself where the screen is narrow.

    Args:
        sortable: for ``tables.js``: a click on a column's name sorts by it.
        depths: of the rows; where they are many, ``tables.js`` shows those down to a depth that can be chosen.
    """
    sides = ["" if side == "right" else ' class="left"' for _, side in grid.columns]
    yield f'<div class="wide"><table{" class=sortable" if sortable else ""}><thead><tr>'
    yield "".join(f"<th{side}>{escape(name)}</th>" for side, (name, _) in zip(sides, grid.columns, strict=True))
    yield "</tr></thead><tbody>"
    for index, row in enumerate(grid.rows):
        deep = f" data-depth={depths[index]}" if depths else ""
        yield f"<tr{deep}>{''.join(f'<td{side}>{escape(cell)}</td>' for side, cell in zip(sides, row, strict=True))}</tr>"
    yield "</tbody></table></div>"


def links(places: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Where to go in the page: what each place is called, and its id."""
    found = (f'<a href="#{place}">{escape(name)}</a>' for name, place in places)
    yield f"<nav>{' · '.join(found)}</nav>"


def section(name: str, place: str, about: str, parts: Iterable[str]) -> Iterator[str]:
    """A part of a page that opens by a click on its name. Goes with ``sections.js``, which opens it where a link leads there.

    Args:
        place: its id.
        about: what is seen of it while it is closed.
        parts: HTML.
    """
    yield f'<details id="{place}"><summary><h2>{escape(name)}</h2> <span class="faint">{escape(about)}</span></summary>'
    yield from parts
    yield "</details>"


def tiles(figures: Iterable[tuple[str, str, str]]) -> Iterator[str]:
    """(name, large figure, what stands below it small)."""
    yield '<dl class="tiles">'
    for name, large, exact in figures:
        yield f"<div><dt>{escape(name)}</dt><dd>{escape(large)}</dd><dd>{escape(exact)}</dd></div>"
    yield "</dl>"


def paragraphs(texts: Iterable[str], kind: str = "") -> Iterator[str]:
    """Each text as a paragraph of its own; ``kind`` is "", "faint" or "warn"."""
    mark = f' class="{kind}"' if kind else ""
    yield from (f"<p{mark}>{escape(text)}</p>" for text in texts)
