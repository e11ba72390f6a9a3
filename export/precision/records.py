"""What was given up for fewer bits, as plain data: the view prints it, and ``--json`` is these fields. No onnx here."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CalibrationSource:
    """Where the runs came from that the ranges were learnt from.

    Attributes:
        kind: ``images``, ``arrays``, ``loader``, ``examples`` or ``random``.
        name: the folder, file or loader by its last name, without where it lies.
        sha256: of the inputs as the model got them: names, types, shapes and values, in order.
        samples: runs that the ranges were learnt from.
        evaluated: runs that the result was measured on.
        held_out: whether no run served both.
    """

    kind: str
    name: str
    sha256: str
    samples: int
    evaluated: int
    held_out: bool


@dataclass(frozen=True, slots=True)
class Fidelity:
    """How near outputs are to the float32 file's, over all evaluation runs; of several outputs, the worst.

    Attributes:
        snr_db: 10 log10(sum of squares / sum of squared differences); None where that is no number: without any difference,
            against outputs that are all zero, and where ``broken`` is not 0.
        cosine: between the outputs as vectors, 1 for the same direction; None where ``broken`` is not 0.
        max_error: the largest absolute difference; None where ``broken`` is not 0.
        top1: the share of rows with the same largest class; None where no output is (rows, classes).
        broken: how many values are infinite or no number.
    """

    snr_db: float | None
    cosine: float | None
    max_error: float | None
    top1: float | None
    broken: int


@dataclass(frozen=True, slots=True)
class Layer:
    """A weighted node with what follows it, by its nodes, and how near the outputs are with nothing else converted."""

    nodes: tuple[str, ...]
    weight_bytes: int
    alone: Fidelity


@dataclass(frozen=True, slots=True)
class PrecisionRecord:
    """One file of reduced precision against its float32 original.

    Attributes:
        bytes, float32_bytes: of the two files.
        exact: the same file with every operator computed in float, as on a device that adds up in 32 bits.
        kernels: what this machine's integer or half kernels make of it, optimised as any session is.
        kept: nodes left in float32.
        nodes: how many nodes could have changed.
        conversions: quantise, dequantise and cast nodes in the file.
        min_snr_db: the budget; None if none was given. ``met`` compares it with ``exact``.
        evaluations: files that the search made and ran.
        layers: the search's findings, most harmful first; empty if it was not needed.
    """

    precision: str
    title: str
    bytes: int
    float32_bytes: int
    exact: Fidelity
    kernels: Fidelity
    kept: tuple[str, ...]
    nodes: int
    conversions: int
    calibration: CalibrationSource
    min_snr_db: float | None
    met: bool
    evaluations: int
    layers: tuple[Layer, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
