"""Two channels: stdout carries data, stderr carries talk. Progress shows on a terminal only, and only when it takes long."""

import gc
import io
import os
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import RenderableType

_PATIENCE_S = 2.0


def show(stream: TextIO, items: Iterable["RenderableType"]) -> None:
    """Draw for a person on a terminal; write plain, uncut lines, without padding, into pipes and files."""
    from rich.console import Console

    if stream.isatty() or os.environ.get("FORCE_COLOR"):
        screen = Console(file=stream, highlight=False)
        for item in items:
            screen.print(item)
        return
    buffer = io.StringIO()
    page = Console(file=buffer, highlight=False, width=10_000)
    for item in items:
        page.print(item)
    stream.writelines(f"{line.rstrip()}\n" for line in buffer.getvalue().splitlines())


def drop_stdout() -> None:
    """The reader of our stdout has gone (``| head``): let what is still to be written go nowhere, and quietly."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def quick_imports() -> Iterator[None]:
    """Import torch without the garbage collector going through it again and again: a tenth faster; then collect again."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()  # what was imported stays; no later collection need look at it
        gc.enable()


@contextmanager
def working(task: str) -> Iterator[None]:
    """Say what is being done once it has taken two seconds, on a terminal; gone when done."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.status import Status

    status = Status(task, console=Console(stderr=True))
    timer = threading.Timer(_PATIENCE_S, status.start)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        status.stop()
