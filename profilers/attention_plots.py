"""Pictures of attention as SVG text, written by hand: distributions of column means, and the map from node to node."""

from collections.abc import Mapping
from html import escape
from math import log10

from torch import Tensor

from .attention_maps import BINS, HISTOGRAM_RANGE, histogram

_INKS = ("#1f5fa8", "#c4501b", "#3c7a3c", "#7a4c99")
_DASHES = ("", "6 3", "2 3", "8 3 2 3")
"""Lines differ in their dashes as well as in their colour."""
_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 640, 320, 56, 40, 48


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
    plot_width, plot_height = _WIDTH - _LEFT - 16, _HEIGHT - _TOP - _BOTTOM
    floor = _TOP + plot_height
    parts = [_text(_LEFT, 20, title, "start", 14)]
    for step in range(5):
        y = floor - plot_height * step / 4
        parts.append(f'<line x1="{_LEFT}" y1="{y:.1f}" x2="{_WIDTH - 16}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(_text(_LEFT - 6, y + 4, f"{most * step / 4:.2g} %", "end"))
        x = _LEFT + plot_width * step / 4
        parts.append(_text(x, floor + 16, f"{low + (high - low) * step / 4:.4g}", "middle"))
    parts.append(_text(_LEFT + plot_width / 2, floor + 36, "log10 of a token's column mean", "middle"))
    for index, (name, line) in enumerate(shares.items()):
        ink, dash = _INKS[index % len(_INKS)], _DASHES[index % len(_DASHES)]
        look = f'stroke="{ink}" stroke-width="1.5"' + (f' stroke-dasharray="{dash}"' if dash else "")
        corners = []
        for place, share in enumerate(line):
            y = floor - plot_height * share / most
            corners += [f"{_LEFT + plot_width * edge / bins:.1f},{y:.1f}" for edge in (place, place + 1)]
        parts.append(f'<polyline points="{" ".join(corners)}" fill="none" {look}/>')
        y = _TOP + 14 + 16 * index
        parts.append(f'<line x1="{_LEFT + 12}" y1="{y - 4}" x2="{_LEFT + 40}" y2="{y - 4}" {look}/>')
        parts.append(_text(_LEFT + 46, y, f"{name} ({samples[name].numel():,})", "start"))
    return _svg(_WIDTH, _HEIGHT, title, parts)


def node_map_svg(nodes: Tensor, title: str = "Attention from node to node", cell: int = 8) -> str:
    """A node map (N, N): queries downwards, keys to the right, darker is more, on a logarithmic scale of three decades.

    Zeros stay white, so blocked cells and the slanted line of a sink are seen at once.
    """
    rows = nodes.double().tolist()
    most = max((value for row in rows for value in row), default=0.0)
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
