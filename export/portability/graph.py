"""An ONNX graph as a runtime's partitioner meets it: nodes that run, with what is known of the tensors around them.

What depends on constants alone is computed when the file is loaded, so it is a constant here and no node. The same goes for
an Identity. An optional input that is left out has an empty name: it has no shape, and nothing in it is dynamic.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import onnx
from onnx import helper, inliner, numpy_helper, shape_inference

from ...models.errors import BadInput, first_line
from ...models.onnx_names import domain_of, node_names, versions_of

_READ = 2**16
"""Elements up to which a constant may hold sizes or indices that somebody asks for."""
_RANDOM = frozenset("RandomNormal RandomNormalLike RandomUniform RandomUniformLike Bernoulli Multinomial".split())


@dataclass(frozen=True, slots=True)
class Tensor:
    """What is known of a tensor.

    Attributes:
        kind: its element type, one of ``onnx.TensorProto``'s; 0 if unknown.
        shape: None where the rank is unknown, -1 for an open dimension.
        constant: whether it is a constant, or follows from constants.
        value: of a constant that lies in the file itself; of one that is computed only the type is known.
    """

    kind: int
    shape: tuple[int, ...] | None
    constant: bool = False
    value: np.ndarray | None = None

    @property
    def static(self) -> bool:
        """Whether every dimension is known."""
        return self.constant or (self.shape is not None and -1 not in self.shape)

    @property
    def rank(self) -> int:
        """The number of its dimensions, -1 where it is unknown."""
        return -1 if self.shape is None else len(self.shape)


UNKNOWN = Tensor(0, None)


@dataclass(frozen=True, slots=True)
class Node:
    """A node that runs. An input that is left out is None.

    Attributes:
        reads: places of the nodes whose results it reads, also from inside its own graphs.
    """

    name: str
    domain: str
    operator: str
    version: int
    inputs: tuple[Tensor | None, ...]
    outputs: tuple[Tensor, ...]
    attributes: Mapping[str, Any]
    reads: frozenset[int]

    @property
    def full_name(self) -> str:
        """``Conv``, or ``com.microsoft::FusedConv`` outside of ONNX's own operators."""
        return f"{self.domain}::{self.operator}" if self.domain else self.operator

    def input(self, index: int) -> Tensor | None:
        """An input, None if it is left out."""
        return self.inputs[index] if index < len(self.inputs) else None

    def text(self, name: str, default: str) -> str:
        """An attribute that is a word."""
        value = self.attributes.get(name, default)
        return value.decode() if isinstance(value, bytes) else str(value)


def nodes_of(model: onnx.ModelProto) -> list[Node]:
    """The nodes of a model that run, in an order in which each comes after those that it reads.

    Raises:
        BadInput: when the model is broken.
    """
    try:
        if model.functions:
            model = inliner.inline_local_functions(model)
        model = shape_inference.infer_shapes(model, data_prop=True)
    except Exception as error:  # onnx has no class for what it can't read
        raise BadInput(f"the ONNX graph is broken: {first_line(error)}", "export or download it again") from error
    versions = versions_of(model)
    graph = model.graph
    known = {item.name: _described(item.type) for item in (*graph.input, *graph.value_info, *graph.output)}
    known |= {tensor.name: _constant(tensor) for tensor in graph.initializer}
    aliases: dict[str, str] = {}
    makers: dict[str, int] = {}
    found: list[Node] = []
    for name, node in zip(node_names(graph), graph.node, strict=True):
        reads = [aliases.get(item, item) for item in node.input]
        inputs = tuple(known.get(item, UNKNOWN) if item else None for item in reads)
        domain = domain_of(node.domain)
        attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        if node.op_type == "Identity" and not domain:
            aliases[node.output[0]] = reads[0]
            continue
        if node.op_type == "Constant" and not domain:
            known[node.output[0]] = _constant_node(attributes)
            continue
        given = [item for item in inputs if item is not None]
        if given and node.op_type not in _RANDOM and all(item.constant for item in given) and not _inner(node):
            for output in node.output:
                before = known.get(output, UNKNOWN)
                known[output] = Tensor(before.kind, before.shape, constant=True)
            continue
        outputs = tuple(known.get(item, UNKNOWN) for item in node.output)
        behind = {makers[item] for item in (*reads, *(aliases.get(item, item) for item in _captured(node))) if item in makers}
        makers |= dict.fromkeys((item for item in node.output if item), len(found))
        version = versions.get(domain, 1)
        found.append(Node(name, domain, node.op_type, version, inputs, outputs, attributes, frozenset(behind)))
    return found


def _described(kind: onnx.TypeProto) -> Tensor:
    tensor = kind.tensor_type
    if not kind.HasField("tensor_type") or not tensor.HasField("shape"):
        return Tensor(tensor.elem_type, None)
    return Tensor(tensor.elem_type, tuple(item.dim_value if item.HasField("dim_value") else -1 for item in tensor.shape.dim))


def _constant(tensor: onnx.TensorProto) -> Tensor:
    beside = tensor.data_location == onnx.TensorProto.EXTERNAL
    try:
        value = None if beside or prod(tensor.dims) > _READ else numpy_helper.to_array(tensor)
    except (TypeError, ValueError):  # fewer bytes than it says, or of a type that nobody knows
        value = None
    return Tensor(tensor.data_type, tuple(tensor.dims), constant=True, value=value)


def _constant_node(attributes: Mapping[str, Any]) -> Tensor:
    for name, value in attributes.items():
        if name == "value":
            return _constant(value)
        if name in ("value_float", "value_floats", "value_int", "value_ints"):
            content = np.array(value, np.float32 if "float" in name else np.int64)
            return Tensor(helper.np_dtype_to_tensor_dtype(content.dtype), content.shape, constant=True, value=content)
    return Tensor(0, None, constant=True)


def _inner(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    return [graph for item in node.attribute for graph in ([item.g] if item.HasField("g") else []) + list(item.graphs)]


def _captured(node: onnx.NodeProto) -> Iterator[str]:
    """Names that the graphs inside a node read; those that they make themselves are made by no node around."""
    for graph in _inner(node):
        yield from (item.name for item in graph.output)
        for inside in graph.node:
            yield from inside.input
            yield from _captured(inside)
