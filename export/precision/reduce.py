"""From a finished float32 graph to one of fewer bits with its record: the one function that a command calls."""

import json
from collections.abc import Callable

from onnx import ModelProto

from ...models.errors import CannotMeasure
from .calibration import Samples
from .graph import extend_metadata, file_bytes, qdq_count, weight_bytes
from .judge import Judge, kernel_warning, saturates
from .kinds.base import find
from .records import Layer, PrecisionRecord
from .search import search

_MOST_BYTES = 2**31 - 2**20
RANDOM_MARK = "RANDOM NUMBERS: ranges and figures say nothing about real inputs"


def reduce(
    model: ModelProto,
    precision: str,
    samples: Samples,
    min_snr_db: float | None = None,
    progress: Callable[[str, float], None] = lambda text, share: None,
) -> tuple[ModelProto, PrecisionRecord]:
    """Convert a graph to a precision of `kinds`, measure it, and search where a budget asks for it.

    Args:
        model: the finished float32 graph, which is left as it is.
        precision: the name of the precision.
        samples: what to learn ranges from and to measure on, from `calibration.collect`.
        min_snr_db: the least signal-to-noise ratio in exact arithmetic. Without it only what would overflow stays float32.
        progress: told what is being done, and the share that is done.

    Returns:
        The graph, its metadata extended, and its record. Where the budget can't be met, ``record.met`` is false, and the graph
        is the nearest that was found: not to be written as if it met it.

    Raises:
        BadInput: when there is no such precision.
        CannotMeasure: when the model is beyond 2 GB, ONNX Runtime refuses a file, or there is nothing to compare.
    """
    kind = find(precision)
    if weight_bytes(model) > _MOST_BYTES:
        what = (
            f"the model holds {weight_bytes(model) / 1e9:.1f} GB of weights, and files are converted in one piece, up to 2 GB"
        )
        raise CannotMeasure(what, "export it in float32")
    progress("running the float32 file", 0.0)
    judge = Judge.of(model, samples.evaluation)
    progress("learning ranges", 0.0)
    prepared = kind.prepare(model, samples.calibration)
    layers: tuple[Layer, ...] = ()
    evaluations = 1
    if min_snr_db is None:
        kept = frozenset(prepared.must_keep)
        converted = prepared.convert(kept)
        exact, met = judge.measure(prepared.exact(converted)), True
    else:
        found = search(model, prepared, judge, min_snr_db, kind.float_share, progress)
        converted, kept, exact, met = found.model, found.kept, found.exact, found.met
        evaluations, layers = found.evaluations, found.layers
    kernels = judge.measure(converted, optimised=True)
    in_order = tuple(name for name in prepared.candidates if name in kept)
    sizes = file_bytes(converted), file_bytes(model)
    warnings = _warnings(samples, judge, kernel_warning(exact, kernels, saturates()), *sizes)
    record = PrecisionRecord(
        precision=precision,
        title=kind.title,
        bytes=sizes[0],
        float32_bytes=sizes[1],
        exact=exact,
        kernels=kernels,
        kept=in_order,
        nodes=len(prepared.candidates),
        conversions=qdq_count(converted),
        calibration=samples.source,
        min_snr_db=min_snr_db,
        met=met,
        evaluations=evaluations,
        layers=layers,
        notes=(*(f"{name} stays float32: {reason}" for name, reason in prepared.must_keep.items()), *_domain(converted)),
        warnings=tuple(warnings),
    )
    extend_metadata(converted, metadata(record))
    return converted, record


def metadata(record: PrecisionRecord) -> dict[str, str]:
    """What the file says of its precision, beside what it says of the model."""
    source = record.calibration
    name = RANDOM_MARK if source.kind == "random" else source.name
    return {
        "precision": record.precision,
        "precision_calibration": f"{source.kind}: {name}",
        "precision_calibration_samples": str(source.samples),
        "precision_calibration_sha256": source.sha256,
        "precision_kept_float32": json.dumps(record.kept),
    }


def unmet(record: PrecisionRecord) -> str:
    """What to say where the budget could not be met; "" where it was, or there was none."""
    if record.met or record.min_snr_db is None:
        return ""
    best = "nothing finite" if record.exact.snr_db is None else f"best {record.exact.snr_db:.1f} dB"
    kept = f"{len(record.kept)} of {record.nodes} nodes in float32"
    return f"{record.precision} cannot reach {record.min_snr_db:g} dB: {best}, with {kept}, in {record.evaluations} evaluations"


def _domain(converted: ModelProto) -> list[str]:
    if all(entry.domain in ("", "ai.onnx") for entry in converted.opset_import):
        return []
    return ["below opset 21 the standard's pairs have no 16 bits: these are ONNX Runtime's own; --opset 21 gives standard ones"]


def _warnings(samples: Samples, judge: Judge, kernels: str, converted_bytes: int, original_bytes: int) -> list[str]:
    found = [kernels] if kernels else []
    if converted_bytes >= original_bytes:
        found.append("the file is no smaller: it has few weights, and the conversions take more than they save")
    if samples.source.kind == "random":
        found.insert(0, f"calibrated on {RANDOM_MARK}")
    if not samples.source.held_out and samples.source.kind in ("images", "arrays", "loader"):
        found.append("too few samples to hold any back: the figures are from those that the ranges were learnt from")
    if judge.hardly_depends():
        found.append("the outputs hardly depend on the input, as an untrained model's: such figures hide damage")
    return found
