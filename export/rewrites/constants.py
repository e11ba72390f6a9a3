"""What depends on no input is computed once, at export.

Why: the exporter folds constants too, but stops at inputs of 8,192 numbers. A graph window's mask of 177 x 177 is above that,
and its Where, like the Cos and Sin of rotary positions, stayed in the file, where NNAPI has no Cos and neither table takes
every Where. ONNX Runtime folds them at each start; a phone's compiler sees them as operators.

By onnxscript's optimiser, with limits of a million numbers in and out, so that a file does not swell.

Proof: outputs equal within float32 rounding, Cos, Sin and masks gone from the decoders' files (`tests/test_rewrites.py`).
"""

import onnx_ir as ir

from .base import Rewrite

LARGEST = 2**20
"""Numbers in a constant up to which it is computed at export."""


def _fold(model: ir.Model) -> int:
    from onnxscript.optimizer import fold_constants_ir

    before = len(model.graph)
    fold_constants_ir(model, onnx_shape_inference=False, input_size_limit=LARGEST, output_size_limit=LARGEST)
    return before - len(model.graph)


REWRITE = Rewrite("what depends on no input is computed at export", graph=_fold)
