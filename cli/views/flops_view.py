"""A flops `Run` as tables and as CSV rows."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ...profilers.runs.run import ModelResult, Module, Operator, Run, label_of
from .table import about, add, plain, share, small, table_of

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

_TOTALS = (
    ("params", "parameters", ""),
    ("macs", "MACs", ""),
    ("flops", "FLOPs", "2 x MACs: contractions only"),
    ("fft_flops", "FFT FLOPs", "idealised 5 N log2 N"),
    ("elementwise_flops", "elementwise FLOPs", "norms, activations, pooling, biases"),
    ("activations", "activations", "elements that contractions write"),
    ("moved_bytes", "bytes, unfused", "each operator reads its operands and writes its results: at most"),
    ("compulsory_bytes", "bytes, compulsory", "each weight, input and output once: at least"),
)
_ABREAST = 4
"""Models side by side that a screen has room for."""


def tables(run: Run, depth: int | None, by_op: bool) -> Iterator["RenderableType"]:
    """One model in detail, or several side by side; then what was asked for, model by model."""
    from rich.text import Text

    if len(run.models) > 1:
        for start in range(0, len(run.models), _ABREAST):
            yield _side_by_side(run.models[start : start + _ABREAST], run.models[0])
    for result in run.models:
        if len(run.models) == 1:
            yield Text(f"{result.model}  {', '.join(result.inputs)} {result.dtype}, {result.mode}", style="bold")
            yield _totals(result)
            yield _memory(result)
        for item in result.uncounted:
            text = f"uncounted in {result.model}: {item.operator}, {item.calls} calls: no rule, cost unknown, in no total"
            yield Text(text, style="bold yellow")
        for note in result.notes:
            yield Text(f"note on {result.model}: {note}", style="yellow")
    for result in run.models:
        if result.published:
            yield from _published(result)
    for result in run.models:
        if depth is not None:
            yield _modules(result, depth)
        if by_op:
            yield from _operators(result)
        for index in range(len(result.opinions)):
            yield _opinion(result, index)


def rows(run: Run, depth: int | None, by_op: bool) -> Iterator[Mapping[str, Any]]:
    """A line for each model; or for each of its operators or modules, when those were asked for."""
    for result in run.models:
        head = {"model": result.model, "workload": result.workload}
        if by_op:
            yield from (head | asdict(item) for item in result.operators)
        elif depth is not None:
            yield from (head | asdict(item) for item in result.modules if item.depth <= depth)
        else:
            missed = sum(item.calls for item in result.uncounted)
            memory = {"param_bytes": result.memory.param_bytes, "peak_activation_bytes": result.memory.peak_activation_bytes}
            yield head | asdict(result.totals) | memory | {"uncounted_calls": missed}


def _totals(result: ModelResult) -> "Table":
    table = table_of("", ("", "left"), ("", "right"), ("", "right"), ("", "left"))
    for key, label, meaning in _TOTALS:
        value = getattr(result.totals, key)
        add(table, label, value, about(value), meaning, style="bold" if key in ("params", "macs", "flops") else None)
    if result.mode == "train":
        add(table, "forward MACs", result.forward.macs, about(result.forward.macs), "")
        add(table, "backward MACs", result.backward.macs, about(result.backward.macs), "as executed")
    cost = result.totals
    if cost.moved_bytes and cost.compulsory_bytes:
        least, most = (f"{cost.all_flops / size:.3g}" for size in (cost.moved_bytes, cost.compulsory_bytes))
        add(table, "FLOPs a byte", f"{least} to {most}", "", "arithmetic intensity: all FLOPs over the bytes above")
    seen = result.coverage
    where = "from the file's graph" if result.device == "onnx" else f"on {result.device}"
    words = f"{seen.covered_calls:,} of {seen.calls:,} calls have a rule, {where}"
    add(table, "coverage", _percent(result), "", words)
    return table


def _memory(result: ModelResult) -> "Table":
    """What it holds: MB are 10^6 bytes."""
    memory = result.memory
    table = table_of("\nmemory", ("", "left"), ("", "right"), ("", "left"))
    kinds = ", ".join(f"{mb(item.param_bytes + item.buffer_bytes)} {item.dtype}" for item in memory.held)
    add(table, "weights", mb(memory.param_bytes + memory.buffer_bytes), f"buffers {mb(memory.buffer_bytes)}; {kinds}")
    add(table, "inputs", mb(memory.input_bytes), "")
    where = f"at {memory.peak_operator} in {memory.peak_module or result.model}" if memory.peak_operator else ""
    words = "activations, gradients" if memory.training else "activations"
    add(table, f"peak of {words}", mb(memory.peak_activation_bytes), where)
    if memory.training is None:
        add(table, "in all", mb(memory.total_peak_bytes), "weights, inputs and that peak", style="bold")
        return table
    add(table, "saved for backward", mb(memory.training.saved_bytes), "alive when the forward pass has ended")
    add(table, "gradients", mb(memory.training.gradient_bytes), "of parameters")
    for item in memory.training.optimisers:
        state = f"its state {mb(item.state_bytes)}" if item.state_bytes else "no state"
        add(table, f"in all, {item.name}", mb(item.peak_bytes), state, style="bold")
    return table


def mb(size: int) -> str:
    """Bytes in MB (10^6), or in GB (10^9) from ten thousand MB on."""
    return f"{size / 1e9:,.2f} GB" if size >= 1e10 else f"{size / 1e6:,.2f} MB"


def _side_by_side(results: tuple[ModelResult, ...], first: ModelResult) -> "Table":
    """A column for each model; ``first`` is the reference of the last row."""
    table = plain("", "", *(result.model for result in results))
    add(table, "input", *(", ".join(result.inputs) for result in results))
    for key, label, _ in _TOTALS:
        add(table, label, *(getattr(result.totals, key) for result in results))
    add(table, "weights", *(mb(result.memory.param_bytes + result.memory.buffer_bytes) for result in results))
    add(table, "peak of activations", *(mb(result.memory.peak_activation_bytes) for result in results))
    add(table, "coverage", *map(_percent, results))
    base = first.totals.macs
    add(table, f"MACs, {first.model} = 1", *(f"{result.totals.macs / base:.3f}" if base else "n/a" for result in results))
    return table


def _published(result: ModelResult) -> Iterator["RenderableType"]:
    columns = ("published", "ours", "difference", "why")
    table = plain(f"\npublished figures of {result.model}", "figure", *columns)
    table.columns[4].justify = "left"
    for item in result.published:
        cells = (item.published, item.ours, f"{item.difference_percent:+.2f} %", item.explanation)
        add(table, label_of(item.metric), *cells, style=None if item.agrees else "yellow")
    yield table
    yield small(f"source: {'; '.join(dict.fromkeys(item.source for item in result.published))}")


def _modules(result: ModelResult, depth: int) -> "Table":
    columns = ("kind", "calls", "parameters", "MACs", "share", "FFT FLOPs", "elementwise FLOPs", "activations", "bytes")
    table = plain(f"\nmodules of {result.model}, each with all below it", "module", *columns, "at least", left=2)
    whole = result.totals.macs
    for item in result.modules:
        if item.depth <= depth:
            name = "  " * item.depth + (item.name.rpartition(".")[2] or result.model)
            params = f"{item.params:,}" + (f" (+{item.shared_params:,} shared)" if item.shared_params else "")
            sizes = (item.macs, share(item.macs, whole), item.fft_flops, item.elementwise_flops, item.activations)
            least = item.compulsory_read_bytes + item.compulsory_written_bytes
            add(table, name, item.kind, item.calls or "", params, *sizes, _moved(item), least)
    return table


def _operators(result: ModelResult) -> Iterator["RenderableType"]:
    columns = ("rule", "calls", "MACs", "share", "FFT FLOPs", "elementwise FLOPs", "activations", "bytes")
    table = plain(f"\noperators of {result.model}", "operator", *columns, left=2)
    free = [item for item in result.operators if item.family and not (_work(item) or _moved(item))]
    for item in result.operators:
        if item not in free:
            known = (item.macs, share(item.macs, result.totals.macs), item.fft_flops, item.elementwise_flops, item.activations)
            sizes = (*(known if item.family else ("?",) * 5), _moved(item))
            add(table, item.operator, item.family or "none", item.calls, *sizes, style=None if item.family else "yellow")
    if free:
        names = ", ".join(item.operator.removeprefix("aten::") for item in free)
        add(table, "free", "", sum(item.calls for item in free), "", "", "", "", "", "")
    yield table
    if free:
        yield small(f"free: {names}")


def _work(item: Operator) -> int:
    return item.macs + item.fft_flops + item.elementwise_flops


def _moved(item: Operator | Module) -> int:
    return item.read_bytes + item.written_bytes


def _opinion(result: ModelResult, index: int) -> "Table":
    opinion = result.opinions[index]
    title = f"\n{opinion.counter}'s count of {result.model}, on {opinion.device}"
    table = plain(title, "operators", "ours, MACs", "theirs, MACs", "difference", "calls skipped", "why")
    table.columns[5].justify = "left"
    for item in opinion.differences:
        gap = item.theirs_macs - item.ours_macs
        skipped = item.skipped_calls or ""
        add(table, item.operators, item.ours_macs, item.theirs_macs, f"{gap:+,}" if gap else "0", skipped, item.explanation)
    gap = opinion.theirs_macs - opinion.ours_macs
    add(table, "in all", opinion.ours_macs, opinion.theirs_macs, f"{gap:+,}" if gap else "0", "", "", style="bold")
    return table


def _percent(result: ModelResult) -> str:
    seen = result.coverage
    share = 100 * seen.covered_calls / seen.calls if seen.calls else 100
    # Never round a gap away.
    return "100 %" if seen.covered_calls == seen.calls else f"{min(share, 99.9):.1f} %"
