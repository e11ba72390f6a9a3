"""What rewrites of ONNX graphs share: reading constants and sizes, putting other nodes in a node's place."""

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.tape import Tape


class Making(Tape):
    """Collects the nodes that take another's place."""

    def constant(self, value: np.ndarray) -> ir.Value:
        """A constant tensor; `rewrite_graph` makes it an initializer."""
        return self.op("Constant", [], {"value": ir.tensor(np.ascontiguousarray(value))})

    def like(self, x: ir.Value, number: float) -> ir.Value:
        """A number in the type of ``x``."""
        return self.constant(np.array(number, np.float32 if x.dtype is None else x.dtype.numpy()))

    def integers(self, *numbers: int) -> ir.Value:
        """A constant vector, such as a shape or axes."""
        return self.constant(np.array(numbers, np.int64))


def each(*operators: str, form: Callable[[Making, ir.Node], ir.Value | None]) -> Callable[[ir.Model], int]:
    """A change to the main graph's nodes of some standard operators, as far as ``form`` has another form of them.

    Args:
        form: given a node, returns the value that takes the place of its first output, made or one that is there already, or
            None to leave the node. A made value gets the old one's name, type and shape.
    """

    def change(model: ir.Model) -> int:
        count = 0
        for node in list(model.graph):
            if node.domain == "" and node.op_type in operators:
                making = Making()
                new = form(making, node)
                if new is not None:
                    _replace(node, new, making.nodes)
                    count += 1
        return count

    return change


def _replace(node: ir.Node, new: ir.Value, made: Sequence[ir.Node]) -> None:
    old, graph = node.outputs[0], node.graph
    assert isinstance(graph, ir.Graph)
    if new.producer() in made:
        ir.convenience.replace_nodes_and_values(graph, node, [node], made, [old], [new])
    else:  # the node goes with the other unread ones, unless it is an output, whose name has to stay
        ir.convenience.replace_all_uses_with(old, new)


def operand(node: ir.Node, position: int) -> ir.Value | None:
    """An input, None where an optional one is left out."""
    return node.inputs[position] if position < len(node.inputs) else None


def first(node: ir.Node) -> ir.Value:
    """The first input, which no operator here can do without."""
    x = node.inputs[0]
    assert x is not None
    return x


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
    found = constant(operand(node, position)) if given is None else np.array(given.as_ints())
    shape = sizes(node.inputs[0])
    if found is None or shape is None:
        return None
    return tuple(sorted(int(axis) % len(shape) for axis in found))
