"""ExecuTorch's program format, its convolutions, products and elementwise work handed to XNNPACK where XNNPACK takes them.

The program is captured from the module itself, so no ONNX graph stands between. What XNNPACK doesn't take, such as gathers,
runs on ExecuTorch's portable kernels, which are slow.
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
    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    from ._capture import capture

    with torch.no_grad():
        program = torch.export.export(capture(source), tuple(source.inputs.values()))
        lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()]).to_executorch()
    path = folder / "model.pte"
    path.write_bytes(lowered.buffer)
    return path


def _open(path: Path, threads: int) -> Runner:
    import torch
    from executorch.extension.pybindings import portable_lib
    from executorch.runtime import Runtime

    portable_lib._unsafe_reset_threadpool(threads)  # unsafe while a program runs; the only way there is from Python
    method = Runtime.get().load_program(path).load_method("forward")

    def run(inputs: "Mapping[str, np.ndarray]") -> "Sequence[np.ndarray]":
        return [result.numpy() for result in method.execute([torch.from_numpy(value) for value in inputs.values()])]

    return run


TARGET = Target(
    title="ExecuTorch program with XNNPACK",
    suffix=".pte",
    needs=("executorch",),
    extra="executorch",
    convert=_convert,
    open=_open,
    runtime=lambda: f"ExecuTorch {version('executorch')}, XNNPACK",
    portable="Android, iOS, Linux, macOS, Windows, microcontrollers without XNNPACK",
)
