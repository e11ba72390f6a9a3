"""LiteRT's flat file (TensorFlow Lite's format), converted from the module itself by litert-torch.

Inputs keep their order and the layout of the model, channels first; the converter turns the layout around inside. Integers of
64 bits become 32 bits wide, inputs too, since the phones' kernels know no others.
"""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from .base import Runner, Target

if TYPE_CHECKING:
    import numpy as np
    from onnx import ModelProto

    from ..source import Source


def _convert(source: "Source", model: "ModelProto", folder: Path) -> Path:
    import litert_torch

    from ._capture import capture

    path = folder / "model.tflite"
    litert_torch.convert(capture(source), tuple(source.inputs.values())).export(str(path))
    return path


def _open(path: Path, threads: int) -> Runner:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=threads)
    interpreter.allocate_tensors()  # here, so that what it prints is captured
    signature = interpreter.get_signature_runner()
    details = signature.get_input_details()
    arguments = sorted(details, key=_position)
    results = sorted(signature.get_output_details(), key=_position)

    def run(inputs: "Mapping[str, np.ndarray]") -> "Sequence[np.ndarray]":
        given = {
            name: value.astype(details[name]["dtype"], copy=False)
            for name, value in zip(arguments, inputs.values(), strict=True)
        }
        found = signature(**given)
        return [found[name] for name in results]

    return run


def _position(name: str) -> int:
    """Of ``args_12`` or ``output_12``: as words, the tenth would come before the second."""
    return int(name.rpartition("_")[2])


TARGET = Target(
    title="LiteRT (TensorFlow Lite)",
    suffix=".tflite",
    needs=("litert_torch", "ai_edge_litert"),
    extra="litert",
    convert=_convert,
    open=_open,
    runtime=lambda: f"LiteRT {version('ai-edge-litert')}, XNNPACK",
    portable="Android, iOS, Linux, macOS, Windows, browsers",
)
