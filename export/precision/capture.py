"""The converters talk on stdout, on the root logger and from C++, and put folders on Python's path: nothing of it gets out."""

import io
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout


class _Listener(logging.Handler):
    """Keeps messages and prints none; its presence stops `logging.warning` from setting up a handler that prints."""

    def __init__(self, heard: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._heard = heard

    def emit(self, record: logging.LogRecord) -> None:
        self._heard.append(record.getMessage())


@contextmanager
def captured() -> Iterator[list[str]]:
    """Run somebody else's converter in silence; what it warned of is in the list afterwards."""
    import onnxruntime

    heard: list[str] = []
    root, path = logging.getLogger(), list(sys.path)
    handlers = root.handlers[:]
    root.handlers[:] = [_Listener(heard)]
    onnxruntime.set_default_logger_severity(3)  # errors only; there is no way to ask for the old value, which is 2 by default
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield heard
    finally:
        onnxruntime.set_default_logger_severity(2)
        root.handlers[:] = handlers
        sys.path[:] = path
