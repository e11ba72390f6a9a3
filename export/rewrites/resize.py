"""Resize with constant sizes of height and width alone, where the batch is open.

Why: with an open batch the exporter rebuilds all four sizes at run time, by a Shape and a Concat before each Resize (14 in
GhostNetV2). Since opset 18 a Resize may name its axes; height and width are known, so that ``sizes=[H, W], axes=[2, 3]``
says the same and leaves nothing to compute. CoreML NeuralNetwork wants constant sizes (ONNX Runtime 1.32's table).

With a fixed batch the exporter writes constants already, and a constant scale stays as it is: sizes would round it.

Proof: results equal to the bit at batches 1 and 3, and no Shape nor Concat left (`tests/test_rewrites.py`).
"""

import onnx_ir as ir

from ._graph import Making, constant, nodes, replace, sizes
from .base import Rewrite


def _static(model: ir.Model) -> int:
    if model.opset_imports.get("", 0) < 18:
        return 0
    count = 0
    for node in nodes(model, "Resize"):
        wanted = node.inputs[3] if len(node.inputs) > 3 else None
        if wanted is None or constant(wanted) is not None or "axes" in node.attributes:
            continue
        source, result = sizes(node.inputs[0]), sizes(node.outputs[0])
        if source is None or result is None or len(source) != 4 or None in (*source[2:], *result[2:]) or source[1] != result[1]:
            continue
        height, width = (size for size in result[2:] if size is not None)
        replace(node, lambda make, node=node, size=(height, width): _sized(make, node, size))  # type: ignore[misc]
        count += 1
    return count


def _sized(make: Making, node: ir.Node, size: tuple[int, int]) -> ir.Value:
    attributes = {**node.attributes, "axes": (2, 3)}
    return make.op("Resize", [node.inputs[0], None, None, make.integers(*size)], attributes)


REWRITE = Rewrite("Resize with constant sizes, also with an open batch", graph=_static)
