"""What every picture of a roofline shows: ceilings, slopes and dots over arithmetic intensity, on axes of logarithms.

The ceiling is of contractions, so a dot counts the FLOPs of contractions alone; of work without any, what else it computes.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from ...profilers.runs.roofline_run import ModelPoint, Place, RooflineRun

DotKind = Literal["operator", "floor", "measured"]


@dataclass(frozen=True, slots=True)
class Dot:
    """Work at its intensity: FLOP/s that its floor allows (of an operator or a model), or that a model was measured at."""

    name: str
    kind: DotKind
    index: int
    intensity: float
    flops_per_s: float


@dataclass(frozen=True, slots=True)
class Chart:
    """One picture. Axes reach over whole powers of ten.

    Attributes:
        ceilings: peaks by dtype, in FLOP/s.
        slopes: bandwidths by what has them, in bytes/s.
        models: names, in the order of the dots' ``index``.
    """

    title: str
    ceilings: tuple[tuple[str, float], ...]
    slopes: tuple[tuple[str, float], ...]
    dots: tuple[Dot, ...]
    models: tuple[str, ...]

    @property
    def peak(self) -> float:
        """The highest ceiling."""
        return max(rate for _, rate in self.ceilings)

    def roof(self, intensity: float, bytes_per_s: float, peak: float | None = None) -> float:
        """What a slope and a ceiling let through."""
        return min(peak or self.peak, intensity * bytes_per_s)

    @property
    def intensities(self) -> tuple[float, float]:
        """Ends of the axis: all dots, and where the slopes meet the ceiling."""
        ridges = [self.peak / rate for _, rate in self.slopes]
        return _decades([dot.intensity for dot in self.dots] + [min(ridges) / 10, max(ridges) * 10])

    @property
    def rates(self) -> tuple[float, float]:
        """Ends of the axis: all dots and ceilings, and two powers of ten of roof."""
        found = [dot.flops_per_s for dot in self.dots] + [rate for _, rate in self.ceilings]
        return _decades([*found, self.peak / 100])


def charts(run: RooflineRun) -> Iterator[Chart]:
    """One for each place and dtype; of a place without models its peaks alone, unless many are only listed."""
    for place in run.places:
        own = [point for point in run.models if point.place == place.name]
        for dtype in dict.fromkeys(point.dtype for point in own):
            yield _chart(place, dtype, [point for point in own if point.dtype == dtype], run)
        if not run.models and len(run.places) == 1:
            yield Chart(_title(place), tuple(place.flops_per_s.items()), _slopes(place), (), ())


def _chart(place: Place, dtype: str, points: list[ModelPoint], run: RooflineRun) -> Chart:
    dots = [dot for index, point in enumerate(points) for dot in _dots(index, point, operators=len(points) == 1)]
    title = _title(place) + " (PARTIAL)" * run.partial
    return Chart(title, ((dtype, place.flops_per_s[dtype]),), _slopes(place), tuple(dots), tuple(p.model for p in points))


def _title(place: Place) -> str:
    if place.kind == "modelled":
        return f"{place.title}, modelled from its maker's peaks"
    return f"{place.title}, {place.threads} thread{'s' if place.threads != 1 else ''}, measured"


def _slopes(place: Place) -> tuple[tuple[str, float], ...]:
    memory = ("memory", place.levels[-1].bytes_per_s)
    return (("caches", place.levels[0].bytes_per_s), memory) if len(place.levels) > 1 else (memory,)


def _dots(index: int, point: ModelPoint, operators: bool) -> Iterator[Dot]:
    for item in point.operators if operators else ():
        flops = item.flops or item.other_flops
        if flops and item.floor_ns:
            yield _dot(item.operator, "operator", index, flops, item.read_bytes + item.written_bytes, item.floor_ns)
    flops, moved = point.flops or point.fft_flops + point.elementwise_flops, point.read_bytes + point.written_bytes
    if flops and point.unfused_floor_ns:
        yield _dot(point.model, "floor", index, flops, moved, point.unfused_floor_ns)
        if point.measured:
            yield _dot(point.model, "measured", index, flops, moved, point.measured.latency_ns.value)


def _dot(name: str, kind: DotKind, index: int, flops: int, moved: int, time_ns: float) -> Dot:
    return Dot(name, kind, index, flops / max(moved, 1), flops / time_ns * 1e9)


def _decades(values: list[float]) -> tuple[float, float]:
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return 10.0**low, 10.0 ** max(high, low + 1)


def ticks(ends: tuple[float, float], most: int = 7) -> list[float]:
    """Powers of ten from one end of an axis to the other, at most so many."""
    low, high = round(math.log10(ends[0])), round(math.log10(ends[1]))
    step = max(1, math.ceil((high - low) / (most - 1)))
    return [10.0**power for power in range(low, high + 1, step)]


def rate(value: float, unit: str = "FLOP/s") -> str:
    """A rate with the prefix that suits it."""
    for size, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.4g} {prefix}{unit}"
    return f"{value:.3g} {unit}"


def peak_rate(dtype: str, value: float) -> str:
    """A peak with its unit: integers are operated on, they are no floating point numbers."""
    return rate(value, "OP/s" if dtype == "int8" else "FLOP/s")
