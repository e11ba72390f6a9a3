"""fp16: half the file; inputs and outputs stay float32, so that nothing around it changes.

float16 ends at 65,504 and has 11 bits. A node stays float32 where a tensor beside it went beyond half of that in the runs that
are learnt from, where a constant would overflow or vanish, where a normalisation squares what would then be too large, and
where it counts further than 2,048, as the sum of a hash's bits may, to become an integer.
"""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from ..graph import finished, ready
from ..hushed import hushed
from ..ranges import extremes, measure_ranges
from ._fp16_exact import rounded_everywhere
from .base import Precision, Prepared

_LARGEST = float(np.finfo(np.float16).max)
_SMALLEST = float(np.finfo(np.float16).smallest_subnormal)
_SAFE = _LARGEST / 2
"""The calibration runs are not all there is: twice their largest value has to fit."""
_COUNTS = 2.0**11
"""From here on float16 leaves integers out."""
_INTEGERS = (TensorProto.INT64, TensorProto.INT32, TensorProto.INT16, TensorProto.UINT16)
_NORMS = ("InstanceNormalization", "LayerNormalization", "GroupNormalization", "LpNormalization", "ReduceL2", "ReduceSumSquare")


def _prepare(model: ModelProto, feeds: Sequence[Mapping[str, np.ndarray]]) -> Prepared:
    base = ready(model)
    largest = extremes(measure_ranges(base, feeds)) if feeds else {}
    with hushed():
        from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    constants = {item.name: numpy_helper.to_array(item) for item in base.graph.initializer if item.data_type == item.FLOAT}
    indices = {node.input[0] for node in base.graph.node if node.op_type == "Cast" and node.attribute[0].i in _INTEGERS}
    must_keep = {
        node.name: reason
        for node in base.graph.node
        if node.op_type not in DEFAULT_OP_BLOCK_LIST and (reason := _reason(node, largest, constants, indices))
    }

    def convert(keep: Collection[str]) -> ModelProto:
        copy = ModelProto()
        copy.CopyFrom(base)
        with hushed():
            converted = convert_float_to_float16(copy, keep_io_types=True, node_block_list=sorted(keep))
            _join(converted, {node.name for node in base.graph.node})
            return finished(converted, model)

    names = tuple(node.name for node in base.graph.node if node.op_type not in DEFAULT_OP_BLOCK_LIST)
    return Prepared(convert, names, must_keep, rounded_everywhere)


def _join(model: ModelProto, original: Collection[str]) -> None:
    """Let neighbours in float32 pass float32 on: the converter has them meet in float16, where values overflow after all."""
    graph = model.graph
    casts = [node for node in graph.node if node.op_type == "Cast" and node.name not in original]
    rounded = {node.output[0]: node.input[0] for node in casts if node.attribute[0].i == TensorProto.FLOAT16}
    inputs, outputs = ({item.name for item in items} for items in (graph.input, graph.output))
    renamed: dict[str, str] = {}
    for node in casts:
        if node.attribute[0].i != TensorProto.FLOAT or node.input[0] not in rounded:
            continue
        source, widened = rounded[node.input[0]], node.output[0]
        if widened not in outputs:
            renamed[widened] = source
        elif source not in inputs:
            renamed[source] = widened  # the result keeps its name
        else:
            continue
        graph.node.remove(node)
    for node in graph.node:
        for names in (node.input, node.output):
            for place in range(len(names)):
                while names[place] in renamed:
                    names[place] = renamed[names[place]]
    used = outputs.union(*(node.input for node in graph.node))
    for node in casts:
        if node.output[0] in rounded and node.output[0] not in used and node in graph.node:
            graph.node.remove(node)


def _reason(
    node: NodeProto, largest: Mapping[str, float], constants: Mapping[str, np.ndarray], indices: Collection[str]
) -> str:
    """Why a node can't be float16; "" if it can. ``indices`` are tensors that become integers."""
    most = max((largest.get(name, 0.0) for name in (*node.input, *node.output)), default=0.0)
    if not most <= _SAFE:
        return f"values up to {most:.3g}, float16 ends at {_LARGEST:.0f}"
    if node.op_type in _NORMS and most**2 > _SAFE:
        return f"squares up to {most**2:.3g}, float16 ends at {_LARGEST:.0f}"
    count = max((largest.get(name, 0.0) for name in node.output if name in indices), default=0.0)
    if count > _COUNTS:
        return f"integers up to {count:.0f}, float16 counts to {_COUNTS:.0f}"
    for name in node.input:
        size = np.abs(constants[name]) if name in constants else np.zeros(0)
        if (size > _LARGEST).any():
            return f"a constant of {size.max():.3g}, float16 ends at {_LARGEST:.0f}"
        if size.size == 1 and 0 < size.max() < _SMALLEST:  # among many a vanishing one does no harm
            return f"a constant of {size.max():.3g}, float16 begins at {_SMALLEST:.3g}"
    return ""


PRECISION = Precision(
    title="float16, inputs and outputs float32",
    calibrated=False,
    float_share=0.99,  # as long as anything is saved
    prepare=_prepare,
)
