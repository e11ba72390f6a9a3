"""What depends on no input is computed once, at export.

Why: the exporter folds constants too, but stops at inputs of 8,192 numbers. A graph window's mask of 177 x 177 is above that,
and its Where, like the Cos and Sin of rotary positions, stayed in the file, where NNAPI has no Cos and neither table takes
every Where. ONNX Runtime folds them at each start; a phone's compiler sees them as operators.

By onnxscript's optimiser, which reads a million numbers here, and writes no more than the exporter would, so that a file does
not swell.

Proof: outputs equal within float32 rounding, Cos, Sin and masks gone from the decoders' files (`tests/test_rewrites.py`).
"""

import onnx_ir as ir
from onnxscript.optimizer import fold_constants_ir

from .base import Rewrite

LARGEST_READ, LARGEST_WRITTEN = 2**20, 2**18
"""Numbers in the inputs and in the outputs of what is computed at export; the second is the exporter's own limit."""


def _fold(model: ir.Model) -> int:
    before = len(model.graph)
    result = fold_constants_ir(
        model, onnx_shape_inference=False, input_size_limit=LARGEST_READ, output_size_limit=LARGEST_WRITTEN
    )
    return max(before - len(model.graph), int(result.modified))


REWRITE = Rewrite("what depends on no input is computed at export", graph=_fold)
