"""A `TraceRun` as one HTML page: times, flame graph, tables. It loads nothing, runs no script, and is light or dark as asked.

The flame graph is drawn as an icicle (callers above): a frame's width is its share of the traced call, its children lie below
it without gaps in the order of their first call, and what is left free under a frame is its own time.
"""

from collections.abc import Iterator
from html import escape

from ...profilers.runs.trace_run import Frame, ModuleTime, OperatorTime, Trace, TraceRun, label_of
from .page import page as skeleton
from .table import threads
from .trace_view import byte_rate, flop_rate, share, time

_WIDTH, _HEIGHT = 1200.0, 18
_THINNEST = 0.3
"""Frames narrower than this many units of `_WIDTH` are not drawn: nobody could see or point at them."""
_LETTER = 6.3
STYLE = """
:root { --step: #d9d9d9; --module: #9ecae1; --operator: #fdae6b; --range: #c7b9e2; }
@media (prefers-color-scheme: dark) { :root { --step: #4a4a4a; --module: #2f5f7d; --operator: #8a4f1d; --range: #54467a; } }
svg text { pointer-events: none; }
svg rect { stroke: var(--paper); stroke-width: .5; } svg g:hover > rect { stroke: var(--ink); stroke-width: 1; }
.step { fill: var(--step); } .module { fill: var(--module); } .operator { fill: var(--operator); }
.range { fill: var(--range); }
"""


def page(run: TraceRun) -> str:
    """The whole page."""
    traces = [run.trace, *([run.against] if run.against else [])]
    parts = [*_changes(run)] if run.against is not None else []
    for trace in traces:
        parts += _trace(trace)
    return skeleton(" against ".join(trace.model for trace in traces), "trace", run.versions, STYLE, parts)


def _trace(trace: Trace) -> Iterator[str]:
    words = [", ".join(trace.inputs), trace.dtype, trace.mode, trace.engine, trace.machine.device]
    words += [threads(trace.machine.threads), trace.how]
    yield f"<h2>{escape(trace.model)}</h2><p>{escape(', '.join(word for word in words if word))}</p>"
    yield (
        f"<p><b>{time(trace.untraced_ns)}</b> a call without the profiler (median of {trace.untraced_samples}), "
        f"<b>{time(trace.traced_ns)}</b> under it. All times below are traced ones: the mean of the {trace.used_steps} middle "
        f"steps of {len(trace.step_ns)}; {escape(trace.clock)}.</p>"
    )
    yield from (f'<p class="faint">{escape(note)}</p>' for note in trace.notes)
    yield svg(trace.frames)
    whole = sum(item.total_ns for item in trace.operators if not item.within)
    lines = []
    for row in trace.operators:
        name = label_of(row) + (f" [{row.provider}]" if row.provider else "")
        part = share(row.self_ns if row.within else row.total_ns, whole)
        lines.append((bool(row.within), (name, *_times(row, part))))
    yield from _table("Operators, and within them the operators that they call", lines, "operator")
    whole = trace.modules[0].total_ns if trace.modules else 0.0
    lines = [(False, (item.name or trace.model, *_times(item, share(item.total_ns, whole)))) for item in trace.modules]
    yield from _table("Modules, each with all below it", lines, "module")
    yield (
        '<p class="faint">FLOP/s: two for each multiply-accumulate, counted exactly. B/s: the least bytes that an operator has '
        "to read and write, its inputs and outputs once. A question mark: not known.</p>"
    )


def _times(item: OperatorTime | ModuleTime, part: str) -> tuple[str, ...]:
    rates = flop_rate(item.work, item.total_ns), byte_rate(item.work, item.total_ns)
    return f"{item.calls:g}", time(item.self_ns), time(item.total_ns), part, *rates


def _table(title: str, lines: list[tuple[bool, tuple[str, ...]]], first: str) -> Iterator[str]:
    yield f"<h2>{title}</h2><div class=wide><table><thead><tr>"
    yield "".join(f"<th>{word}</th>" for word in (first, "calls", "self", "total", "share", "FLOP/s", "B/s"))
    yield "</tr></thead><tbody>"
    for inner, (name, *cells) in lines:
        row = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        yield f"<tr><td{' class=inner' if inner else ''}>{escape(name)}</td>{row}</tr>"
    yield "</tbody></table></div>"


def _changes(run: TraceRun) -> Iterator[str]:
    for title, changes in (("operators", run.operator_changes), ("modules", run.module_changes)):
        if not changes:
            continue
        yield f"<h2>What changed: {title}</h2><div class=wide><table><thead><tr>"
        heads = (title.removesuffix("s"), "calls before", "time before", "calls after", "time after", "difference")
        yield "".join(f"<th>{word}</th>" for word in heads) + "</tr></thead><tbody>"
        for item in changes:
            gap = ("+" if item.difference_ns > 0 else "-" if item.difference_ns < 0 else "") + time(abs(item.difference_ns))
            cells = (f"{item.calls:g}", time(item.total_ns), f"{item.other_calls:g}", time(item.other_total_ns), gap)
            yield f"<tr><td>{escape(item.name or 'the model')}</td>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
        yield "</tbody></table></div>"


def svg(root: Frame) -> str:
    """The flame graph of a call."""
    drawn = list(_boxes(root, 0.0, 0, root.total_ns or 1.0))
    height = _HEIGHT * (1 + max((depth for _, _, _, depth in drawn), default=0))
    parts = [f'<svg viewBox="0 0 {_WIDTH:.0f} {height}" role="img" aria-label="flame graph">']
    for frame, x, width, depth in drawn:
        calls = f"{frame.calls:g} calls, " if frame.calls else ""
        told = f"{frame.name} ({frame.kind}): {calls}{time(frame.total_ns)}, {share(frame.total_ns, root.total_ns)}"
        told += f"; {time(frame.self_ns)} of its own"
        y = depth * _HEIGHT
        box = f'<rect class="{frame.kind}" x="{x:.3f}" y="{y}" width="{width:.3f}" height="{_HEIGHT}"/>'
        parts.append(f"<g><title>{escape(told)}</title>{box}{_words(frame, x, y, width)}</g>")
    return "\n".join([*parts, "</svg>"])


def _boxes(frame: Frame, x: float, depth: int, whole: float) -> Iterator[tuple[Frame, float, float, int]]:
    """Frames with their left edge, width and depth."""
    width = _WIDTH * frame.total_ns / whole
    if width < _THINNEST:
        return
    yield frame, x, width, depth
    for child in frame.children:
        yield from _boxes(child, x, depth + 1, whole)
        x += _WIDTH * child.total_ns / whole


def _words(frame: Frame, x: float, y: int, width: float) -> str:
    """As much of the name as fits, its end rather than its beginning: that is where names differ."""
    room = int((width - 4) / _LETTER)
    name = frame.name.rpartition(".")[2] if frame.kind == "module" else frame.name.removeprefix("aten::")
    if room < 2:
        return ""
    return f'<text x="{x + 2:.3f}" y="{y + _HEIGHT - 5}">{escape(name if len(name) <= room else name[: room - 1] + "…")}</text>'
