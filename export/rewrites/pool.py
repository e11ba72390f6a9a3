"""The mean over height and width as GlobalAveragePool.

Why: CoreML NeuralNetwork has no ReduceMean, and every table of ONNX Runtime 1.32 (`tools/mobile_helpers/*.md`) has
GlobalAveragePool and Squeeze. It also stays within a runtime's blocked layout. Where the mean drops both dimensions, a
Squeeze follows: Flatten is missing in MLProgram's table.

Proof: the same mean; equal in ONNX Runtime within float32 rounding with and without kept dimensions, and a mean over other
axes or of another rank is left alone (`tests/test_rewrites.py`).
"""

import onnx_ir as ir

from ._graph import Making, axes_of, nodes, replace, sizes
from .base import Rewrite


def _pool(model: ir.Model) -> int:
    count = 0
    for node in nodes(model, "ReduceMean"):
        shape = sizes(node.inputs[0])
        if shape is None or len(shape) != 4 or axes_of(node) != (2, 3):
            continue
        kept = node.attributes.get_int("keepdims", 1)
        replace(node, lambda make, node=node, kept=kept: _pooled(make, node, bool(kept)))  # type: ignore[misc]
        count += 1
    return count


def _pooled(make: Making, node: ir.Node, kept: bool) -> ir.Value:
    pooled = make.op("GlobalAveragePool", [node.inputs[0]])
    return pooled if kept else make.op("Squeeze", [pooled, make.integers(2, 3)])


REWRITE = Rewrite("means over height and width as GlobalAveragePool", graph=_pool)
