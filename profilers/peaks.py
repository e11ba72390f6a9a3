"""The peaks of the device at hand, measured through torch: contractions by dtype, and bytes by how many are in use.

A roof is what can be reached, so every figure is the best of many tries. Contractions are square matrix products and a
convolution, since the two go to different libraries and either may be the faster (of float16 on a CPU by seven times);
bytes are copies, reductions and overwriting in place, over buffers from 256 KiB to several times what the last cache holds.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from time import perf_counter_ns

import torch
from torch.nn import functional as F

from ..models.errors import first_line
from .devices.base import Device
from .machine import Disturbances
from .roofline import Peaks, levels_of

DTYPES = ("float32", "bfloat16", "float16", "float64", "int8")
"""What `mixbench roofline` measures; int8 is integers times integers, added up in int32."""
_SIDES = (256, 512, 1024, 2048, 4096, 8192)
_CHANNELS, _IMAGE, _IMAGES_ON_GPU = 256, 28, 64
"""The convolution: 3 x 3, as many channels out as in; oneDNN's best are of such sizes. One image keeps a CPU busy."""
_CPU_SIDE = 2048
_SMALLEST = 2**18
_TRY_NS, _LONG_NS, _CALL_LIMIT_S = 4e7, 2.5e8, 0.2
_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")

Progress = Callable[[str, float], None]


def measure_peaks(
    device: Device, dtypes: Sequence[str] = DTYPES, progress: Progress = lambda text, share: None, levels: bool = True
) -> Peaks:
    """Measure the peaks of a device, with torch's threads as they are set. Some seconds.

    Args:
        dtypes: whose contractions to measure; one that torch has no kernel for is among ``missing``.
        levels: whether to measure bandwidths too; without them ``levels`` is empty.
    """
    watch = Disturbances()
    steps = len(dtypes) + (3 if levels else 0)
    rates: dict[str, float] = {}
    missing: dict[str, str] = {}
    with torch.inference_mode():
        for number, dtype in enumerate(dtypes):
            progress(f"peak of {dtype}", number / steps)
            try:
                rates[dtype] = contraction_rate(device, dtype)
            except (RuntimeError, AttributeError) as error:
                missing[dtype] = f"torch has no kernel: {first_line(error)}"
        bandwidths: list[tuple[int, float, float]] = []
        sizes = _working_sets(device) if levels else []
        for number, size in enumerate(sizes):
            progress(f"bandwidth of {size / 1e6:.3g} MB", (len(dtypes) + 3 * number / len(sizes)) / steps)
            bandwidths.append((size, *bandwidth(device, size)))
    source = "measured here through torch, the best of several: matrix products, a convolution; copies, reductions, overwriting"
    return Peaks(rates, levels_of(bandwidths), source, missing, tuple(watch.warnings()))


def contraction_rate(device: Device, dtype: str) -> float:
    """FLOPs per second of the best contraction. Products grow until one takes too long; slow dtypes see small ones only.

    Raises:
        RuntimeError: when torch can't do it on this device.
    """
    best = 0.0
    for side in _SIDES:
        if device.kind == "cpu" and side > _CPU_SIDE:
            break
        seconds = best_s(device, _product(device.kind, dtype, side))
        best = max(best, 2 * side**3 / seconds)
        if 8 * seconds > _CALL_LIMIT_S:
            break
    for call in _convolutions(device.kind, dtype):
        try:
            seconds = best_s(device, call)
        except RuntimeError:  # some dtypes have products only
            break
        best = max(best, 2 * 9 * _images(device.kind) * _CHANNELS**2 * _IMAGE**2 / seconds)
    return best


def _product(kind: str, dtype: str, side: int) -> Callable[[], object]:
    if dtype == "int8":
        a, b = (torch.randint(-128, 128, (side, side), dtype=torch.int8, device=kind) for _ in range(2))
        multiply = torch._int_mm
        return lambda: multiply(a, b)
    x, y = (torch.randn(side, side, device=kind).to(getattr(torch, dtype)) for _ in range(2))
    out = torch.empty_like(x)
    return lambda: torch.mm(x, y, out=out)


def _convolutions(kind: str, dtype: str) -> Iterator[Callable[[], object]]:
    if dtype == "int8":
        return
    number = getattr(torch, dtype)
    image = torch.randn(_images(kind), _CHANNELS, _IMAGE, _IMAGE, device=kind).to(number)
    weight = torch.randn(_CHANNELS, _CHANNELS, 3, 3, device=kind).to(number)
    for order in (torch.channels_last, torch.contiguous_format):
        x, w = image.contiguous(memory_format=order), weight.contiguous(memory_format=order)
        yield lambda x=x, w=w: F.conv2d(x, w, padding=1)  # type: ignore[misc]


def _images(kind: str) -> int:
    return 1 if kind == "cpu" else _IMAGES_ON_GPU


def bandwidth(device: Device, size: int) -> tuple[float, float]:
    """Bytes per second of the best way through a working set of so many bytes: read and written together, and read.

    Together overwriting in place is usually best: what it writes need not be fetched first, as the target of a copy is.
    """
    numbers = torch.ones(size // 4, dtype=torch.float32, device=device.kind)
    source, target = numbers.chunk(2)
    whole, half = numbers.nbytes, source.nbytes
    ways: tuple[tuple[int, int, Callable[[], object]], ...] = (
        (2 * whole, whole, numbers.relu_),
        (2 * half, half, lambda: target.copy_(source)),
        (whole, whole, numbers.amax),
    )
    found = [(moved / seconds, read / seconds) for moved, read, call in ways if (seconds := best_s(device, call))]
    return max(both for both, _ in found), max(read for _, read in found)


def _working_sets(device: Device) -> list[int]:
    """Powers of two, up to at least four times the last cache and at most an eighth of the free memory."""
    import psutil

    most = max(2**28, 4 * _last_cache_bytes()) if device.kind == "cpu" else 2**30
    if device.kind == "cpu":
        most = min(most, max(2**26, psutil.virtual_memory().available // 8))
    sizes, size = [], _SMALLEST
    while size <= most:
        sizes.append(size)
        size *= 2
    return sizes


def _last_cache_bytes() -> int:
    """Of the first core, where Linux tells it; else 0."""
    found = [0]
    for path in _CACHES.glob("index*/size"):
        try:
            number = path.read_text(encoding="ascii").strip()
            found.append(int(number.rstrip("KM")) * {"K": 2**10, "M": 2**20}.get(number[-1:], 1))
        except (OSError, ValueError):
            continue
    return max(found)


def best_s(device: Device, call: Callable[[], object]) -> float:
    """The shortest of three calls or more, after one that is not counted; of fewer where they take long."""
    device.time_ns(call)
    begin = perf_counter_ns()
    times: list[float] = []
    spent = 0
    while not times or (spent < _LONG_NS and (len(times) < 3 or spent < _TRY_NS)):
        times.append(device.time_ns(call))
        spent = perf_counter_ns() - begin
    return max(min(times), 1.0) / 1e9
