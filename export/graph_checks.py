"""What a graph's operators say against it: some make it wrong or impossible to verify, others keep it off accelerators."""

from collections import Counter

import onnx
from onnx import ModelProto, NodeProto, TensorProto

from ..models.errors import BadInput

_RANDOM = frozenset("RandomNormal RandomNormalLike RandomUniform RandomUniformLike Multinomial Bernoulli".split())
_SIZED_BY_VALUES = frozenset("NonZero Unique Compress NonMaxSuppression".split())
_CONTROL = frozenset("Loop Scan If SequenceAt SequenceEmpty SequenceInsert ConcatFromSequence SplitToSequence".split())
_DECISIONS = frozenset(
    "Greater GreaterOrEqual Less LessOrEqual Sign Floor Ceil Round ArgMax ArgMin TopK Mod Hardmax NonZero".split()
)
_ARITHMETIC = frozenset("Add Sub Mul Div Mod Pow ReduceSum CumSum MatMul Neg Abs".split())


def check_graph(model: ModelProto) -> tuple[str, ...]:
    """Notes on a graph with inferred shapes.

    Raises:
        BadInput: when it draws random numbers, which can't be verified, or has a part in training mode.
    """
    types = _types(model)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    used = {name for node in _nodes(model.graph) for name in node.input} | {value.name for value in model.graph.output}
    for node in _nodes(model.graph):
        if node.op_type in _RANDOM:
            what = f"the model draws random numbers ({_where(node)}), so no result can be compared"
            raise BadInput(what, "give the numbers as an input, or leave them out in eval mode")
        if _trains(node, constants):
            what = f"a part of the model is in training mode ({_where(node)})"
            raise BadInput(what, "pass training=self.training to functions such as F.dropout, and train=False to norms")
    notes = [f"{name} has no influence on the results" for name in (v.name for v in model.graph.input) if name not in used]
    counts = Counter(_kind(node, types) for node in _nodes(model.graph))
    words = {
        "sized": "have a result whose size depends on values: on a CPU only",
        "control": "are control flow or sequences: on a CPU only",
        "float64": "compute in float64, which few accelerators have",
        "int64": "compute in int64, which most accelerators have not",
        "domain": "are from outside the ONNX standard",
    }
    for kind, sentence in words.items():
        if counts[kind]:
            first = next(node for node in _nodes(model.graph) if _kind(node, types) == kind)
            notes.append(f"{counts[kind]} operator{'s' if counts[kind] > 1 else ''}, first {_where(first)}, {sentence}")
    return tuple(notes)


def decides(model: ModelProto) -> bool:
    """Whether the graph compares or rounds floats that it computes, so that a last bit can turn into a jump of the output.

    Comparisons of constants, such as positions, don't count.
    """
    types = _types(model)
    floats = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
    computed = {value.name for value in model.graph.input}
    for node in model.graph.node:  # in topological order
        if computed.isdisjoint(node.input) or node.op_type in ("Shape", "Size"):
            continue
        if node.op_type in _DECISIONS and types.get(node.input[0]) in floats:
            return True
        computed.update(node.output)
    return False


def _kind(node: NodeProto, types: dict[str, int]) -> str:
    made = types.get(node.output[0]) if node.output else None
    if node.domain not in ("", "ai.onnx"):
        return "domain"
    if node.op_type in _SIZED_BY_VALUES:
        return "sized"
    if node.op_type in _CONTROL:
        return "control"
    if made == TensorProto.DOUBLE:
        return "float64"
    return "int64" if made == TensorProto.INT64 and node.op_type in _ARITHMETIC else ""


def _trains(node: NodeProto, constants: dict[str, TensorProto]) -> bool:
    if node.op_type == "BatchNormalization":
        return any(attribute.name == "training_mode" and attribute.i for attribute in node.attribute)
    if node.op_type == "Dropout" and len(node.input) > 2:
        switch = constants.get(node.input[2])
        return switch is not None and bool(onnx.numpy_helper.to_array(switch))
    return False


def _types(model: ModelProto) -> dict[str, int]:
    graph = model.graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.output, *graph.value_info)}
    return types | {tensor.name: tensor.data_type for tensor in graph.initializer}


def _nodes(graph: onnx.GraphProto) -> list[NodeProto]:
    found = []
    for node in graph.node:
        found.append(node)
        for attribute in node.attribute:
            if attribute.HasField("g"):
                found += _nodes(attribute.g)
    return found


def _where(node: NodeProto) -> str:
    module = node.name.partition("/")[0]
    return f"{node.op_type} in {module}" if module else node.op_type
