"""A `ParallelRun` as tables, charts, time lines, CSV rows and pictures. Measured and modelled never share a table or a line."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...profilers.runs.parallel_run import Bar, MeasuredPoint, ModelledPoint, ParallelRun
from .table import add, has_unicode, ns, table_of

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

_LINE, _RANKS = 64, 2
"""Characters of a time line, and ranks that the screen has one for."""


def tables(run: ParallelRun, time_lines: bool = True) -> Iterator["RenderableType"]:
    """What was measured, what is modelled, both verdicts, a time line of each, and the conditions."""
    from rich.text import Text

    work = run.workload
    passes = "forward and backward" if work.backward else "forward"
    shape = f"{work.heads} heads, {work.kv_heads} for keys and values, head size {work.head_dim}, batch {work.batch}"
    mask = "causal" if work.causal else "no mask"
    yield Text(f"{run.model}  {shape}, {work.dtype}, {mask}, {passes}; {run.scaling} scaling", style="bold")
    if run.crossovers:
        yield from _crossovers(run)
        return
    if run.measured:
        yield Text("\nMEASURED on this machine", style="bold green")
        yield _measured(run)
    yield Text(f"\nMODELLED for {run.hardware.title}: never measured here", style="bold cyan")
    yield _modelled(run.modelled)
    yield Text(f"source of the model's figures: {run.hardware.source}", style="dim")
    if not run.hardware.verified:
        yield Text("some of them are unverified", style="yellow")
    yield Text("")
    yield from (Text(sentence) for sentence in run.verdicts)
    if time_lines:
        yield from _time_lines(run)
    cores = "1 thread" if run.threads_per_rank == 1 else f"{run.threads_per_rank} threads"
    yield Text(f"\nmeasured on {run.machine.device} by {run.backend}, {cores} for each rank and for one process", style="dim")
    for note in run.notes:
        yield Text(f"note: {note}", style="yellow")
    for warning in run.warnings:
        yield Text(f"warning: {warning}", style="yellow")


def _crossovers(run: ParallelRun) -> Iterator["RenderableType"]:
    """By method and degree, the length below which the model finds the messages longer than the computing."""
    from rich.text import Text

    degrees = list(dict.fromkeys(item.degree for item in run.crossovers))
    yield Text(
        f"\nMODELLED for {run.hardware.title}: below so many tokens messages take longer than computing", style="bold cyan"
    )
    table = table_of("", ("method", "left"), *((f"{degree} ranks", "right") for degree in degrees))
    for method in dict.fromkeys(item.method for item in run.crossovers):
        cells = {item.degree: item.seq_len for item in run.crossovers if item.method == method}
        words = [
            "" if degree not in cells else "never" if cells[degree] is None else f"{cells[degree]:,}" for degree in degrees
        ]
        add(table, method, *words)
    yield table
    yield Text(f"source of the model's figures: {run.hardware.source}", style="dim")


def _tokens(number: int | None) -> str:
    return "never" if number is None else f"{number:,}"


def _measured(run: ParallelRun) -> "Table":
    names = ("step", "99 % interval", "tokens/s", "GFLOP/s", "computing", "exposed", "hidden", "sent", "memory", "error")
    columns = [("tokens", "right"), ("ranks", "right"), ("method", "left"), *((name, "right") for name in names)]
    table = table_of("", *columns, ("efficiency", "right"), ("", "left"))
    for p in run.measured:
        if p.step_ns is None or not p.step_ns.value:
            add(table, p.seq_len, p.degree, p.method, *["n/a"] * 10, "", f"{p.status}: {p.cause}")
            continue
        low, high = p.step_ns.low, p.step_ns.high
        share = f"{100 * min(1.0, p.compute_ns.value / p.step_ns.value):.0f} %" if p.compute_ns else ""
        equal = "" if p.sent_bytes == p.planned_bytes else f" (planned {_size(p.planned_bytes or 0)})"
        add(
            table,
            p.seq_len,
            p.degree,
            p.method,
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
            "oversubscribed: no scaling" if p.oversubscribed else "",
        )
    return table


def _efficiency(point: MeasuredPoint) -> str:
    found = point.efficiency
    if found is None or point.degree == 1:
        return ""
    ends = f" [{100 * found.low:.0f}, {100 * found.high:.0f}]" if found.low is not None and found.high is not None else ""
    return f"{100 * found.value:.0f} %{ends}"


def _modelled(points: Sequence[ModelledPoint]) -> "Table":
    names = ("step, model", "tokens/s", "TFLOP/s", "computing", "exposed", "hidden", "sent", "efficiency")
    columns = [("tokens", "right"), ("ranks", "right"), ("method", "left"), *((name, "right") for name in names)]
    table = table_of("", *columns, ("bound by", "left"))
    for p in points:
        cells = (p.seq_len, p.degree, p.method, ns(p.step_s * 1e9), f"{p.tokens_per_s:.4g}", f"{p.flops_per_s / 1e12:.4g}")
        rest = (f"{100 * p.compute_s / p.step_s:.0f} %", ns(p.exposed_s * 1e9), f"{100 * p.overlap:.0f} %", _size(p.sent_bytes))
        add(table, *cells, *rest, f"{100 * p.efficiency:.0f} %", p.binds)
    return table


def _size(number: int) -> str:
    for power, unit in ((9, "GB"), (6, "MB"), (3, "kB")):
        if number >= 10**power:
            return f"{number / 10**power:.4g} {unit}"
    return f"{number} B"


def _time_lines(run: ParallelRun) -> Iterator["RenderableType"]:
    """One step of each method on the most ranks, as bars of characters: measured ones, and else modelled ones."""
    from rich.text import Text

    for title, bars, scale in _gantts(run):
        end = max(bar.end for bar in bars)
        yield Text(f"\n{title}; {ns(end * scale)} in all", style="dim")
        ranks = sorted({bar.rank for bar in bars})
        for rank in ranks[:_RANKS]:
            for lane in ("compute", "send"):
                own = [bar for bar in bars if (bar.rank, bar.lane) == (rank, lane) and bar.end > bar.start]
                if own:
                    yield Text(f"{rank:>3} {lane:8}{_strip(own, end, lane)}")
        if len(ranks) > _RANKS:
            yield Text(f"    and {len(ranks) - _RANKS} more ranks, in the picture (-o FILE.svg)", style="dim")


def _gantts(run: ParallelRun) -> Iterator[tuple[str, Sequence[Bar], float]]:
    """(title, bars, ns per unit of their times) for each method at the most ranks and the longest sequence."""
    for kind, points, scale in (("measured", run.measured, 1.0), ("modelled", run.modelled, 1e9)):
        shown = [p for p in points if p.degree > 1 and _bars(p)]
        most = max(((p.seq_len, p.degree) for p in shown), default=None)
        for p in shown:
            if (p.seq_len, p.degree) == most:
                yield f"{kind}: one step of {p.method} on {p.degree} ranks, {p.seq_len} tokens", _bars(p), scale


def _bars(point: MeasuredPoint | ModelledPoint) -> tuple[Bar, ...]:
    return point.bars_ns if isinstance(point, MeasuredPoint) else point.bars_s


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
        }


def draw(run: ParallelRun, kind: str) -> bytes:
    """Two pictures one above the other: tokens/s over ranks, measured solid with dots and modelled dashed; and time lines."""
    from . import picture

    if run.crossovers:
        return _draw_crossovers(run, kind)
    lines = list(_gantts(run))
    with picture.page(kind, width=8, height=4 + 1.6 * len(lines), nrows=2 + len(lines)) as (_, axes, result):
        for place, title, points, style in (
            (axes[0], "measured here", run.measured, "o-"),
            (axes[1], f"modelled: {run.hardware.title}", run.modelled, "--"),
        ):
            for label in dict.fromkeys((p.method, p.seq_len) for p in points):
                own = [p for p in points if (p.method, p.seq_len) == label and p.tokens_per_s]
                if own:
                    place.plot(
                        [p.degree for p in own], [p.tokens_per_s for p in own], style, label=f"{label[0]}, {label[1]} tokens"
                    )
            place.set_title(title)
            place.set_xlabel("ranks")
            place.set_ylabel("tokens/s")
            if place.get_legend_handles_labels()[0]:
                place.legend(fontsize=7)
        for place, (title, bars, scale) in zip(axes[2:], lines, strict=True):
            for bar in bars:
                depth = {"compute": 0.2, "send": -0.2}.get(bar.lane)
                if depth is not None:
                    color = {"compute": "tab:blue"}.get(bar.lane, "tab:orange")
                    place.barh(
                        bar.rank + depth, (bar.end - bar.start) * scale / 1e6, 0.35, bar.start * scale / 1e6, color=color
                    )
            place.set_title(f"{title}: computing blue, messages orange", fontsize=8)
            place.set_xlabel("ms")
            place.set_ylabel("rank")
    return result.getvalue()


def _draw_crossovers(run: ParallelRun, kind: str) -> bytes:
    from . import picture

    with picture.page(kind, width=7, height=4) as (_, axes, result):
        for method in dict.fromkeys(item.method for item in run.crossovers):
            own = [item for item in run.crossovers if item.method == method and item.seq_len]
            axes.plot([item.degree for item in own], [item.seq_len for item in own], "--", label=method)
        axes.set_yscale("log", base=2)
        axes.set_xlabel("ranks")
        axes.set_ylabel("tokens")
        axes.set_title(f"Modelled, {run.hardware.title}: below a line, messages take longer than computing", fontsize=8)
        axes.legend(fontsize=7)
    return result.getvalue()
