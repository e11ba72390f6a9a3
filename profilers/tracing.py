"""Where the time of a call goes: a few steady calls under torch's profiler, told by operator, by module and by call stack.

Three recordings are joined: times from the profiler; bytes from one call under torch's execution trace observer, which also
sees what operators return; arithmetic from mixbench's own counter, run under the profiler on the meta device so that each count
stands among the operators that the model called. A figure is joined only where both recordings saw an operator equally often;
elsewhere it stays unknown. Python, hooks and the profiler itself lengthen the times: the untraced median stands beside them.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch.profiler import profile, record_function

from ..models.case import Case
from ..models.errors import BadInput, CannotMeasure, MixbenchError, first_line
from ..models.versions import versions
from . import calltree, traced_work
from .calltree import ModuleRanges, Visit
from .cost import CostTree
from .counter import count
from .devices.base import Device
from .kineto import events, recording, recording_execution
from .machine import look
from .runs.trace_run import Frame, ModuleTime, OperatorTime, Trace, Work, middle
from .stats import median
from .subject import Subject
from .timing import measure
from .traced_work import Arithmetic, Bytes, Key, Row

WARM_CALLS = 3
UNTRACED_S = 0.5
"""Sampling the untraced time; it is there for scale, `mixbench time` measures it properly."""


@dataclass(frozen=True)
class Recording:
    """A trace, and the profiler that holds its events for `write_chrome_trace`."""

    trace: Trace
    profiler: profile


def trace_torch(subject: Subject, device: Device, counted_case: Case | None, number: int = 5) -> Recording:
    """Trace a PyTorch model.

    Args:
        subject: from `subject.torch_subject`. A compiled one has no modules and no figures by operator: the compiler's kernels
            are no operators of the model any more.
        counted_case: the same model on meta, for its arithmetic; None leaves that unknown.
        number: steps to trace.

    Raises:
        BadInput: when ``number`` is below 1.
        CannotMeasure: when the model fails.
    """
    case = subject.case
    assert case is not None, "a model of torch has a case"
    if number < 1:
        raise BadInput(f"{number} steps trace nothing", "give --steps a number from 1 up")
    compiled = "compiled" in subject.how
    tree, arithmetic, notes = (None, {}, ()) if counted_case is None else _arithmetic(counted_case)
    with _kernels_named() if compiled else nullcontext():
        untraced = measure([subject], device, seconds=UNTRACED_S)  # compiles, if it is to be compiled
    if untraced.partial:
        raise KeyboardInterrupt
    measured = untraced.timings[0]
    ranges = None if compiled else ModuleRanges(case.module)
    with ready(subject), ranges.watching() if ranges else nullcontext():
        for _ in range(WARM_CALLS):
            subject.call()
        with recording(record_shapes=True) as profiler:
            run_steps(subject, device, number, ranges)
        moved = {} if ranges is None else _bytes(subject, device, ranges)
    on_device = device.kind != "cpu"
    found = calltree.steps(calltree.from_profile(events(profiler), on_device))
    durations = tuple(float(step.end_ns - step.start_ns) for step in found)
    used = middle(durations)
    seen = [visit for index in used for visit in calltree.visits(found[index], ranges)]
    if ranges is None:
        arithmetic, notes = {}, (*notes, "compiled: no modules, and no arithmetic or bytes by operator")
    works = _works(seen, len(used), arithmetic, moved)
    workload = case.workload
    trace = Trace(
        model=subject.name,
        engine="torch",
        workload=workload.key,
        inputs=tuple(map(str, workload.inputs)),
        dtype=workload.dtype,
        mode=workload.mode,
        how=subject.how,
        clock="kernels on the device" if on_device else "wall clock of each call on the host",
        step_ns=durations,
        used_steps=len(used),
        traced_ns=sum(durations[index] for index in used) / len(used),
        untraced_ns=median(measured.samples),
        untraced_samples=len(measured.samples),
        operators=operators_of(seen, len(used), works),
        modules=_modules(seen, len(used), tree, case, moved),
        frames=frames_of(seen, len(used), subject.name),
        machine=look(device.describe(), device.clock, versions("mixbench", "torch", "onnxruntime")),
        notes=(*case.notes, *notes, *untraced.warnings),
    )
    return Recording(trace, profiler)


def _kernels_named() -> AbstractContextManager[object]:
    """Let torch.compile give the kernels that it makes for the CPU a name in the profile; they take a microsecond more."""
    from torch._inductor import config

    patch: AbstractContextManager[object] = config.patch({"cpp.enable_kernel_profile": True})
    return patch


@contextmanager
def ready(subject: Subject) -> Iterator[None]:
    """Autograd as the subject needs it, and failures that name the subject."""
    try:
        with torch.inference_mode(not subject.grad), torch.set_grad_enabled(subject.grad):
            yield
    except (KeyboardInterrupt, MixbenchError):
        raise
    except Exception as error:
        raise CannotMeasure(
            f"{subject.name} fails while it is traced: {first_line(error)}", "--debug shows the traceback"
        ) from error


def run_steps(subject: Subject, device: Device, number: int, ranges: ModuleRanges | None = None) -> None:
    """Call a subject so many times, each within a range that says which step it is."""
    for index in range(number):
        with record_function(f"{calltree.STEP}{index}"):
            try:
                subject.call()
                device.synchronise()
            except BaseException:
                if ranges:
                    ranges.abandon()
                raise


def _bytes(subject: Subject, device: Device, ranges: ModuleRanges) -> dict[Key, Bytes]:
    with TemporaryDirectory(prefix="mixbench-") as folder:
        path = Path(folder) / "execution.json"
        with recording_execution(path):
            run_steps(subject, device, 1, ranges)
        (step,) = calltree.steps(calltree.from_execution_trace(path))
    return traced_work.bytes_moved(calltree.visits(step, ranges))


def _arithmetic(case: Case) -> tuple[CostTree, dict[Row, Arithmetic], tuple[str, ...]]:
    costs = traced_work.Costs()
    with recording() as profiler:
        counted = count(case, costs.listen)
    if counted.device != case.device:  # meta was refused half-way, and what was heard until then is no part of the count
        real, costs = case.on("cpu"), traced_work.Costs()
        with recording() as profiler:
            count(real, costs.listen)
    roots = calltree.from_profile(events(profiler), device_time=False)
    root = calltree.Node("count", "range", children=roots)
    notes = tuple(f"{item.operator}: {item.calls} calls without a rule, in no FLOPs" for item in counted.uncounted)
    return counted.tree, costs.by_operator(calltree.visits(root, None)), (*counted.notes, *notes)


def _works(
    seen: list[Visit],
    used: int,
    arithmetic: dict[Row, Arithmetic],
    moved: dict[Key, Bytes],
) -> dict[Row, Work]:
    """Arithmetic and bytes of each row of the operator table, where they are known."""
    calls: dict[Row, int] = {}
    for visit in seen:
        if visit.node.kind == "operator":
            row = row_of(visit)
            calls[row] = calls.get(row, 0) + 1
    by_row = traced_work.by_operator(moved)
    works = {}
    for row, number in calls.items():
        cost, size = arithmetic.get(row), by_row.get(row)
        exact = cost.cost if cost is not None and cost.calls * used == number else None
        same = size if size is not None and size.calls * used == number else None
        works[row] = Work(
            exact.macs if exact else None,
            exact.fft_flops if exact else None,
            exact.elementwise_flops if exact else None,
            same.read if same else None,
            same.written if same else None,
        )
    return works


def row_of(visit: Visit) -> Row:
    """The row of the operator table that a call belongs to: phase, the operator around it, its own name."""
    outer, *inner = visit.operators
    return visit.phase, outer if inner else "", visit.operators[-1]


def operators_of(seen: list[Visit], used: int, works: dict[Row, Work]) -> tuple[OperatorTime, ...]:
    """The operator table: outermost operators by time, each followed by what it calls."""
    calls: dict[Row, int] = {}
    own: dict[Row, float] = {}
    total: dict[Row, float] = {}
    for visit in seen:
        if not visit.operators:
            continue
        row = row_of(visit)
        time = visit.node.self_ns
        calls[row] = calls.get(row, 0) + (visit.node.kind == "operator")
        own[row] = own.get(row, 0.0) + time
        outer, *inner = visit.operators
        for around in {(visit.phase, "", outer), *((visit.phase, outer, name) for name in inner)}:
            total[around] = total.get(around, 0.0) + time
    rows = [
        OperatorTime(phase, name, within, calls[row] / used, own[row] / used, total[row] / used, works.get(row, Work()))
        for row in calls
        for phase, within, name in [row]
    ]
    outermost = {(item.phase, item.operator): item.total_ns for item in rows if not item.within}

    def place(item: OperatorTime) -> tuple[float, str, str, bool, float, str]:
        outer = item.within or item.operator
        return -outermost[item.phase, outer], item.phase, outer, bool(item.within), -item.total_ns, item.operator

    return tuple(sorted(rows, key=place))


def _modules(
    seen: list[Visit], used: int, tree: CostTree | None, case: Case, moved: dict[Key, Bytes]
) -> tuple[ModuleTime, ...]:
    """The module table, in the order of the model; modules that did not run are left out."""
    calls: dict[str, int] = {}
    own: dict[str, float] = {}
    in_operators: dict[str, float] = {}
    total: dict[str, float] = {}
    backward: dict[str, float] = {}
    for visit in seen:
        if visit.module is None:
            continue
        time = visit.node.self_ns
        around = {name for kind, name in visit.path if kind == "module"} or {""}
        if (
            visit.node.kind == "range"
            and visit.path
            and visit.path[-1] == ("module", visit.module)
            and visit.phase == "forward"
        ):
            calls[visit.module] = calls.get(visit.module, 0) + 1
        own[visit.module] = own.get(visit.module, 0.0) + time
        if visit.operators:
            in_operators[visit.module] = in_operators.get(visit.module, 0.0) + time
        for name in around:
            total[name] = total.get(name, 0.0) + time
            if visit.phase == "backward":
                backward[name] = backward.get(name, 0.0) + time
    costs = {node.name: node.total for node in tree.walk()} if tree else {}
    sizes = traced_work.by_module(moved)
    found = []
    for name, child in case.module.named_modules():
        if name not in total:
            continue
        cost, size = costs.get(name), sizes.get(name)
        work = Work(
            cost.macs if cost else None,
            cost.fft_flops if cost else None,
            cost.elementwise_flops if cost else None,
            size.read if size else None,
            size.written if size else None,
        )
        found.append(
            ModuleTime(
                name,
                kind=type(child).__name__,
                depth=name.count(".") + 1 if name else 0,
                calls=calls.get(name, 0) / used,
                self_ns=own.get(name, 0.0) / used,
                operators_ns=in_operators.get(name, 0.0) / used,
                total_ns=total[name] / used,
                backward_ns=backward.get(name, 0.0) / used,
                work=work,
            )
        )
    return tuple(found)


def frames_of(seen: list[Visit], used: int, name: str) -> Frame:
    """Visits of all used steps merged by their place in the call stack."""
    calls: dict[tuple[tuple[str, str], ...], int] = {}
    own: dict[tuple[tuple[str, str], ...], float] = {}
    below: dict[tuple[tuple[str, str], ...], list[tuple[tuple[str, str], ...]]] = {}
    for visit in seen:
        for length in range(len(visit.path) + 1):
            path = visit.path[:length]
            if path not in own:
                own[path], calls[path] = 0.0, 0
                if path:
                    below.setdefault(path[:-1], []).append(path)
        own[visit.path] += visit.node.self_ns
        calls[visit.path] += visit.node.kind != "wrapper"

    def frame(path: tuple[tuple[str, str], ...]) -> Frame:
        children = tuple(frame(child) for child in below.get(path, ()))
        kind, label = path[-1] if path else ("step", name)
        label = label or (name if kind == "module" else label)
        total = own[path] + sum(child.total_ns * used for child in children)
        return Frame(label, kind, calls[path] / used, own[path] / used, total / used, children)  # type: ignore[arg-type]

    return frame(())


def write_chrome_trace(profiler: profile, path: Path) -> None:
    """Write what was recorded for Perfetto or chrome://tracing, whole or not at all; a name in .gz is compressed.

    Raises:
        BadInput: when it can't be written.
    """
    try:
        with TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
            whole = Path(folder) / path.name
            profiler.export_chrome_trace(str(whole))
            whole.replace(path)
    except OSError as error:
        raise BadInput(f"cannot write {str(path)!r}: {error.strerror}", "choose another place for --trace") from error
