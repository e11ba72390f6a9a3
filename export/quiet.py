"""Other people's exporters print, log and warn: caught here, so that stdout stays data and stderr stays ours."""

import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[Callable[[], str]]:
    """Catch what this process writes to stdout and stderr, in C++ as well; the callable gives what came so far.

    Progress can still be drawn through a copy of stderr that was made before.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    kept = [os.dup(1), os.dup(2)]
    with tempfile.TemporaryFile() as caught, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number in (1, 2):
            os.dup2(caught.fileno(), number)

        def text() -> str:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            size = os.fstat(caught.fileno()).st_size
            return os.pread(caught.fileno(), size, 0).decode(errors="replace")

        try:
            yield text
        finally:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            for number, copy in zip((1, 2), kept, strict=True):
                os.dup2(copy, number)
                os.close(copy)
