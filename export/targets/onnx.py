"""ONNX, the format that most runtimes read: one file, or beyond protobuf's 2 GB one with its weights beside it."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ...models.errors import CheckFailed, first_line
from .base import Runner, Target

if TYPE_CHECKING:
    import numpy as np
    from onnx import ModelProto

    from ..source import Source

_ALIGNMENT = 4096
"""So that a runtime can map the weights into memory instead of reading them."""
_BESIDE_FROM = 1024
"""Smaller constants stay in the graph: shapes and axes have to be known to whoever reads that alone."""


def convert(source: "Source", model: "ModelProto", folder: Path) -> Path:
    """Write the graph, deterministically; weights that make it too large for one file go beside it.

    The name of that file is the hash of what is in it. So a graph never meets another's weights, whenever a replacement of
    both is cut off, and a name relative to the folder is all that is recorded.
    """
    import onnx

    from .. import graph

    path = folder / "model.onnx"
    if graph.weight_bytes(model) <= graph.LIMIT_BYTES:
        path.write_bytes(model.SerializeToString(deterministic=True))
    else:
        _write_apart(model, path)
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except Exception as error:
        raise CheckFailed(
            f"the file does not pass ONNX's own checker: {first_line(error)}", "this is a bug: please report it"
        ) from error
    return path


def _write_apart(model: "ModelProto", path: Path) -> None:
    from onnx import StringStringEntryProto, TensorProto

    apart = [tensor for tensor in model.graph.initializer if len(tensor.raw_data) >= _BESIDE_FROM]
    kept, places = [tensor.raw_data for tensor in apart], []
    digest, end = hashlib.sha256(), 0
    with path.with_name("weights").open("wb") as beside:
        for raw in kept:
            gap = bytes(-end % _ALIGNMENT)
            for part in (gap, raw):
                beside.write(part)
                digest.update(part)
            places.append(end + len(gap))
            end = places[-1] + len(raw)
    name = f"weights-{digest.hexdigest()[:16]}.data"
    path.with_name("weights").rename(path.with_name(name))
    try:
        for tensor, raw, offset in zip(apart, kept, places, strict=True):
            entries = {"location": name, "offset": str(offset), "length": str(len(raw))}
            tensor.external_data.extend(StringStringEntryProto(key=key, value=value) for key, value in entries.items())
            tensor.data_location = TensorProto.EXTERNAL
            tensor.ClearField("raw_data")
        path.write_bytes(model.SerializeToString(deterministic=True))
    finally:  # the graph is still wanted, by other targets
        for tensor, raw in zip(apart, kept, strict=True):
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")
            tensor.raw_data = raw


def open_session(path: Path, threads: int, optimise: bool = True) -> Runner:
    """Open a file with ONNX Runtime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised
    options.intra_op_num_threads = threads
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    known = {item.name for item in session.get_inputs()}

    def run(feeds: "Mapping[str, np.ndarray]") -> "Sequence[np.ndarray]":
        found: Sequence[np.ndarray] = session.run(None, {name: value for name, value in feeds.items() if name in known})
        return found

    return run


def _runtime() -> str:
    import onnxruntime

    return f"ONNX Runtime {onnxruntime.__version__}, CPU"


TARGET = Target(
    title="ONNX",
    suffix=".onnx",
    needs=("onnx", "onnxruntime"),
    extra="",
    convert=convert,
    open=open_session,
    runtime=_runtime,
    portable="ONNX Runtime (Linux, macOS, Windows, Android, iOS, browsers), OpenVINO, TensorRT",
    dynamic=True,
)
