"""The record of one `mixbench export`: what the table shows and what ``--json`` prints. No torch here.

Every field is plain data with its unit in its name or its docstring. The schema beside this file (``export-1.schema.json``) is
generated from these types; a change that a reader could notice raises ``SCHEMA``.
"""

from dataclasses import dataclass, field

from ..models.versions import versions
from .precision.records import PrecisionRecord

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Check:
    """One comparison with torch.

    Attributes:
        seed: of the inputs; 0 is the model's own example.
        sizes: of open dimensions, where they are not the example's.
        max_abs_error: against torch in float32.
        snr_db: 10 log10 of the sum of squares over that of the difference; null where there is none.
        tolerance: what this error may be.
    """

    seed: int
    sizes: dict[str, int]
    max_abs_error: float
    snr_db: float | None
    tolerance: float
    passed: bool


@dataclass(frozen=True, slots=True)
class Verification:
    """How a file compares with the model.

    Attributes:
        max_abs_error, snr_db: the worst of the checks; of those within the tolerance, where others are forgiven.
        tolerance: the largest of those of the outputs, see `verify`.
        min_snr_db: what was asked for instead of a tolerance.
        own_error: of torch in float32 against float64 on the same inputs; null if the model does not run in float64.
        dependence: the share by which the outputs of two inputs differ; null if no input varies.
    """

    passed: bool
    max_abs_error: float
    snr_db: float | None
    tolerance: float
    min_snr_db: float | None
    own_error: float | None
    dependence: float | None
    checks: tuple[Check, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Value:
    """An input or a result: its dimensions, open ones by their names, and its dtype."""

    name: str
    shape: tuple[int | str, ...]
    dtype: str


@dataclass(frozen=True, slots=True)
class Latency:
    """The median of one call on this machine with one thread, in ns, and its interval where there are enough samples."""

    median_ns: float
    low_ns: float | None
    high_ns: float | None
    samples: int


@dataclass(frozen=True, slots=True)
class Artifact:
    """One file that a model left in.

    Attributes:
        path: as the user named it.
        target: the format's name, such as ``onnx``.
        files: names and bytes of all files that belong to it, the main one first.
        bytes: of all of them.
        sha256: of the main file; of a folder, of its files' names and contents.
        opset, ir, operators: of the ONNX graph that it was made from.
        dynamic: the open dimensions, read back from the graph.
        metadata: what the file says of the model.
        rewrites: what was written in another form for export.
        runtime: who ran the file here; "" if nobody could.
        verification: null if nobody could run it here.
        latency: null unless it was asked for.
        portable: where the format runs, in words.
        notes: what the user should know.
    """

    path: str
    target: str
    title: str
    files: dict[str, int]
    bytes: int
    sha256: str
    opset: int
    ir: int
    operators: dict[str, int]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    dynamic: tuple[str, ...]
    metadata: dict[str, str]
    rewrites: tuple[str, ...]
    runtime: str
    verification: Verification | None
    latency: Latency | None
    portable: str
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Refusal:
    """A target that could not be written, and why; only ``--to all`` goes on after one."""

    target: str
    what: str
    hint: str


@dataclass(frozen=True, slots=True)
class ExportRun:
    """One run of ``mixbench export``; ``precision`` says what fewer bits cost, null for float32."""

    model: str
    artifacts: tuple[Artifact, ...]
    refusals: tuple[Refusal, ...] = ()
    precision: PrecisionRecord | None = None
    command: str = "export"
    schema: int = SCHEMA
    versions: dict[str, str] = field(default_factory=lambda: versions("mixbench", "torch", "onnx", "onnxscript", "onnxruntime"))
