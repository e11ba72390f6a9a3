"""Bytes of an ONNX graph: what each node reads and writes, what is alive at once, what passes each module's border.

The same notions as for PyTorch (`traffic`, `liveness`, `borders`), by the file's order of nodes. A result lives from its node
to the last one that needs it. What only renames a tensor (Reshape, Identity) moves nothing, as ONNX Runtime does it. Within a
Loop, a Scan or an If bytes are counted, but what is alive in there is not.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from math import prod

from onnx import TensorProto, helper

from .borders import Border, Passage, borders
from .cost import Footprint, Held
from .onnx_graph import Call, Value

_HALF_BYTE = frozenset((TensorProto.INT4, TensorProto.UINT4, TensorProto.FLOAT4E2M1))
_RENAMES = frozenset("Reshape Identity Flatten Squeeze Unsqueeze Optional OptionalGetElement".split())
_NO_DATA = frozenset("Shape Size Constant OptionalHasElement SequenceLength".split())
_PICKS = frozenset("Gather GatherElements GatherND Slice Compress".split())
"""They read as much of their first input as they return."""
Place = tuple[str, ...]


def size_of(value: Value) -> int:
    """Bytes of a tensor, 0 where its shape is unknown."""
    if value.dims is None:
        return 0
    count = prod(value.dims)
    return (count + 1) // 2 if value.kind in _HALF_BYTE else count * _itemsize(value.kind)


def _itemsize(kind: int) -> int:
    try:
        return helper.tensor_dtype_to_np_dtype(kind).itemsize
    except (KeyError, ValueError, TypeError):  # text, or a type that nobody knows
        return 0


def traffic(call: Call) -> tuple[list[tuple[Value, int]], list[tuple[Value, int]]]:
    """What a node reads and writes: values with their bytes."""
    if not call.domain and call.operator in _RENAMES | _NO_DATA:
        return [], []
    read = [(value, size_of(value)) for value in call.inputs if value is not None]
    written = [(value, size_of(value)) for value in call.outputs]
    if read and not call.domain and call.operator in _PICKS:
        read[0] = (read[0][0], min(read[0][1], sum(size for _, size in written)))
    return read, written


@dataclass(slots=True)
class GraphMemory:
    """The memory of a graph, as its nodes are walked."""

    inputs: Mapping[str, Value]
    _passages: dict[int, Passage] = field(default_factory=dict)
    _values: list[Value] = field(default_factory=list)  # so that no other value gets the place of one that is known
    _steps: list[tuple[str, str, list[Passage], list[Passage]]] = field(default_factory=list)

    def node(self, place: Place, operator: str, call: Call, inner: bool, runs_graph: bool = False) -> tuple[int, int]:
        """Enter a node: ``place`` are the modules around it and itself, ``inner`` if it is within another node's graph.

        Returns:
            The bytes that it reads and writes in one turn; none for one that ``runs_graph``, whose nodes are entered.
        """
        if call.outputs and all(value.fixed for value in call.outputs):  # made when the file is loaded
            return 0, 0
        read, written = traffic(call)
        used = [self._of(value, inner) for value in call.inputs if value is not None]
        if not call.domain and call.operator in _RENAMES and used and used[0] is not None:
            for value in call.outputs:
                self._know(value, used[0])
        made = []
        for value, _ in written:
            if id(value) not in self._passages:
                made.append(self._know(value, Passage(size_of(value), None if value.fixed else place)))
                made[-1].writers.add(place)
        for value, size in read:
            passage = self._of(value, inner)
            if passage is not None:
                passage.read(place, 0, 0, size)
        if not inner:
            module = ".".join(place[:-1])
            self._steps.append((module, operator, [p for p in used if p is not None], made))
        return (0, 0) if runs_graph else (sum(size for _, size in read), sum(size for _, size in written))

    def _of(self, value: Value, inner: bool) -> Passage | None:
        """A value's passage; what nobody made was there before, but within another graph it is one of its own."""
        found = self._passages.get(id(value))
        if found is None and (value.fixed or not inner):
            found = self._know(value, Passage(size_of(value), None))
        return found

    def _know(self, value: Value, passage: Passage) -> Passage:
        self._passages[id(value)] = passage
        self._values.append(value)
        return passage

    def finish(
        self, outputs: Iterable[Value], weights: Mapping[int, int], params: Mapping[int, int]
    ) -> tuple[Footprint, Border]:
        """What the graph holds, and its borders; bytes of its constants, and of those that are parameters, by element type."""
        last = {id(passage): passage for passage in (self._of(value, inner=False) for value in outputs) if passage is not None}
        for passage in last.values():
            passage.is_output = True
        peak, module, operator = self._peak()
        every = {id(passage): passage for passage in self._passages.values()}.values()
        footprint = Footprint(
            held=tuple(Held(_name(kind), params.get(kind, 0), weights[kind] - params.get(kind, 0)) for kind in sorted(weights)),
            input_bytes=sum(map(size_of, self.inputs.values())),
            output_bytes=sum(passage.size for passage in last.values() if passage.maker is not None),
            activation_bytes=sum(passage.size for passage in every if passage.maker is not None),
            peak_activation_bytes=peak,
            peak_module=module,
            peak_operator=operator,
        )
        return footprint, borders(every, _chain)

    def _peak(self) -> tuple[int, str, str]:
        """The most that is alive at once, and at which node."""
        uses = {id(passage): step for step, (_, _, used, _) in enumerate(self._steps) for passage in used}
        live = most = 0
        where = ("", "")
        alive: set[int] = set()
        for step, (module, operator, used, made) in enumerate(self._steps):
            for passage in made:
                if passage.maker is not None:
                    alive.add(id(passage))
                    live += passage.size
            if live > most:
                most, where = live, (module, operator)
            for passage in {id(p): p for p in (*used, *made)}.values():
                if id(passage) in alive and uses.get(id(passage), -1) <= step and not passage.is_output:
                    alive.discard(id(passage))
                    live -= passage.size
        return most, *where


@cache
def _chain(place: Place) -> tuple[str, ...]:
    """The names of the modules around a node, and its own."""
    return ("", *(".".join(place[: end + 1]) for end in range(len(place))))


def _name(kind: int) -> str:
    try:
        return str(helper.tensor_dtype_to_np_dtype(kind))
    except (KeyError, ValueError, TypeError):
        return f"type {kind}"
