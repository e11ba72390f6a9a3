"""The converters talk, set up logging for the whole process, and put folders on Python's path: nothing of it remains."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from ..quiet import quiet


@contextmanager
def hushed() -> Iterator[None]:
    """Run somebody else's converter in silence, and leave the process as it was."""
    root, path = logging.getLogger(), list(sys.path)
    handlers = root.handlers[:]
    root.handlers[:] = [logging.NullHandler()]  # without one `logging.warning` sets up one that prints, for good
    try:
        with quiet():
            yield
    finally:
        root.handlers[:] = handlers
        sys.path[:] = path
