"""A product with a Reciprocal as a quotient.

Why: NNAPI's table lacks Reciprocal, and MLProgram's notes that CoreML adds an epsilon to it (ONNX Runtime 1.32,
`tools/mobile_helpers/*.md`); Div is in all. The exporter writes nn.RMSNorm with x * Reciprocal(Sqrt(...)), four or more of
them in each of our decoders.

Proof: one rounding instead of two: within 2 units in the last place, in ONNX Runtime (`tests/test_rewrites.py`).
"""

import onnx_ir as ir

from ._graph import Making, each, first
from .base import Rewrite


def _quotient(make: Making, node: ir.Node) -> ir.Value | None:
    for factor, other in (node.inputs, node.inputs[::-1]):
        below = None if factor is None else factor.producer()
        if below is not None and below.op_type == "Reciprocal" and below.domain == "":
            return make.op("Div", [other, first(below)])
    return None


REWRITE = Rewrite("products with a Reciprocal as Div", graph=each("Mul", form=_quotient))
