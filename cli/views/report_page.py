"""A flops `Run` as one HTML page: totals, where they come from as icicle and as tables that can be sorted, and what speaks
against them. The record itself is in the page; every figure that is shown is one of its own, or a sum or ratio of them.
What it says of a model stands in the page of `compare` too.
"""

from collections.abc import Iterator, Sequence
from html import escape

from ...profilers.runs.run import ModelResult, Module, Opinion, Run, Totals, label_of
from . import icicle
from .emit import to_json
from .icicle import Metric
from .page import SECTIONS_STYLE, TABLES_STYLE, links, paragraphs, section, table, tiles
from .page import page as skeleton
from .table import Grid, about, share

_TOTALS = (
    ("params", "parameters"),
    ("macs", "MACs"),
    ("flops", "FLOPs of contractions"),
    ("fft_flops", "FFT FLOPs"),
    ("elementwise_flops", "elementwise FLOPs"),
    ("activations", "activations"),
)
_SUMS = (*_TOTALS, ("moved_bytes", "bytes, unfused"), ("compulsory_bytes", "bytes, compulsory"))
_BYTES = ("bytes read", "written")
METRICS = (
    Metric("MACs", ("macs",)),
    Metric("parameters", ("params",)),
    Metric("elementwise FLOPs", ("elementwise_flops",)),
    Metric("FFT FLOPs", ("fft_flops",)),
    Metric("activations", ("activations",)),
    Metric("bytes, unfused", ("read_bytes", "written_bytes")),
)
STYLE = TABLES_STYLE + SECTIONS_STYLE + icicle.STYLE
SCRIPTS = ("tables.js", "sections.js", icicle.SCRIPT)
MEANING = (
    "A MAC is a multiply-accumulate of a convolution, matrix product or attention, and counts as two FLOPs. Fourier transforms "
    "(5 N log2 N, idealised) and elementwise work are counted apart, in none of the others. Activations are the elements that "
    "contractions write. Bytes, unfused, are what operators read and write if each is a kernel of its own, at most; compulsory "
    "ones, each weight, input and output once, are what no fusion avoids: at least."
)


def page(run: Run) -> str:
    """The whole page."""
    names = [result.model for result in run.models]
    title = names[0] if len(names) == 1 else f"{len(names)} models"
    return skeleton(title, run.command, run.versions, STYLE, _parts(run), SCRIPTS, to_json(run, None))


def _parts(run: Run) -> Iterator[str]:
    if len(run.models) == 1:
        yield from model(run.models[0], 0)
    else:
        yield from table(_side_by_side(run.models), sortable=True)
        yield from links((result.model, anchor(place)) for place, result in enumerate(run.models))
        for place, result in enumerate(run.models):
            yield from section(result.model, anchor(place), glance(result), model(result, place))
    yield from paragraphs([MEANING], "faint")


def anchor(place: int) -> str:
    """The id of a model's section, by its place in the record."""
    return f"model-{place}"


def glance(result: ModelResult) -> str:
    """A model in few words."""
    return ", ".join(f"{_short(getattr(result.totals, key), '')} {label}" for key, label in _TOTALS[:2])


def model(result: ModelResult, place: int) -> Iterator[str]:
    """All that a count knows of a model, as HTML. Goes with `STYLE` and `SCRIPTS`.

    Args:
        place: of the model in the page's record, where the scripts read its figures.
    """
    seen = result.coverage
    covered = f"{seen.covered_calls:,} of {seen.calls:,} calls of operators have a rule"
    where = "from the file's graph" if result.device == "onnx" else f"on {result.device}"
    yield from paragraphs([f"{', '.join(result.inputs)} {result.dtype}, {result.mode}; {covered}, {where}."])
    yield from tiles(_tiles(result))
    yield from paragraphs(
        (f"uncounted: {item.operator}, {item.calls:,} calls: no rule, cost unknown, in no total" for item in result.uncounted),
        "warn",
    )
    yield from paragraphs([f"note: {note}" for note in result.notes], "warn")
    if result.published:
        yield "<h3>Published figures</h3>"
        yield from table(_published(result))
        yield from paragraphs([f"source: {'; '.join(dict.fromkeys(item.source for item in result.published))}"], "faint")
    if result.modules:
        yield "<h3>Where it comes from</h3>"
        yield from icicle.figure(result.modules, METRICS, place, result.model)
    yield "<h3>Memory</h3>"
    yield from table(_memory(result))
    yield "<h3>Operators</h3>"
    yield from table(_operators(result), sortable=True)
    if result.modules:
        yield "<h3>Modules, each with all below it</h3>"
        yield from table(_modules(result), sortable=True, depths=[item.depth for item in result.modules])
    for opinion in result.opinions:
        yield f"<h3>{escape(opinion.counter)}'s count, on {escape(opinion.device)}</h3>"
        yield from table(_opinion(opinion), sortable=True)


def _tiles(result: ModelResult) -> Iterator[tuple[str, str, str]]:
    for key, label in _TOTALS:
        value = getattr(result.totals, key)
        yield label, about(value) or f"{value:,}", f"{value:,}" if about(value) else ""
    yield from _bytes(result.totals)
    if result.params_bn_folded != result.totals.params:
        yield "parameters, folded", about(result.params_bn_folded), f"{result.params_bn_folded:,} with batch norms folded"
    if result.mode == "train":
        for name, direction in (("forward", result.forward), ("backward", result.backward)):
            yield f"{name} MACs", about(direction.macs) or "0", f"{direction.macs:,}"


