"""w8a16: weights in 8 bits, activations in 16; for units that have it, and for nets with wide activations.

Below opset 21 the standard's QuantizeLinear has no 16 bits, so that the pairs are ONNX Runtime's own (``com.microsoft``), which
Qualcomm's back end reads as well.
"""

from functools import partial

from ._qdq import prepare
from .base import Precision

PRECISION = Precision(
    title="16-bit activations, 8-bit weights, by channel",
    calibrated=True,
    float_share=1 / 3,
    prepare=partial(prepare, activation="QUInt16", weight="QInt8"),
)
