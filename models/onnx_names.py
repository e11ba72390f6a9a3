"""Names that an ONNX file may leave out, use twice or write in two ways."""

from collections import Counter
from typing import TYPE_CHECKING

from .errors import BadInput

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto


def node_names(graph: "GraphProto") -> list[str]:
    """A name for each node, in the file's order: its own, or that of its first result where it has none or shares it.

    Raises:
        BadInput: when the file is broken: protobuf hands bytes on where they are no text.
    """
    for node in graph.node:
        if not all(isinstance(word, str) for word in (node.name, node.op_type, node.domain, *node.input, *node.output)):
            raise BadInput("the ONNX file is broken: a name in it is no text", "export or download it again")
    often = Counter(node.name for node in graph.node)
    return [node.name if node.name and often[node.name] == 1 else next(iter(node.output), "") for node in graph.node]


def domain_of(name: str) -> str:
    """The domain of an operator; ONNX's own has two names, one of them empty, which is the one used here."""
    return "" if name == "ai.onnx" else name


def versions_of(model: "ModelProto") -> dict[str, int]:
    """The versions of the operator sets that a model uses, by domain."""
    return {domain_of(item.domain): item.version for item in model.opset_import}
