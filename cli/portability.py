"""Will an ONNX file run on a phone? Where what it costs (profilers) meets what runtimes take (export)."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..export.portability.record import PortabilityRun
    from ..models.spec import Workload


def portability_of(path: Path, workload: "Workload | None" = None) -> "PortabilityRun":
    """The record of a file's portability.

    Args:
        workload: ``batch`` and ``inputs`` fill open dimensions, for the MACs; to the runtimes they stay open.

    Raises:
        BadInput: when the file can't be read, or a dimension stays open.
        CannotMeasure: when the installed ONNX Runtime has no tables.
    """
    from ..export.portability.record import PortabilityRun
    from ..export.portability.report import report
    from ..models.onnx_files import read_onnx
    from ..profilers.onnx_counter import count_onnx

    counted = count_onnx(path, workload)
    return PortabilityRun(str(path), tuple(map(str, counted.workload.inputs)), report(read_onnx(path), counted.node_macs))
