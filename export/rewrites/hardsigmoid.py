"""HardSigmoid as Add, Clip, Mul; HardSwish as the same times its input.

Why: NNAPI's table has neither, and CoreML NeuralNetwork's neither, while Add, Clip and Mul are in all (ONNX Runtime 1.32,
`tools/mobile_helpers/*.md`). With it a GhostNetV2 that gates by nn.Hardsigmoid, as timm's does, is one NNAPI partition.

max(0, min(1, a x + b)) = a clip(x + b / a, 0, 1 / a) for a > 0; torch's a = 1/6, b = 1/2 give relu6(x + 3) / 6.

Proof: within 2 units in the last place of 1 for drawn a, b and x (`tests/test_rewrites.py`): the same numbers, rounded at
another place.
"""

import onnx_ir as ir

from ._graph import Making, each, first
from .base import Rewrite


def _clip(make: Making, node: ir.Node) -> ir.Value | None:
    gate = node.op_type == "HardSwish"
    slope = 1 / 6 if gate else node.attributes.get_float("alpha", 0.2)
    shift = 0.5 if gate else node.attributes.get_float("beta", 0.5)
    if slope <= 0:  # constant or falling: not what anybody calls a hard sigmoid
        return None
    x = first(node)
    low, high, offset, factor = (make.like(x, number) for number in (0, 1 / slope, shift / slope, slope))
    y = make.op("Mul", [make.op("Clip", [make.op("Add", [x, offset]), low, high]), factor])
    return make.op("Mul", [x, y]) if gate else y


REWRITE = Rewrite("HardSigmoid and HardSwish as Add, Clip and Mul", graph=each("HardSigmoid", "HardSwish", form=_clip))
