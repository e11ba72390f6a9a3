"""Open dimensions: which ones the user's words mean, and whether they are still open in the file."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from ..models.dims import usual_names
from ..models.errors import BadInput

if TYPE_CHECKING:
    from onnx import ModelProto

Dynamic = dict[str, dict[int, str]]
WORDS = ("batch", "height", "width", "seq")


def open_dimensions(words: Sequence[str], inputs: Mapping[str, Tensor]) -> Dynamic:
    """Find the dimensions that words name.

    What they mean says `models.dims.usual_names`; a ``batch`` is one only where an input has it in common with the first one.
    For anything else ``INPUT.DIMENSION=WORD`` says it, such as ``mask.2=seq``; dimensions count from 0.

    Raises:
        BadInput: on a word that fits no input, or a place that is none.
    """
    found: Dynamic = {}
    for word in words:
        place, explicit, name = word.rpartition("=")
        places = [_explicit(word, place, inputs)] if explicit else list(_meant(word, inputs))
        for input, dimension in places:
            found.setdefault(input, {})[dimension] = name if explicit else word
    return {name: dict(sorted(found[name].items())) for name in inputs if name in found}


def _explicit(word: str, place: str, inputs: Mapping[str, Tensor]) -> tuple[str, int]:
    name, _, number = place.rpartition(".")
    if not word.rpartition("=")[2].isidentifier() or name not in inputs or not number.isdecimal():
        raise BadInput(f"--dynamic {word!r} is not INPUT.DIMENSION=NAME", f"inputs: {_described(inputs)}")
    if int(number) >= inputs[name].ndim:
        raise BadInput(f"--dynamic {word!r}: {name} has {inputs[name].ndim} dimensions, counted from 0", _described(inputs))
    return name, int(number)


def _meant(word: str, inputs: Mapping[str, Tensor]) -> Iterator[tuple[str, int]]:
    if word not in WORDS:
        raise BadInput(f"--dynamic knows no {word!r}", f"one of {', '.join(WORDS)}, or INPUT.DIMENSION=NAME, such as x.2=seq")
    count = next(iter(inputs.values())).shape[:1]
    usual = {name: usual_names(tensor.ndim, tensor.is_floating_point()) for name, tensor in inputs.items()}
    found = [(name, names.index(word)) for name, names in usual.items() if word in names]
    if word == "batch":
        found = [(name, place) for name, place in found if inputs[name].shape[:1] == count]
    if not found:
        hint = f"say which dimension it is: --dynamic INPUT.DIMENSION={word}; inputs: {_described(inputs)}"
        raise BadInput(f"no input has a {word}", hint)
    yield from found


def _described(inputs: Mapping[str, Tensor]) -> str:
    return ", ".join(f"{name} {'x'.join(map(str, tensor.shape)) or 'scalar'}" for name, tensor in inputs.items())


def check_open(model: "ModelProto", dynamic: Mapping[str, Mapping[int, str]]) -> None:
    """Read the open dimensions back from a graph, and give those the user's names that the exporter has renamed.

    Raises:
        BadInput: when one was fixed to a number on the way.
    """
    renamed: dict[str, str] = {}
    for value in model.graph.input:
        for place, word in dynamic.get(value.name, {}).items():
            dimension = value.type.tensor_type.shape.dim[place]
            if not dimension.dim_param:
                what = f"{word} (dimension {place} of {value.name}) was fixed to {dimension.dim_value} on the way"
                hint = (
                    "forward turns that size into a number, such as in a loop over int(x.shape[0]); leave it out of --dynamic"
                )
                raise BadInput(what, hint)
            renamed[dimension.dim_param] = word
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param in renamed:
                dimension.dim_param = renamed[dimension.dim_param]


def open_results(model: "ModelProto", seen: Sequence[tuple[Mapping[str, int], Sequence[tuple[int, ...]]]]) -> None:
    """Open the dimensions of results that change with the user's, where the exporter declares the example's size.

    It does so for operators such as an LSTM. A dimension that is as large as one of the user's at all sizes bears that name.

    Args:
        seen: sizes of all open dimensions, and the shapes that the model's results have with them.
    """
    for place, value in enumerate(model.graph.output):
        declared = value.type.tensor_type.shape.dim
        shapes = [(sizes, results[place]) for sizes, results in seen]
        if any(len(shape) != len(declared) for _, shape in shapes):
            continue
        for axis, dimension in enumerate(declared):
            if not dimension.dim_param and len({shape[axis] for _, shape in shapes}) > 1:
                names = [name for name in shapes[0][0] if all(sizes[name] == shape[axis] for sizes, shape in shapes)]
                dimension.dim_param = names[0] if len(names) == 1 else f"{value.name}_{axis}"
