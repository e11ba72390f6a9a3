"""int8: activations unsigned, weights signed, 8 bits each; a quarter of the file, on every integer unit."""

from functools import partial

from ._qdq import prepare
from .base import Precision

PRECISION = Precision(
    title="8-bit activations and weights, by channel",
    calibrated=True,
    float_share=1 / 3,  # beyond it float16, at two bytes for each weight, would be smaller
    prepare=partial(prepare, activation="QUInt8", weight="QInt8"),
)
