"""Where a record becomes bytes: the format chosen and written in one place, whole or not at all."""

import csv
import io
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ...models.errors import BadInput
from ..console import drop_stdout, show

if TYPE_CHECKING:
    from rich.console import RenderableType

Format = Literal["table", "json", "csv", "html"]
Tables = Callable[[], Iterable["RenderableType"]]
Rows = Callable[[], Iterable[Mapping[str, Any]]]
Page = Callable[[], str]

_SUFFIXES: dict[str, Format] = {".json": "json", ".csv": "csv", ".txt": "table"}


def choose(as_json: bool, as_csv: bool, output: Path | None, page: bool = False) -> Format:
    """The format that the flags and the file's suffix ask for; a file that can't be written is refused before any work.

    Args:
        page: whether the command has an HTML page, which a file in .html asks for.

    Raises:
        BadInput: when they contradict each other, or the file can't be written.
    """
    if as_json and as_csv:
        raise BadInput("--json and --csv ask for two formats", "give one of them; --output FILE may ask for another run's")
    asked: Format | None = "json" if as_json else "csv" if as_csv else None
    if output is None or str(output) == "-":
        return asked or "table"
    check_writable(output)
    if asked:
        return asked
    if page and output.suffix == ".html":
        return "html"
    if output.suffix not in _SUFFIXES:
        raise BadInput(f"{str(output)!r} does not say its format", f"end it in {', '.join(_SUFFIXES)}, or add --json or --csv")
    return _SUFFIXES[output.suffix]


def check_writable(output: Path) -> None:
    if output.is_dir():
        raise BadInput(f"{str(output)!r} is a folder", "name a file in it")
    if not output.parent.is_dir():
        raise BadInput(f"there is no folder {str(output.parent)!r}", "make it first, or check the path of --output")
    if not os.access(output if output.exists() else output.parent, os.W_OK):
        raise BadInput(f"{str(output)!r} may not be written", "choose another place for --output")


def emit(record: Any, how: Format, output: Path | None, tables: Tables, rows: Rows, page: Page | None = None) -> None:
    """Write a record as JSON, or what its views make of it, to stdout or to a file.

    Args:
        record: a dataclass; its JSON is its fields.
        tables: makes what a person reads.
        rows: makes the lines of the CSV file, all with the same keys.
        page: makes the HTML page.
    """
    if how == "html" and page is not None and output is not None:
        write_whole(output, page())
    elif output is None or str(output) == "-":
        _print(record, how, tables, rows)
    else:
        buffer = io.StringIO()
        _write(buffer, record, how, tables, rows)
        write_whole(output, buffer.getvalue())


def _print(record: Any, how: Format, tables: Tables, rows: Rows) -> None:
    try:
        _write(sys.stdout, record, how, tables, rows)
        sys.stdout.flush()
    except BrokenPipeError:
        drop_stdout()


def _write(stream: Any, record: Any, how: Format, tables: Tables, rows: Rows) -> None:
    if how == "json":
        json.dump(asdict(record), stream, indent=2, sort_keys=True)
        stream.write("\n")
    elif how == "csv":
        lines = list(rows())
        writer = csv.DictWriter(stream, fieldnames=list(lines[0]) if lines else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
    else:
        show(stream, tables())


def write_whole(path: Path, text: str) -> None:
    """Write a file so that it is there whole or not at all, also after a kill.

    Raises:
        BadInput: when it can't be written.
    """
    try:
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            try:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
                # A temporary file is private; the result gets the rights that any new file gets.
                mask = os.umask(0)
                os.umask(mask)
                temporary.chmod(0o666 & ~mask)
                temporary.replace(path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
    except OSError as error:
        raise BadInput(f"cannot write {str(path)!r}: {error.strerror}", "choose another place for --output") from error
