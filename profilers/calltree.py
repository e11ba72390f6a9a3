"""What called what: a tree of calls from the profiler's flat events, or from torch's execution trace.

The same reader serves three recordings of one model, so that they can be joined by name: times from the profiler, bytes from
the execution trace (which alone knows the outputs), arithmetic from a counted run under the profiler.
"""

import bisect
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from torch.profiler import record_function

from .runs.trace_run import Phase

STEP = "ProfilerStep#"
"""TensorBoard's plugin knows steps by this name."""
_BACKWARD = "autograd::engine::evaluate_function: "
_WITHIN_BACKWARD = 1  # RecordScope.BACKWARD_FUNCTION: an autograd node within the engine's call of it

_COMPILED = (
    "Torch-Compiled Region",
    "TorchDynamo ",
    "Pregraph ",
    "AOTDispatcher ",
    "## Call CompiledFxGraph",
    "CompiledFunction",
)
"""What runs compiled code calls itself an operator, and is the frame around the compiler's kernels."""

NodeKind = Literal["operator", "range", "backward", "wrapper"]


@dataclass(slots=True)
class Node:
    """A call: its own time is ``self_ns``; ``sequence`` is the autograd number of a backward node."""

    name: str
    kind: NodeKind
    sequence: int = -1
    self_ns: float = 0.0
    start_ns: int = 0
    end_ns: int = 0
    children: list["Node"] = field(default_factory=list)
    detail: Any = None


@dataclass(slots=True)
class Visit:
    """A node where it stands.

    Attributes:
        path: the frames from the step down to here as (kind, name); a wrapper belongs to the frame around it.
        module: the innermost module, None outside the model.
        operators: the names of the operators around and here, outermost first; empty outside operators.
    """

    node: Node
    path: tuple[tuple[str, str], ...]
    phase: Phase
    module: str | None
    operators: tuple[str, ...]


class ModuleRanges:
    """Ranges around the calls of modules while it is entered, and which module made an autograd node.

    A module that is used twice goes by its first name, as in `counter.count`.
    """

    def __init__(self, module: nn.Module) -> None:
        self.names = {id(child): name for name, child in module.named_modules()}
        self.labels = {_label(child, self.names[id(child)]): self.names[id(child)] for child in module.modules()}
        self._module = module
        self._open: list[tuple[str, record_function]] = []
        # Autograd numbers its nodes in the order of the forward pass: from which number on which module was running.
        self._marks: list[int] = [0]
        self._running: list[str] = [""]

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Hooks on every module that takes them."""
        with ExitStack() as stack:
            for child in self._module.modules():
                if not isinstance(child, torch.jit.ScriptModule):
                    name = self.names[id(child)]
                    enter = self._entering(name, _label(child, name))
                    stack.callback(child.register_forward_pre_hook(enter).remove)
                    stack.callback(child.register_forward_hook(self._leave, always_call=True).remove)
            yield

    def module_of(self, sequence: int) -> str:
        """The module whose forward call made the autograd node of this number; the model's own for gradient accumulators."""
        return "" if sequence < 0 else self._running[bisect.bisect_right(self._marks, sequence) - 1]

    def abandon(self) -> None:
        """Close what an interrupted call has left open: hooks run after errors, but not after Ctrl-C."""
        while self._open:
            self._open.pop()[1].__exit__(None, None, None)

    def _entering(self, name: str, label: str) -> Callable[..., None]:
        def enter(*_: Any) -> None:
            opened = record_function(label)
            opened.__enter__()
            self._open.append((name, opened))
            self._mark()

        return enter

    def _leave(self, *_: Any) -> None:
        self._open.pop()[1].__exit__(None, None, None)
        self._mark()

    def _mark(self) -> None:
        self._marks.append(torch.autograd._get_sequence_nr())  # type: ignore[attr-defined]
        self._running.append(self._open[-1][0] if self._open else "")


def _label(module: nn.Module, name: str) -> str:
    return f"{name or 'model'} [{type(module).__name__}]"


def _kind(name: str, is_range: bool, scope: int) -> NodeKind:
    if is_range or (scope != _WITHIN_BACKWARD and name.startswith(_COMPILED)):
        return "range"
    if name.startswith(_BACKWARD):
        return "backward"
    return "wrapper" if scope == _WITHIN_BACKWARD or name == "PythonDispatchMode" else "operator"


