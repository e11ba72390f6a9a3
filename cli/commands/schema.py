"""``mixbench schema``: the JSON Schemas of what ``--json`` prints, for programs that read it."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pathlib import Path

_ENDING = ".schema.json"


def complete_record(incomplete: str) -> list[str]:
    """Records that begin like this."""
    return [name for name in _shipped() if name.startswith(incomplete)]


def schema(
    record: Annotated[
        str | None,
        typer.Argument(
            metavar="[RECORD]",
            help="A command that has --json, or parallel: what scale prints of attention. All are listed if none is given.",
            autocompletion=complete_record,
            show_default=False,
        ),
    ] = None,
) -> None:
    """Print the JSON Schema that the record of a command's --json keeps, or list the records and the numbers of their schemas.

    A record says its number under "schema". The number rises when something that a reader could rely on is changed.

    Examples:
        mixbench schema
        mixbench schema flops > flops.schema.json
    """
    from ...models.errors import BadInput
    from ..views.emit import put

    shipped = _shipped()
    if record is None:
        put("".join(f"{path.name.removesuffix(_ENDING)}\n" for path in shipped.values()))
        return
    if record not in shipped:
        import difflib

        near = difflib.get_close_matches(record, shipped, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise BadInput(f"no record named {record!r}", f"{hint}one of {', '.join(shipped)}")
    put(shipped[record].read_text(encoding="utf-8"))


def _shipped() -> "dict[str, Path]":
    """Every schema by its record's name. A schema lies beside the types that it was made of."""
    from pathlib import Path

    root = Path(__file__).resolve().parents[2]
    folders = ("cli/commands", "export", "models", "profilers/runs")
    found = (path for folder in folders for path in (root / folder).glob(f"*{_ENDING}"))
    return {path.name.rpartition("-")[0]: path for path in sorted(found, key=lambda path: path.name)}
