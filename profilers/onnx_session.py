"""An ONNX file as something that runs: a session of ONNX Runtime on the CPU, and inputs made from the file's description."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime

from ..models.dims import check_known, still_open
from ..models.errors import BadInput
from ..models.onnx_files import open_with, read_onnx
from ..models.spec import TensorSpec, Workload

Feeds = dict[str, np.ndarray]
Shape = tuple[int | str, ...]
"""Sizes, and the names of dimensions that are open."""
_FATAL_ONLY = 4
"""What goes wrong reaches the user as an exception; stderr is ours."""
_DTYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(int16)": "int16",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(bool)": "bool",
}


def open_onnx(
    path: Path,
    workload: Workload | None = None,
    threads: int | None = None,
    profile_to: Path | None = None,
) -> tuple[onnxruntime.InferenceSession, Feeds]:
    """Open an ONNX file with ONNX Runtime's CPU provider, and make inputs for it.

    Args:
        workload: ``inputs`` are shapes by name, or without names in the file's order, instead of the file's own; ``batch`` is
            for an open first dimension of each input, 1 if not given; ``dims`` are for dimensions of these names. The seed is
            that of the normal random numbers that float inputs get; integers are zeros, which index every table.
        threads: within one operator; ONNX Runtime's own choice if None.
        profile_to: the beginning of the file name for ONNX Runtime's profile; ``session.end_profiling()`` writes it.

    Returns:
        The session and what its ``run(None, feeds)`` takes.

    Raises:
        BadInput: when there is no such file, it is no ONNX model, the inputs don't fit its description, or a dimension that
            is no first one stays open.
    """
    read_onnx(path)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    if threads is not None:
        options.intra_op_num_threads = threads
    if profile_to is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile_to)
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise open_with(path, "ONNX Runtime", error) from error
    workload = workload or Workload()
    return session, _feeds(session, path, workload, np.random.default_rng(workload.seed))


def _feeds(
    session: onnxruntime.InferenceSession,
    path: Path,
    workload: Workload,
    generator: np.random.Generator,
) -> Feeds:
    described, inputs = session.get_inputs(), workload.inputs
    names = [item.name for item in described]
    given = dict(zip([name for name in names if all(name != item.name for item in inputs)], _nameless(inputs), strict=False))
    given |= {item.name: item for item in inputs if item.name}
    if unknown := [name for name in given if name not in names]:
        raise BadInput(f"{str(path)!r} has no input {unknown[0]!r}", f"its inputs: {', '.join(names)}")
    if len(given) < len(inputs):
        raise BadInput(f"{len(inputs)} inputs are given, {str(path)!r} takes {len(names)}", f"its inputs: {', '.join(names)}")
    shapes = {item.name: _named(item.name, item.shape) for item in described}
    check_known(str(path), dict(workload.dims), (size for shape in shapes.values() for size in shape if isinstance(size, str)))
    filled = {
        name: _shape(name, shape, workload) if name not in given else _checked(given[name], name, shape, workload)
        for name, shape in shapes.items()
    }
    if missing := {size: None for shape in filled.values() for size in shape if isinstance(size, str)}:
        raise still_open(str(path), missing)
    feeds = {}
    for item in described:
        if item.type not in _DTYPES:
            raise BadInput(f"input {item.name!r} of {str(path)!r} is a {item.type}", "only tensors of numbers can be made up")
        spec = given.get(item.name)
        dtype = np.dtype((spec.dtype if spec else "") or _DTYPES[item.type])
        is_float = np.issubdtype(dtype, np.floating)
        shape = tuple(map(int, filled[item.name]))  # none is a name any more
        feeds[item.name] = generator.standard_normal(shape).astype(dtype) if is_float else np.zeros(shape, dtype)
    return feeds


def _nameless(inputs: Sequence[TensorSpec]) -> list[TensorSpec]:
    return [item for item in inputs if not item.name]


def _named(name: str, described: Sequence[int | str | None]) -> Shape:
    """A described shape; an open dimension without a name is called by its input's and its number."""
    return tuple(size if isinstance(size, int) else size or f"{name}.{place}" for place, size in enumerate(described))


def _shape(name: str, described: Shape, workload: Workload) -> Shape:
    """The described shape, its open dimensions filled as far as is known."""
    batch, dims = workload.batch, dict(workload.dims)
    if described and isinstance(described[0], int) and batch not in (None, described[0]):
        raise BadInput(
            f"input {name!r} is fixed to a batch of {described[0]}", "leave --batch out, or export with an open batch"
        )
    sizes = [dims.get(size, size) if isinstance(size, str) else size for size in described]
    if sizes and isinstance(sizes[0], str):
        sizes[0] = batch or 1
    return tuple(sizes)


def _checked(spec: TensorSpec, name: str, described: Shape, workload: Workload) -> tuple[int, ...]:
    """The user's shape, if it fits the described one."""
    batch = workload.batch
    shape = spec.shape if batch is None else (batch, *spec.shape[1:])
    fits = len(shape) == len(described) and all(
        not isinstance(want, int) or want == size for want, size in zip(described, shape, strict=True)
    )
    if not fits:
        wanted = "x".join(str(size) if isinstance(size, int) else "?" for size in described)
        raise BadInput(f"input {name!r} is {wanted}, not {'x'.join(map(str, shape))}", "? may be any size")
    return shape
