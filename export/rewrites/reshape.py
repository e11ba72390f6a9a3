"""Reshape with a constant shape, where at most one size is open.

Why: with an open batch the exporter computes the shape of each Reshape and Expand-like view at run time, by Shape, Gather and
Concat nodes around the one number that it does not know. A Reshape finds one size by itself, written as -1; what is left is
constant, which the mobile tables ask for, and a runtime can plan its memory.

Left alone: a result with two open sizes, and one with a size 0, where -1 would mean nothing.

Proof: outputs equal to the bit at several batches, and no Shape node left (`tests/test_rewrites.py`).
"""

import onnx_ir as ir

from ._graph import constant, nodes, replace, sizes
from .base import Rewrite


def _constant_shapes(model: ir.Model) -> int:
    count = 0
    for node in nodes(model, "Reshape"):
        result = sizes(node.outputs[0])
        if constant(node.inputs[1]) is not None or result is None or result.count(None) > 1 or 0 in result:
            continue
        shape = [-1 if size is None else size for size in result]
        replace(  # type: ignore[misc]
            node, lambda make, x=node.inputs[0], shape=shape: make.op("Reshape", [x, make.integers(*shape)])
        )
        count += 1
    return count


REWRITE = Rewrite("Reshape with a constant shape, also with an open batch", graph=_constant_shapes)
