"""Where a record becomes bytes: the format chosen and written in one place, whole or not at all."""

import csv
import io
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ...models.errors import BadInput
from ...models.files import check_writable, write_whole
from ..console import drop_stdout, show
from ..keeping import Keeping, keep

if TYPE_CHECKING:
    from rich.console import RenderableType

Format = Literal["table", "json", "csv", "png", "svg", "html"]
Tables = Callable[[], Iterable["RenderableType"]]
Rows = Callable[[], Iterable[Mapping[str, Any]]]
Draw = Callable[[str], bytes | str]

_SUFFIXES: dict[str, Format] = {".json": "json", ".csv": "csv", ".txt": "table"}


def choose(as_json: bool, as_csv: bool, output: Path | None, drawn: Sequence[Format] = ()) -> Format:
    """The format that the flags and the file's suffix ask for; a file that can't be written is refused before any work.

    Args:
        drawn: pictures and pages that the command makes, asked for by a file's suffix.

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
    known = _SUFFIXES | {f".{kind}": kind for kind in drawn}
    if output.suffix not in known:
        raise BadInput(f"{str(output)!r} does not say its format", f"end it in {', '.join(known)}, or add --json or --csv")
    return known[output.suffix]


def emit(
    record: Any,
    how: Format,
    output: Path | None,
    tables: Tables,
    rows: Rows,
    draw: Draw | None = None,
    keeping: Keeping | None = None,
) -> None:
    """Write a record as JSON, or what its views make of it, to stdout or to a file; beside a picture the table is printed.

    Args:
        record: a dataclass; its JSON is its fields.
        tables: makes what a person reads.
        rows: makes the lines of the CSV file, all with the same keys.
        draw: makes a picture or page of the kind that it is given.
        keeping: where the record is kept as well, once it is out.
    """
    if draw is not None and how not in _SUFFIXES.values():
        assert output is not None, "choose() gives a picture's format for a file only"
        write_whole(output, draw(how))
        if how != "html":  # a page holds the tables as well
            _print(record, "table", tables, rows)
    elif output is None or str(output) == "-":
        _print(record, how, tables, rows)
    else:
        buffer = io.StringIO()
        _write(buffer, record, how, tables, rows)
        write_whole(output, buffer.getvalue())
    if keeping is not None:
        keep(keeping, record)


def put(text: str) -> None:
    """Write a text to stdout, quietly where nobody reads it."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        drop_stdout()


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
