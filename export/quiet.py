"""Other people's exporters print, log and warn: caught here, so that stdout stays data and stderr stays ours."""

import io
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO


@contextmanager
def quiet() -> Iterator[Callable[[], str]]:
    """Catch what this process writes to stdout and stderr, in C++ as well; the callable gives what came so far.

    Python's streams are caught too where they are not the process's own, as in a notebook. Progress can still be drawn through
    a copy of stderr that was made before.
    """
    before = sys.stdout, sys.stderr
    _flush(*before)
    kept = [os.dup(1), os.dup(2)]
    with tempfile.TemporaryFile() as caught, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number in (1, 2):
            os.dup2(caught.fileno(), number)
        stand_ins = [_StandIn(stream, number) for number, stream in enumerate(before, 1)]
        inside = [stream if _is_own(stream, stand.number) else stand for stream, stand in zip(before, stand_ins, strict=True)]

        def text() -> str:
            _flush(*before)
            size = os.fstat(caught.fileno()).st_size
            return os.pread(caught.fileno(), size, 0).decode(errors="replace")

        try:
            sys.stdout, sys.stderr = inside
            yield text
        finally:
            sys.stdout, sys.stderr = before
            for stand in stand_ins:
                stand.number = 0
            _flush(*before)
            for number, copy in zip((1, 2), kept, strict=True):
                os.dup2(copy, number)
                os.close(copy)


class _StandIn(io.TextIOBase):
    """Writes to a file descriptor while it stands for a stream, and to that stream afterwards, for a log that has kept it."""

    def __init__(self, stream: TextIO, number: int) -> None:
        self.stream, self.number = stream, number

    def write(self, text: str) -> int:
        if not self.number:
            return self.stream.write(text)
        os.write(self.number, text.encode(errors="replace"))
        return len(text)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self.number or self.stream.fileno()


def _is_own(stream: TextIO, number: int) -> bool:
    try:
        return stream.fileno() == number
    except (OSError, ValueError):  # a stream in memory has none
        return False


def _flush(*streams: TextIO) -> None:
    for stream in streams:
        stream.flush()
