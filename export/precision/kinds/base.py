"""A `Precision`: how a finished float32 graph becomes one of fewer bits, and which nodes can stay as they are."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from ....models.errors import BadInput

if TYPE_CHECKING:
    import numpy as np
    from onnx import ModelProto

    Feeds = Mapping[str, np.ndarray]
    """The inputs of one run by their names."""


def _itself(model: "ModelProto") -> "ModelProto":
    return model


@dataclass(frozen=True, slots=True)
class Prepared:
    """One graph after what all its conversions share, such as the ranges of its tensors.

    Attributes:
        convert: makes a graph in which the named nodes stay float32; the same names, the same bytes.
        candidates: names of the nodes that change, in the graph's order.
        must_keep: nodes that have to stay, with the reason of each.
        exact: given a converted graph, one that this machine computes in float32 and rounds where the converted one does.
    """

    convert: "Callable[[Collection[str]], ModelProto]"
    candidates: tuple[str, ...]
    must_keep: Mapping[str, str] = field(default_factory=dict)
    exact: "Callable[[ModelProto], ModelProto]" = _itself


@dataclass(frozen=True, slots=True)
class Precision:
    """What a precision's file assigns to ``PRECISION``.

    Attributes:
        title: activations and weights in words.
        calibrated: whether the ranges of its tensors come from data, so that the user has to say which.
        float_share: the largest part of the weights that may stay float32 before the name would be a lie.
        prepare: given the float32 graph and runs to learn from.
    """

    title: str
    calibrated: bool
    float_share: float
    prepare: "Callable[[ModelProto, Sequence[Feeds]], Prepared]"


def names() -> list[str]:
    """All precisions below float32, in alphabetical order."""
    return sorted({path.stem for path in Path(__file__).parent.glob("[!_]*.py")} - {"base"})


def find(name: str) -> Precision:
    """The precision of that name.

    Raises:
        BadInput: when there is none.
    """
    if name not in names():
        raise BadInput(f"no precision named {name!r}", f"one of fp32, {', '.join(names())}")
    precision: Precision = import_module(f".{name}", __package__).PRECISION
    return precision
