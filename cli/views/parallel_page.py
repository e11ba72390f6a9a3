"""A `ParallelRun` as one HTML page: verdicts, what was measured, what is modelled, and a time line of one step of every method.

Measured and modelled have tables and charts of their own; a method has one colour on the whole page.
"""

from collections.abc import Iterator, Sequence
from html import escape

from ...profilers.runs.parallel_run import ParallelRun
from . import line_chart, parallel_view
from .line_chart import Kind, Line
from .page import page as skeleton
from .page import paragraphs, table
from .parallel_lines import Gantt, Point, curves, gantts, way
from .table import ns

_WIDTH, _LEFT, _LANE = 720.0, 34, 9
_THINNEST = 0.4
"""Bars narrower than so many units of `_WIDTH` are drawn so wide: a message that takes no time is still one."""
_STYLE = """
:root { --compute: #7fb3d9; --out: #e08a3c; --back: #4b9c5e; }
@media (prefers-color-scheme: dark) { :root { --compute: #35668a; --out: #d98a45; --back: #63b377; } }
.gantt { min-width: 34rem; } .gantt text { font: 11px system-ui, sans-serif; fill: var(--faint); }
.gantt .axis { stroke: var(--line); } .compute { fill: var(--compute); } .out { fill: var(--out); } .back { fill: var(--back); }
.swatch { width: 12px; height: 10px; margin-right: .35rem; } .verdicts li { margin: .2rem 0; }
h3 { font-size: 1rem; font-weight: normal; margin: 1.2rem 0 .3rem; }
"""
_LANES = (("compute", "computing"), ("out", "queries, or keys and values, on their way"), ("back", "results on their way home"))


def page(run: ParallelRun) -> str:
    """The whole page."""
    return skeleton(run.model, "scale", run.versions, line_chart.STYLE + _STYLE, _parts(run))


def _parts(run: ParallelRun) -> Iterator[str]:
    yield from paragraphs([parallel_view.subject(run)])
    if run.partial:
        yield from paragraphs([f"PARTIAL: {run.cause}"], "warn")
    if run.verdicts:
        yield f'<ul class="verdicts">{"".join(f"<li>{escape(sentence)}</li>" for sentence in run.verdicts)}</ul>'
    colours = {m: i % line_chart.COLOURS for i, m in enumerate(dict.fromkeys(p.method for p in run.modelled if p.degree > 1))}
    if run.crossovers:
        yield from _crossovers(run)
    if run.measured:
        yield "<h2>Measured on this machine</h2>"
        yield from table(parallel_view.measured(run.measured))
        yield from _charts(run, run.measured, colours, "measured")
        yield from _time_lines(gantts(run.measured))
        yield from paragraphs([parallel_view.setting(run)], "faint")
    if run.modelled:
        yield f"<h2>Modelled for {escape(run.hardware.title)}: never measured here</h2>"
        yield from table(parallel_view.modelled(run.modelled))
        yield from _charts(run, run.modelled, colours, "modelled")
        yield from _time_lines(gantts(run.modelled))
    yield from paragraphs([f"Source of the model's figures: {run.hardware.source}"], "faint")
    if not run.hardware.verified:
        yield from paragraphs(["Some of them are unverified."], "warn")
    yield from paragraphs([f"note: {note}" for note in run.notes], "faint")
    yield from paragraphs([f"warning: {warning}" for warning in run.warnings], "warn")


def _charts(run: ParallelRun, points: Sequence[Point], colours: dict[str, int], kind: Kind) -> Iterator[str]:
    """Tokens per second over ranks, a chart for each length."""
    lines: dict[str, list[Line]] = {}
    for name, line in curves(run, points):
        method, _, work = name.rpartition(", ")
        lines.setdefault(work, []).append(Line(method, kind, colours.get(method, 0), tuple(line)))
    charts = [line_chart.line_chart(f"{kind.capitalize()}, {work}", own, "tokens/s") for work, own in lines.items()]
    if charts:
        yield f'<div class="charts">{"".join(charts)}</div>'


def _crossovers(run: ParallelRun) -> Iterator[str]:
    yield f"<h2>Modelled for {escape(run.hardware.title)}: {parallel_view.CROSSED}</h2>"
    yield from table(parallel_view.crossovers(run))
    names = dict.fromkeys(item.method for item in run.crossovers)
    lines = []
    for colour, name in enumerate(names):
        known = tuple((item.degree, float(item.seq_len)) for item in run.crossovers if item.method == name and item.seq_len)
        lines.append(Line(name, "modelled", colour % line_chart.COLOURS, known))
    chart = line_chart.line_chart("Modelled crossover", [line for line in lines if line.points], "tokens", log=True)
    yield f'<div class="charts">{chart}</div>'


def _time_lines(lines: Sequence[Gantt]) -> Iterator[str]:
    if not lines:
        return
    key = '<span class="key"><svg class="swatch" viewBox="0 0 12 10"><rect class="{}" width="12" height="10"/></svg>{}</span>'
    yield f"<p>{''.join(key.format(*lane) for lane in _LANES)}</p>"
    slowest = max(line.end_ns for line in lines)
    for line in lines:
        yield f"<h3>{escape(line.title)}; {escape(ns(line.end_ns))} in all</h3>"
        yield f'<div class="wide">{gantt(line, slowest)}</div>'


def gantt(line: Gantt, whole_ns: float) -> str:
    """A time line for each rank: its computing above, its messages below. All of a page's lines reach to ``whole_ns``."""
    ranks = sorted({bar.rank for bar in line.bars})
    height = len(ranks) * (2 * _LANE + 8)
    scale = (_WIDTH - _LEFT) / (whole_ns or 1.0) * line.scale
    parts = [f'<svg class="gantt" viewBox="0 0 {_WIDTH:.0f} {height + 16}" role="img" aria-label="{escape(line.title)}">']
    for place, rank in enumerate(ranks):
        top = place * (2 * _LANE + 8)
        parts.append(f'<text x="{_LEFT - 6}" y="{top + 15}" text-anchor="end">{rank}</text>')
        for bar in line.bars:
            what = way(bar)
            if bar.rank != rank or not what:
                continue
            y, width = top + (0 if what == "compute" else _LANE), max(_THINNEST, (bar.end - bar.start) * scale)
            to = "" if bar.peer is None else f" to rank {bar.peer}"
            told = f"{bar.label}{to}: {ns((bar.end - bar.start) * line.scale)}"
            box = f'<rect class="{what}" x="{_LEFT + bar.start * scale:.2f}" y="{y}" width="{width:.2f}" height="{_LANE}">'
            parts.append(f"{box}<title>{escape(told)}</title></rect>")
    parts.append(f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH:.0f}" y1="{height}" y2="{height}"/>')
    parts.append(f'<text x="{_LEFT}" y="{height + 13}">0, rank by rank</text>')
    parts.append(f'<text x="{_WIDTH:.0f}" y="{height + 13}" text-anchor="end">{escape(ns(whole_ns))}</text></svg>')
    return "".join(parts)
