"""What the nodes run that have graphs inside: which one, how often, on what, and what they make of its results."""

from collections.abc import Mapping

import onnx
from onnx import helper

from .onnx_graph import Call, Value


def branches_of(call: Call, known: Mapping[str, Value]) -> tuple[onnx.GraphProto, int, dict[str, Value]] | None:
    """The graph that a control node runs, how often, and what that graph sees; None where it depends on values."""
    inside = dict(known)
    if call.operator == "If":
        chosen = call.optional(0)
        if chosen is None or chosen.content is None:
            return None
        return call.attributes["then_branch" if bool(chosen.content.item()) else "else_branch"], 1, inside
    body: onnx.GraphProto = call.attributes["body"]
    if call.operator == "Scan":
        scans = int(call.attributes["num_scan_inputs"])
        states = len(call.inputs) - scans
        scanned = [call.optional(states + index) for index in range(scans)]
        axes = list(call.attributes.get("scan_input_axes") or [0] * scans)
        if call.version < 9 or any(value is None or value.dims is None for value in scanned):
            return None
        shapes = [value.shape for value in scanned if value is not None]
        lengths = {shape[axis] for shape, axis in zip(shapes, axes, strict=True)}
        rows = [
            Value(value.kind, tuple(size for place, size in enumerate(value.shape) if place != axis % len(value.shape)))
            for value, axis in zip(scanned, axes, strict=True)
            if value is not None
        ]
        given = [*call.inputs[:states], *rows]
        times = lengths.pop()
    else:
        most = call.optional(0)
        if most is None or most.content is None or not _always(body, call):
            return None
        times = int(most.content.item())
        given = [Value(onnx.TensorProto.INT64, ()), Value(onnx.TensorProto.BOOL, ()), *call.inputs[2:]]
    for item, value in zip(body.input, given, strict=False):
        # A value that is carried on is another one at the next turn.
        inside[item.name] = Value(value.kind, value.dims) if value is not None else Value(onnx.TensorProto.FLOAT, None)
    return body, times, inside


def _always(body: onnx.GraphProto, call: Call) -> bool:
    """Whether a Loop goes on until its number of turns is reached: its condition is missing, or true and handed on as it is."""
    start = call.optional(1)
    if start is not None and (start.content is None or not bool(start.content.item())):
        return False
    handed = body.input[1].name
    result = body.output[0].name
    for node in body.node:
        if result in node.output:
            if node.op_type == "Identity" and node.input[0] == handed:
                return True
            values = [helper.get_attribute_value(item) for item in node.attribute if item.name == "value"]
            return node.op_type == "Constant" and bool(values) and bool(onnx.numpy_helper.to_array(values[0]).item())
    fixed = [tensor for tensor in body.initializer if tensor.name == result]
    return result == handed or (bool(fixed) and bool(onnx.numpy_helper.to_array(fixed[0]).item()))


def results_of(
    node: onnx.NodeProto, body: onnx.GraphProto, inside: Mapping[str, Value], times: int
) -> tuple[Value, ...] | None:
    """A control node's results from its body's; None where a value that is carried on changes its shape."""
    made = [inside.get(item.name, Value(onnx.TensorProto.FLOAT, None)) for item in body.output]
    if node.op_type == "If":
        return tuple(made)
    conditions = 1 if node.op_type == "Loop" else 0
    counted = 2 if node.op_type == "Loop" else 0
    states = len(body.input) - counted
    if node.op_type == "Scan":
        states -= next(item.i for item in node.attribute if item.name == "num_scan_inputs")
    for place in range(states):
        if inside[body.input[counted + place].name].dims != made[conditions + place].dims:
            return None
    carried = made[conditions : conditions + states]
    axes = next((list(item.ints) for item in node.attribute if item.name == "scan_output_axes"), [])
    stacked = []
    for index, value in enumerate(made[conditions + states :]):
        axis = axes[index] if index < len(axes) else 0
        if value.dims is None:
            stacked.append(value)
            continue
        place = axis % (len(value.dims) + 1)
        stacked.append(Value(value.kind, (*value.dims[:place], times, *value.dims[place:])))
    return (*(Value(value.kind, value.dims) for value in carried), *stacked)
