"""The roof of a device, measured: how many FLOP/s a large matrix product reaches here, how many bytes/s a large copy.

Williams, Waterman and Patterson, "Roofline: an insightful visual performance model" (CACM 2009): a computation of F FLOPs that
moves B bytes takes at least max(F / peak, B / bandwidth). Both roofs are what this machine does with these threads and this
dtype through torch, not a data sheet; so a model may come close to 1, and what is beyond it would be an error of ours.
"""

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter_ns

import torch

from .devices.base import Device

_SIDE, _COPY_BYTES = {"cpu": 1024}, {"cpu": 2**27}
_SIDE_ELSEWHERE, _COPY_ELSEWHERE = 8192, 2**30
_NS = 2.5e8


@dataclass(frozen=True, slots=True)
class Roof:
    """What a device reached: ``flops_per_s`` in a square matrix product, ``bytes_per_s`` read plus written in a copy."""

    flops_per_s: float
    bytes_per_s: float
    source: str


def measure_roof(device: Device, dtype: str) -> Roof:
    """Measure both roofs for half a second in all; the best of several tries, since a roof is what can be reached."""
    kind = getattr(torch, dtype)
    side = _SIDE.get(device.kind, _SIDE_ELSEWHERE)
    size = _COPY_BYTES.get(device.kind, _COPY_ELSEWHERE)
    with torch.inference_mode():
        a, b = (torch.randn(side, side, device=device.kind).to(kind) for _ in range(2))
        product = torch.empty_like(a)
        flops = 2 * side**3 / _best_s(device, lambda: torch.mm(a, b, out=product))
        source = torch.ones(size, dtype=torch.uint8, device=device.kind)
        target = torch.empty_like(source)
        copied = 2 * size / _best_s(device, lambda: target.copy_(source))
    return Roof(flops, copied, f"measured here: {side} x {side} {dtype} product, copy of {size / 1e6:.0f} MB")


def _best_s(device: Device, call: Callable[[], object]) -> float:
    device.time_ns(call)
    begin = perf_counter_ns()
    times: list[float] = []
    while len(times) < 3 or perf_counter_ns() - begin < _NS:
        times.append(device.time_ns(call))
    return min(times) / 1e9
