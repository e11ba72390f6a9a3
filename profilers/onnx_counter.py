"""Count what an ONNX file computes: node by node, by the same rules and in the same buckets as PyTorch's operators.

Nothing runs. Shapes follow from the inputs and the operators' definitions (`onnx_graph`); a node without a rule, or whose
shapes don't follow, is named and counted as uncounted. What depends on constants alone is computed when a runtime loads the
file, not when it runs, and costs nothing. A Loop or a Scan costs its body times its turns, if these follow from the file; an If
the branch that is taken, if that follows. Functions of the file are counted by what they are made of.
"""

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from math import prod
from pathlib import Path

import onnx
from onnx import helper, inliner

from ..models.errors import BadInput, first_line
from ..models.onnx_files import read_onnx
from ..models.onnx_names import node_names, versions_of
from ..models.spec import DTYPES, TensorSpec, Workload
from .borders import Border
from .cost import FREE, Cost, CostTree, Count, OperatorCost
from .onnx_control import branches_of, results_of
from .onnx_formulas import rule_for
from .onnx_formulas.table import Rule, name_of
from .onnx_graph import Call, ShapeUnknownError, Value, call_of, constant
from .onnx_inputs import graph_inputs, specs_of
from .onnx_memory import GraphMemory, size_of

FIXED = "constants"
"""The family of nodes that a runtime computes when it loads the file."""
_SCOPES, _NAMESPACE = "pkg.torch.onnx.name_scopes", "namespace"
_NAMED = 3
"""Nodes that a note names."""
_CONTROL = frozenset(("If", "Loop", "Scan"))
_NO_PARAMETERS = {
    "BatchNormalization": frozenset((3, 4)),  # running statistics
    **dict.fromkeys(("Resize", "Upsample", "Pad"), frozenset((1, 2, 3))),
}
"""Places of constants that are no parameters."""
_INTEGER_WEIGHTS = re.compile(r"QLinear|Integer|Dequantize|MatMulNBits|DynamicQuantizeMatMul")


@dataclass(frozen=True, slots=True)
class OnnxCount:
    """What a file costs on given inputs.

    Attributes:
        node_macs: MACs by the node's name (`onnx_names.node_names`), of the main graph; what is inside a node is the node's.
    """

    count: Count
    workload: Workload
    node_macs: Mapping[str, int]


def is_quantised(operator: str) -> bool:
    """Whether an operator takes integers that stand for floats."""
    return bool(_INTEGER_WEIGHTS.search(operator))


def count_onnx(path: Path, workload: Workload | None = None) -> OnnxCount:
    """Count an ONNX file.

    Args:
        workload: ``inputs`` and ``batch`` fill the open dimensions of its inputs; the dtype is the file's own.

    Raises:
        BadInput: when the file can't be read, a dimension stays open, or the workload does not fit.
    """
    asked = workload or Workload()
    if asked.mode == "train":
        raise BadInput(f"{str(path)!r} is for inference and can't be trained", "leave --train out, or name a PyTorch model")
    model = read_onnx(path)
    return count_model(model, graph_inputs(path, model.graph, asked))


def count_model(model: onnx.ModelProto, inputs: Mapping[str, Value]) -> OnnxCount:
    """Count a model on inputs whose shapes are known."""
    if model.functions:
        try:
            model = inliner.inline_local_functions(model)
        except Exception as error:
            what = f"the functions of the ONNX file are broken: {first_line(error)}"
            raise BadInput(what, "export or download it again") from error
    walk = _Walk(versions_of(model), GraphMemory(inputs))
    known = dict(inputs)
    walk.graph(model.graph, known, turns=1, around=())
    first = next((value for value in inputs.values() if value.floating), None)
    kind = str(helper.tensor_dtype_to_np_dtype(first.kind)) if first else "float32"
    specs: tuple[TensorSpec, ...] = specs_of(dict(inputs))
    outputs = [known[item.name] for item in model.graph.output if item.name in known]
    footprint, border = walk.memory.finish(outputs, walk.weight_bytes, walk.param_bytes)
    tree = walk.tree(border)
    folded = tree.total_params - walk.norm_scales
    count = Count(tree, "onnx", tree.total, FREE, folded, tuple(walk.notes()), footprint)
    return OnnxCount(count, Workload(specs, dtype=kind if kind in DTYPES else "float32"), walk.macs)


