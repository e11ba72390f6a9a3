"""A `ParallelRun` as tables, charts, time lines and CSV rows. Measured and modelled never share a table or a line."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...profilers.runs.parallel_run import Bar, MeasuredPoint, ModelledPoint, ParallelRun
from .parallel_lines import Point, gantts, work_of
from .table import Grid, bars, drawn, exactly, has_unicode, ns, threads

if TYPE_CHECKING:
    from rich.console import RenderableType

_LINE, _RANKS, _SHOWN = 64, 2, 2
"""Characters of a time line, ranks that the screen has one for, and methods: the fastest."""
CROSSED = "below so many tokens messages take longer than computing"
_ERROR = "max error is the output's largest difference from float64 attention; hidden, the share of the shorter of computing \
and messages"


def tables(run: ParallelRun, time_lines: bool = True) -> Iterator["RenderableType"]:
    """What was measured, what is modelled, each with its chart; the verdicts, a time line of each, and the conditions."""
    from rich.text import Text

    yield Text(f"{run.model}  {subject(run)}", style="bold")
    if run.partial:
        yield Text(f"PARTIAL: {run.cause}", style="bold yellow")
    if run.crossovers:
        yield Text(f"\nMODELLED for {run.hardware.title}: {CROSSED}", style="bold cyan")
        yield drawn(crossovers(run))
        yield Text(f"source of the model's figures: {run.hardware.source}", style="dim")
        return
    if run.measured:
        yield Text("\nMEASURED on this machine", style="bold green")
        yield drawn(measured(run.measured))
        yield from map(exactly, _chart(run, run.measured, solid=True))
    yield Text(f"\nMODELLED for {run.hardware.title}: never measured here", style="bold cyan")
    yield drawn(modelled(run.modelled))
    yield from map(exactly, _chart(run, run.modelled, solid=False))
    yield Text(f"source of the model's figures: {run.hardware.source}", style="dim")
    if not run.hardware.verified:
        yield Text("some of them are unverified", style="yellow")
    yield Text("")
    yield from (Text(sentence) for sentence in run.verdicts)
    if time_lines:
        yield from _time_lines(run)
    yield Text(f"\n{setting(run)}", style="dim")
    for note in run.notes:
        yield Text(f"note: {note}", style="yellow")
    for warning in run.warnings:
        yield Text(f"warning: {warning}", style="yellow")


def subject(run: ParallelRun) -> str:
    """What is spread, in a line."""
    work = run.workload
    passes = "forward and backward" if work.backward else "forward"
    shape = f"{work.heads} heads, {work.kv_heads} for keys and values, head size {work.head_dim}, batch {work.batch}"
    return f"{shape}, {work.dtype}, {'causal' if work.causal else 'no mask'}, {passes}; {run.scaling} scaling"


def setting(run: ParallelRun) -> str:
    """Under which conditions it was measured, in a line."""
    each = threads(run.threads_per_rank)
    return f"measured on {run.machine.device} by {run.backend}, {each} for each rank and for one process; {_ERROR}"


def crossovers(run: ParallelRun) -> Grid:
    """By method and degree, the length below which the model finds the messages longer than the computing."""
    degrees = list(dict.fromkeys(item.degree for item in run.crossovers))
    rows = []
    for method in dict.fromkeys(item.method for item in run.crossovers):
        cells = {item.degree: item.seq_len for item in run.crossovers if item.method == method}
        words = ["" if n not in cells else "never" if (tokens := cells[n]) is None else f"{tokens:,}" for n in degrees]
        rows.append((method, *words))
    return Grid((("method", "left"), *((f"{degree} ranks", "right") for degree in degrees)), tuple(rows))


def measured(points: Sequence[MeasuredPoint]) -> Grid:
    """A row for each measured point; one that is missing says why."""
    names = (
        "step",
        "99 % interval",
        "tokens/s",
        "GFLOP/s",
        "computing",
        "exposed",
        "hidden",
        "sent",
        "peak memory",
        "max error",
    )
    columns = (("method", "left"), *((name, "right") for name in ("tokens", "ranks", *names, "efficiency")), ("", "left"))
    rows = []
    for p in points:
        head = (p.method, str(p.seq_len), str(p.degree))
        if p.step_ns is None or not p.step_ns.value:
            rows.append((*head, "n/a", *[""] * len(names), f"{p.status}: {p.cause}"))
            continue
        marks = ["oversubscribed"] if p.oversubscribed else []
        marks += [f"{p.status}: {p.cause}"] if p.status != "measured" else []
        low, high = p.step_ns.low, p.step_ns.high
        share = f"{100 * min(1.0, p.compute_ns.value / p.step_ns.value):.0f} %" if p.compute_ns else ""
        equal = "" if p.sent_bytes == p.planned_bytes else f" (planned {_size(p.planned_bytes or 0)})"
        cells = (
            ns(p.step_ns.value),
            f"[{ns(low)}, {ns(high)}]" if low is not None and high is not None else "",
            f"{p.tokens_per_s:.4g}",
            f"{(p.flops_per_s or 0) / 1e9:.4g}",
            share,
            ns(p.exposed_ns) if p.exposed_ns is not None else "",
            f"{100 * p.overlap:.0f} %" if p.overlap is not None else "",
            _size(p.sent_bytes or 0) + equal,
            _size(p.working_bytes) if p.working_bytes is not None else "n/a",
            f"{p.max_error:.1e}",
            _efficiency(p),
            "; ".join(marks),
        )
        rows.append((*head, *cells))
    return Grid(columns, tuple(rows))


def _efficiency(point: MeasuredPoint) -> str:
    found = point.efficiency
    if found is None or point.degree == 1:
        return ""
    ends = f" [{100 * found.low:.0f}, {100 * found.high:.0f}]" if found.low is not None and found.high is not None else ""
    return f"{100 * found.value:.0f} %{ends}"


def modelled(points: Sequence[ModelledPoint]) -> Grid:
    """A row for each modelled point."""
    names = ("tokens", "ranks", "step, model", "tokens/s", "TFLOP/s", "computing", "exposed", "hidden", "sent", "efficiency")
    rows = []
    for p in points:
        cells = (p.method, str(p.seq_len), str(p.degree), ns(p.step_s * 1e9), f"{p.tokens_per_s:.4g}")
        rest = (f"{100 * p.compute_s / p.step_s:.0f} %", ns(p.exposed_s * 1e9), f"{100 * p.overlap:.0f} %", _size(p.sent_bytes))
        efficiency = f"{100 * p.efficiency:.0f} %" if p.degree > 1 else ""
        rows.append((*cells, f"{p.flops_per_s / 1e12:.4g}", *rest, efficiency, p.binds))
    return Grid((("method", "left"), *((name, "right") for name in names), ("bound by", "left")), tuple(rows))


def _chart(run: ParallelRun, points: Sequence[Point], solid: bool) -> Iterator[str]:
    """Tokens per second of the longest sequence; measured and modelled points have a chart each."""
    shown = [p for p in points if p.tokens_per_s]
    longest = max((work_of(run, p) for p in shown if p.degree > 1), default=None)
    own = [p for p in shown if work_of(run, p) == longest]
    if own:
        room = max(len(p.method) for p in own)
        yield ""
        yield from bars([(f"{p.degree:>4} {p.method:{room}}", p.tokens_per_s or 0.0, None) for p in own], "tokens/s", solid)


def _size(number: int) -> str:
    for power, unit in ((9, "GB"), (6, "MB"), (3, "kB")):
        if number >= 10**power:
            return f"{number / 10**power:.4g} {unit}"
    return f"{number} B"


def _time_lines(run: ParallelRun) -> Iterator["RenderableType"]:
    """One step of the fastest methods on the most ranks, as bars of characters: measured ones, and apart modelled ones."""
    from rich.text import Text

    for found in (gantts(run.measured), gantts(run.modelled)):
        for line in found[:_SHOWN]:
            yield Text(f"\n{line.title}; {ns(line.end_ns)} in all", style="dim")
            ranks = sorted({bar.rank for bar in line.bars})
            for rank in ranks[:_RANKS]:
                for lane in ("compute", "send"):
                    own = [bar for bar in line.bars if (bar.rank, bar.lane) == (rank, lane) and bar.end > bar.start]
                    if own:
                        yield exactly(f"{rank:>3} {lane:8}{_strip(own, line.end_ns / line.scale, lane)}")
        left = len(found) > _SHOWN or any(bar.rank >= _RANKS for line in found for bar in line.bars)
        if left:
            yield Text("    all methods and ranks: -o FILE.html or FILE.svg", style="dim")


def _strip(bars: Sequence[Bar], end: float, lane: str) -> str:
    full, part = (
        (("█", "▒") if lane == "compute" else ("━", "╌")) if has_unicode() else ("#", "+") if lane == "compute" else ("=", "-")
    )
    cell = end / _LINE
    line = []
    for place in range(_LINE):
        low, high = place * cell, (place + 1) * cell
        busy = sum(max(0.0, min(high, bar.end) - max(low, bar.start)) for bar in bars) / cell
        line.append(full if busy > 0.5 else part if busy > 0.02 else " ")
    return "".join(line).rstrip()


def rows(run: ParallelRun) -> Iterator[Mapping[str, Any]]:
    """A line for each point; ``kind`` says which list it is from, and the other list's columns stay empty."""
    if run.crossovers:
        yield from ({"method": c.method, "degree": c.degree, "seq_len": c.seq_len or ""} for c in run.crossovers)
    for p in run.measured:
        yield {
            "kind": "measured",
            "method": p.method,
            "degree": p.degree,
            "seq_len": p.seq_len,
            "measured_step_ns": p.step_ns.value if p.step_ns else "",
            "measured_low_ns": p.step_ns.low if p.step_ns and p.step_ns.low is not None else "",
            "measured_high_ns": p.step_ns.high if p.step_ns and p.step_ns.high is not None else "",
            "modelled_step_s": "",
            "sent_bytes": "" if p.sent_bytes is None else p.sent_bytes,
            "efficiency": p.efficiency.value if p.efficiency else "",
            "oversubscribed": p.oversubscribed,
            "status": p.status,
            "cause": p.cause,
            "partial": run.partial,
        }
    for m in run.modelled:
        yield {
            "kind": "modelled",
            "method": m.method,
            "degree": m.degree,
            "seq_len": m.seq_len,
            "measured_step_ns": "",
            "measured_low_ns": "",
            "measured_high_ns": "",
            "modelled_step_s": m.step_s,
            "sent_bytes": m.sent_bytes,
            "efficiency": m.efficiency,
            "oversubscribed": "",
            "status": "modelled",
            "cause": "",
            "partial": "",
        }
