"""Kept runs as lines of JSON, so that nothing is locked into the store: out and in again. No torch here."""

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict

from ..models.errors import BadInput, first_line
from .store import SCHEMA, KeptRun, as_json


def to_line(run: KeptRun) -> str:
    """A run as one line of JSON."""
    return as_json({"schema": SCHEMA, **asdict(run)}) + "\n"


def from_lines(lines: Iterable[bytes], name: str) -> Iterator[KeptRun]:
    """The runs of lines of JSON, each checked.

    Raises:
        BadInput: at the first line that is not a run, with its number.
    """
    from pydantic import TypeAdapter, ValidationError

    reader = TypeAdapter(KeptRun)
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
            schema = found.pop("schema") if isinstance(found, dict) and "schema" in found else None
            if not isinstance(schema, int):
                raise _bad_line(name, number, "no run of mixbench: it has no schema")
            if schema > SCHEMA:
                raise _bad_line(name, number, f"of schema {schema}, newer than {SCHEMA}", "upgrade mixbench")
            run = reader.validate_json(json.dumps(found), strict=True, extra="forbid")
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise _bad_line(name, number, f"no run: {place or 'it'}: {first['msg'].lower()}") from error
        except (ValueError, RecursionError) as error:
            raise _bad_line(name, number, f"no JSON: {first_line(error)}") from error
        if not run.occasion.id or not all(math.isfinite(item.value) for item in run.figures):
            raise _bad_line(name, number, "no run: it lacks an id, or has a figure that is not finite")
        yield run


def _bad_line(name: str, number: int, what: str, hint: str = "mend or remove that line; nothing was imported") -> BadInput:
    return BadInput(f"{name}, line {number} is {what}", hint)
