"""Will it run on a phone? For each runtime the parts that an ONNX graph falls into, what breaks it, what would mend that."""

from .record import Breaker, PortabilityRun, RuntimeReport
from .report import report

__all__ = ["Breaker", "PortabilityRun", "RuntimeReport", "report"]
