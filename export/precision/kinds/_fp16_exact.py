"""What a float16 file computes on a device that has float16, run on a machine that has not.

ONNX Runtime's x86 kernels lack float16: it widens a node's inputs, computes in float32, and leaves out the rounding between two
such nodes. What would overflow or lose digits on a phone is then fine here. This graph computes in float32 as well, but rounds
every tensor to float16 that is float16 in the file, which is what a device does that adds up in 32 bits.
"""

import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper


def rounded_everywhere(model: ModelProto) -> ModelProto:
    """The float16 file's values in float32 tensors, each rounded where the file's is; graphs inside nodes are left out.

    Args:
        model: float16 with float32 inputs and outputs, which is left as it is.
    """
    copy = onnx.shape_inference.infer_shapes(model)
    graph = copy.graph
    if any(item.type in (item.GRAPH, item.GRAPHS) for node in graph.node for item in node.attribute):
        return model
    half = {info.name for info in graph.value_info if info.type.tensor_type.elem_type == TensorProto.FLOAT16}
    for item in graph.initializer:
        if item.data_type == TensorProto.FLOAT16:
            item.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(item).astype("float32"), item.name))
    nodes = []
    for node in graph.node:
        nodes.append(node)
        for place, name in enumerate(node.output):
            if name in half:
                node.output[place] = f"{name}_unrounded"
                nodes.append(helper.make_node("Cast", [f"{name}_unrounded"], [f"{name}_half"], to=TensorProto.FLOAT16))
                nodes.append(helper.make_node("Cast", [f"{name}_half"], [name], to=TensorProto.FLOAT))
    del graph.value_info[:]
    del graph.node[:]
    graph.node.extend(nodes)
    return copy
