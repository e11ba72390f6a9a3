"""One conversion, whatever its converter is worth: what it prints is kept from the user's streams, what it wrote is looked at.

Converters have been seen to exit well and to write nothing, or files that their own runtime doesn't open. A conversion
therefore counts only once the file is there, holds something, and has been opened; whether its values are right is for the
verification to say, which runs what `open_converted` returns.
"""

import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from ..models.errors import CannotMeasure, MixbenchError, first_line
from .targets.base import Runner, Target

if TYPE_CHECKING:
    from onnx import ModelProto

    from .source import Source

_LAST_WORDS = 300
"""Characters of a converter's own output that an error repeats."""


class BadConversion(MixbenchError):
    """A converter failed, or claims to have succeeded and has written no file that can be used."""

    exit_code = 1


def convert(name: str, target: Target, source: "Source", model: "ModelProto", folder: Path) -> Path:
    """Convert in an empty folder.

    Returns:
        The main file, or the folder that the format is; side files lie beside it and bear its stem.

    Raises:
        BadConversion: when the converter raises, or wrote nothing.
        BadInput: when the format can't hold what was asked for, such as an open dimension.
    """
    with captured() as log:
        try:
            path = target.convert(source, model, folder)
        except MixbenchError:
            raise
        except Exception as error:  # each converter has its own exceptions
            what = f"{source.name} does not convert to {name}: {first_line(error)}"
            raise BadConversion(what, "--debug shows the traceback; `--to onnx` needs no converter") from error
        said = _read_end(log)
    if not weight(path):
        what = f"the converter to {name} reports success and wrote nothing" + (f"; it last said: {said}" if said else "")
        raise BadConversion(what, "this is a fault of the converter: try another version of it, or another target")
    return path


def open_converted(name: str, target: Target, path: Path, threads: int) -> Runner | None:
    """Open what `convert` wrote; None where no runtime of this machine can.

    Raises:
        BadConversion: when the format's own runtime doesn't open it.
    """
    if target.open is None:
        return None
    with captured():
        try:
            return target.open(path, threads)
        except Exception as error:  # each runtime has its own exceptions
            what = f"the converter to {name} wrote a file that {target.runtime()} doesn't open: {first_line(error)}"
            raise BadConversion(what, "this is a fault of the converter: try another version of it, or another target") from error


def weight(path: Path) -> int:
    """Bytes of a file or of all files in a folder; 0 if there is none."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


@contextmanager
def captured() -> Iterator[IO[bytes]]:
    """Keep what anybody prints in this process, the C++ parts too, out of stdout and stderr; warnings as well.

    Yields:
        The file where it goes, gone afterwards.
    """
    with tempfile.TemporaryFile() as log, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        streams = (sys.stdout, sys.stderr)
        for stream in streams:
            stream.flush()
        kept = [os.dup(number) for number in (1, 2)]
        try:
            for number in (1, 2):
                os.dup2(log.fileno(), number)
            yield log
        finally:
            for stream in streams:
                stream.flush()
            for number, old in zip((1, 2), kept, strict=True):
                os.dup2(old, number)
                os.close(old)


def _read_end(log: IO[bytes]) -> str:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    log.seek(0)
    return " ".join(log.read().decode(errors="replace").split())[-_LAST_WORDS:]
