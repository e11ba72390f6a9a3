"""What a model's ONNX file would be: made in memory from random or given weights, as `mixbench export` makes it."""

from collections.abc import Sequence
from pathlib import Path

from ...models.errors import CheckFailed
from ...profilers.budget import Budget
from . import Entry, Figure, Specimen

_EQUAL_DB = 400.0
"""Stands for the endless ratio of outputs that are equal bit by bit; float64 reaches 320."""


def _onnx_bytes(specimen: Specimen, budget: Budget | None) -> Figure:
    """Bytes of the graph with its weights. The words beside it in a file (1 to 3 kB) name versions, and are not counted."""
    graph = specimen.exported[1].model.graph
    weights = {tensor.name: len(tensor.raw_data) for tensor in graph.initializer if tensor.raw_data}
    whole = graph.ByteSize()
    return Figure(whole, parts={**weights, "(operators and names)": whole - sum(weights.values())})


def _runtimes() -> Sequence[str]:
    from ...export.portability.base import names

    return names()


def _onnx_portable(specimen: Specimen, budget: Budget | None) -> Figure:
    """How many nodes the budget's runtimes leave to the CPU, together."""
    from ...export.portability.report import report

    asked = budget.words if budget else ()
    found = [item for item in report(specimen.exported[1].model, {}) if item.runtime in asked]
    parts = {f"{item.runtime}: {it.operator}, {it.reason}": len(it.nodes) for item in found for it in item.breakers}
    return Figure(sum(item.nodes - item.taken_nodes for item in found), parts=parts)


def _snr(specimen: Specimen, budget: Budget | None) -> Figure:
    """The worst signal-to-noise ratio of the file's outputs in ONNX Runtime, against torch in float32."""
    from tempfile import TemporaryDirectory

    from ...export.graph_checks import decides
    from ...export.quiet import quiet
    from ...export.targets.onnx import convert, open_session
    from ...export.verify import expect, verify, why

    source, graph = specimen.exported
    expectation = expect(source, decides(graph.model))
    with TemporaryDirectory() as folder, quiet():
        found = verify(open_session(convert(source, graph.model, Path(folder)), 1), expectation)
    if not found.passed:
        raise CheckFailed(f"its ONNX file is not the model: {why(found)}", "`mixbench export` tells where it departs")
    return Figure(_EQUAL_DB if found.snr_db is None else round(found.snr_db, 2))


METRICS = (
    Entry("onnx_bytes", "bytes", "counted", "of the ONNX graph with its weights", _onnx_bytes),
    Entry("onnx_portable", "nodes", "counted", "nodes that these runtimes don't take", _onnx_portable, words=_runtimes),
    Entry("snr", "dB", "measured", "of the ONNX file's outputs against torch's", _snr, better="higher"),
)
