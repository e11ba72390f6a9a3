"""What an ONNX graph runs on: its inputs as the file describes them, every open dimension filled."""

from collections.abc import Sequence
from pathlib import Path

import onnx
from onnx import helper

from ..models.errors import BadInput
from ..models.spec import TensorSpec, Workload
from .onnx_graph import Value

_NO_NUMBERS = (onnx.TensorProto.UNDEFINED, onnx.TensorProto.STRING)
Described = Sequence[int | str]
"""A shape whose open dimensions are names, empty where the file has none."""


def graph_inputs(path: Path, graph: onnx.GraphProto, workload: Workload) -> dict[str, Value]:
    """The graph's inputs by name. Dimensions that share a name have one size.

    Args:
        workload: ``inputs`` give shapes by name, or without names in the file's order; ``batch`` fills the first dimensions.

    Raises:
        BadInput: when a dimension stays open, or what is given does not fit the file.
    """
    constants = {item.name for item in graph.initializer}
    described = {item.name: item.type for item in graph.input if item.name not in constants}
    given = _by_name(path, list(described), workload.inputs)
    shapes = {name: _described(path, name, kind) for name, kind in described.items()}
    asked = {
        (name, place): _asked(path, name, shape, place, given.get(name), workload.batch)
        for name, shape in shapes.items()
        for place in range(len(shape))
    }
    sizes: dict[str, int] = {}
    for (name, place), size in asked.items():
        called = shapes[name][place]
        if size and isinstance(called, str) and called and sizes.setdefault(called, size) != size:
            what = f"{called!r} of {str(path)!r} can't be {sizes[called]} and {size}"
            raise BadInput(what, "dimensions with one name have one size")
    values = {}
    for name, shape in shapes.items():
        filled = []
        for place, wanted in enumerate(shape):
            known = wanted if isinstance(wanted, int) else asked[name, place] or sizes.get(wanted, 0)
            if not known:
                raise BadInput(_open(path, name, place, wanted), _example(name, shape, place))
            filled.append(known)
        values[name] = Value(described[name].tensor_type.elem_type, tuple(filled))
    return values


def specs_of(values: dict[str, Value]) -> tuple[TensorSpec, ...]:
    """The inputs as the record has them."""
    return tuple(TensorSpec(value.shape, _dtype(value), name) for name, value in values.items())


def _dtype(value: Value) -> str:
    return "" if value.kind == onnx.TensorProto.FLOAT else str(helper.tensor_dtype_to_np_dtype(value.kind))


def _by_name(path: Path, names: Sequence[str], inputs: Sequence[TensorSpec]) -> dict[str, TensorSpec]:
    named = {item.name: item for item in inputs if item.name}
    rest = [name for name in names if name not in named]
    nameless = [item for item in inputs if not item.name]
    hint = f"its inputs: {', '.join(names)}"
    if unknown := [name for name in named if name not in names]:
        raise BadInput(f"{str(path)!r} has no input {unknown[0]!r}", hint)
    if len(nameless) > len(rest):
        raise BadInput(f"{len(inputs)} inputs are given, {str(path)!r} takes {len(names)}", hint)
    return named | dict(zip(rest, nameless, strict=False))


def _described(path: Path, name: str, kind: onnx.TypeProto) -> Described:
    tensor = kind.tensor_type
    known = tensor.elem_type in onnx.TensorProto.DataType.values() and tensor.elem_type not in _NO_NUMBERS
    if not kind.HasField("tensor_type") or not known or not tensor.HasField("shape"):
        raise BadInput(
            f"input {name!r} of {str(path)!r} is no tensor of numbers with a rank", "count another form of the model"
        )
    return [
        item.dim_value if item.HasField("dim_value") and item.dim_value >= 0 else item.dim_param for item in tensor.shape.dim
    ]


def _asked(path: Path, name: str, shape: Described, place: int, spec: TensorSpec | None, batch: int | None) -> int:
    """The size that the user gives a dimension, 0 for none; it has to be the file's own where that is fixed."""
    if spec is not None and len(spec.shape) != len(shape):
        raise BadInput(f"input {name!r} is {_words(shape)}, not {'x'.join(map(str, spec.shape))}", "? may be any size")
    asked = (batch if place == 0 else None) or (spec.shape[place] if spec is not None else 0)
    size = shape[place]
    if not isinstance(size, int) or asked in (0, size):
        return asked
    if place == 0 and batch is not None:
        hint = "leave --batch out, or export with an open batch"
        raise BadInput(f"input {name!r} of {str(path)!r} is fixed to a batch of {size}", hint)
    assert spec is not None, "only a batch or a shape asks for a size"
    raise BadInput(f"input {name!r} is {_words(shape)}, not {'x'.join(map(str, spec.shape))}", "? may be any size")


def _words(shape: Described) -> str:
    return "x".join(str(size) if isinstance(size, int) else "?" for size in shape) or "scalar"


def _open(path: Path, name: str, place: int, size: int | str) -> str:
    called = f", {size!r}," if size else ""
    return f"dimension {place}{called} of input {name!r} of {str(path)!r} is open"


def _example(name: str, shape: Described, place: int) -> str:
    shown = "x".join(str(size) if isinstance(size, int) else (size or "N").upper() for size in shape)
    batch = "--batch N, or " if place == 0 else ""
    return f"give its size: {batch}--input {name}={shown} with numbers for the words"
