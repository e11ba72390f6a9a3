"""OpenVINO's intermediate representation: a graph (.xml) with its weights beside it (.bin), in full precision."""

import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .base import Runner, Target

if TYPE_CHECKING:
    import numpy as np
    from onnx import ModelProto

    from ..source import Source


def _convert(source: "Source", model: "ModelProto", folder: Path) -> Path:
    openvino = _import_openvino()
    graph = openvino.Core().read_model(model=model.SerializeToString(deterministic=True), weights=b"")
    for key, value in source.metadata.items():
        graph.set_rt_info(value, ["mixbench", key])
    path = folder / "model.xml"
    openvino.save_model(graph, str(path), compress_to_fp16=False)
    return path


def _open(path: Path, threads: int) -> Runner:
    openvino = _import_openvino()
    core = openvino.Core()
    # Some processors would compute in bfloat16 unasked.
    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(str(path)), "CPU", settings)

    def run(inputs: "Mapping[str, np.ndarray]") -> "Sequence[np.ndarray]":
        results = compiled(dict(inputs))
        return [results[output] for output in compiled.outputs]

    return run


def _import_openvino() -> Any:
    """Import it without the package by which its mere import tells its makers so, and which writes into the home folder."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type] # None makes the import fail, which it expects
    import openvino

    return openvino


TARGET = Target(
    title="OpenVINO IR, for Intel's processors",
    suffix=".xml",
    needs=("openvino",),
    extra="openvino",
    convert=_convert,
    open=_open,
    runtime=lambda: f"OpenVINO {version('openvino')}, CPU",
    portable="CPUs, GPUs and NPUs of Intel, CPUs of ARM",
    dynamic=True,
)
