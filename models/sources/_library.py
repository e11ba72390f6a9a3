"""What sources that are libraries share: importing one that may not fit torch, and naming what it has."""

import warnings
from collections.abc import Iterable
from importlib import import_module
from types import ModuleType
from typing import Any

from ..errors import BadInput, CannotMeasure, first_line
from ..versions import versions


def imported(name: str) -> ModuleType:
    """The library, which is installed.

    Raises:
        CannotMeasure: when it fails to import, as one whose binary was made for another torch does.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its own affairs
            return import_module(name)
    except Exception as error:
        found = " and ".join(f"{package} {number}" for package, number in versions("torch", "torchvision").items())
        what = f"{name} fails to import: {first_line(error)}"
        hint = f"they may not fit each other: {found.partition(' and ')[2]}; install torch and torchvision together"
        raise CannotMeasure(what, hint) from error


def unknown(library: str, name: str, known: Iterable[str], listing: str) -> BadInput:
    """The error for a model that the library doesn't have, with the nearest names."""
    import difflib

    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return BadInput(f"{library} has no model {name!r}", f"did you mean {' or '.join(near)}? {listing}" if near else listing)


def refuse_weights(words: str, settings: dict[str, Any], names: Iterable[str]) -> None:
    """Refuse settings by which a library would fetch weights.

    Raises:
        BadInput: when one is there and asks for some.
    """
    if asked := [name for name in names if settings.get(name) not in (None, False, "")]:
        raise BadInput(
            f"{words} is built without weights, and --kwarg {asked[0]} asks for some", "--weights FILE loads a checkpoint"
        )
