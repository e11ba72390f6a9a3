"""Devices that are not at hand, by the peaks that their makers print: peaks.toml, and tables of the user's own. No torch here.

What comes of them is modelled: no caches, no launches, nothing that keeps a real kernel from the peak.
"""

import difflib
import math
import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from ..models.errors import BadInput

TABLE = Path(__file__).with_name("peaks.toml")
DTYPES = ("float64", "float32", "float16", "bfloat16", "int8")
_FORM = "see mixbench's profilers/peaks.toml for the form"


@dataclass(frozen=True, slots=True)
class Published:
    """One entry of peaks.toml.

    Attributes:
        flops_per_s: of dense matrix products by dtype; of int8 operations on integers.
        memory_bytes_per_s, memory_bytes: of the device's own memory; powers of 10, as makers print them.
        source: where the figures stand, and which of them are derived.
        verified: whether somebody has read them there, or in a copy of it.
    """

    name: str
    title: str
    flops_per_s: dict[str, float]
    memory_bytes_per_s: float
    memory_bytes: int
    source: str
    verified: bool = field(default=False)


def published(name: str, extra: Path | None = None) -> Published:
    """A device by its name in mixbench's table or in the user's file.

    Raises:
        BadInput: for an unknown name, with near ones; for a file that is no such table.
    """
    entries = known(extra)
    if name not in entries:
        near = difflib.get_close_matches(name, entries, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise BadInput(f"no hardware named {name!r}", f"{hint}`mixbench roofline --hardware list` lists what there is")
    return entries[name]


def known(extra: Path | None = None) -> dict[str, Published]:
    """All devices: mixbench's, and the user's over them.

    Raises:
        BadInput: for a file that is no such table.
    """
    entries = _read(TABLE)
    return entries | _read(extra) if extra else entries


def _read(path: Path) -> dict[str, Published]:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadInput(f"{str(path)!r} can't be read as TOML: {error}", _FORM) from error
    return {name: _entry(f"{str(path)!r}: [{name}]", name, values) for name, values in table.items()}


def _entry(place: str, name: str, values: Any) -> Published:
    keys = [item.name for item in fields(Published) if item.name != "name"]
    if not isinstance(values, dict):
        raise BadInput(f"{place} is no table", f"write [{name}] and its keys below")
    if unknown := sorted(set(values) - set(keys)):
        raise BadInput(f"{place} has an unknown key {unknown[0]!r}", f"known keys: {', '.join(keys)}")
    if missing := [key for key in keys if key != "verified" and key not in values]:
        raise BadInput(f"{place} lacks {', '.join(missing)}", _FORM)
    for key, kind in {"title": str, "source": str, "verified": bool}.items():
        if key in values and not isinstance(values[key], kind):
            raise BadInput(f"{place}: {key} is {values[key]!r}, not {'a text' if kind is str else 'true or false'}", _FORM)
    rates = values["flops_per_s"]
    if not isinstance(rates, dict) or not rates:
        raise BadInput(f"{place}: flops_per_s is not one figure for each dtype", "write {float32 = 1e12, float16 = 2e12}")
    if strange := sorted(set(rates) - set(DTYPES)):
        raise BadInput(f"{place}: flops_per_s has an unknown dtype {strange[0]!r}", f"one of {', '.join(DTYPES)}")
    return Published(
        name=name,
        title=values["title"],
        flops_per_s={dtype: _positive(place, f"flops_per_s.{dtype}", rate) for dtype, rate in rates.items()},
        memory_bytes_per_s=_positive(place, "memory_bytes_per_s", values["memory_bytes_per_s"]),
        memory_bytes=int(_positive(place, "memory_bytes", values["memory_bytes"])),
        source=values["source"],
        verified=values.get("verified", False),
    )


def _positive(place: str, key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not (math.isfinite(value) and value > 0):
        raise BadInput(f"{place}: {key} is {value!r}, not a number above 0", "per second; 1e12 is 1 TFLOP/s or 1 TB/s")
    return float(value)
