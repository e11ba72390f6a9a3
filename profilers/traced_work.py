"""What operators did, to stand beside the time that they took: arithmetic from the counter, bytes from the execution trace.

Bytes are compulsory ones: what an operator has to read and write once, whatever its implementation moves more. That is the
least, so the bytes per second made of them are a lower bound of what went over the memory bus, unless a cache served them.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch.profiler import record_function

from .calltree import Node, Visit
from .cost import FREE, Cost
from .runs.trace_run import Phase

_MARK = "mixbench::cost#"
_LOOKUPS = ("aten::embedding", "aten::index", "aten::index_select", "aten::gather", "aten::take", "aten::take_along_dim")
"""They read as much of their first operand as they return, however large it is."""
_ALLOCATIONS = (
    "aten::empty",
    "aten::empty_like",
    "aten::empty_strided",
    "aten::new_empty",
    "aten::resize_",
    "aten::as_strided_",
)
"""They make or shape a tensor and touch none of its elements."""


Row = tuple[Phase, str, str]
"""A row of the operator table: phase, the outermost operator around it (empty for an outermost one), its own name."""


class Key(NamedTuple):
    """Where bytes were moved: the row of the operator table, and the innermost module."""

    phase: Phase
    within: str
    operator: str
    modules: tuple[str, ...]


@dataclass(slots=True)
class Bytes:
    """Calls of an operator and what they read and wrote."""

    calls: int = 0
    read: int = 0
    written: int = 0

    def add(self, other: "Bytes") -> None:
        """Count another's calls and bytes too."""
        self.calls += other.calls
        self.read += other.read
        self.written += other.written


@dataclass(slots=True)
class Arithmetic:
    """Calls of an operator and what they cost together."""

    calls: int = 0
    cost: Cost = FREE


@dataclass
class Costs:
    """A listener of `counter.count` under the profiler: marks in the profile where each cost was counted."""

    heard: list[Cost] = field(default_factory=list)

    def listen(self, cost: Cost) -> None:
        """Put a range of no length into the profile, within the operators that are running."""
        with record_function(f"{_MARK}{len(self.heard)}"):
            self.heard.append(cost)

    def by_operator(self, seen: Iterable[Visit]) -> dict[Row, Arithmetic]:
        """The cost of each operator with all within it, by phase, the operator around it, and name.

        An inner operator is listed with the calls in which something was counted; an outermost one with all its calls, so that
        calls that compute nothing (a dropout in eval mode) do not make the two recordings look different.
        """
        found: dict[Row, Arithmetic] = {}
        calls: dict[Row, set[int]] = {}
        around: list[tuple[Visit, tuple[Node, ...]]] = []
        stack: dict[tuple[str, ...], Node] = {}
        for visit in seen:
            names = visit.operators
            if visit.node.kind == "operator":
                # Depth first: the operators now around this one are the last ones seen at each depth.
                stack[names] = visit.node
                if len(names) == 1:
                    row = (visit.phase, "", names[0])
                    calls.setdefault(row, set()).add(id(visit.node))
                    found.setdefault(row, Arithmetic())
            elif visit.node.name.startswith(_MARK) and names:
                around.append((visit, tuple(stack[names[: depth + 1]] for depth in range(len(names)))))
        for visit, nodes in around:
            cost = self.heard[int(visit.node.name.removeprefix(_MARK))]
            outer, *inner = visit.operators
            rows: dict[Row, Node] = {(visit.phase, "", outer): nodes[0]}
            for name, node in zip(inner, nodes[1:], strict=True):
                rows.setdefault((visit.phase, outer, name), node)
            for row, node in rows.items():
                calls.setdefault(row, set()).add(id(node))
                item = found.setdefault(row, Arithmetic())
                item.cost = item.cost + cost
        for row, item in found.items():
            item.calls = len(calls[row])
        return found


def bytes_moved(seen: Iterable[Visit]) -> dict[Key, Bytes]:
    """Bytes of each operator call in an execution trace, those within operators apart."""
    found: dict[Key, Bytes] = {}
    for visit in seen:
        if visit.node.kind == "operator":
            outer, *inner = visit.operators
            modules = tuple(dict.fromkeys(name for kind, name in visit.path if kind == "module"))
            key = Key(visit.phase, outer if inner else "", visit.operators[-1], modules)
            found.setdefault(key, Bytes()).add(_of_call(visit.node.detail))
    return found


def by_operator(moved: dict[Key, Bytes]) -> dict[Row, Bytes]:
    """Bytes by row of the operator table."""
    found: dict[Row, Bytes] = {}
    for key, item in moved.items():
        found.setdefault((key.phase, key.within, key.operator), Bytes()).add(item)
    return found


def by_module(moved: dict[Key, Bytes]) -> dict[str, Bytes]:
    """Bytes of the outermost operators by module, each with all below it."""
    found: dict[str, Bytes] = {}
    for key, item in moved.items():
        if not key.within:
            for name in key.modules:
                found.setdefault(name, Bytes()).add(item)
    return found


def _of_call(entry: dict[str, Any]) -> Bytes:
    """One call's bytes from its entry in the execution trace."""
    if entry["name"] in _ALLOCATIONS:
        return Bytes(1)
    schema = next((item["value"] for item in entry["attrs"] if item["name"] == "op_schema"), "")
    inputs, outputs = _tensors(entry["inputs"]["values"]), _tensors(entry["outputs"]["values"])
    places = {storage for storage, _ in inputs.values()}
    in_place = "!" in schema
    # An output in the storage of an input is a view of it, unless the operator says that it writes there.
    written = sum(size for storage, size in outputs.values() if in_place or storage not in places)
    if outputs and not written:
        return Bytes(1)
    sizes = [size for _, size in inputs.values()]
    if sizes and entry["name"] in _LOOKUPS:
        sizes[0] = min(sizes[0], written)
    return Bytes(1, sum(sizes), written)


def _tensors(values: Any) -> dict[int, tuple[int, int]]:
    """Storage and bytes of the tensors in an entry's values, each once by its id.

    A tensor is [id, storage, offset, elements, bytes per element, device]; lists of tensors hold such lists.
    """
    found: dict[int, tuple[int, int]] = {}
    if isinstance(values, list):
        if len(values) == 6 and isinstance(values[5], str) and all(isinstance(item, int) for item in values[:5]):
            return {values[0]: (values[1], values[3] * values[4])}
        for item in values:
            found |= _tensors(item)
    return found