@dataclass(frozen=True, slots=True)
class _Node:
    """A node as a leaf of the tree."""

    path: tuple[str, ...]
    kinds: tuple[str, ...]
    kind: str
    operator: OperatorCost
    params: int
    shared: int


@dataclass(slots=True)
class _Walk:
    """One pass over a graph and the graphs inside its nodes."""

    versions: Mapping[str, int]
    memory: GraphMemory
    nodes: list[_Node] = field(default_factory=list)
    macs: dict[str, int] = field(default_factory=dict)
    norm_scales: int = 0
    weight_bytes: dict[int, int] = field(default_factory=dict)
    param_bytes: dict[int, int] = field(default_factory=dict)
    _unknown: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    _counted: set[tuple[str, ...]] = field(default_factory=set)
    _weights: dict[str, tuple[tuple[str, ...], int]] = field(default_factory=dict)
    _fixed: int = 0

    def graph(self, graph: onnx.GraphProto, known: dict[str, Value], turns: int, around: tuple[str, ...]) -> Cost:
        """Count a graph that runs ``turns`` times; ``known`` has its inputs and what it sees around it, and gets its values."""
        outside = self._weights
        self._weights = dict(outside)
        for tensor in graph.initializer:
            known[tensor.name] = value = constant(tensor)
            self.weight_bytes[value.kind] = self.weight_bytes.get(value.kind, 0) + size_of(value)
            self._weights[tensor.name] = ((*around, tensor.name), prod(tensor.dims))
        for sparse in graph.sparse_initializer:
            known[sparse.values.name] = Value(sparse.values.data_type, tuple(sparse.dims), fixed=True)
            self._weights[sparse.values.name] = ((*around, sparse.values.name), prod(sparse.values.dims))
        total = FREE
        for name, node in zip(node_names(graph), graph.node, strict=True):
            call = call_of(node, known, self.versions)
            if node.op_type in _CONTROL and not call.domain:
                cost, call = self._control(node, call, known, turns, (*around, name))
            else:
                cost = self._node(name, node, call, turns, around)
            known.update(zip((output for output in node.output), call.outputs, strict=False))
            if not around:
                self.macs[name] = cost.macs
            total += cost
        self._weights = outside
        return total

    def _node(self, name: str, node: onnx.NodeProto, call: Call, turns: int, around: tuple[str, ...]) -> Cost:
        operator = name_of(call.domain, call.operator)
        found = rule_for(operator)
        if found and all(value.fixed for value in call.outputs) and found.family != "movement":
            found = Rule(FIXED, lambda _: FREE)
            self._fixed += 1
        cost, family = FREE, found.family if found else ""
        try:
            cost = found.formula(call) if found else FREE
        except ShapeUnknownError:
            operator, family = f"{operator} (shape unknown)", ""
        except (LookupError, ValueError):  # a file from anywhere: an attribute is missing, or two shapes don't fit
            operator, family = f"{operator} (not understood)", ""
        path, kinds = _path(name, node, around)
        cost = _times(cost + Cost(0, 0, 0, 0, *self.memory.node(path, operator, call, bool(around))), turns)
        self._add(path, kinds, node, OperatorCost(operator, family, turns, cost), call)
        return cost

    def _add(
        self,
        path: tuple[str, ...],
        kinds: tuple[str, ...],
        node: onnx.NodeProto,
        cost: OperatorCost,
        call: Call | None = None,
    ) -> None:
        params, shared = self._params(node, call) if call else (0, 0)
        self.nodes.append(_Node(path, kinds, node.op_type, cost, params, shared))

    def _params(self, node: onnx.NodeProto, call: Call) -> tuple[int, int]:
        """Numbers that the node holds as weights: those that nobody had before it, and those that it shares."""
        integers = is_quantised(node.op_type)
        norm = node.op_type == "BatchNormalization"
        own = shared = 0
        for place, (name, value) in enumerate(zip(node.input, call.inputs, strict=True)):
            if name not in self._weights or value is None or not value.dims or not (value.floating or integers):
                continue
            if place in _NO_PARAMETERS.get(node.op_type, ()):
                continue
            key, size = self._weights[name]
            if key in self._counted:
                shared += size
            else:
                self._counted.add(key)
                own += size
                self.param_bytes[value.kind] = self.param_bytes.get(value.kind, 0) + size_of(value)
                self.norm_scales += size if norm and place == 1 else 0
        return own, shared

    def _control(
        self, node: onnx.NodeProto, call: Call, known: dict[str, Value], turns: int, around: tuple[str, ...]
    ) -> tuple[Cost, Call]:
        """An If, Loop or Scan: what is inside, or the node as uncounted with what is known of it."""
        before = len(self.nodes)
        try:
            branches = branches_of(call, known)
            if branches is None:
                return self._given_up(node, "condition" if node.op_type == "If" else "number of turns", turns, around), call
            body, times, inside = branches
            cost = self.graph(body, inside, turns * times, around)
            outputs = results_of(node, body, inside, times)
        except (LookupError, ValueError):  # its own graph is missing, or does not fit it
            outputs = None
        if outputs is None:
            del self.nodes[before:]
            return self._given_up(node, "shape", turns, around), call
        call = Call(call.operator, call.domain, call.version, call.inputs, outputs, call.attributes)
        *outer, name = around
        self.memory.node(_path(name, node, tuple(outer))[0], node.op_type, call, bool(outer), runs_graph=True)
        return cost, call

    def _given_up(self, node: onnx.NodeProto, why: str, turns: int, around: tuple[str, ...]) -> Cost:
        """A control node as uncounted."""
        *outer, name = around
        path, kinds = _path(name, node, tuple(outer))
        self._add(path, kinds, node, OperatorCost(f"{node.op_type} ({why} unknown)", "", turns, FREE))
        self._unknown.setdefault((node.op_type, why), []).append(name)
        return FREE

    def notes(self) -> Iterator[str]:
        """What to say of the count."""
        for (operator, why), names in self._unknown.items():
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            named = f"{operator} {', '.join(names[:_NAMED])}{more}"
            yield f"what is inside {named} is uncounted: the {why} doesn't follow from the file, or changes as it runs"
        if self._fixed:
            yield f"nodes that depend on constants alone, computed when the file is loaded and free after that: {self._fixed}"

    def tree(self, border: Border) -> CostTree:
        """The nodes under the modules that their names or metadata tell of."""
        return _node_tree("", "Graph", self.nodes, 0, border)


