"""ONNX Runtime's own format, for its small builds on phones, with the list of operators that such a build has to hold.

The graph is saved after the optimisations that any processor can use; the ones for one kind of processor only are left out.
So on a desktop this file is slower than the ONNX file, whose session lays the weights out for the processor it finds: its time
here says nothing about a phone. Full builds of ONNX Runtime read the ONNX file, and have no use for this one.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from .base import Target
from .onnx import open_session, runtime

if TYPE_CHECKING:
    from onnx import ModelProto

    from ..source import Source


def _convert(source: "Source", model: "ModelProto", folder: Path) -> Path:
    from onnxruntime.tools.convert_onnx_models_to_ort import OptimizationStyle, convert_onnx_models_to_ort

    given = folder / "model.onnx"
    given.write_bytes(model.SerializeToString(deterministic=True))
    try:
        # Fixed, since what the Runtime style saves is replayed only under a session option that is off everywhere.
        convert_onnx_models_to_ort(given, optimization_styles=[OptimizationStyle.Fixed], enable_type_reduction=True)
    finally:
        given.unlink()
    return given.with_suffix(".ort")


TARGET = Target(
    title="ORT format, for small builds of ONNX Runtime",
    suffix=".ort",
    needs=("onnxruntime",),
    extra="",
    convert=_convert,
    open=open_session,
    runtime=runtime,
    portable="Android, iOS, browsers, in builds of ONNX Runtime that hold the operators of the list beside it",
    dynamic=True,
)
