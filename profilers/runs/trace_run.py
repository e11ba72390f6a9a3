"""The record of one `mixbench trace`: where the time of a call goes, by operator, by module and by call stack. No torch here.

Every duration is in ns per call of the model (a training step, with ``--train``), the mean over the steps in the middle half by
duration: a mean adds up, which medians of parts do not, and a step that the machine disturbed is not among them. Times under a
profiler are longer than without; ``untraced_ns`` stands beside them so that nobody takes them for latency.

A figure that is not known is None, never 0. The schema beside this file (``trace-1.schema.json``) is generated from the types.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ...models.errors import BadInput
from ...models.versions import versions
from ..machine import Machine

SCHEMA = 1
Phase = Literal["forward", "backward", "update"]
Kind = Literal["step", "module", "operator", "range"]


@dataclass(frozen=True, slots=True)
class Work:
    """What was done per call, exact integers: arithmetic by `counter`, and compulsory bytes.

    Attributes:
        bytes_read: of the tensors that operators are given, each once per operator; views move nothing, look-ups read the
            rows that they return. Operators within an operator are not added to it.
        bytes_written: of the tensors that they leave.
    """

    macs: int | None = None
    fft_flops: int | None = None
    elementwise_flops: int | None = None
    bytes_read: int | None = None
    bytes_written: int | None = None


UNKNOWN = Work()


@dataclass(frozen=True, slots=True)
class OperatorTime:
    """All calls of an operator in one phase.

    The self times of all rows add up to the total times of the outermost rows, those with an empty ``within``.

    Attributes:
        within: the operator that calls this one, and that the model calls; empty when the model calls this one itself.
        calls: per call of the model; a whole number unless calls differ.
        self_ns: without the operators that it calls.
        total_ns: with them; calls within a call of the same name are not counted twice.
        provider: who ran it, where the engine has several ("CPUExecutionProvider").
    """

    phase: Phase
    operator: str
    within: str
    calls: float
    self_ns: float
    total_ns: float
    work: Work = UNKNOWN
    provider: str = ""


@dataclass(frozen=True, slots=True)
class ModuleTime:
    """A module by its full name (the model's own is empty). The self times of all modules add up to the model's total.

    Attributes:
        calls: forward calls.
        self_ns: in the module but in none of its modules, operators of its own included.
        operators_ns: the part of ``self_ns`` that operators take; the rest is Python, and the profiler.
        total_ns: with everything that it calls, forward and backward.
        backward_ns: the part of ``total_ns`` in operators of the backward pass.
    """

    name: str
    kind: str
    depth: int
    calls: float
    self_ns: float
    operators_ns: float
    total_ns: float
    backward_ns: float
    work: Work = UNKNOWN


@dataclass(frozen=True, slots=True)
class Frame:
    """A place in the call stack: ``self_ns`` plus the children's ``total_ns`` is its own ``total_ns``."""

    name: str
    kind: Kind
    calls: float
    self_ns: float
    total_ns: float
    children: tuple["Frame", ...] = ()

    def walk(self, depth: int = 0) -> Iterator[tuple[int, "Frame"]]:
        """This frame and all below it with their depth, callers first."""
        yield depth, self
        for child in self.children:
            yield from child.walk(depth + 1)


@dataclass(frozen=True, slots=True)
class Trace:
    """One model under the profiler.

    Attributes:
        engine: ``torch`` or ``onnxruntime``.
        how: settings that change the time but not the result, such as "compiled".
        step_ns: durations of all traced steps, in order.
        used_steps: how many of them, in the middle half by duration, the times are the mean of.
        traced_ns: mean duration of those.
        untraced_ns: the median without a profiler, from ``untraced_samples`` samples.
        clock: what the times of operators are.
    """

    model: str
    engine: str
    workload: str
    inputs: tuple[str, ...]
    dtype: str
    mode: str
    how: str
    clock: str
    step_ns: tuple[float, ...]
    used_steps: int
    traced_ns: float
    untraced_ns: float
    untraced_samples: int
    operators: tuple[OperatorTime, ...]
    modules: tuple[ModuleTime, ...]
    frames: Frame
    machine: Machine
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """An operator or module in two traces; what one of them lacks takes 0 there and is called 0 times."""

    name: str
    calls: float
    other_calls: float
    total_ns: float
    other_total_ns: float

    @property
    def difference_ns(self) -> float:
        """The other's time less the first one's: negative is faster."""
        return self.other_total_ns - self.total_ns


@dataclass(frozen=True, slots=True)
class TraceRun:
    """One call of the command.

    Attributes:
        against: the trace that ``trace`` is compared with; the changes are from ``trace`` to it, the largest first.
    """

    trace: Trace
    against: Trace | None = None
    operator_changes: tuple[Change, ...] = ()
    module_changes: tuple[Change, ...] = ()
    command: str = "trace"
    schema: int = SCHEMA
    versions: dict[str, str] = field(default_factory=lambda: versions("mixbench", "torch", "onnxruntime"))


def compared(trace: Trace, against: Trace) -> TraceRun:
    """Two traces side by side: outermost operators by name, and modules where at least one name below the models agrees."""
    operators = _changes(_by_operator(trace), _by_operator(against))
    modules, others = _by_module(trace), _by_module(against)
    agree = (modules.keys() & others.keys()) - {""}
    return TraceRun(trace, against, operators, _changes(modules, others) if agree else ())


def label_of(item: OperatorTime) -> str:
    """An operator's name, with its phase where it is not the forward pass."""
    return item.operator if item.phase == "forward" else f"{item.operator} ({item.phase})"


def _by_operator(trace: Trace) -> dict[str, tuple[float, float]]:
    found: dict[str, tuple[float, float]] = {}
    for item in trace.operators:
        if not item.within:
            calls, total = found.get(label_of(item), (0.0, 0.0))
            found[label_of(item)] = (calls + item.calls, total + item.total_ns)
    return found


def _by_module(trace: Trace) -> dict[str, tuple[float, float]]:
    return {item.name: (item.calls, item.total_ns) for item in trace.modules}


def _changes(ours: dict[str, tuple[float, float]], theirs: dict[str, tuple[float, float]]) -> tuple[Change, ...]:
    nothing = (0.0, 0.0)
    changes = []
    for name in dict.fromkeys((*ours, *theirs)):
        (calls, total), (other_calls, other_total) = ours.get(name, nothing), theirs.get(name, nothing)
        changes.append(Change(name, calls, other_calls, total, other_total))
    return tuple(sorted(changes, key=lambda item: (-abs(item.difference_ns), item.name)))


def middle(durations: Sequence[float]) -> list[int]:
    """Which steps lie in the middle half by duration, at least one: of 5 the 3 in the middle, of 8 the 4."""
    order = sorted(range(len(durations)), key=lambda index: durations[index])
    cut = len(order) // 4
    return sorted(order[cut : len(order) - cut])


def read(path: Path) -> Trace:
    """The trace of a file that ``mixbench trace --json`` wrote; of a comparison, the first one.

    Raises:
        BadInput: when there is no such file, or it holds something else.
    """
    from pydantic import TypeAdapter, ValidationError

    hint = "name a file that `mixbench trace -o FILE.json` wrote"
    try:
        text = path.read_bytes()
    except OSError as error:
        raise BadInput(f"cannot read {str(path)!r}: {error.strerror}", hint) from error
    try:
        found = TypeAdapter(TraceRun).validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the whole file"
        raise BadInput(f"{str(path)!r} is no saved trace: {place}: {first['msg']}", hint) from error
    if (found.command, found.schema) != ("trace", SCHEMA):
        raise BadInput(
            f"{str(path)!r} has schema {found.schema} of {found.command!r}, this reads schema {SCHEMA}", "trace it anew"
        )
    return found.trace
