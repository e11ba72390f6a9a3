"""The mean over height and width as GlobalAveragePool.

Why: CoreML NeuralNetwork has no ReduceMean, and every table of ONNX Runtime 1.32 (`tools/mobile_helpers/*.md`) has
GlobalAveragePool and Squeeze. It also stays within a runtime's blocked layout. Where the mean drops both dimensions, a
Squeeze follows: Flatten is missing in MLProgram's table.

Proof: the same mean; equal in ONNX Runtime within float32 rounding with and without kept dimensions, and a mean over other
axes or of another rank is left alone (`tests/test_rewrites.py`).
"""

import onnx_ir as ir

from ._graph import Making, axes_of, each, first, sizes
from .base import Rewrite


def _pool(make: Making, node: ir.Node) -> ir.Value | None:
    x = first(node)
    shape = sizes(x)
    if shape is None or len(shape) != 4 or axes_of(node) != (2, 3) or x.dtype is None or not x.dtype.is_floating_point():
        return None
    pooled = make.op("GlobalAveragePool", [x])
    return pooled if node.attributes.get_int("keepdims", 1) else make.op("Squeeze", [pooled, make.integers(2, 3)])


REWRITE = Rewrite("means over height and width as GlobalAveragePool", graph=each("ReduceMean", form=_pool))
