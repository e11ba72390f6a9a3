"""Core ML's ML Program as a package (a folder), converted from a trace of the module; float32, as the others are.

Core ML runs on macOS and on Apple's devices only. Elsewhere the package is read back and its inputs and results are compared
with the model's, which finds an empty or broken one; that its values are right is not verified, and every view says so.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from .base import Target

if TYPE_CHECKING:
    from onnx import ModelProto

    from ..source import Source


def _convert(source: "Source", model: "ModelProto", folder: Path) -> Path:
    import coremltools
    import numpy as np
    import torch

    from ._capture import capture

    with torch.no_grad():
        # Of a capture, whose sizes are constants: a plain trace computes them, and there coremltools 9 fails with NumPy 2.4.
        traced = torch.jit.trace(capture(source), tuple(source.inputs.values()), check_trace=False)
    described = [
        coremltools.TensorType(name, tuple(tensor.shape), np.float32 if tensor.is_floating_point() else np.int32)
        for name, tensor in source.inputs.items()
    ]
    package = coremltools.convert(
        traced,
        inputs=described,
        outputs=[coremltools.TensorType(name) for name in source.outputs],
        convert_to="mlprogram",
        compute_precision=coremltools.precision.FLOAT32,
        skip_model_load=True,
    )
    package.user_defined_metadata.update(source.metadata)
    path = folder / "model.mlpackage"
    package.save(str(path))
    _check(path, source)
    return path


def _check(path: Path, source: "Source") -> None:
    """Read the package back: it has to be a model with the inputs and the results of the source."""
    import coremltools

    description = coremltools.models.MLModel(str(path), skip_model_load=True).get_spec().description
    found = {entry.name: tuple(entry.type.multiArrayType.shape) for entry in description.input}
    wanted = {name: tuple(tensor.shape) for name, tensor in source.inputs.items()}
    if found != wanted or [entry.name for entry in description.output] != list(source.outputs):
        raise ValueError(f"the package takes {found}, not {wanted}, or returns something else than {', '.join(source.outputs)}")


TARGET = Target(
    title="Core ML package (ML Program)",
    suffix=".mlpackage",
    needs=("coremltools",),
    extra="coreml",
    convert=_convert,
    open=None,
    runtime=lambda: "",
    portable="macOS 12, iOS 15 and later; converted, not verified here: Core ML runs on macOS only",
    folder=True,
)