def from_profile(events: list[Any], device_time: bool) -> list[Node]:
    """The outermost calls of each thread with all below them.

    Args:
        events: kineto's.
        device_time: take for a call's own time what its kernels took on the accelerator, not what it took on the host.
    """
    calls = [event for event in events if event.device_type().name == "CPU" and event.name() != "[memory]"]
    calls.sort(key=lambda event: (event.start_ns(), -event.end_ns()))
    roots: list[Node] = []
    stacks: dict[int, list[Node]] = {}
    by_id: dict[int, Node] = {}
    for event in calls:
        kind = _kind(event.name(), event.is_user_annotation(), event.scope())
        if event.activity_type() not in ("cpu_op", "user_annotation"):
            kind = "wrapper"  # a call of the device's driver
        node = Node(event.name(), kind, event.sequence_nr(), event.duration_ns(), event.start_ns(), event.end_ns())
        stack = stacks.setdefault(event.start_thread_id(), [])
        while stack and stack[-1].end_ns <= node.start_ns and stack[-1].end_ns < node.end_ns:
            stack.pop()
        if stack:
            stack[-1].children.append(node)
            stack[-1].self_ns -= node.self_ns
        else:
            roots.append(node)
        stack.append(node)
        if kind != "wrapper":
            by_id[event.correlation_id()] = node
    if device_time:
        for node in by_id.values():
            node.self_ns = 0.0
        for event in events:
            if event.device_type().name != "CPU" and not event.is_user_annotation():
                launcher = by_id.get(event.linked_correlation_id())
                if launcher is not None:
                    launcher.self_ns += event.duration_ns()
    return roots


def from_execution_trace(path: Path) -> list[Node]:
    """The outermost calls in torch's execution trace; each node's ``detail`` is its entry, without times."""
    entries = json.loads(path.read_text(encoding="utf-8"))["nodes"]
    nodes: dict[int, Node] = {}
    for entry in entries:
        attributes = {item["name"]: item["value"] for item in entry["attrs"]}
        scope, sequence = int(attributes.get("scope", 0)), int(attributes.get("seq_id", -1))
        nodes[entry["id"]] = Node(entry["name"], _kind(entry["name"], scope == 7, scope), sequence, detail=entry)
    roots: list[Node] = []
    for entry in sorted(entries, key=lambda item: item["id"]):
        caller = nodes.get(entry["ctrl_deps"])
        node = nodes[entry["id"]]
        (caller.children if caller is not None and caller is not node else roots).append(node)
        if caller is not None and caller.kind == "backward" and node.kind == "wrapper":
            caller.sequence = node.sequence  # here the number stands with the autograd node, not with the engine's call of it
    return roots


def steps(roots: list[Node]) -> list[Node]:
    """The steps; what other threads did meanwhile (the backward pass of an accelerator) is put under the step of its time."""
    found = [node for node in _all(roots) if node.kind == "range" and node.name.startswith(STEP)]
    known = {id(step) for step in found}
    for node in roots:
        for step in found:
            if id(node) not in known and step.start_ns <= node.start_ns < step.end_ns:
                step.children.append(node)
    return found


def _all(nodes: list[Node]) -> Iterator[Node]:
    for node in nodes:
        yield node
        yield from _all(node.children)


def visits(step: Node, ranges: ModuleRanges | None) -> Iterator[Visit]:
    """Every node below a step where it stands; the step itself comes first.

    Backward nodes stand under a frame "backward" and the modules that made them. Without ``ranges`` there are no modules, and
    everything but the backward pass is taken to be the forward pass of the model itself.
    """
    labels = ranges.labels if ranges else {}

    def descend(node: Node, at: Visit) -> Iterator[Visit]:
        here = Visit(node, at.path, at.phase, at.module, at.operators)
        if node.kind == "operator":
            here.path, here.operators = (*at.path, ("operator", node.name)), (*at.operators, node.name)
        elif node.kind == "backward":
            here.module = ranges.module_of(node.sequence) if ranges else ""
            here.path, here.phase, here.operators = (("range", "backward"), *_chain(here.module)), "backward", ()
        elif node.kind == "range" and node.name in labels:
            here.module = labels[node.name]
            here.path = (*at.path, ("module", here.module))
            here.phase = "backward" if at.phase == "backward" else "forward"  # a recomputed forward belongs to the backward
        elif node.kind == "range":
            here.path = (*at.path, ("range", node.name))
        yield here
        for child in node.children:
            yield from descend(child, here)

    start = Visit(step, (), "update", None, ()) if ranges else Visit(step, (), "forward", "", ())
    yield start
    for child in step.children:
        yield from descend(child, start)


def _chain(module: str) -> Iterator[tuple[str, str]]:
    """The model, and each module on the way down to this one."""
    yield ("module", "")
    words = module.split(".") if module else []
    for count in range(1, len(words) + 1):
        yield ("module", ".".join(words[:count]))
