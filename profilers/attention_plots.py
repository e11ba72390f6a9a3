"""Pictures of attention as SVG text, written by hand: distributions of column means, means by slot, maps from node to node."""

from collections.abc import Mapping
from html import escape
from math import isnan, log10

from torch import Tensor

from ..models.errors import BadInput
from .attention_maps import BINS, HISTOGRAM_RANGE, histogram

_INKS = ("#1f5fa8", "#c4501b", "#3c7a3c", "#7a4c99")
_DASHES = ("", "6 3", "2 3", "8 3 2 3")
"""Lines differ in their dashes as well as in their colour."""
_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 640, 320, 56, 40, 48
_PLOT_WIDTH, _PLOT_HEIGHT, _FLOOR = _WIDTH - _LEFT - 16, _HEIGHT - _TOP - _BOTTOM, _HEIGHT - _BOTTOM


def distribution_svg(
    samples: Mapping[str, Tensor],
    title: str = "Column means of attention",
    bounds: tuple[float, float] = HISTOGRAM_RANGE,
    bins: int = BINS,
) -> str:
    """Histograms of log10 column means as one line for each sample, in percent of its values within the bounds.

    Raises:
        BadInput: when a sample has no value within the bounds.
    """
    low, high = bounds
    shares = {name: [100 * float(share) for share in histogram(values, low, high, bins)] for name, values in samples.items()}
    most = max(max(line) for line in shares.values())
    ticks = [(step / 4, f"{low + (high - low) * step / 4:.4g}") for step in range(5)]
    parts = _axes(title, [f"{most * step / 4:.2g} %" for step in range(5)], ticks, "log10 of a token's column mean")
    for index, (name, line) in enumerate(shares.items()):
        corners = [((place + side) / bins, share / most) for place, share in enumerate(line) for side in (0, 1)]
        parts += _line(index, f"{name} ({samples[name].numel():,})", [corners])
    return _svg(_WIDTH, _HEIGHT, title, parts)


def slots_svg(samples: Mapping[str, Tensor], title: str = "Column means by slot", children: int = 8) -> str:
    """Means by slot (slots,), such as those of `SlotMeans` in one layer, as one line for each sample; NaN is a gap.

    The centre is at the left end; ticks are the neighbours (1, 2, ...), each followed by its ``children`` slots.

    Raises:
        BadInput: when the samples are of different lengths, or hold no number.
    """
    lines = {name: [float(value) for value in values] for name, values in samples.items()}
    sizes = {len(line) for line in lines.values()}
    most = max((value for line in lines.values() for value in line if not isnan(value)), default=0.0)
    if len(sizes) != 1 or most <= 0:
        raise BadInput(f"samples of {sorted(sizes)} slots with a largest mean of {most:.2g}", "give means of the same slots")
    last = max(1, sizes.pop() - 1)
    neighbours = range(1, last + 1, children + 1)
    ticks = [(slot / last, str(number)) for number, slot in enumerate(neighbours, 1)]
    parts = _axes(
        title, [f"{most * step / 4:.2g}" for step in range(5)], ticks, "slot: the centre, then each neighbour with its children"
    )
    for index, (name, line) in enumerate(lines.items()):
        pieces: list[list[tuple[float, float]]] = [[]]
        for slot, value in enumerate(line):
            if isnan(value):
                pieces.append([])
            else:
                pieces[-1].append((slot / last, value / most))
        parts += _line(index, name, pieces)
    return _svg(_WIDTH, _HEIGHT, title, parts)


