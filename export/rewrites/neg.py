"""Neg as a product with -1.

Why: CoreML MLProgram's table lacks Neg (ONNX Runtime 1.32, `tools/mobile_helpers/coreml_supported_mlprogram_ops.md`), so that
each one cuts a net in two; Mul is in all tables. Rotary positions and many users' models have it.

Proof: exact, sign of zero included (`tests/test_rewrites.py`).
"""

import numpy as np
import onnx_ir as ir

from ._graph import Making, nodes, replace
from .base import Rewrite


def _product(model: ir.Model) -> int:
    count = 0
    for node in nodes(model, "Neg"):
        if node.inputs[0] is None or node.inputs[0].dtype is None:
            continue
        replace(node, lambda make, node=node: _negated(make, node))  # type: ignore[misc]
        count += 1
    return count


def _negated(make: Making, node: ir.Node) -> ir.Value:
    x = node.inputs[0]
    assert x is not None
    assert x.dtype is not None
    return make.op("Mul", [x, make.constant(np.array(-1, x.dtype.numpy()))])


REWRITE = Rewrite("Neg as a product with -1", graph=_product)
