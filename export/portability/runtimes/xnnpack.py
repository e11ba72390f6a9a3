"""XNNPACK, a library of CPU kernels for phones, through ONNX Runtime: it takes single nodes, and the CPU provider the rest."""

from ..base import Runtime
from ..table import documented

_BEFORE = ("Conv", "MaxPool", "AveragePool")

RUNTIME = Runtime(
    title="XNNPACK (phone CPUs)",
    table=lambda: documented("xnnpack"),
    fused_after=(("Relu", _BEFORE), ("Clip", _BEFORE)),
    notes=(
        "both sides run on the CPU: a break costs a change of layout, not a transfer",
        "not in ONNX Runtime's Python wheel, but in its packages for Android and iOS",
    ),
)
