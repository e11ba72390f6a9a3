"""The smallest and largest value of every tensor over the calibration runs, by ONNX Runtime's own calibrator."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto

from .hushed import hushed


class _Reader:
    """Feeds in the form in which the calibrator takes them: one after the other, then None."""

    def __init__(self, feeds: Sequence[Mapping[str, np.ndarray]]) -> None:
        self._feeds: Iterator[Mapping[str, np.ndarray]] = iter(feeds)

    def get_next(self) -> dict[str, np.ndarray] | None:
        feeds = next(self._feeds, None)
        return None if feeds is None else dict(feeds)


def measure_ranges(model: ModelProto, feeds: Sequence[Mapping[str, np.ndarray]], operators: Sequence[str] | None = None) -> Any:
    """Smallest and largest values of the float tensors beside these operators, of all without any named.

    Returns:
        ONNX Runtime's ``TensorsData``: by tensor, ``range_value``.
    """
    from onnxruntime.quantization import CalibrationMethod, create_calibrator

    with hushed(), tempfile.TemporaryDirectory(prefix="mixbench-") as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(model, path)
        # Percentiles and entropy did no better on the nets that this was tried on, and cost more.
        calibrator = create_calibrator(
            path, operators, str(Path(folder) / "augmented.onnx"), calibrate_method=CalibrationMethod.MinMax
        )
        calibrator.collect_data(_Reader(feeds))
        return calibrator.compute_data()


def extremes(found: Any) -> dict[str, float]:
    """The largest absolute value of each tensor."""
    return {name: float(max(abs(low) for low in map(np.max, map(np.abs, data.range_value)))) for name, data in found.items()}
