"""Neg as a product with -1.

Why: CoreML MLProgram's table lacks Neg (ONNX Runtime 1.32, `tools/mobile_helpers/coreml_supported_mlprogram_ops.md`), so that
each one cuts a net in two; Mul is in all tables. Rotary positions and many users' models have it.
Integers are left alone: they don't reach an accelerator, and ONNX Runtime multiplies few kinds of them.

Proof: exact, sign of zero included (`tests/test_rewrites.py`).
"""

import onnx_ir as ir

from ._graph import Making, each, first
from .base import Rewrite


def _product(make: Making, node: ir.Node) -> ir.Value | None:
    x = first(node)
    return make.op("Mul", [x, make.like(x, -1)]) if x.dtype is not None and x.dtype.is_floating_point() else None


REWRITE = Rewrite("Neg as a product with -1", graph=each("Neg", form=_product))
