"""Calibration data from a NumPy archive whose arrays have the names of the inputs."""

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ....models.errors import BadInput, first_line
from .check import runs, spread

if TYPE_CHECKING:
    from ..calibration import Input


def read_arrays(path: Path, inputs: Sequence["Input"], most: int) -> list[dict[str, np.ndarray]]:
    """At most so many runs; pickled objects are refused, since loading them runs whatever they say.

    Raises:
        BadInput: when the file is missing or broken, or its arrays don't fit the inputs.
    """
    if not path.is_file():
        raise BadInput(f"there is no file {str(path)!r}", "check the path of --calibrate")
    names = [item.name for item in inputs]
    try:
        with path.open("rb") as file:  # NumPy leaves it open where it is no archive
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("it is one array without a name, and no archive")
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        hint = "write it by numpy.savez(FILE, " + ", ".join(f"{name}=..." for name in names) + "), without objects"
        raise BadInput(f"{str(path)!r} can't be read as arrays: {first_line(error)}", hint) from error
    if set(arrays) != set(names):
        what = f"{str(path)!r} holds {_listed(arrays)}, and the model takes {_listed(names)}"
        raise BadInput(what, "name one array after each input")
    cut = {item.name: list(runs(item, arrays[item.name], f"{item.name!r} in {path.name}")) for item in inputs}
    lengths = {name: len(found) for name, found in cut.items()}
    if len(set(lengths.values())) > 1:
        what = f"{str(path)!r} has " + ", ".join(f"{count} runs of {name!r}" for name, count in lengths.items())
        raise BadInput(what, "give as many of each")
    places = spread(next(iter(lengths.values())), most)
    return [{name: np.ascontiguousarray(found[place]) for name, found in cut.items()} for place in places]


def _listed(names: "Sequence[str] | dict[str, np.ndarray]") -> str:
    return ", ".join(map(repr, sorted(names))) or "nothing"
