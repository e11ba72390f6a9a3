"""Calibration data from a function of the user's, ``file.py:callable``: it is called and gone through; nothing else is run."""

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from ....models.errors import BadInput, MixbenchError, first_line
from ....models.lookup import resolve
from .check import runs

if TYPE_CHECKING:
    from ..calibration import Input


def run_loader(words: str, inputs: Sequence["Input"], most: int) -> list[dict[str, np.ndarray]]:
    """The first so many runs that it gives: tensors or arrays, tuples of them in the inputs' order, or dicts by their names.

    Raises:
        BadInput: when there is no such function, it raises, or what it gives doesn't fit the inputs.
    """
    make = resolve(words).factory()
    feeds: list[dict[str, np.ndarray]] = []
    try:
        for number, item in enumerate(islice(make(), most)):
            feeds += _feeds(item, inputs, f"sample {number} of {words}")
            if len(feeds) >= most:
                break
    except MixbenchError:
        raise
    except Exception as error:
        hint = "it is called without arguments, and gone through; --debug shows the traceback"
        raise BadInput(f"the loader {words} raises {first_line(error)}", hint) from error
    if not feeds:
        raise BadInput(f"the loader {words} gives no samples", "let it yield inputs")
    return feeds[:most]


def _feeds(item: Any, inputs: Sequence["Input"], where: str) -> list[dict[str, np.ndarray]]:
    names = [wanted.name for wanted in inputs]
    if isinstance(item, Mapping):
        values = dict(item)
    elif isinstance(item, tuple | list):
        values = dict(zip(names, item, strict=False)) if len(item) == len(names) else {}
    else:
        values = {names[0]: item} if len(names) == 1 else {}
    if set(values) != set(names):
        form = f"a list of {len(item)}" if isinstance(item, tuple | list) else type(item).__name__
        given = f"a dict of {', '.join(map(repr, item))}" if isinstance(item, Mapping) else form
        what = f"{where} is {given}, and the model takes {', '.join(map(repr, names))}"
        raise BadInput(what, "yield a tensor for each input, or a dict by their names; no labels")
    cut = [list(runs(wanted, _array(values[wanted.name]), f"{wanted.name!r} of {where}")) for wanted in inputs]
    if len({len(found) for found in cut}) > 1:
        raise BadInput(f"{where} has batches of different lengths", "yield as many of each input")
    return [dict(zip(names, map(np.ascontiguousarray, found), strict=True)) for found in zip(*cut, strict=True)]


def _array(value: Any) -> np.ndarray:
    """A tensor or an array as an array; torch stays unmentioned, so that a loader without it needs none."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    return np.asarray(value)
