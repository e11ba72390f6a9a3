"""What rewrites of ONNX graphs share: finding nodes, reading constants and sizes, putting other nodes in a node's place."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.tape import Tape


class Making(Tape):
    """Collects the nodes that take another's place."""

    def constant(self, value: np.ndarray) -> ir.Value:
        """A constant tensor, as a node of its own until `replace` makes it an initializer."""
        return self.op("Constant", [], {"value": ir.tensor(np.ascontiguousarray(value))})

    def integers(self, *numbers: int) -> ir.Value:
        """A constant vector, such as a shape or axes."""
        return self.constant(np.array(numbers, np.int64))


def nodes(model: ir.Model, *operators: str) -> Iterator[ir.Node]:
    """The main graph's nodes of these standard operators; the graph may be changed on the way."""
    return (node for node in list(model.graph) if node.domain == "" and node.op_type in operators)


def replace(node: ir.Node, make: Callable[[Making], ir.Value]) -> None:
    """Put what ``make`` builds into a node's place; the node has one output that is used, and it keeps its name."""
    making = Making()
    new, old = make(making), node.outputs[0]
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    made = making.nodes
    ir.convenience.replace_nodes_and_values(graph, node, [node], made, [old], [new])


def constant(value: ir.Value | None) -> np.ndarray | None:
    """What a value is known to be, or None."""
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def sizes(value: ir.Value | None) -> tuple[int | None, ...] | None:
    """A value's shape with None for open dimensions, or None where not even the rank is known."""
    if value is None or value.shape is None:
        return None
    return tuple(size if isinstance(size, int) else None for size in value.shape)


def axes_of(node: ir.Node, position: int = 1) -> tuple[int, ...] | None:
    """Constant axes of a node, counted from the front, wherever its version has them; None if unknown or absent."""
    given = node.attributes.get("axes")
    found: Sequence[int] | np.ndarray | None = None
    if given is not None:
        found = given.as_ints()
    elif len(node.inputs) > position:
        found = constant(node.inputs[position])
    shape = sizes(node.inputs[0])
    if found is None or shape is None:
        return None
    return tuple(sorted(int(axis) % len(shape) for axis in found))
