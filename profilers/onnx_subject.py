"""An ONNX file as a `Subject`: what ONNX Runtime makes of it is timed by the same method as PyTorch's models."""

from collections.abc import Mapping
from math import prod
from pathlib import Path

import numpy as np
from onnx import ModelProto, helper

from ..models.errors import BadInput
from ..models.onnx_files import read_onnx, tensors
from ..models.spec import TensorSpec, Workload
from .onnx_counter import count_model, is_quantised
from .onnx_inputs import graph_inputs
from .onnx_session import open_onnx
from .subject import Subject


def onnx_subject(path: Path, workload: Workload, threads: int | None) -> Subject:
    """A session on the CPU with inputs made from the file's description, seeded.

    Args:
        workload: what fills open dimensions, see `onnx_session.open_onnx`; the dtype is the file's own.
        threads: of one operator, as for PyTorch's models.

    Raises:
        BadInput: when the file can't be opened or the workload does not fit it.
    """
    if workload.mode == "train":
        raise BadInput(f"{str(path)!r} is for inference and can't be trained", "leave --train out, or name a PyTorch model")
    session, feeds = open_onnx(path, workload, threads)
    run, model = session.run, read_onnx(path)
    shapes = [f"{name}={'x'.join(map(str, value.shape)) or 'scalar'}:{value.dtype}" for name, value in feeds.items()]
    first = next(iter(feeds.values()), None)
    ids = next((value for value in feeds.values() if value.dtype.kind == "i" and value.ndim == 2), None)
    return Subject(
        name=str(path),
        call=lambda: run(None, feeds),
        samples=first.shape[0] if first is not None and first.ndim else 1,
        tokens=ids.size if ids is not None else 0,
        runtime="onnxruntime",
        workload="; ".join(shapes),
        inputs=tuple(shapes),
        dtype=str(first.dtype) if first is not None else "",
        held_bytes=_weight_bytes(model) + sum(value.nbytes for value in feeds.values()),
        flops=_flops(path, model, feeds),
    )


def _flops(path: Path, model: ModelProto, feeds: Mapping[str, np.ndarray]) -> int | None:
    """Of one call; None where an operator has no rule, and for a file of integers, since the roof is that of float32."""
    if any(is_quantised(node.op_type) for node in model.graph.node):
        return None
    specs = tuple(TensorSpec(value.shape, str(value.dtype), name) for name, value in feeds.items())
    try:
        count = count_model(model, graph_inputs(path, model.graph, Workload(specs))).count
    except BadInput:  # what runs need not be described well enough to be counted
        return None
    return None if count.uncounted else count.totals.flops


def _weight_bytes(model: ModelProto) -> int:
    return sum(
        prod(tensor.dims) * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize for tensor in tensors(model.graph)
    )
