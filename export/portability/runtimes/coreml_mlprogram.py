"""CoreML on Apple's devices through ONNX Runtime, as an ML Program (iOS 15, macOS 12 and later)."""

from ..base import Runtime
from ..table import bundled

RUNTIME = Runtime(
    title="CoreML, MLProgram",
    table=lambda: bundled("coreml_supported_mlprogram_ops.md", "CoreML's MLProgram"),
    most_dimensions=5,
)
