"""Between the float32 graph and its delivery: the step that ``--precision`` adds to an export."""

from collections.abc import Callable
from dataclasses import replace

from ...models.errors import CheckFailed
from ..graph import Graph, set_metadata
from ..source import Source
from ..verify import SEEDS, Expectation, on_runs, verify, why
from .calibration import collect, of_examples
from .judge import level, opened
from .records import PrecisionRecord
from .reduce import metadata, reduce, unmet

_RUBBISH_DB, _MARGIN_DB = 3.0, 10.0
_RUNS = 4
"""Held-back runs that the written file is run on."""


def apply(
    source: Source,
    graph: Graph,
    expectation: Expectation,
    precision: str,
    calibrate: str | None,
    min_snr_db: float | None,
    stage: Callable[[str], None] = lambda text: None,
) -> tuple[Source, Graph, Expectation, PrecisionRecord | None]:
    """The source, graph and expectation for fewer bits, ready for `deliver`, and what they cost; as they are for ``fp32``.

    Args:
        expectation: of the float32 model; its inputs serve a precision that learns nothing and is given no data. Where there is
            data, runs that were held back from the calibration take the place of drawn inputs: those may lie beyond all ranges
            that were learnt, and an 8-bit file owes nothing there.
        calibrate: as in `calibration.collect`.

    Raises:
        BadInput: when the data doesn't fit the model.
        CheckFailed: when the float32 graph is not the model, or the budget can't be met.
    """
    if precision == "fp32":
        return source, graph, expectation, None
    # Everything below is measured against this graph, so it has to be the model first.
    stage("verifying the float32 graph")
    verification = verify(opened(graph.model, optimised=True), expectation)
    if not verification.passed:
        hint = "without --precision the export says where it departs"
        raise CheckFailed(f"the float32 graph is not the model: {why(verification)}", hint)
    set_metadata(graph.model, dict(source.metadata))  # it says how images become inputs
    examples = [sample.inputs for sample in expectation.samples if not sample.sizes]
    samples = of_examples(examples[:SEEDS]) if calibrate is None else collect(calibrate, graph.model, examples[0])

    def progress(text: str, share: float) -> None:
        stage(f"{precision}: {text}, {100 * share:.0f} %" if share else f"{precision}: {text}")

    model, record = reduce(graph.model, precision, samples, min_snr_db, progress)
    if said := unmet(record):
        hint = "a lower --min-snr, or another --precision; nothing is written, and a file that was there before still is"
        raise CheckFailed(said, hint)
    if samples.source.kind not in ("random", "examples"):
        stage("running PyTorch on the data")
        expectation = on_runs(source, expectation, samples.evaluation[:_RUNS])
    source = replace(source, metadata={**source.metadata, **metadata(record)})
    return source, replace(graph, model=model), expectation, record


def least_snr_db(record: PrecisionRecord | None) -> float | None:
    """What the file has to reach where it is run once more as it was written; None for a float32 file.

    The figures are the judge's; this tells a file from rubbish. The kernels of this machine may saturate, and drawn inputs of
    other sizes go beyond the ranges of real ones, so that little can be asked for.
    """
    return None if record is None else min(_RUBBISH_DB, level(record.kernels) - _MARGIN_DB)
