"""What conversions need of an ONNX graph: a copy in which every node has a name and every tensor a type, and its sizes."""

from collections.abc import Collection, Iterator, Mapping

import numpy as np
import onnx
from onnx import ModelProto, TensorProto

QDQ = ("QuantizeLinear", "DequantizeLinear")


def ready(model: ModelProto) -> ModelProto:
    """A copy with inferred types, whose nodes have names of their own; what keeps a node in float is its name."""
    copy = onnx.shape_inference.infer_shapes(model, data_prop=True)
    taken = {node.name for node in copy.graph.node}
    seen: set[str] = set()
    for place, node in enumerate(copy.graph.node):
        if not node.name or node.name in seen:
            name = f"{node.op_type}_{place}"
            while name in taken:
                name += "_"
            node.name = name
            taken.add(name)
        seen.add(node.name)
    return copy


def finished(converted: ModelProto, original: ModelProto) -> ModelProto:
    """Sort what a converter has appended, and take back the marks that it left: the file is ours, and says what it said."""
    from onnxruntime.quantization.onnx_model import ONNXModel

    ONNXModel(converted).topological_sort()
    converted.producer_name, converted.producer_version = original.producer_name, original.producer_version
    del converted.metadata_props[:]
    converted.metadata_props.extend(original.metadata_props)
    # Inferred shapes of inner tensors were for the converter; those of the original that still exist remain.
    named = {info.name for info in original.graph.value_info}
    made = {name for node in converted.graph.node for name in node.output}
    kept = [info for info in converted.graph.value_info if info.name in named & made]
    del converted.graph.value_info[:]
    converted.graph.value_info.extend(kept)
    return converted


def extend_metadata(model: ModelProto, entries: Mapping[str, str]) -> None:
    """Add entries to those that the file has, in the order of their names."""
    words = {entry.key: entry.value for entry in model.metadata_props} | dict(entries)
    onnx.helper.set_model_props(model, dict(sorted(words.items())))


def file_bytes(model: ModelProto) -> int:
    """Bytes of the file."""
    return int(model.ByteSize())


def weight_bytes(model: ModelProto) -> int:
    """Bytes of its constants."""
    return sum(_bytes(item) for item in model.graph.initializer)


def float_weight_bytes(model: ModelProto) -> int:
    """Bytes of its float32 constants with more than one dimension; biases and scales are none."""
    return sum(_bytes(item) for item in model.graph.initializer if _is_weight(item))


def qdq_count(model: ModelProto) -> int:
    """How many nodes only turn numbers into other numbers: quantise, dequantise, cast."""
    return sum(node.op_type in (*QDQ, "Cast") for node in model.graph.node)


def layers(model: ModelProto, candidates: Collection[str], most: int) -> list[tuple[tuple[str, ...], int]]:
    """The candidates in runs that begin with a weighted node each; neighbours are joined until there are few enough.

    Returns:
        The names of each run in the graph's order, and the bytes of float32 weights that it holds.
    """
    weights = {item.name: _bytes(item) for item in model.graph.initializer if _is_weight(item)}
    runs: list[tuple[tuple[str, ...], int]] = []
    counted: set[str] = set()
    for node in model.graph.node:
        if node.name not in candidates:
            continue
        mine = {name for name in node.input if name in weights}
        size = sum(weights[name] for name in mine - counted)  # a shared weight counts where it comes first
        counted |= mine
        if mine or not runs:
            runs.append(((node.name,), size))
        else:
            runs[-1] = ((*runs[-1][0], node.name), runs[-1][1])
    while len(runs) > most:
        runs = list(_joined(runs, len(runs) - most))
    return runs


def _joined(runs: list[tuple[tuple[str, ...], int]], pairs: int) -> Iterator[tuple[tuple[str, ...], int]]:
    place = 0
    while place < len(runs):
        if pairs and place + 1 < len(runs):
            yield runs[place][0] + runs[place + 1][0], runs[place][1] + runs[place + 1][1]
            pairs -= 1
            place += 2
        else:
            yield runs[place]
            place += 1


def _is_weight(item: TensorProto) -> bool:
    return item.data_type == TensorProto.FLOAT and len(item.dims) > 1


def _bytes(item: TensorProto) -> int:
    return int(np.prod(item.dims, dtype=np.int64)) * onnx.helper.tensor_dtype_to_np_dtype(item.data_type).itemsize