def node_map_svg(nodes: Tensor, title: str = "Attention from node to node", cell: int = 8) -> str:
    """A node map (N, N): queries downwards, keys to the right, darker is more, on a logarithmic scale of three decades.

    Zeros and NaN stay white, so blocked cells and the slanted line of a sink are seen at once.
    """
    rows = nodes.double().tolist()
    most = max((value for row in rows for value in row if value > 0), default=0.0)
    size = len(rows)
    parts = [_text(24, 18, title, "start", 14), _text(24 + size * cell / 2, 34, "key", "middle")]
    parts.append(
        f'<text x="12" y="{42 + size * cell / 2}" transform="rotate(-90 12 {42 + size * cell / 2})" {_FONT}>query</text>'
    )
    for i, row in enumerate(rows):
        for j, value in enumerate(row):
            if value > 0:
                shade = max(0.06, 1 + log10(value / most) / 3)
                place = f'x="{24 + j * cell}" y="{42 + i * cell}" width="{cell}" height="{cell}"'
                parts.append(f'<rect {place} fill="{_INKS[0]}" fill-opacity="{shade:.2f}"/>')
    side = size * cell
    parts.append(f'<rect x="24" y="42" width="{side}" height="{side}" fill="none" stroke="#888"/>')
    parts.append(_text(24, side + 60, f"darkest {most:.2g}, palest a thousandth of it or less, white none", "start"))
    return _svg(max(side + 40, 380), side + 72, title, parts)


def _axes(title: str, heights: list[str], ticks: list[tuple[float, str]], below: str) -> list[str]:
    """Title, grid and labels: heights from the floor up at even distances, ticks at shares of the width."""
    parts = [_text(_LEFT, 20, title, "start", 14)]
    for step, label in enumerate(heights):
        y = _FLOOR - _PLOT_HEIGHT * step / (len(heights) - 1)
        parts.append(f'<line x1="{_LEFT}" y1="{y:.1f}" x2="{_LEFT + _PLOT_WIDTH}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(_text(_LEFT - 6, y + 4, label, "end"))
    for share, label in ticks:
        x = _LEFT + _PLOT_WIDTH * share
        parts.append(f'<line x1="{x:.1f}" y1="{_FLOOR}" x2="{x:.1f}" y2="{_FLOOR + 4}" stroke="#888"/>')
        parts.append(_text(x, _FLOOR + 16, label, "middle"))
    return [*parts, _text(_LEFT + _PLOT_WIDTH / 2, _FLOOR + 36, below, "middle")]


def _line(index: int, name: str, pieces: list[list[tuple[float, float]]]) -> list[str]:
    """A line in pieces, in shares of the plot, and its entry in the legend; a single point becomes a dot."""
    ink, dash = _INKS[index % len(_INKS)], _DASHES[index % len(_DASHES)]
    look = f'stroke="{ink}" stroke-width="1.5"' + (f' stroke-dasharray="{dash}"' if dash else "")
    parts = []
    for piece in pieces:
        places = [(_LEFT + _PLOT_WIDTH * x, _FLOOR - _PLOT_HEIGHT * y) for x, y in piece]
        if len(places) == 1:
            parts.append(f'<circle cx="{places[0][0]:.1f}" cy="{places[0][1]:.1f}" r="2" fill="{ink}"/>')
        elif places:
            parts.append(f'<polyline points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in places)}" fill="none" {look}/>')
    x, y = _LEFT + _PLOT_WIDTH - 190, _TOP + 14 + 16 * index
    parts.append(f'<line x1="{x}" y1="{y - 4}" x2="{x + 28}" y2="{y - 4}" {look}/>')
    return [*parts, _text(x + 34, y, name, "start")]


_FONT = 'font-family="sans-serif" font-size="11" fill="#333" text-anchor="middle"'


def _text(x: float, y: float, words: str, anchor: str, size: int = 11) -> str:
    look = f'font-family="sans-serif" font-size="{size}" fill="#333" text-anchor="{anchor}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {look}>{escape(words)}</text>'


def _svg(width: int, height: int, title: str, parts: list[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img">'
    )
    body = "\n".join([head, f"<title>{escape(title)}</title>", '<rect width="100%" height="100%" fill="white"/>', *parts])
    return f"{body}\n</svg>\n"
