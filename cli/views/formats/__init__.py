"""What other tools read of a `CheckRun`: each file in this folder is a format, by its own name. Names cost no import.

A new format is one file with a ``FORMAT``. What `emit` writes of every record is there as well; a file here whose name is that
of such a format (Markdown) takes its place.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import cast

from ....models.errors import BadInput
from ....models.files import check_writable, write_whole
from ....profilers.runs.check_run import CheckRun
from ...keeping import Keeping, keep
from .. import check_view, emit

_FILES = {path.stem.replace("_", "-"): path.stem for path in sorted(Path(__file__).parent.glob("[!_]*.py"))}
_COMMON = {suffix: name for suffix, name in emit.SUFFIXES.items() if name not in _FILES}


@dataclass(frozen=True, slots=True)
class Format:
    """A way to write a check.

    Attributes:
        suffix: files with it are written so; of two that fit a name the longer one counts.
        summary: what reads it, in a few words.
        render: makes the text, with its last newline.
    """

    suffix: str
    summary: str
    render: Callable[[CheckRun], str]


@dataclass(frozen=True, slots=True)
class Order:
    """One thing to write: a format by its name, and the file, None for stdout."""

    name: str
    path: Path | None


def names() -> list[str]:
    """Every format."""
    return [*_COMMON.values(), *_FILES]


@cache
def suffixes() -> dict[str, str]:
    """Which format a file's name asks for."""
    return _COMMON | {find(name).suffix: name for name in _FILES}


def find(name: str) -> Format:
    """A format by its name.

    Raises:
        BadInput: when there is none, with the nearest as hint.
    """
    if name not in _FILES:
        import difflib

        near = difflib.get_close_matches(name, names(), n=1, cutoff=0.5)
        raise BadInput(
            f"no format named {name!r}", (f"did you mean {near[0]}? " if near else "") + f"one of {', '.join(names())}"
        )
    found: Format = import_module(f".{_FILES[name]}", __package__).FORMAT
    return found


def choose(asked: str | None, as_json: bool, as_csv: bool, outputs: Sequence[Path]) -> list[Order]:
    """What to write and where. What can't be written is refused before any work.

    Args:
        asked: the format for stdout, or for a file that doesn't say its own.
        outputs: files by their suffixes; ``-`` is stdout.

    Raises:
        BadInput: when these contradict each other, or a file can't be written.
    """
    flag = emit.flag(asked, as_json, as_csv)
    if flag and flag not in _COMMON.values():
        find(flag)
    files = [path for path in outputs if str(path) != "-"]
    orders = [Order(_by_name(path, flag), path) for path in files]
    for path in files:
        check_writable(path)
    if len({path.absolute() for path in files}) < len(files):
        raise BadInput("one file is named twice by -o", "each is written once")
    taken = flag is not None and flag in {order.name for order in orders}
    if not files or len(files) < len(outputs) or (flag and not taken):
        orders.insert(0, Order(flag or "table", None))
    return orders


def _by_name(path: Path, flag: str | None) -> str:
    name = emit.by_suffix(path, suffixes()) or flag
    if name is None:
        raise emit.unsaid(path, suffixes())
    return name


def write(run: CheckRun, orders: Sequence[Order], keeping: Keeping | None = None) -> None:
    """Write a check as ordered, each file whole, and keep it where that is asked for."""
    for order in orders:
        if order.name in _COMMON.values():
            how = cast("emit.Format", order.name)
            emit.emit(run, how, order.path, lambda: check_view.tables(run), lambda: check_view.rows(run))
        elif order.path is None:
            emit.put(find(order.name).render(run))
        else:
            write_whole(order.path, find(order.name).render(run))
    if keeping is not None:
        keep(keeping, run)
