"""How much a converted file departs from the float32 one, computed twice: in exact arithmetic, and by this machine's kernels.

Exact arithmetic is the same file with ONNX Runtime's optimisation off: quantise and dequantise nodes round, and every operator
between them computes in float32. The optimised session fuses them into integer kernels. On an x86 without VNNI these add pairs
of products in 16 bits, which saturates (ONNX Runtime's issues 5849, 6545, 11415); the file is not to blame.
"""

import math
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from onnx import ModelProto

from ...models.errors import CannotMeasure, first_line
from .records import Fidelity

Feeds = Mapping[str, np.ndarray]

_GAP_DB = 3.0
"""Kernels round differently from exact arithmetic; what is lost beyond this has another cause."""


def run(model: ModelProto, feeds: Sequence[Feeds], optimised: bool) -> list[list[np.ndarray]]:
    """All outputs of every run.

    Raises:
        CannotMeasure: when ONNX Runtime refuses the file or fails on it.
    """
    call = opened(model, optimised)
    return [call(item) for item in feeds]


def opened(model: ModelProto, optimised: bool) -> Callable[[Feeds], list[np.ndarray]]:
    """A session, to be called again and again: opening one takes seconds where the weights are large.

    Raises:
        CannotMeasure: when ONNX Runtime refuses the file; the callable, when it fails on a run.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    with _refusals():
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def call(feeds: Feeds) -> list[np.ndarray]:
        with _refusals():
            found: list[np.ndarray] = session.run(None, dict(feeds))
        return found

    return call


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        what = f"ONNX Runtime {onnxruntime.__version__} does not run the converted graph: {first_line(error)}"
        raise CannotMeasure(what, "try another --precision, or another --opset") from error


@dataclass(frozen=True, slots=True)
class Judge:
    """The evaluation runs with the float32 file's outputs on them, by run and output."""

    feeds: tuple[Feeds, ...]
    reference: tuple[tuple[np.ndarray, ...], ...]

    @classmethod
    def of(cls, model: ModelProto, feeds: Sequence[Feeds]) -> "Judge":
        """Run the float32 file once.

        Raises:
            CannotMeasure: when none of its outputs is float, or all are zero or not finite, so that nothing can be compared.
        """
        judge = cls(tuple(feeds), tuple(map(tuple, run(model, feeds, optimised=False))))
        floats = [output for outputs in judge.reference for output in outputs if output.dtype.kind == "f"]
        if not floats:
            raise CannotMeasure("the model has no float output to compare", "leave --precision out")
        if not all(np.isfinite(output).all() for output in floats):
            raise CannotMeasure("the float32 model itself gives values that are not finite", "look at its weights and inputs")
        if not any(output.any() for output in floats):
            raise CannotMeasure("the float32 model's outputs are all zero", "give trained weights by --weights")
        return judge

    def measure(self, model: ModelProto, optimised: bool = False) -> Fidelity:
        """Run a converted file and compare."""
        return compare(self.reference, run(model, self.feeds, optimised))

    def hardly_depends(self) -> bool:
        """Whether the outputs stay the same to 1 % over the evaluation runs, as an untrained net's do: that hides damage."""
        if len(self.reference) < 2:
            return False
        for outputs in zip(*self.reference, strict=True):
            if outputs[0].dtype.kind != "f" or len({output.shape for output in outputs}) > 1:
                continue
            stack = np.stack(outputs).astype(np.float64)
            if np.square(stack - stack.mean(0)).sum() > 1e-4 * np.square(stack).sum():
                return False
        return True


def compare(reference: Sequence[Sequence[np.ndarray]], found: Sequence[Sequence[np.ndarray]]) -> Fidelity:
    """Compare by run and output; outputs that are not float are left out."""
    worst: Fidelity | None = None
    for wanted, got in zip(zip(*reference, strict=True), zip(*found, strict=True), strict=True):
        if wanted[0].dtype.kind == "f":
            one = _compare_output(wanted, got)
            worst = one if worst is None or level(one) < level(worst) else worst
    assert worst is not None, "Judge.of has seen a float output"
    return worst


def level(found: Fidelity) -> float:
    """The SNR as a number to compare with: infinite without any difference, minus infinite when broken."""
    if found.snr_db is not None:
        return found.snr_db
    return math.inf if found.max_error == 0 else -math.inf


def _compare_output(wanted: Sequence[np.ndarray], got: Sequence[np.ndarray]) -> Fidelity:
    broken = sum(int(np.size(item) - np.isfinite(item).sum()) for item in got)
    pairs = [(a.astype(np.float64), b.astype(np.float64)) for a, b in zip(wanted, got, strict=True)]
    top1 = None
    if all(a.ndim == 2 and a.shape[1] > 1 for a, _ in pairs):
        top1 = float(np.mean(np.concatenate([a.argmax(1) == b.argmax(1) for a, b in pairs])))
    if broken:
        return Fidelity(None, None, None, top1, broken)
    signal = sum(float(np.square(a).sum()) for a, _ in pairs)
    noise = sum(float(np.square(a - b).sum()) for a, b in pairs)
    size = sum(float(np.square(b).sum()) for _, b in pairs)
    dot = sum(float((a * b).sum()) for a, b in pairs)
    snr = 10 * math.log10(signal / noise) if signal and noise else None
    cosine = dot / math.sqrt(signal * size) if signal and size else 0.0
    return Fidelity(snr, cosine, max(float(np.abs(a - b).max(initial=0)) for a, b in pairs), top1, 0)


def saturates(machine: str | None = None, cpuinfo: str | None = None) -> bool | None:
    """Whether this processor's 8-bit kernels add up in 16 bits: an x86 without VNNI; None where it can't be told.

    Args:
        machine: the architecture, such as ``x86_64``; this machine's if not given.
        cpuinfo: text with the processor's flags; /proc/cpuinfo if not given.
    """
    machine = platform.machine() if machine is None else machine
    if machine.lower() not in ("x86_64", "amd64", "i386", "i686"):
        return False  # ARM's dot products add up in 32 bits
    if cpuinfo is None:
        path = Path("/proc/cpuinfo")
        cpuinfo = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    flags = {flag for line in cpuinfo.splitlines() if line.startswith("flags") for flag in line.split()}
    return not flags & {"avx512_vnni", "avx_vnni"} if flags else None


def kernel_warning(exact: Fidelity, kernels: Fidelity, saturating: bool | None) -> str:
    """What to say where this machine's kernels lose more than the file does; "" where they don't."""
    lost = level(exact) - level(kernels)
    if not lost > _GAP_DB or math.isnan(lost):
        return ""
    figure = f"{lost:.1f} dB" if math.isfinite(lost) else "everything"
    if saturating:
        return (
            f"this processor has no VNNI, and its 8-bit kernels saturate: they lose {figure} that the file does not; "
            "ARM and VNNI don't, so judge the file by the exact figure"
        )
    cause = (
        "although its 8-bit sums don't saturate" if saturating is False else "and whether they saturate could not be found out"
    )
    return f"this machine's kernels lose {figure} that the file does not, {cause}; other devices may, too"
