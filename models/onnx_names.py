"""One name for each node of an ONNX graph, since a file may leave them out or use one twice."""

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import GraphProto


def node_names(graph: "GraphProto") -> list[str]:
    """A name for each node, in the file's order: its own, or that of its first result where it has none or shares it."""
    often = Counter(node.name for node in graph.node)
    return [node.name if node.name and often[node.name] == 1 else next(iter(node.output), "") for node in graph.node]
