"""Lines over a size, such as the ranks: SVG inside a page. Measured ones are solid with dots, modelled dashed, guides faint."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 480, 270, 62, 14, 14, 40
_DIGIT = 7.0
"""Width of a digit, about."""
COLOURS = 8
Kind = Literal["measured", "modelled", "guide"]
STYLE = """
:root { --c0: #1f6fb2; --c1: #c4570b; --c2: #2a8540; --c3: #b3273a; --c4: #7a4fb5; --c5: #7b5346; --c6: #b8479b;
  --c7: #5d6b72; }
@media (prefers-color-scheme: dark) { :root { --c0: #6cb2ea; --c1: #f29a57; --c2: #74c788; --c3: #ee7c88; --c4: #b79ae4;
  --c5: #c3a093; --c6: #e69ad2; --c7: #b2bec4; } }
.charts { display: flex; flex-wrap: wrap; gap: 1rem 2rem; margin: 1.2rem 0; }
.charts figure { flex: 1 1 20rem; max-width: 40rem; margin: 0; }
figcaption { color: var(--faint); } .chart text { font: 12px system-ui, sans-serif; fill: var(--faint); }
.chart .axis { stroke: var(--line); } .chart .line { fill: none; stroke-width: 2; } .chart .modelled { stroke-dasharray: 7 5; }
.chart .guide { stroke: var(--faint); stroke-width: 1; stroke-dasharray: 1 3; }
.key { display: inline-block; margin-right: 1.1rem; white-space: nowrap; }
.key svg { width: 30px; height: 10px; margin-right: .35rem; }
""" + "\n".join(f".l{i} {{ stroke: var(--c{i}); }} .d{i} {{ fill: var(--c{i}); }}" for i in range(COLOURS))


@dataclass(frozen=True, slots=True)
class Line:
    """Points (size, value) in the colour that belongs to its name on the whole page; how they came about shows."""

    name: str
    kind: Kind
    colour: int
    points: tuple[tuple[int, float], ...]


def line_chart(title: str, lines: Sequence[Line], unit: str, log: bool = False, over: str = "ranks") -> str:
    """A figure with its legend. Sizes lie as far apart as their logarithms; the values' axis begins at 0, or is a logarithm.

    Args:
        over: what the sizes are of.
    """
    ranks = sorted({rank for line in lines for rank, _ in line.points})
    values = [value for line in lines for _, value in line.points if value > 0]
    if not ranks or not values:
        return ""
    ticks = _ticks_log(min(values), max(values)) if log else _ticks(max(values))

    def x(rank: int) -> float:
        span = math.log2(ranks[-1] / ranks[0]) or 1.0
        return _LEFT + 10 + (math.log2(rank / ranks[0]) / span) * (_WIDTH - _LEFT - _RIGHT - 20)

    def y(value: float) -> float:
        low, high = (math.log(ticks[0]), math.log(ticks[-1])) if log else (0.0, ticks[-1])
        share = ((math.log(value) if log else value) - low) / (high - low or 1.0)
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)

    parts = [f"<figure><figcaption>{escape(title)}: {escape(unit)}</figcaption>"]
    parts.append(f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">')
    for tick in ticks:
        parts.append(f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        parts.append(
            f'<text x="{_LEFT - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{_tick(tick) if log else _short(tick)}</text>'
        )
    end = -math.inf  # of the label before
    for rank in ranks:
        half = _DIGIT * len(str(rank)) / 2
        if x(rank) - half > end:
            parts.append(f'<text x="{x(rank):.1f}" y="{_HEIGHT - _BOTTOM + 17}" text-anchor="middle">{rank}</text>')
            end = x(rank) + half + _DIGIT
    parts.append(f'<text x="{(_LEFT + _WIDTH) / 2}" y="{_HEIGHT - 5}" text-anchor="middle">{escape(over)}</text>')
    for line in lines:
        way = " ".join(f"{x(rank):.1f},{y(value):.1f}" for rank, value in line.points)
        parts.append(f'<polyline class="line l{line.colour} {line.kind}" points="{way}"/>')
        if line.kind == "measured":
            for rank, value in line.points:
                told = f"<title>{escape(line.name)}, {rank} {escape(over)}: {value:.4g} {escape(unit)}</title>"
                parts.append(f'<circle class="d{line.colour}" cx="{x(rank):.1f}" cy="{y(value):.1f}" r="3.5">{told}</circle>')
    parts += ["</svg><div>", *(_key(line) for line in lines), "</div></figure>"]
    return "".join(parts)


def _key(line: Line) -> str:
    dot = "" if line.kind != "measured" else f'<circle class="d{line.colour}" cx="15" cy="5" r="3.5"/>'
    stroke = f'<line class="line l{line.colour} {line.kind}" x1="0" x2="30" y1="5" y2="5"/>'
    return f'<span class="key"><svg class="chart" viewBox="0 0 30 10">{stroke}{dot}</svg>{escape(line.name)}</span>'


def _ticks(most: float) -> list[float]:
    """0 and four to six round steps that reach the largest value."""
    rough = most / 4
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * (1 - 1e-9))
    return [step * i for i in range(math.ceil(most / step - 1e-9) + 1)]


def _ticks_log(least: float, most: float) -> list[float]:
    """Powers of two around the values, or of ten where they are far apart, six at most."""
    base = 10 if most > 1000 * least else 2
    low = math.floor(math.log(least, base) + 1e-9)
    high = max(math.ceil(math.log(most, base) - 1e-9), low + 1)
    step = math.ceil((high - low) / 5)
    return [float(base) ** power for power in range(low, high + step, step)]


def _tick(value: float) -> str:
    return f"{value:,.0f}" if 1 <= value < 1e5 else _short(value)


def _short(value: float) -> str:
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {letter}"
    return f"{value:.3g}"
