"""A `TraceRun` as tables and as CSV rows."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ...profilers.runs.trace_run import Change, OperatorTime, Trace, TraceRun, Work, label_of
from .table import add, plain, small, threads

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

_INNER_SHARE = 0.01
"""Operators within an operator are shown when they take this share of the time."""
_WORK = ("macs", "fft_flops", "elementwise_flops", "bytes_read", "bytes_written")


def tables(run: TraceRun, depth: int, top: int) -> Iterator["RenderableType"]:
    """One trace: times, operators, modules. Two: their times, and what changed.

    Args:
        depth: of the modules shown.
        top: rows of each table, 0 for all.
    """
    from rich.text import Text

    traces = [run.trace, *([run.against] if run.against else [])]
    for trace in traces:
        yield Text(f"{trace.model}  {', '.join(trace.inputs)} {trace.dtype}, {trace.mode}, {_on(trace)}", style="bold")
        yield Text(_times(trace))
        for note in trace.notes:
            yield Text(f"note on {trace.model}: {note}", style="yellow")
    if run.against is None:
        yield _operators(run.trace, top)
        yield small(f"times: {run.trace.clock}; {_HOW}")
        yield _modules(run.trace, depth, top)
        return
    if run.trace.machine.fingerprint != run.against.machine.fingerprint:
        yield Text("the two were traced on different machines or settings: their times are not comparable", style="bold yellow")
    yield _changes("operators", run.operator_changes, run, top)
    if run.module_changes:
        yield _changes("modules", run.module_changes, run, top)


def rows(run: TraceRun) -> Iterator[Mapping[str, Any]]:
    """A line for each operator and each module; or for each change, when two traces are compared."""
    if run.against is not None:
        for table, changes in (("operator", run.operator_changes), ("module", run.module_changes)):
            for item in changes:
                calls = {"calls": item.calls, "other_calls": item.other_calls}
                times = {"total_ns": item.total_ns, "other_total_ns": item.other_total_ns, "difference_ns": item.difference_ns}
                yield {
                    "model": run.trace.model,
                    "against": run.against.model,
                    "table": table,
                    "name": item.name,
                    **calls,
                    **times,
                }
        return
    head = {"model": run.trace.model, "workload": run.trace.workload}
    for row in run.trace.operators:
        names = {"table": "operator", "phase": row.phase, "within": row.within, "name": row.operator, "kind": row.provider}
        yield head | names | _csv(row.calls, row.self_ns, row.total_ns, row.work)
    for module in run.trace.modules:
        names = {"table": "module", "phase": "", "within": "", "name": module.name, "kind": module.kind}
        yield head | names | _csv(module.calls, module.self_ns, module.total_ns, module.work)


_HOW = "bytes are compulsory ones: each operator's inputs and outputs once"


def _csv(calls: float, self_ns: float, total_ns: float, work: Work) -> dict[str, Any]:
    return {"calls": calls, "self_ns": self_ns, "total_ns": total_ns} | {name: getattr(work, name) for name in _WORK}


def _on(trace: Trace) -> str:
    """Engine, device and settings."""
    words = [f"{trace.engine} on {trace.machine.device}", threads(trace.machine.threads), trace.how]
    return ", ".join(word for word in words if word)


def _times(trace: Trace) -> str:
    factor = trace.traced_ns / trace.untraced_ns
    return (
        f"{time(trace.untraced_ns)} a call without the profiler (median of {trace.untraced_samples}); "
        f"{time(trace.traced_ns)} under it, {factor:.2f} x: below are traced times, "
        f"the mean of the {trace.used_steps} middle steps of {len(trace.step_ns)}"
    )


def _operators(trace: Trace, top: int) -> "Table":
    columns = ("calls", "self", "total", "share", "FLOP/s", "bytes/s")
    table = plain("\noperators, and within them what takes over 1 %", "operator", *columns)
    outermost = [item for item in trace.operators if not item.within]
    whole = sum(item.total_ns for item in outermost)
    for item in outermost[: top or None]:
        _operator(table, item, whole, "")
        for inner in trace.operators:
            if (inner.phase, inner.within) == (item.phase, item.operator) and inner.self_ns > _INNER_SHARE * whole:
                _operator(table, inner, whole, "  ")
    if rest := outermost[top:] if top else []:
        self_ns, total = sum(item.self_ns for item in rest), sum(item.total_ns for item in rest)
        add(
            table,
            f"{len(rest)} others",
            _calls(sum(item.calls for item in rest)),
            time(self_ns),
            time(total),
            share(total, whole),
        )
    add(table, "all operators", "", "", time(whole), "100 %", "", "", style="bold")
    outside = trace.traced_ns - whole
    add(table, "outside operators: Python, profiler", "", "", time(outside) if outside > 0 else "", "", "", "", style="dim")
    return table


def _operator(table: "Table", item: OperatorTime, whole: float, indent: str) -> None:
    name = f"{indent}{label_of(item)}" + (f" [{item.provider}]" if item.provider else "")
    part = share(item.self_ns if indent else item.total_ns, whole)
    rates = [flop_rate(item.work, item.total_ns), byte_rate(item.work, item.total_ns)]
    if indent:  # what isn't known of a part stands in the row above
        rates = ["" if rate == "?" else rate for rate in rates]
    add(table, name, _calls(item.calls), time(item.self_ns), time(item.total_ns), part, *rates, style="dim" if indent else None)


def _modules(trace: Trace, depth: int, top: int) -> "Table":
    columns = ("kind", "calls", "self", "total", "share", "backward", "FLOP/s", "bytes/s")
    table = plain("\nmodules, each with all below it", "module", *columns, left=2)
    shown = [item for item in trace.modules if item.depth <= depth]
    whole = trace.modules[0].total_ns if trace.modules else 0.0
    nodes = trace.engine == "onnxruntime"  # a flat list, where the slowest are what one looks for
    if nodes:
        shown = [*shown[:1], *sorted(shown[1:], key=lambda item: -item.total_ns)]
    for item in shown[: top or None]:
        name = "  " * item.depth + ((item.name if nodes else item.name.rpartition(".")[2]) or trace.model)
        backward = time(item.backward_ns) if item.backward_ns else ""
        rates = flop_rate(item.work, item.total_ns), byte_rate(item.work, item.total_ns)
        times = time(item.self_ns), time(item.total_ns), share(item.total_ns, whole), backward
        add(table, name, item.kind, _calls(item.calls), *times, *rates)
    if top and len(shown) > top:
        add(table, f"{len(shown) - top} others: --top 0 shows all", *("",) * 8, style="dim")
    return table


def _changes(title: str, changes: tuple[Change, ...], run: TraceRun, top: int) -> "Table":
    assert run.against is not None, "a change has two sides"
    first, other = run.trace.model, run.against.model
    if first == other:
        first, other = f"{first} (1)", f"{other} (2)"
    columns = (f"{first}, calls", "time", f"{other}, calls", "time", "difference")
    table = plain(f"\n{title}, by difference of their total times under the profiler", title.removesuffix("s"), *columns)
    for item in changes[: top or None]:
        calls, others = (_calls(number) if number else "none" for number in (item.calls, item.other_calls))
        gap = ("+" if item.difference_ns > 0 else "-" if item.difference_ns < 0 else "") + time(abs(item.difference_ns))
        name = item.name or "the model"
        add(table, name, calls, time(item.total_ns), others, time(item.other_total_ns), gap)
    if top and len(changes) > top:
        add(table, f"{len(changes) - top} others: --top 0 shows all", *("",) * 5, style="dim")
    return table


def time(ns: float) -> str:
    """A duration in three digits and its unit."""
    for size, unit in ((1e9, "s"), (1e6, "ms"), (1e3, "us")):
        if abs(ns) >= size:
            return f"{ns / size:.3g} {unit}" if abs(ns) < 999.5 * size else f"{ns / size:.0f} {unit}"
    return f"{ns:.0f} ns"


def share(part: float, whole: float) -> str:
    """A part in percent."""
    return f"{100 * part / whole:.1f} %" if whole else ""


def flop_rate(work: Work, ns: float) -> str:
    """FLOPs of the contractions per second; empty where there are none, ? where they are not known."""
    return "?" if work.macs is None else _rate(2 * work.macs, ns, "FLOP/s")


def byte_rate(work: Work, ns: float) -> str:
    """Compulsory bytes per second; empty where nothing moves, ? where it is not known."""
    return (
        "?" if work.bytes_read is None or work.bytes_written is None else _rate(work.bytes_read + work.bytes_written, ns, "B/s")
    )


def _rate(amount: float, ns: float, unit: str) -> str:
    rate = amount / ns * 1e9 if ns > 0 else 0.0
    for size, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if rate >= size:
            return f"{rate / size:.3g} {prefix}{unit}"
    return f"{rate:.3g} {unit}" if rate else ""


def _calls(number: float) -> str:
    return f"{number:,.0f}" if number == int(number) else f"{number:,.1f}"
