"""Where a record becomes bytes: the format chosen and written in one place, whole or not at all."""

import csv
import io
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from ...models.errors import BadInput
from ...models.files import check_writable, write_whole
from ..console import drop_stdout, show
from ..keeping import Keeping, keep

if TYPE_CHECKING:
    from rich.console import RenderableType

Format = Literal["table", "json", "csv", "markdown", "html", "page", "png", "svg"]
"""``html`` is the tables as a page, ``page`` one of the command's own making; whoever asks for either says html."""
Tables = Callable[[], Iterable["RenderableType"]]
Rows = Callable[[], Iterable[Mapping[str, Any]]]
Draw = Callable[[str], bytes | str]

SUFFIXES: dict[str, str] = {".txt": "table", ".json": "json", ".csv": "csv", ".md": "markdown", ".html": "html"}
"""The formats that every record has, by the suffix of a file that asks for one."""


def choose(
    as_json: bool, as_csv: bool | None, output: Path | None, drawn: Sequence[Format] = (), form: str | None = None
) -> Format:
    """The format that the flags and the file's suffix ask for; a file that can't be written is refused before any work.

    Args:
        as_csv: None where the record has no rows.
        drawn: pictures that the command makes, asked for by a file's suffix; and html, if it makes a page of its own.
        form: what ``--format`` says.

    Raises:
        BadInput: when they contradict each other, or the file can't be written.
    """
    asked = flag(form, as_json, bool(as_csv))
    known = {suffix: name for suffix, name in SUFFIXES.items() if name != "csv" or as_csv is not None}
    known |= {f".{kind}": kind for kind in drawn}
    if output is not None and str(output) != "-":
        check_writable(output)
        said = by_suffix(output, known)
        if asked and said not in (None, "table", asked):  # a .txt may hold any text
            raise BadInput(f"{asked} and {str(output)!r} are two formats for one file", "give one of them")
        asked = asked or said
        if asked is None:
            raise unsaid(output, known)
    if asked == "csv" and as_csv is None:
        raise BadInput("there are no rows here for csv", f"one of {', '.join(known.values())}")
    return cast("Format", "page" if asked == "html" and "html" in drawn else asked or "table")


def flag(form: str | None, as_json: bool, as_csv: bool) -> str | None:
    """The one format that ``--format`` and its short forms ask for.

    Raises:
        BadInput: when they ask for two.
    """
    flags = dict.fromkeys(name for name, given in ((form, form), ("json", as_json), ("csv", as_csv)) if name and given)
    if len(flags) > 1:
        raise BadInput(f"{' and '.join(flags)} are two formats for one place", "give one of them")
    return next(iter(flags), None)


def by_suffix(path: Path, known: Mapping[str, str]) -> str | None:
    """The format that a file's name asks for; of two suffixes that fit the longer one counts."""
    fitting = [suffix for suffix in known if path.name.endswith(suffix)]
    return known[max(fitting, key=len)] if fitting else None


def unsaid(path: Path, known: Iterable[str]) -> BadInput:
    """The error when neither a file's name nor a flag says the format."""
    return BadInput(f"{str(path)!r} does not say its format", f"end it in {', '.join(known)}, or add --format NAME")


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
        tables: makes what a person reads; Markdown and HTML are made of it too.
        rows: makes the lines of the CSV file, all with the same keys.
        draw: makes a picture, or the page of kind "html", of the kind that it is given.
        keeping: where the record is kept as well, once it is out.
    """
    on_stdout = output is None or str(output) == "-"
    if how in ("png", "svg"):
        assert draw is not None and output is not None, "choose() gives a picture's format for a file only"
        write_whole(output, draw(how))
        how, on_stdout = "table", True
    if on_stdout and how == "table":
        try:
            show(sys.stdout, tables())
            sys.stdout.flush()
        except BrokenPipeError:
            drop_stdout()
    elif on_stdout:
        if how != "json" and hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(encoding="utf-8")  # a document, wherever it goes; JSON needs ASCII only
        put(_text(record, how, tables, rows, draw))
    else:
        assert output is not None
        write_whole(output, _text(record, how, tables, rows, draw))
    if keeping is not None:
        keep(keeping, record)


def put(text: str) -> None:
    """Write a text to stdout, quietly where nobody reads it."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        drop_stdout()


def to_json(record: Any, indent: int | None = 2) -> str:
    """A record as its JSON, without a last newline; the same record, the same bytes."""
    return json.dumps(asdict(record), indent=indent, sort_keys=True)


def _text(record: Any, how: Format, tables: Tables, rows: Rows, draw: Draw | None) -> str:
    """The whole file, with its last newline."""
    buffer = io.StringIO()
    if how == "json":
        return to_json(record) + "\n"
    if how == "csv":
        lines = list(rows())
        writer = csv.DictWriter(buffer, fieldnames=list(lines[0]) if lines else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
    elif how == "page":
        assert draw is not None, "choose() gives a page to a command that makes one"
        made = draw("html")
        return made if isinstance(made, str) else made.decode()
    elif how in ("markdown", "html"):
        from . import document

        return document.markdown(tables()) if how == "markdown" else document.page(record, tables())
    else:
        show(buffer, tables())
    return buffer.getvalue()
