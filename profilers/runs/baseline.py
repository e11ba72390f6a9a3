"""The committed baseline of `mixbench check`: what each target cost when somebody last agreed to it. No torch here.

A TOML file with a line per metric, sorted, so that a diff of it reads like a sentence: ``- small.macs = 167_048_288``,
``+ small.macs = 179_448_288``. The parts that a figure is made of, by which a change finds its module, are packed into one
line per target at the end: compressed JSON in base64. Only what is exact is in it, so it holds on every machine.
"""

import base64
import binascii
import json
import math
import tomllib
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...models.errors import BadInput, MixbenchError
from ...models.files import write_whole
from .check_run import Metric

SCHEMA = 1
NAME = "mixbench-baseline.toml"
_HEAD = "# What `mixbench check` compares with. `mixbench check --update` writes it; commit it with the change that needs it.\n"
_KEYS = {"schema", "torch", "metrics", "workloads", "parts"}

Parts = Mapping[str, Mapping[str, int]]
"""By metric: what it is made of."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of a target: its figures, the workload that they are of, and their parts."""

    workload: str
    metrics: Mapping[str, float]
    parts: Parts = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Baseline:
    """A whole file. ``torch`` is the version that the figures were counted with."""

    torch: str
    targets: Mapping[str, Entry]


def entry_of(workload: str, metrics: Iterable[Metric]) -> Entry:
    """The exact ones of a target's metrics, to be kept."""
    exact = [metric for metric in metrics if metric.kind == "counted"]
    parts = {metric.name: metric.parts for metric in exact if metric.parts}
    return Entry(workload, {metric.name: metric.value for metric in exact}, parts)


def read(path: Path) -> Baseline | None:
    """The baseline in a file; None where there is no file.

    Raises:
        BadInput: when it can't be read, is no baseline, or one of a newer mixbench.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise _corrupt(path, str(error)) from error
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _corrupt(path, str(error)) from error
    number = table.get("schema")
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise _corrupt(path, "it has no schema number")
    if number > SCHEMA:
        what = f"{path.name} has schema {number}, and this mixbench reads up to {SCHEMA}"
        raise NewerBaseline(what, "update mixbench to the version that wrote it")
    try:
        return _baseline(table)
    except (ValueError, TypeError, KeyError, AttributeError, zlib.error, binascii.Error, RecursionError) as error:
        raise _corrupt(path, f"{error}") from error


class NewerBaseline(BadInput):
    """A file that a later mixbench wrote; it is not to be overwritten either."""


def write(path: Path, baseline: Baseline) -> None:
    """Write it whole or not at all, also after a kill; equal baselines give equal bytes.

    Raises:
        BadInput: when it can't be written.
    """
    try:
        write_whole(path, text_of(baseline, _packed_in(path)))
    except MixbenchError as error:
        raise BadInput(error.what, "check the folder and its rights, or name another file by --baseline") from error


def text_of(baseline: Baseline, before: Mapping[str, str] | None = None) -> str:
    """The file's text.

    Args:
        before: packed parts of an earlier file. Where they say the same they are kept: another build of zlib may pack the
            same parts into other bytes, and a diff would show a change where there is none.
    """
    targets = sorted(baseline.targets.items())
    lines = [_HEAD, f"schema = {SCHEMA}", f"torch = {toml_text(baseline.torch)}", "", "[metrics]"]
    for name, entry in targets:
        lines += [f"{toml_key(name)}.{toml_key(metric)} = {_number(entry.metrics[metric])}" for metric in sorted(entry.metrics)]
    lines += ["", "[workloads]"]
    lines += [f"{toml_key(name)} = {toml_text(entry.workload)}" for name, entry in targets]
    lines += ["", "[parts]"]
    for name, entry in targets:
        kept = (before or {}).get(name, "")
        lines.append(f'{toml_key(name)} = "{kept if kept and _unpack(kept) == entry.parts else _pack(entry.parts)}"')
    return "\n".join(lines) + "\n"


def toml_key(name: str) -> str:
    """A name as a key of TOML: bare where it may be."""
    is_bare = name.isascii() and name.replace("-", "").replace("_", "").isalnum()
    return name if is_bare else toml_text(name)


def toml_text(text: str) -> str:
    """A text of TOML, which differs from JSON's in one sign."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _baseline(table: Mapping[str, Any]) -> Baseline:
    if table.keys() != _KEYS:
        raise ValueError(f"its tables are {', '.join(table)}, not {', '.join(sorted(_KEYS))}")
    metrics, workloads, parts = table["metrics"], table["workloads"], table["parts"]
    if not metrics.keys() == workloads.keys() == parts.keys():
        raise ValueError("its tables speak of different targets")
    for name, values in metrics.items():
        for metric, value in values.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise ValueError(f"{name}.{metric} is {value!r}, not a number")
        if not isinstance(workloads[name], str):
            raise ValueError(f"the workload of {name} is {workloads[name]!r}, not text")
    torch = table["torch"]
    return Baseline(
        torch if isinstance(torch, str) else "", {n: Entry(workloads[n], metrics[n], _unpack(parts[n])) for n in metrics}
    )


def _packed_in(path: Path) -> dict[str, str]:
    """The packed parts of the file that is to be replaced, none where it is no baseline."""
    try:
        parts = tomllib.loads(path.read_text(encoding="utf-8"))["parts"]
        return {name: text for name, text in parts.items() if _unpack(text) is not None}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, zlib.error):
        return {}


def _pack(parts: Parts) -> str:
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode()


def _unpack(text: str) -> Parts:
    found = json.loads(zlib.decompress(base64.b64decode(text, validate=True)))
    for values in found.values():
        if not all(type(value) is int for value in values.values()):
            raise ValueError("its parts are no whole numbers")
    return dict(found)


def _number(value: float) -> str:
    return f"{value:_}" if isinstance(value, int) else repr(value)


def _corrupt(path: Path, why: str) -> BadInput:
    return BadInput(
        f"{path.name} is no readable baseline: {why}", "restore it from git, or write it anew: mixbench check --update"
    )
