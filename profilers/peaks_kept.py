"""Peaks are kept for the machine that they were measured on, so that a command need not measure them again each time.

One file for each fingerprint of a machine (processor, cores, threads, governor, versions: see `machine`), in the user's cache
folder. A file that is damaged, or of another machine, is measured anew, and the user is told.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..models.errors import BadInput
from ..models.files import cache_folder, write_whole
from ..models.versions import versions
from .devices.base import Device
from .machine import Machine, look
from .peaks import Progress, measure_peaks
from .roofline import Level, Peaks

_SCHEMA = 1


def peaks_here(
    device: Device,
    dtypes: Sequence[str],
    again: bool = False,
    progress: Progress = lambda text, share: None,
    tell: Callable[[str], None] = lambda text: None,
) -> Peaks:
    """The peaks of this device for these dtypes: those that are kept, and what is missing there measured and kept too.

    Args:
        again: measure all of them, whatever is kept.
        tell: hears why kept ones are of no use, or can't be kept.
    """
    machine = look(device.describe(), device.clock, versions("mixbench", "torch"))
    file = _file(machine)
    kept = None if again else _read(file, machine, tell)
    wanted = [name for name in dtypes if kept is None or not (name in kept.flops_per_s or name in kept.missing)]
    if kept is not None and not wanted:
        return kept
    new = measure_peaks(device, wanted, progress, levels=kept is None)
    peaks = kept.also(new) if kept else new
    _keep(file, machine, peaks, tell)
    return peaks


def _file(machine: Machine) -> Path:
    return cache_folder() / "peaks" / f"{machine.fingerprint}.json"


def _keep(file: Path, machine: Machine, peaks: Peaks, tell: Callable[[str], None]) -> None:
    """Write them, whole or not at all. A folder that can't be written costs time the next time, and nothing now."""
    document = {"schema": _SCHEMA, "machine": asdict(machine), "peaks": asdict(peaks)}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, json.dumps(document, indent=2, sort_keys=True) + "\n")
    except (OSError, BadInput) as error:
        tell(f"the machine's peaks can't be kept: {getattr(error, 'what', error)}")


def _read(file: Path, machine: Machine, tell: Callable[[str], None]) -> Peaks | None:
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        tell(f"the peaks in {str(file)!r} can't be read, measuring them again: {error}")
        return None
    try:
        document = json.loads(text)
        if document["schema"] != _SCHEMA or document["machine"] != json.loads(json.dumps(asdict(machine))):
            tell(f"the peaks in {str(file)!r} are of another machine or version, measuring them again")
            return None
        return _peaks(document["peaks"])
    except (ValueError, TypeError, KeyError, AttributeError):
        tell(f"the peaks in {str(file)!r} are damaged, measuring them again")
        return None


def _peaks(found: dict[str, Any]) -> Peaks:
    """Raises ValueError, TypeError or KeyError for anything that `_keep` has not written."""
    levels = tuple(
        Level(_rate(item["bytes_per_s"]), item["up_to_bytes"], _rate(item["read_bytes_per_s"])) for item in found["levels"]
    )
    ends = [level.up_to_bytes for level in levels]
    if not levels or ends[-1] is not None or any(type(end) is not int for end in ends[:-1]):
        raise ValueError("no levels")
    return Peaks(
        flops_per_s={str(name): _rate(rate) for name, rate in found["flops_per_s"].items()},
        levels=levels,
        source=str(found["source"]),
        missing={str(name): str(why) for name, why in found["missing"].items()},
        warnings=tuple(map(str, found["warnings"])),
    )


def _rate(value: Any) -> float:
    if type(value) is bool or not isinstance(value, int | float) or not (math.isfinite(value) and value > 0):
        raise ValueError(f"{value!r} is no rate")
    return float(value)
