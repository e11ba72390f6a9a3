"""A roofline as SVG inside a page: slopes and ceiling, measured models solid, floors hollow, operators faint."""

import math
from html import escape

from ...profilers.runs.roofline_run import RooflineRun
from .roofline_lines import Chart, Dot, charts, peak_rate, rate, ticks

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 640, 380, 66, 18, 18, 44
_COLOURS = 8
STYLE = """
:root { --r0: #1f6fb2; --r1: #c4570b; --r2: #2a8540; --r3: #b3273a; --r4: #7a4fb5; --r5: #7b5346; --r6: #b8479b;
  --r7: #5d6b72; }
@media screen and (prefers-color-scheme: dark) { :root { --r0: #6cb2ea; --r1: #f29a57; --r2: #74c788; --r3: #ee7c88;
  --r4: #b79ae4; --r5: #c3a093; --r6: #e69ad2; --r7: #b2bec4; } }
.roofline { margin: 1.2rem 0; max-width: 56rem; } .roofline figcaption { color: var(--faint); }
.roofline text { font: 12px system-ui, sans-serif; fill: var(--faint); } .roofline .axis { stroke: var(--line); }
.roofline .roof { fill: none; stroke: var(--ink); stroke-width: 2; } .roofline .caches { stroke-dasharray: 7 5; }
.roofline .ceiling { stroke: var(--ink); } .roofline .operator { fill: var(--faint); opacity: .6; }
.roofline .floor { fill: none; stroke-width: 2; } .roofline .key { display: inline-block; margin-right: 1.1rem; }
.roofline .key svg { width: 14px; height: 10px; margin-right: .35rem; }
@media (max-width: 30rem) { .roofline text { font-size: 18px; } }
""" + "\n".join(f".rs{i} {{ stroke: var(--r{i}); }} .rf{i} {{ fill: var(--r{i}); }}" for i in range(_COLOURS))


def chart(run: RooflineRun) -> str:
    """A figure for each place and dtype of a run; empty where there is nothing to draw. Goes with `STYLE`, loads nothing."""
    return "".join(map(_figure, charts(run)))


def _figure(one: Chart) -> str:
    (left, right), (low, high) = one.intensities, one.rates

    def x(intensity: float) -> float:
        return _LEFT + math.log(intensity / left) / math.log(right / left) * (_WIDTH - _LEFT - _RIGHT)

    def y(flops_per_s: float) -> float:
        return _HEIGHT - _BOTTOM - math.log(flops_per_s / low) / math.log(high / low) * (_HEIGHT - _TOP - _BOTTOM)

    parts = [f'<figure class="roofline"><figcaption>{escape(one.title)}: FLOP/s over FLOPs per byte</figcaption>']
    parts.append(f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="Roofline of {escape(one.title)}">')
    for tick in ticks(one.rates):
        parts.append(f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{rate(tick, "")}</text>')
    for tick in ticks(one.intensities):
        parts.append(f'<text x="{x(tick):.1f}" y="{_HEIGHT - _BOTTOM + 17}" text-anchor="middle">{tick:g}</text>')
    parts.append(f'<text x="{(_LEFT + _WIDTH) / 2}" y="{_HEIGHT - 6}" text-anchor="middle">FLOPs per byte</text>')
    for name, bandwidth in one.slopes:
        corners = [
            (max(left, low / bandwidth), max(low, left * bandwidth)),
            (one.peak / bandwidth, one.peak),
            (right, one.peak),
        ]
        way = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in corners)
        told = f"<title>{escape(name)}: {rate(bandwidth, 'B/s')}</title>"
        parts.append(f'<polyline class="roof {escape(name)}" points="{way}">{told}</polyline>')
    for name, peak in one.ceilings:
        start = max(left, peak / one.slopes[0][1])
        parts.append(f'<line class="ceiling" x1="{x(start):.1f}" x2="{x(right):.1f}" y1="{y(peak):.1f}" y2="{y(peak):.1f}"/>')
        said = f"{escape(name)} {peak_rate(name, peak)}"
        parts.append(f'<text x="{_WIDTH - _RIGHT}" y="{y(peak) - 5:.1f}" text-anchor="end">{said}</text>')
    parts += [_dot(dot, x(dot.intensity), y(dot.flops_per_s)) for dot in one.dots]
    parts += ["</svg><div>", *_keys(one), "</div></figure>"]
    return "".join(parts)


def _dot(dot: Dot, x: float, y: float) -> str:
    how = {"operator": "at its floor", "floor": "at its unfused floor", "measured": "as measured"}[dot.kind]
    told = f"<title>{escape(dot.name)} {how}: {rate(dot.flops_per_s)}, {dot.intensity:.3g} FLOPs per byte</title>"
    return f'<circle class="{_look(dot)}" cx="{x:.1f}" cy="{y:.1f}" r="{3 if dot.kind == "operator" else 5}">{told}</circle>'


def _look(dot: Dot) -> str:
    colour = dot.index % _COLOURS
    return {"operator": "operator", "floor": f"floor rs{colour}", "measured": f"rf{colour}"}[dot.kind]


def _keys(one: Chart) -> list[str]:
    names = {"floor": "at its unfused floor", "measured": "as measured"}
    shown = [(dot, f"{dot.name} {names[dot.kind]}") for dot in one.dots if dot.kind != "operator"]
    shown += [(dot, "an operator at its floor") for dot in one.dots if dot.kind == "operator"][:1]
    keys = []
    for dot, said in shown:
        sign = f'<svg viewBox="0 0 14 10"><circle class="{_look(dot)}" cx="7" cy="5" r="4"/></svg>'
        keys.append(f'<span class="key">{sign}{escape(said)}</span>')
    slopes = [f"{name} {rate(speed, 'B/s')}" for name, speed in one.slopes]
    return [*keys, f'<span class="key">{escape("; ".join(slopes))}</span>']
