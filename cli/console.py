"""Two channels: stdout carries data, stderr carries talk. Progress shows on a terminal only, and only when it takes long."""

import gc
import io
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
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


def silence() -> None:
    """Say nothing more, on either channel: another process speaks for this one."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(nothing, stream.fileno())


@contextmanager
def quick_imports() -> Iterator[None]:
    """Import torch without the garbage collector going through it again and again: a tenth faster; then collect again."""
    gc.disable()
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # stderr is ours; torch's C++ part notes there what concerns nobody
    try:
        yield
    finally:
        gc.freeze()  # what was imported stays; no later collection need look at it
        gc.enable()


@contextmanager
def working(task: str) -> Iterator[None]:
    """Say what is being done once it has taken two seconds, on a terminal; gone when done."""
    with stages(task):
        yield


@contextmanager
def stages(task: str) -> Iterator[Callable[[str], None]]:
    """As `working`, for work that goes through several stages: the callable is told of the next one.

    What others write to stderr meanwhile may be caught; this is drawn through a copy of it.
    """
    if not sys.stderr.isatty():
        yield lambda text: None
        return
    from rich.console import Console
    from rich.live import Live
    from rich.spinner import Spinner
    from rich.text import Text

    with os.fdopen(os.dup(sys.stderr.fileno()), "w", encoding=sys.stderr.encoding) as screen:
        spinner = Spinner("dots", Text(task))
        live = Live(
            spinner,
            console=Console(file=screen),
            refresh_per_second=12.5,
            transient=True,
            redirect_stdout=False,  # left to itself it would also draw what others write
            redirect_stderr=False,
        )
        timer = threading.Timer(_PATIENCE_S, live.start)
        timer.daemon = True
        timer.start()
        try:
            yield lambda text: spinner.update(text=Text(text))
        finally:
            timer.cancel()
            live.stop()


@contextmanager
def bar(task: str) -> Iterator[Callable[[str, float], None]]:
    """A progress bar that appears after two seconds, on a terminal; gone when done. It is given what is done, and the share."""
    if not sys.stderr.isatty():
        yield lambda text, share: None
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    # No thread of its own draws it: nothing may run beside what is being timed.
    progress = Progress(*columns, console=Console(stderr=True), transient=True, auto_refresh=False)
    number = progress.add_task(escape(task), total=1.0)
    begin = time.monotonic()

    def update(text: str, share: float) -> None:
        progress.update(number, description=escape(text), completed=share)
        if time.monotonic() - begin > _PATIENCE_S:
            progress.start()
            progress.refresh()

    try:
        yield update
    finally:
        progress.stop()
