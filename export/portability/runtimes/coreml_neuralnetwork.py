"""CoreML on Apple's devices through ONNX Runtime, as a NeuralNetwork, its older format (iOS 13, macOS 10.15 and later)."""

from ..base import Runtime
from ..table import bundled

RUNTIME = Runtime(
    title="CoreML, NeuralNetwork",
    table=lambda: bundled("coreml_supported_neuralnetwork_ops.md", "CoreML's NeuralNetwork"),
    most_dimensions=5,
)
