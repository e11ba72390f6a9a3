"""An ONNX file as a `Subject`: what ONNX Runtime makes of it is timed by the same method as PyTorch's models."""

from pathlib import Path

from ..models.errors import BadInput
from ..models.spec import Workload
from .onnx_session import open_onnx
from .subject import Subject


def onnx_subject(path: Path, workload: Workload, threads: int | None) -> Subject:
    """A session on the CPU with inputs made from the file's description, seeded.

    Args:
        workload: ``batch`` fills an open first dimension, ``inputs`` the other open ones; the dtype is the file's own.
        threads: of one operator, as for PyTorch's models.

    Raises:
        BadInput: when the file can't be opened or the workload does not fit it.
    """
    if workload.mode == "train":
        raise BadInput(f"{str(path)!r} is for inference and can't be trained", "leave --train out, or name a PyTorch model")
    session, feeds = open_onnx(path, workload.batch, workload.inputs, threads, workload.seed)
    run = session.run
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
    )
