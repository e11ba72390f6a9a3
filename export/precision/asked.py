"""What may be asked of ``--precision`` and its options, known before torch is loaded."""

import math
from collections.abc import Sequence
from pathlib import Path

from ...models.errors import BadInput
from .kinds.base import find

TARGETS = ("onnx", "ort")
"""Formats that are made from the ONNX graph; the others are made from the module, which stays float32."""


def check_asked(precision: str, calibrate: str | None, min_snr_db: float | None, targets: Sequence[str]) -> None:
    """Refuse what can't be done before any work.

    Raises:
        BadInput: when there is no such precision, its data is missing or not there, or a format does not take it.
    """
    if precision == "fp32":
        for option, value in (("--calibrate", calibrate), ("--min-snr", min_snr_db)):
            if value is not None:
                raise BadInput(f"{option} is for files of fewer bits, and this one is float32", "add --precision int8")
        return
    kind = find(precision)
    if others := [name for name in targets if name not in TARGETS]:
        what = f"--precision {precision} is for --to onnx, and {others[0]} is made from the float32 module"
        raise BadInput(what, f"--to {', '.join(TARGETS)}")
    if kind.calibrated and calibrate is None:
        what = f"{precision} learns the ranges of its numbers from data, and none is named"
        raise BadInput(what, "--calibrate FOLDER of images, FILE.npz or file.py:loader; random works too, and is marked")
    if min_snr_db is not None and not math.isfinite(min_snr_db):
        raise BadInput(f"--min-snr {min_snr_db} is no number of dB", "25 is a common choice for int8")
    if calibrate is not None and calibrate != "random" and ":" not in calibrate and not Path(calibrate).exists():
        raise BadInput(f"there is no file or folder {calibrate!r}", "check the path of --calibrate")
