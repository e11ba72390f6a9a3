"""Runs to learn ranges from and to measure on: a folder of images, arrays, a loader of the user's, or marked random numbers."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import ModelProto, helper

from ...models.errors import BadInput
from .records import CalibrationSource
from .sources.arrays import read_arrays
from .sources.images import read_images
from .sources.loader import run_loader

Feeds = dict[str, np.ndarray]

MOST = 128
"""Samples that are used, evenly spread over what there is."""
_ENOUGH = 8
_EVERY = 4


@dataclass(frozen=True, slots=True)
class Input:
    """An input as the file declares it: None for a dimension that is open."""

    name: str
    shape: tuple[int | None, ...]
    dtype: np.dtype


@dataclass(frozen=True, slots=True)
class Samples:
    """Runs by what they are for, and where they came from."""

    calibration: tuple[Feeds, ...]
    evaluation: tuple[Feeds, ...]
    source: CalibrationSource


def inputs_of(model: ModelProto) -> tuple[Input, ...]:
    """What a graph takes, without its constants."""
    constants = {item.name for item in model.graph.initializer}
    return tuple(
        Input(
            item.name,
            tuple(d.dim_value if d.HasField("dim_value") else None for d in item.type.tensor_type.shape.dim),
            helper.tensor_dtype_to_np_dtype(item.type.tensor_type.elem_type),
        )
        for item in model.graph.input
        if item.name not in constants
    )


def collect(words: str, model: ModelProto, examples: Mapping[str, np.ndarray]) -> Samples:
    """The samples that ``--calibrate`` names.

    Args:
        words: a folder of images, a file.npz, ``file.py:callable``, or ``random``.
        model: the float32 graph; images are prepared as its metadata says.
        examples: one run's inputs, which random numbers take their form from.

    Raises:
        BadInput: when there is no such thing, or what is in it doesn't fit the model's inputs.
    """
    inputs = inputs_of(model)
    path = Path(words)
    if words == "random":
        kind, feeds = "random", _random(inputs, examples)
    elif path.is_dir():
        kind, feeds = "images", read_images(path, inputs, {entry.key: entry.value for entry in model.metadata_props}, MOST)
    elif path.suffix == ".npz":
        kind, feeds = "arrays", read_arrays(path, inputs, MOST)
    elif ":" in words:
        kind, feeds = "loader", run_loader(words, inputs, MOST)
    else:
        what = f"--calibrate {words!r} is no folder, and names no data"
        raise BadInput(what, "give a folder of images, a file.npz, file.py:callable, or random, which is marked in the file")
    return split(feeds, kind, path.resolve().name if path.exists() else path.name)


def of_examples(feeds: Sequence[Mapping[str, np.ndarray]]) -> Samples:
    """Samples for a precision that needs no calibration: the runs that the file was verified with."""
    return split([dict(item) for item in feeds], "examples", "the inputs of the verification")


def split(feeds: Sequence[Feeds], kind: str, name: str) -> Samples:
    """Hold every fourth run back for the evaluation, from eight on; fewer serve both."""
    assert feeds, "every source has looked"
    enough = len(feeds) >= _ENOUGH
    evaluation = [item for place, item in enumerate(feeds) if place % _EVERY == _EVERY - 1] if enough else feeds
    calibration = [item for place, item in enumerate(feeds) if place % _EVERY != _EVERY - 1] if enough else feeds
    source = CalibrationSource(kind, name, digest(feeds), len(calibration), len(evaluation), enough)
    return Samples(tuple(calibration), tuple(evaluation), source)


def digest(feeds: Iterable[Mapping[str, np.ndarray]]) -> str:
    """SHA-256 over names, types, shapes and values in order, so that the same data has the same sum wherever it came from."""
    total = hashlib.sha256()
    for item in feeds:
        for name, value in sorted(item.items()):
            total.update(f"{name} {value.dtype.str} {value.shape}\n".encode())
            total.update(np.ascontiguousarray(value).tobytes())
    return total.hexdigest()


def _random(inputs: Sequence[Input], examples: Mapping[str, np.ndarray]) -> list[Feeds]:
    """Normal numbers, and integers from the example's range; with a generator of their own, the same every time."""
    generator = np.random.Generator(np.random.PCG64(0))
    feeds = []
    for _ in range(2 * _ENOUGH):
        item: Feeds = {}
        for wanted in inputs:
            example = examples[wanted.name]
            if wanted.dtype.kind == "f":
                item[wanted.name] = generator.standard_normal(example.shape).astype(wanted.dtype)
            elif wanted.dtype.kind in "iu":
                high = int(example.max(initial=0))
                item[wanted.name] = generator.integers(0, high, example.shape, endpoint=True).astype(wanted.dtype)
            else:
                item[wanted.name] = example
        feeds.append(item)
    return feeds
