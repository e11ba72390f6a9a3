"""Models in the plane of two figures with their Pareto front: as SVG inside a page, and as a picture by matplotlib."""

import math
from collections.abc import Sequence
from html import escape
from typing import Any

from ...profilers.runs.compare_run import METRICS, CompareRun, Front
from .figures import short
from .sketch import wide

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 640, 380, 74, 24, 18, 46
_LETTER = 6.2
"""Width of a letter of the labels, about."""
STYLE = """
:root { --front: #1f6fb2; --behind: #8a8f94; }
@media screen and (prefers-color-scheme: dark) { :root { --front: #6cb2ea; --behind: #7d858c; } }
.pareto { max-width: 52rem; margin: 1.2rem 0; } .pareto figcaption { color: var(--faint); }
.pareto svg { width: 100%; height: auto; } .pareto text { font: 11px system-ui, sans-serif; fill: var(--faint); }
.pareto .axis { stroke: var(--line); } .pareto .front { fill: none; stroke: var(--front); stroke-width: 2; }
.pareto .best { fill: var(--front); } .pareto .beaten { fill: none; stroke: var(--behind); stroke-width: 1.5; }
.pareto text.name { fill: var(--ink); } .pareto text.faint { fill: var(--faint); }
@media (max-width: 30rem) { .pareto text { font-size: 16px; } .pareto text.name { font-size: 13px; } }
"""


