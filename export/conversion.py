"""One conversion, whatever its converter is worth: what it prints is kept from the user's streams, what it wrote is looked at.

Converters have been seen to exit well and to write nothing, or files that their own runtime doesn't open. A conversion
therefore counts only once the file is there, holds something, and has been opened; whether its values are right is for the
verification to say, which runs what `open_converted` returns.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from ..models.errors import CheckFailed, MixbenchError, first_line
from .quiet import quiet
from .targets.base import Runner, Target

if TYPE_CHECKING:
    from onnx import ModelProto

    from .source import Source

_LAST_WORDS = 300
"""Characters of a converter's own output that an error repeats."""


def convert(name: str, target: Target, source: "Source", model: "ModelProto", folder: Path) -> Path:
    """Convert in an empty folder.

    Returns:
        The main file, or the folder that the format is; side files lie beside it and bear its stem.

    Raises:
        CheckFailed: when the converter raises, or wrote nothing.
        BadInput: when the format can't hold what was asked for, such as an open dimension.
    """
    with quiet() as text:
        try:
            path = target.convert(source, model, folder)
        except MixbenchError:
            raise
        except Exception as error:  # each converter has its own exceptions
            what = f"{source.name} does not convert to {name}: {first_line(error)}"
            raise CheckFailed(what, "--debug shows the traceback; `--to onnx` needs no converter") from error
        said = " ".join(text().split())[-_LAST_WORDS:]
    if not weight(path):
        what = f"the converter to {name} reports success and wrote nothing" + (f"; it last said: {said}" if said else "")
        raise CheckFailed(what, "this is a fault of the converter: try another version of it, or another target")
    return path


def open_converted(name: str, target: Target, path: Path, threads: int) -> Runner | None:
    """Open what `convert` wrote; None where no runtime of this machine can.

    Raises:
        CheckFailed: when the format's own runtime doesn't open it.
    """
    if target.open is None:
        return None
    with quiet():
        try:
            return target.open(path, threads)
        except Exception as error:  # each runtime has its own exceptions
            what = f"the converter to {name} wrote a file that {target.runtime()} doesn't open: {first_line(error)}"
            raise CheckFailed(what, "this is a fault of the converter: try another version of it, or another target") from error


def weight(path: Path) -> int:
    """Bytes of a file or of all files in a folder; 0 if there is none."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