def _bytes(totals: Totals) -> Iterator[tuple[str, str, str]]:
    for name, read, written in (
        ("bytes, unfused", totals.read_bytes, totals.written_bytes),
        ("bytes, compulsory", totals.compulsory_read_bytes, totals.compulsory_written_bytes),
    ):
        yield name, _short(read + written), f"{read:,} read, {written:,} written"
    if totals.moved_bytes and totals.compulsory_bytes:
        least, most = (totals.all_flops / size for size in (totals.moved_bytes, totals.compulsory_bytes))
        yield "FLOPs a byte", f"{least:.3g} to {most:.3g}", "all FLOPs over the bytes"


def _memory(result: ModelResult) -> Grid:
    """Bytes in full, and in the unit that suits them."""
    memory, training = result.memory, result.memory.training
    kinds = (f"{held.param_bytes + held.buffer_bytes:,} {held.dtype}" for held in memory.held)
    where = f"at {memory.peak_operator} in {memory.peak_module or result.model}" if memory.peak_operator else ""
    rows = [
        ("parameters", memory.param_bytes, ""),
        ("buffers", memory.buffer_bytes, f"with the parameters: {', '.join(kinds)}" if memory.held else ""),
        ("inputs", memory.input_bytes, ""),
        ("outputs", memory.output_bytes, ""),
        ("all activations", memory.activation_bytes, "everything that the run writes, together"),
        ("peak of activations and gradients" if training else "peak of activations", memory.peak_activation_bytes, where),
        ("in all, at that peak", memory.total_peak_bytes, "with parameters, buffers and inputs"),
    ]
    if training:
        rows.append(("saved for backward", training.saved_bytes, "alive when the forward pass has ended"))
        rows.append(("gradients", training.gradient_bytes, "of parameters"))
        for item in training.optimisers:
            rows.append((f"in all, {item.name}", item.peak_bytes, f"its state {item.state_bytes:,}"))
    columns = (("", "left"), ("bytes", "right"), ("", "right"), ("", "left"))
    return Grid(columns, tuple((name, f"{size:,}", _short(size), words) for name, size, words in rows))


def _short(size: int, unit: str = "B") -> str:
    return f"{about(size)}{unit}" if about(size) else f"{size} {unit}".strip()


def _side_by_side(results: Sequence[ModelResult]) -> Grid:
    columns = (("model", "left"), ("input", "left"), *((label, "right") for _, label in _SUMS))
    rows = ((r.model, ", ".join(r.inputs), *(f"{getattr(r.totals, key):,}" for key, _ in _SUMS)) for r in results)
    return Grid(columns, tuple(rows))


def _published(result: ModelResult) -> Grid:
    columns = (("figure", "left"), ("published", "right"), ("ours", "right"), ("difference", "right"), ("why", "left"))
    return Grid(
        columns,
        tuple(
            (label_of(item.metric), item.published, f"{item.ours:,}", f"{item.difference_percent:+.2f} %", item.explanation)
            for item in result.published
        ),
    )


def _modules(result: ModelResult) -> Grid:
    names = ("calls", "parameters", "MACs", "share", "FFT FLOPs", "elementwise FLOPs", "activations", *_BYTES, "at least")
    columns = (("module", "left"), ("kind", "left"), *((name, "right") for name in names))
    return Grid(columns, tuple(_module(item, result) for item in result.modules))


def _module(item: Module, result: ModelResult) -> tuple[str, ...]:
    params = f"{item.params:,}" + (f" (+{item.shared_params:,} shared)" if item.shared_params else "")
    least = item.compulsory_read_bytes + item.compulsory_written_bytes
    sizes = (item.fft_flops, item.elementwise_flops, item.activations, item.read_bytes, item.written_bytes, least)
    macs = f"{item.macs:,}", share(item.macs, result.totals.macs)
    return (item.name or result.model, item.kind, f"{item.calls:,}", params, *macs, *(f"{size:,}" for size in sizes))


def _operators(result: ModelResult) -> Grid:
    names = ("calls", "MACs", "share", "FFT FLOPs", "elementwise FLOPs", "activations", *_BYTES)
    columns = (("operator", "left"), ("rule", "left"), *((name, "right") for name in names))
    rows = []
    for item in result.operators:
        macs = f"{item.macs:,}", share(item.macs, result.totals.macs)
        known = (*macs, *(f"{size:,}" for size in (item.fft_flops, item.elementwise_flops, item.activations)))
        rows.append(
            (
                item.operator,
                item.family or "none",
                f"{item.calls:,}",
                *(known if item.family else ("?",) * 5),
                f"{item.read_bytes:,}",
                f"{item.written_bytes:,}",
            )
        )
    return Grid(columns, tuple(rows))


def _opinion(opinion: Opinion) -> Grid:
    names = ("ours, MACs", "theirs, MACs", "difference", "calls skipped")
    columns = (("operators", "left"), *((name, "right") for name in names), ("why", "left"))
    found = [(d.operators, d.ours_macs, d.theirs_macs, d.skipped_calls, d.explanation) for d in opinion.differences] + [
        ("in all", opinion.ours_macs, opinion.theirs_macs, 0, "")
    ]
    return Grid(
        columns,
        tuple(
            (name, f"{ours:,}", f"{theirs:,}", f"{theirs - ours:+,}", f"{skipped:,}", why)
            for name, ours, theirs, skipped, why in found
        ),
    )
