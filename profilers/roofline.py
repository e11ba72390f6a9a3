"""The roofline model: what a device can do at most, and the least time that work takes on it. No torch here.

Williams, Waterman and Patterson, "Roofline: an insightful visual performance model for multicore architectures" (CACM 52(4),
2009): a computation of F FLOPs that moves B bytes takes at least max(F / peak, B / bandwidth). Two things are decided here:

* Only contractions stand under the peak of matrix products. Nothing else runs at that rate, so elementwise work and Fourier
  transforms are held to the bytes that they move, and to nothing more: the floor stays a floor.
* Bytes are not all moved at one rate. Of what a call reads, at most a cacheful can have been left there, and of what it writes
  at most a cacheful can stay there; only the rest has to go over the memory bus (Ilic, Pratas and Sousa, "Cache-aware roofline
  model", CAL 13(1), 2014, has such a roof for each level). Without this a small model would run faster than its bound.

Units: FLOPs, bytes, seconds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ..models.errors import BadInput
from .cost import Cost

Bound = Literal["compute", "memory", "none"]
"""What a floor is made of; ``none`` where there is neither arithmetic nor a byte to move."""


@dataclass(frozen=True, slots=True)
class Level:
    """How fast bytes move within ``up_to_bytes``; None for the last level, which is memory.

    Attributes:
        bytes_per_s: read and written together, at best.
        read_bytes_per_s: of reading alone, which on a CPU is slower than both at once; None where one figure is all there is.
    """

    bytes_per_s: float
    up_to_bytes: int | None = None
    read_bytes_per_s: float | None = None


@dataclass(frozen=True, slots=True)
class Roof:
    """What a device can do at most with one dtype.

    Attributes:
        flops_per_s: in contractions.
        levels: from the fastest cache to memory, slower and slower; memory alone where nothing is known of caches.
        source: who says so.
    """

    flops_per_s: float
    levels: tuple[Level, ...]
    source: str

    @property
    def memory_bytes_per_s(self) -> float:
        """The bandwidth of memory."""
        return self.levels[-1].bytes_per_s

    @property
    def fastest_bytes_per_s(self) -> float:
        """The bandwidth of the fastest level; memory's where there is no other."""
        return self.levels[0].bytes_per_s

    def compute_s(self, flops: float) -> float:
        """The least time of contractions."""
        return flops / self.flops_per_s

    def move_s(self, read: float, written: float) -> float:
        """The least time of so many bytes: what both directions take together, and no less than reading alone takes.

        Of each direction a cacheful goes at the cache's rate, and what is beyond at the next level's. Convex, since the rates
        fall: many unlike calls take at least as long as the same number of average ones.
        """
        together = [(level.up_to_bytes, level.bytes_per_s) for level in self.levels]
        reading = [(level.up_to_bytes, level.read_bytes_per_s or level.bytes_per_s) for level in self.levels]
        return max(_through(together, read) + _through(together, written), _through(reading, read))


def _through(levels: Sequence[tuple[int | None, float]], moved: float) -> float:
    seconds, begin = 0.0, 0.0
    for end, rate in levels:
        until = moved if end is None else min(moved, end)
        seconds += max(0.0, until - begin) / rate
        begin = max(begin, until)
    return seconds


@dataclass(frozen=True, slots=True)
class Peaks:
    """What a device can do at most, for every dtype that it was measured or published for.

    Attributes:
        flops_per_s: of contractions by dtype; of ``int8`` operations on integers, as many to a MAC.
        levels: as `Roof` has them.
        missing: dtypes for which there is none, and why.
        warnings: what else the machine did while this was measured.
    """

    flops_per_s: Mapping[str, float]
    levels: tuple[Level, ...]
    source: str
    missing: Mapping[str, str]
    warnings: tuple[str, ...] = ()

    def roof(self, dtype: str, device: str = "this device") -> Roof:
        """The roof of one dtype.

        Raises:
            BadInput: when there is none.
        """
        if dtype not in self.flops_per_s:
            others = ", ".join(name for name in self.flops_per_s if name != "int8")
            why = self.missing.get(dtype, "not published")
            hint = "name a device that has one" if dtype == "int8" else f"it has one for {others}: name one by --dtype"
            raise BadInput(f"{device} has no peak for {dtype}: {why}", hint)
        return Roof(self.flops_per_s[dtype], self.levels, self.source)

    @property
    def doubts(self) -> tuple[str, ...]:
        """What speaks against these peaks, for every figure that rests on them."""
        return tuple(
            f"while the peaks were measured, which are kept until `mixbench roofline --measure-again`: {text}"
            for text in self.warnings
        )

    def also(self, later: "Peaks") -> "Peaks":
        """With what was measured later, which replaces what was known."""
        return Peaks(
            {**self.flops_per_s, **later.flops_per_s},
            later.levels or self.levels,
            later.source,
            {**self.missing, **later.missing},
            tuple(dict.fromkeys([*self.warnings, *later.warnings])),
        )


@dataclass(frozen=True, slots=True)
class Floor:
    """The least time of some work, in two parts: of what the arithmetic bounds, and of what the bytes bound. Floors add up."""

    compute_s: float = 0.0
    memory_s: float = 0.0

    @property
    def seconds(self) -> float:
        """Both parts together."""
        return self.compute_s + self.memory_s

    @property
    def bound(self) -> Bound:
        """What the larger part of it is bound by."""
        if not self.seconds:
            return "none"
        return "compute" if self.compute_s >= self.memory_s else "memory"

    def __add__(self, other: "Floor") -> "Floor":
        return Floor(self.compute_s + other.compute_s, self.memory_s + other.memory_s)


def floor(roof: Roof, flops: int, read_bytes: int, written_bytes: int, calls: int = 1) -> Floor:
    """The least time of so many calls that do this together, each of them on its own."""
    if calls < 1:
        return Floor()
    compute = roof.compute_s(flops)
    memory = calls * roof.move_s(read_bytes / calls, written_bytes / calls)
    return Floor(compute_s=compute) if compute >= memory else Floor(memory_s=memory)


def floor_of(roof: Roof, cost: Cost, calls: int) -> Floor:
    """The least time of an operator's calls."""
    return floor(roof, cost.flops, cost.read_bytes, cost.written_bytes, calls)


def levels_of(measured: Sequence[tuple[int, float, float]]) -> tuple[Level, ...]:
    """Levels from growing working sets: (bytes, bytes per second read and written together, bytes per second read).

    Between two sizes the rate of the smaller holds, and a rate that a larger set reached is one that a smaller can reach too:
    both err on the side of a lower floor. Sizes that are equally fast within 2 % are one level.
    """
    found: list[Level] = []
    for index in range(len(measured)):
        rate, reading = (max(later[way] for later in measured[index:]) for way in (1, 2))
        end = measured[index + 1][0] if index + 1 < len(measured) else None
        last = found[-1] if found else None
        if last and rate > 0.98 * last.bytes_per_s and reading > 0.98 * (last.read_bytes_per_s or 0):
            found[-1] = Level(last.bytes_per_s, end, last.read_bytes_per_s)
        else:
            found.append(Level(rate, end, reading))
    return tuple(found)