def _path(name: str, node: onnx.NodeProto, around: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The modules around a node with the node itself, and the modules' classes."""
    modules, kinds = _modules(node)
    told = bool(_metadata(node, _NAMESPACE) or _metadata(node, _SCOPES))
    leaf = name if told or around else re.split(r"[/.]", name)[-1] or name
    return (*modules, *around, leaf), kinds


def _node_tree(name: str, kind: str, nodes: list[_Node], depth: int, border: Border) -> CostTree:
    groups: dict[str, list[_Node]] = {}
    for node in nodes:
        groups.setdefault(node.path[depth], []).append(node)
    children = []
    for key, group in groups.items():
        full = f"{name}.{key}" if name else key
        inner = [node for node in group if len(node.path) > depth + 1]
        if inner:
            kinds = [node.kinds[depth] for node in inner if depth < len(node.kinds)]
            children.append(_node_tree(full, next(iter(kinds), "Module"), inner, depth + 1, border))
        for node in group:
            if len(node.path) == depth + 1:
                own = (node.operator.calls, node.params, node.shared, *border.get(full, (0, 0)), (node.operator,))
                children.append(CostTree(full, node.kind, *own))
    # How often a module was called, a graph doesn't tell.
    calls = 0 if name else 1
    return CostTree(name, kind, calls, 0, 0, *border.get(name, (0, 0)), children=tuple(children))


def _times(cost: Cost, turns: int) -> Cost:
    return cost if turns == 1 else Cost(*(getattr(cost, item.name) * turns for item in fields(Cost)))


def _metadata(node: onnx.NodeProto, key: str) -> str:
    return next((item.value for item in node.metadata_props if item.key == key), "")


def _modules(node: onnx.NodeProto) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The modules that a node belongs to, outermost first, and their classes where the exporter wrote them down.

    PyTorch's exporter writes each module's full name and its class; other exporters join names by slashes or dots.
    """
    if namespace := _metadata(node, _NAMESPACE):
        pairs = [part.partition(": ")[::2] for part in namespace.split("/")][:-1]
        pairs = [(name, kind) for name, kind in pairs if name]
        if pairs:
            return tuple(_last(name) for name, _ in pairs), tuple(_last(kind) for _, kind in pairs)
    if scopes := _metadata(node, _SCOPES):
        names = [name for name in ast.literal_eval(scopes)[:-1] if name]
        return tuple(map(_last, names)), ()
    return tuple(part for part in re.split(r"[/.]", node.name)[:-1] if part), ()


def _last(name: str) -> str:
    return name.rpartition(".")[2]
