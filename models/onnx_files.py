"""Reading ``.onnx`` files that come from anywhere: nothing outside a file's own folder is ever opened for it."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

from .errors import BadInput, first_line

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, TensorProto


def read_onnx(path: Path) -> "ModelProto":
    """The model in a file, without the weights that lie beside it; these are checked to be there, and in the file's folder.

    Raises:
        BadInput: when there is no such file, it is no ONNX model, or its weights lie elsewhere, are missing or too short.
    """
    import onnx
    from google.protobuf.message import DecodeError

    if not path.is_file():
        raise BadInput(f"there is no file {str(path)!r}", "check the path; it is relative to the folder you are in")
    whole = "it has to be a whole ONNX model; export or download it again"
    try:
        model = onnx.load_model(str(path), load_external_data=False)
    except DecodeError as error:
        raise BadInput(f"{str(path)!r} is no ONNX model: it can't be decoded", whole) from error
    except OSError as error:
        raise BadInput(f"{str(path)!r} can't be read: {error.strerror}", "check its permissions") from error
    if not model.ir_version or not model.opset_import or not model.graph.output:
        raise BadInput(f"{str(path)!r} is no ONNX model: it has no version, operators or results", whole)
    for tensor in tensors(model.graph):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            _check_beside(path, tensor)
    return model


def open_with(path: Path, opener: str, error: Exception) -> BadInput:
    """What to say when a file that can be read is refused by who should run it."""
    hint = "it has to be a whole ONNX model that ONNX Runtime knows the operators of"
    return BadInput(f"{str(path)!r} is not opened by {opener}: {first_line(error)}", hint)


def tensors(graph: "GraphProto") -> Iterator["TensorProto"]:
    """Every constant of a graph and of the graphs inside its nodes."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for inner in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
                yield from tensors(inner)


def files_of(path: Path) -> list[Path]:
    """The file and those beside it that hold its weights.

    Raises:
        BadInput: as `read_onnx` does.
    """
    places = {
        entry.value for tensor in tensors(read_onnx(path).graph) for entry in tensor.external_data if entry.key == "location"
    }
    return [path, *sorted(path.parent / place for place in places)]


def _check_beside(path: Path, tensor: "TensorProto") -> None:
    """Refuse weights outside the folder of the file, through whatever path, and weights that are not there."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    what = f"{str(path)!r} keeps the weights {tensor.name!r} in {location!r}"
    folder = path.parent.resolve()
    beside = folder / location
    climbs = any(part == ".." for part in (*PurePosixPath(location).parts, *PureWindowsPath(location).parts))
    if not location or climbs or PurePosixPath(location).is_absolute() or PureWindowsPath(location).is_absolute():
        raise BadInput(f"{what}, outside its folder", "a model from elsewhere may not name files of yours; don't trust it")
    if any(part.is_symlink() for part in (beside, *beside.parents) if part.is_relative_to(folder) and part != folder):
        raise BadInput(f"{what}, a link out of which it could read any file", "put the file itself there")
    if not beside.is_file():
        raise BadInput(f"{what}, which is not there", "the two files belong together: copy both")
    try:
        end = int(entries.get("offset") or 0) + int(entries.get("length") or 0)
    except ValueError as error:
        raise BadInput(f"{what}, at a place that is no number", "export or download it again") from error
    if end > beside.stat().st_size:
        raise BadInput(f"{what}, which ends before they do", "the two files belong together: copy both again")
