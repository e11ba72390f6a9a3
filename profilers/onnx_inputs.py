"""What an ONNX graph runs on: its inputs as the file describes them, every open dimension filled."""

from collections.abc import Sequence
from pathlib import Path

import onnx
from onnx import helper

from ..models.dims import check_known, still_open
from ..models.errors import BadInput
from ..models.spec import TensorSpec, Workload
from .onnx_graph import Value

_NO_NUMBERS = (onnx.TensorProto.UNDEFINED, onnx.TensorProto.STRING)
Described = Sequence[int | str]
"""A shape whose open dimensions are names."""


def graph_inputs(path: Path, graph: onnx.GraphProto, workload: Workload) -> dict[str, Value]:
    """The graph's inputs by name. Dimensions that share a name have one size.

    Args:
        workload: ``inputs`` give shapes by name, or without names in the file's order; ``batch`` fills the first dimensions,
            ``dims`` those of a name, which is the input's and the dimension's number, such as ``x.1``, where the file has none.

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
    sizes = dict(workload.dims)
    check_known(str(path), sizes, (size for shape in shapes.values() for size in shape if isinstance(size, str)))
    for (name, place), size in asked.items():
        called = shapes[name][place]
        if size and isinstance(called, str) and sizes.setdefault(called, size) != size:
            what = f"{called!r} of {str(path)!r} can't be {sizes[called]} and {size}"
            raise BadInput(what, "dimensions with one name have one size")
    named = [size for shape in shapes.values() for size in shape if isinstance(size, str)]
    if missing := {size: None for size in named if size not in sizes}:
        raise still_open(str(path), missing)
    return {
        name: Value(
            described[name].tensor_type.elem_type,
            tuple(size if isinstance(size, int) else sizes[size] for size in shape),
        )
        for name, shape in shapes.items()
    }


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
        item.dim_value if item.HasField("dim_value") and item.dim_value >= 0 else item.dim_param or f"{name}.{place}"
        for place, item in enumerate(tensor.shape.dim)
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
