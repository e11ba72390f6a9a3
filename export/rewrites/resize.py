"""Resize with constant sizes of height and width alone, where the batch is open.

Why: with an open batch the exporter rebuilds all four sizes at run time, by a Shape and a Concat before each Resize (14 in
GhostNetV2). Since opset 18 a Resize may name its axes; height and width are known, so that ``sizes=[H, W], axes=[2, 3]``
says the same and leaves nothing to compute. CoreML NeuralNetwork wants constant sizes (ONNX Runtime 1.32's table).

With a fixed batch the exporter writes constants already, and a constant scale stays as it is: sizes would round it.

Proof: results equal to the bit at batches 1 and 3, and no Shape nor Concat left (`tests/test_rewrites.py`).
"""

import onnx_ir as ir

from ._graph import Making, constant, each, first, operand, sizes
from .base import Rewrite


def _static(make: Making, node: ir.Node) -> ir.Value | None:
    wanted, source, result = operand(node, 3), sizes(node.inputs[0]), sizes(node.outputs[0])
    if wanted is None or constant(wanted) is not None or "axes" in node.attributes or _opset(node) < 18:
        return None
    if node.attributes.get_string("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":  # needs its region
        return None
    if source is None or result is None or len(source) != 4 or source[1] != result[1] or source[1] is None:
        return None
    height, width = result[2:]
    if height is None or width is None:
        return None
    return make.op("Resize", [first(node), None, None, make.integers(height, width)], {**node.attributes, "axes": (2, 3)})


def _opset(node: ir.Node) -> int:
    assert isinstance(node.graph, ir.Graph)
    return node.graph.opset_imports.get("", 0)


REWRITE = Rewrite("Resize with constant sizes, also with an open batch", graph=each("Resize", form=_static))
