"""No guard against rows that see nothing, where the mask is known and every row sees something.

Why: the exporter follows each masked softmax by Where(IsNaN(s), 0, s), since a row of -inf alone gives NaN and torch's
attention promises zeros. IsNaN is in no mobile table, and Where only in CoreML MLProgram's. A constant mask can be looked at.

Left alone: masks that are inputs or computed, those with a blind row, such as a padded prompt's, and scores that are anything
but a product of matrices, which might hide a second mask.

Proof: with finite scores a row with one finite addend has no NaN after softmax; equal in ONNX Runtime, and a mask with a
blind row keeps its guard (`tests/test_rewrites.py`). Infinite scores would have shown as zeros and show as NaN.
"""

import numpy as np
import onnx_ir as ir

from ._graph import Making, constant, each, first, sizes
from .base import Rewrite


def _unguard(_: Making, node: ir.Node) -> ir.Value | None:
    guard, scores = node.inputs[0], node.inputs[2]
    test = None if guard is None else guard.producer()
    softmax = None if scores is None else scores.producer()
    if test is None or test.op_type != "IsNaN" or test.inputs[0] is not scores or softmax is None:
        return None
    return scores if softmax.op_type == "Softmax" and _sees_something(softmax) else None


def _sees_something(softmax: ir.Node) -> bool:
    """Whether what is added to a product is constant, of finite numbers and -inf, and finite somewhere in each row."""
    added, shape = first(softmax).producer(), sizes(softmax.inputs[0])
    if added is None or added.op_type != "Add" or shape is None:
        return False
    if softmax.attributes.get_int("axis", -1) not in (-1, len(shape) - 1):
        return False
    masks = [mask for mask in map(constant, added.inputs) if mask is not None and mask.ndim >= 2]
    makers = [value.producer() for value in added.inputs if value is not None and constant(value) is None]
    if len(masks) != 1 or len(makers) != 1 or makers[0] is None or makers[0].op_type != "MatMul":
        return False
    mask = masks[0]
    return bool((np.isfinite(mask) | np.isneginf(mask)).all() and np.isfinite(mask).any(-1).all())


REWRITE = Rewrite("no NaN guard behind a known mask that leaves every row something", graph=each("Where", form=_unguard))
