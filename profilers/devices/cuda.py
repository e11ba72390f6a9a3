"""NVIDIA GPUs: the generic accelerator, plus clocks, throttle reasons and energy from NVML where ``pynvml`` is installed."""

from typing import Any

import torch

from .accelerator import Accelerator
from .base import Conditions, Entry

_REASONS = {
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
}
"""Bits of nvmlDeviceGetCurrentClocksEventReasons that mean slower than it could be; idle and user settings do not."""


class Cuda(Accelerator):
    """One NVIDIA GPU; also AMD's under ROCm, which torch calls cuda as well (without NVML)."""

    def __init__(self) -> None:
        super().__init__(torch.device("cuda", torch.cuda.current_device()))
        self._handle: Any = None
        self._nvml: Any = None
        try:
            import pynvml  # type: ignore[import-not-found, import-untyped, unused-ignore]

            pynvml.nvmlInit()
            uuid = torch.cuda.get_device_properties(self._device).uuid
            self._handle, self._nvml = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}"), pynvml
        except Exception:  # noqa: BLE001 - not installed, or no driver that speaks it: then nothing is known
            return

    def conditions(self) -> Conditions:
        """What NVML tells now."""
        if self._nvml is None:
            return Conditions()
        return Conditions(
            clock_mhz=self._ask("nvmlDeviceGetClockInfo", self._handle, self._nvml.NVML_CLOCK_SM),
            throttled=self._throttled(),
            energy_mj=self._ask("nvmlDeviceGetTotalEnergyConsumption", self._handle),
        )

    def _ask(self, function: str, *arguments: Any) -> float | None:
        try:
            return float(getattr(self._nvml, function)(*arguments))
        except Exception:  # noqa: BLE001 - "not supported" has a type of its own in each version
            return None

    def _throttled(self) -> str | None:
        bits = self._ask("nvmlDeviceGetCurrentClocksThrottleReasons", self._handle)
        return None if bits is None else ", ".join(word for bit, word in _REASONS.items() if int(bits) & bit)


DEVICE = Entry(make=Cuda, available=torch.cuda.is_available)
