"""No guard against rows that see nothing, where the mask is known and every row sees something.

Why: the exporter follows each masked softmax by Where(IsNaN(s), 0, s), since a row of -inf alone gives NaN and torch's
attention promises zeros. IsNaN is in no mobile table, and Where only in CoreML MLProgram's. A constant mask can be looked at.

Left alone: masks that are inputs or computed, and those with a blind row, such as a padded prompt's.

Proof: with finite scores a row with one finite addend has no NaN after softmax; equal in ONNX Runtime, and a mask with a
blind row keeps its guard (`tests/test_rewrites.py`). Infinite scores would have shown as zeros and show as NaN.
"""

import numpy as np
import onnx_ir as ir

from ._graph import constant, nodes
from .base import Rewrite


def _unguard(model: ir.Model) -> int:
    count = 0
    for node in nodes(model, "Where"):
        guard, scores = node.inputs[0], node.inputs[2]
        test = None if guard is None else guard.producer()
        softmax = None if scores is None else scores.producer()
        if test is None or test.op_type != "IsNaN" or test.inputs[0] is not scores or scores is None or softmax is None:
            continue
        if softmax.op_type == "Softmax" and _sees_something(softmax):
            ir.convenience.replace_all_uses_with(node.outputs[0], scores, replace_graph_outputs=False)
            count += 1
    return count


def _sees_something(softmax: ir.Node) -> bool:
    """Whether what is added to the scores is constant, of finite numbers and -inf, and finite somewhere in each row."""
    masked = softmax.inputs[0]
    added = None if masked is None else masked.producer()
    if added is None or added.op_type != "Add" or softmax.attributes.get_int("axis", -1) not in (-1, 3):
        return False
    masks = [mask for mask in map(constant, added.inputs) if mask is not None]
    if len(masks) != 1 or masks[0].ndim < 2:
        return False
    mask = masks[0]
    return bool((np.isfinite(mask) | np.isneginf(mask)).all() and np.isfinite(mask).any(-1).all())


REWRITE = Rewrite("no NaN guard behind a known mask that leaves every row something", graph=_unguard)
