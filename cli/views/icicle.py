"""Modules as an icicle: a module's width is its share, what it is made of lies below it, and what is left free is its own.

The picture needs no script; with ``icicle.js`` a click opens a module and the metric can be chosen. Boxes are placed by
percentages and clip their names, so that letters keep their size on any screen.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Protocol

SCRIPT = "icicle.js"
HEIGHT = 20
_THINNEST, _NAMED = 0.1, 2.5
"""Percent: narrower boxes are not drawn, or bear no name."""
_COLOURS = 7
_HOW = "A click or Enter opens a module; Escape, or the path, leads back; arrows go from box to box."
_LIGHT = ("#9ecae1", "#fdae6b", "#a1d99b", "#f4a6b0", "#c7b9e2", "#d9c3a5", "#9fd8d2")
_DARK = ("#2f5f7d", "#8a4f1d", "#2f6b3c", "#86404c", "#54467a", "#66533a", "#23625d")


def _properties(colours: tuple[str, ...]) -> str:
    return " ".join(f"--k{place}: {colour};" for place, colour in enumerate(colours))


STYLE = f"""
:root {{ --k: #d9d9d9; {_properties(_LIGHT)} }}
@media (prefers-color-scheme: dark) {{ :root {{ --k: #444; {_properties(_DARK)} }} }}
@media print {{ :root {{ --k: #d9d9d9; {_properties(_LIGHT)} }} }}
.icicle {{ margin: 1rem 0; }} .icicle > svg {{ display: block; width: 100%; }}
.icicle svg svg {{ cursor: pointer; outline: none; }}
.icicle text {{ pointer-events: none; font: 11px system-ui, sans-serif; }}
.icicle rect {{ fill: var(--k); stroke: var(--paper); stroke-width: 1; }}
.icicle svg svg:hover > rect, .icicle svg svg:focus-visible > rect {{ stroke: var(--ink); stroke-width: 2; }}
.told {{ min-height: 3em; }} .kind {{ display: inline-block; margin-right: 1.1rem; }}
.kind svg {{ width: 12px; height: 10px; margin-right: .35rem; }}
.crumbs button {{ font: inherit; color: inherit; background: none; border: 0; padding: 0; text-decoration: underline;
  cursor: pointer; }}
.scripted .by {{ display: none; }} @media print {{ .scripted .by {{ display: block; }} }}
""" + " ".join(f".icicle .k{place} {{ fill: var(--k{place}); }}" for place in range(_COLOURS))


class Node(Protocol):
    """A module of a record: in the order of its tree, each with all below it."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def depth(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Metric:
    """What widths can show: the sum of a module's fields of these names."""

    label: str
    fields: tuple[str, ...]

    def of(self, node: Node) -> int:
        """The metric of a module and all below it."""
        return sum(getattr(node, name) for name in self.fields)


def figure(nodes: Sequence[Node], metrics: Sequence[Metric], place: int, model: str) -> Iterator[str]:
    """The figure of one model, drawn for the first metric that is not 0.

    Args:
        nodes: the model first, and then its modules as they are in the record.
        place: of the model in the record, where the script reads the figures.
        model: what the whole is called.
    """
    shown = [metric for metric in metrics if nodes and metric.of(nodes[0]) > 0]
    if not shown:
        return
    kinds = _kinds(nodes, shown)
    yield f'<figure class="icicle" data-model="{place}">'
    choices = "".join(f'<option value="{" ".join(metric.fields)}">{escape(metric.label)}</option>' for metric in shown)
    yield f'<p class="live"><label>Width is <select>{choices}</select></label> <span class="faint">{_HOW}</span></p>'
    yield f'<p class="live crumbs"></p><p class="by">{escape(model)}, by {escape(shown[0].label)}</p>'
    boxes = list(_boxes(nodes, shown[0]))
    height = HEIGHT * (1 + max(nodes[index].depth for index, _, _ in boxes))
    yield f'<svg height="{height}" role="group" aria-label="{escape(model)}: modules by {escape(shown[0].label)}">'
    for index, left, width in boxes:
        node, value = nodes[index], shown[0].of(nodes[index])
        told = f"{node.name or model} ({node.kind}): {value:,} {shown[0].label}, {width:.1f} %"
        colour = f' class="k{kinds[node.kind]}"' if node.kind in kinds and _is_leaf(nodes, index) else ""
        name = node.name.rpartition(".")[2] or model
        name += f" {node.kind}" if name.isdecimal() else ""
        words = f'<text x="4" y="14">{escape(name)}</text>' if width >= _NAMED else ""
        yield (
            f'<svg x="{left:.3f}%" y="{node.depth * HEIGHT}" width="{width:.3f}%" height="{HEIGHT}"><title>{escape(told)}'
            f'</title><rect{colour} width="100%" height="100%"/>{words}</svg>'
        )
    yield '</svg><p class="told live faint" aria-live="polite"></p><figcaption>'
    for kind, number in kinds.items():
        swatch = f'<svg viewBox="0 0 12 10"><rect class="k{number}" width="12" height="10"/></svg>'
        yield f'<span class="kind" data-kind="{escape(kind)}">{swatch}{escape(kind)}</span>'
    yield "</figcaption></figure>"


def _kinds(nodes: Sequence[Node], metrics: Sequence[Metric]) -> dict[str, int]:
    """The commonest kinds of modules that hold no others but a figure, and the colour of each; the rest have none."""
    own = (node for index, node in enumerate(nodes) if _is_leaf(nodes, index) and any(metric.of(node) for metric in metrics))
    found = Counter(node.kind for node in own)
    return {kind: colour for colour, (kind, _) in enumerate(found.most_common(_COLOURS))}


def _is_leaf(nodes: Sequence[Node], index: int) -> bool:
    return index + 1 == len(nodes) or nodes[index + 1].depth <= nodes[index].depth


def _boxes(nodes: Sequence[Node], metric: Metric) -> Iterator[tuple[int, float, float]]:
    """A module's place in the list, its left edge and its width, both in percent of the whole."""
    whole = metric.of(nodes[0])
    free = [0.0]  # where the next module of each depth begins
    hidden = None
    for index, node in enumerate(nodes):
        if hidden is not None and node.depth > hidden:
            continue
        left, width = free[node.depth], 100 * metric.of(node) / whole
        free[node.depth :] = [left + width, left]
        hidden = node.depth if width < _THINNEST else None
        if hidden is None:
            yield index, left, width
