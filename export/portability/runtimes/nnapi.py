"""NNAPI on Android through ONNX Runtime."""

from ..base import Runtime
from ..table import bundled

RUNTIME = Runtime(
    title="NNAPI (Android)",
    table=lambda: bundled("nnapi_supported_ops.md", "NNAPI"),
    static_shapes=True,
    notes=(
        "NNAPI is deprecated since Android 15 (developer.android.com, NNAPI migration guide): for new work take XNNPACK or the "
        "CPU everywhere, QNN on Qualcomm's chips, or LiteRT",
    ),
)