def chart(run: CompareRun) -> str:
    """A figure with its caption; empty where no plane was asked for. Filled dots on the line are the front, rings are not."""
    found = run.front
    if found is None:
        return ""
    x, y = METRICS[found.x], METRICS[found.y]
    across, up = _Axis(found.x, [p.x for p in found.placed]), _Axis(found.y, [p.y for p in found.placed])
    title = f"{y.label} over {x.label}"
    parts = [f'<figure class="pareto"><figcaption>{escape(title)}: on the line none is beaten in both</figcaption>']
    parts.append(f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">')
    for tick in up.ticks:
        height = _y(up, tick)
        parts.append(f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{height:.1f}" y2="{height:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{height + 4:.1f}" text-anchor="end">{escape(short(tick, y.unit))}</text>')
    for tick in across.ticks:
        place, words = _x(across, tick), escape(short(tick, x.unit))
        parts.append(f'<text x="{place:.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{words}</text>')
    name = f"{x.label}{', logarithmic' if across.log else ''}"
    parts.append(f'<text x="{(_LEFT + _WIDTH - _RIGHT) / 2}" y="{_HEIGHT - 8}" text-anchor="middle">{escape(name)}</text>')
    way = " ".join(f"{_x(across, p.x):.1f},{_y(up, p.y):.1f}" for p in found.placed if p.on_front)
    parts.append(f'<polyline class="front" points="{way}"/>')
    spots = [(_x(across, p.x), _y(up, p.y)) for p in found.placed]
    for (left, top), item in zip(spots, found.placed, strict=True):
        told = f"{item.model}: {short(item.x, x.unit)}, {short(item.y, y.unit)}"
        told += "" if item.on_front else f"; behind {item.behind}"
        look = "best" if item.on_front else "beaten"
        parts.append(f'<circle class="{look}" cx="{left:.1f}" cy="{top:.1f}" r="4.5"><title>{escape(told)}</title></circle>')
    parts += _names(found, spots)
    return "".join([*parts, "</svg></figure>"])


class _Axis:
    """Where values lie, 0 to 1, and the round values that are written beside it."""

    def __init__(self, name: str, values: Sequence[float]) -> None:
        self.name = name
        self.log = wide(values)
        low, high = min(values), max(values)
        self.ticks = _ticks_log(low, high) if self.log else _ticks(low, high)

    def share(self, value: float) -> float:
        """Between the first tick and the last."""
        low, high, value = (math.log(v) if self.log else v for v in (self.ticks[0], self.ticks[-1], value))
        return (value - low) / (high - low)


def _x(axis: _Axis, value: float) -> float:
    return _LEFT + axis.share(value) * (_WIDTH - _LEFT - _RIGHT)


def _y(axis: _Axis, value: float) -> float:
    return _HEIGHT - _BOTTOM - axis.share(value) * (_HEIGHT - _TOP - _BOTTOM)


def _ticks(low: float, high: float) -> list[float]:
    """Round steps that reach from the least to the most, about five; a single value stands in the middle."""
    if high <= low:
        low, high = low - (abs(low) / 10 or 1), high + (abs(high) / 10 or 1)
    power = 10.0 ** math.floor(math.log10((high - low) / 4))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= (high - low) / 4 * (1 - 1e-9))
    return [step * place for place in range(math.floor(low / step), math.ceil(high / step) + 1)]


def _ticks_log(low: float, high: float) -> list[float]:
    """Powers of ten with their doubles and fivefolds, from below the least to above the most, seven at most."""
    powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        steps = [factor * 10.0**power for power in powers for factor in factors]
        first = max(place for place, step in enumerate(steps) if step <= low)
        last = min(place for place, step in enumerate(steps) if step >= high)
        if last - first < 7 or factors == (1,):
            return steps[first : last + 1]
    raise AssertionError("powers of ten are always taken")


_AROUND = ((False, -6), (False, 4), (True, -6), (False, 14), (True, 4), (True, 14))
"""Where a name may stand, right of its dot or not and how far below it, the best first if nothing is above the dot's left."""


def _rising(found: Front) -> bool:
    """Whether the front has nothing above its left, as accuracy over cost has, or else nothing below it."""
    return METRICS[found.y].better == "higher"


def _names(found: Front, spots: Sequence[tuple[float, float]]) -> list[str]:
    """A name beside each dot, where it covers neither a dot nor another name; a name without room stays in the dot's title."""
    taken = [(left - 6, top - 6, left + 6, top + 6) for left, top in spots]
    parts = []
    for item, (left, top) in sorted(zip(found.placed, spots, strict=True), key=lambda pair: not pair[0].on_front):
        wide_by = _LETTER * len(item.model)
        for right, shift in _AROUND if item.on_front == _rising(found) else _AROUND[::-1]:
            start = left + 8 if right else left - 8 - wide_by
            box = (start, top + shift - 9, start + wide_by, top + shift + 3)
            inside = box[0] >= _LEFT and box[2] <= _WIDTH and box[1] >= 0 and box[3] <= _HEIGHT - _BOTTOM
            if inside and not any(_overlap(box, other) for other in taken):
                taken.append(box)
                look = "name" if item.on_front else "faint"
                parts.append(f'<text class="{look}" x="{start:.1f}" y="{top + shift:.1f}">{escape(item.model)}</text>')
                break
    return parts


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def draw(run: CompareRun, kind: str) -> bytes:
    """The same plane as PNG or SVG, by matplotlib."""
    from . import picture

    found = run.front
    assert found is not None, "the command asks for a plane where a picture is wanted"
    x, y = METRICS[found.x], METRICS[found.y]
    with picture.page(kind, width=8, height=5) as (_, axes, result):
        best = [p for p in found.placed if p.on_front]
        beaten = [p for p in found.placed if not p.on_front]
        axes.plot([p.x for p in best], [p.y for p in best], "o-", label="front: no other is better in both")
        if beaten:
            axes.plot([p.x for p in beaten], [p.y for p in beaten], "o", color="grey", fillstyle="none", label="behind it")
        _label(axes, found)
        for name, metric, values in (("x", x, [p.x for p in found.placed]), ("y", y, [p.y for p in found.placed])):
            axis, log = getattr(axes, f"{name}axis"), wide(values)
            getattr(axes, f"set_{name}scale")("log" if log else "linear")
            axis.set_major_formatter(lambda value, _, unit=metric.unit: short(value, unit))
            if log:
                axis.set_minor_formatter(lambda value, _: "")
            getattr(axes, f"set_{name}label")(metric.label)
        axes.margins(0.22, 0.12)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
        if found.unplaced:
            axes.set_title(f"without both figures: {', '.join(p.model for p in found.unplaced)}", fontsize=8, color="grey")
    return result.getvalue()


def _label(axes: Any, found: Front) -> None:
    """Names on the side of the front where nothing else is."""
    for item in found.placed:
        above, left = item.on_front == _rising(found), item.on_front
        axes.annotate(
            item.model,
            (item.x, item.y),
            xytext=(-6 if left else 6, 3 if above else -9),
            textcoords="offset points",
            ha="right" if left else "left",
            fontsize=8,
        )
