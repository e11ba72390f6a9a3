"""A `Device`: how one call is timed, how caches are made cold, how memory is read, and how fast its clock runs.

The file's name is the device's name: `find` looks for ``NAME.py`` beside this file, and everything else that torch knows as an
accelerator is served by `accelerator.Accelerator`, through torch's device-generic API.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Protocol

from ...models.errors import BadInput, CannotMeasure

Call = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Memory:
    """Peak memory of one call. ``source`` says who was asked; numbers of different sources are not comparable.

    Attributes:
        peak_bytes: most bytes that tensors held at once during the call, weights and inputs included.
        working_bytes: the part of it that the call itself took: intermediate results and outputs.
    """

    peak_bytes: int
    working_bytes: int
    source: str


@dataclass(frozen=True, slots=True)
class Conditions:
    """State of a device at one moment; what it has no counter for is None.

    Attributes:
        clock_mhz: of the compute units.
        throttled: reasons that the vendor's library gives, "" when there are none.
        energy_mj: millijoules since the counter began, for differences.
    """

    clock_mhz: float | None = None
    throttled: str | None = None
    energy_mj: float | None = None


class Device(Protocol):
    """What `timing.measure` asks of a device."""

    kind: str
    clock: str
    """How time is taken, in words: part of every record."""
    flushes: bool
    """Whether `flush` makes caches cold before each sample."""

    def describe(self) -> str:
        """The device's name as its maker gives it."""
        ...

    def time_ns(self, call: Call) -> float:
        """Nanoseconds of one call, finished when this returns."""
        ...

    def time_many_ns(self, call: Call, calls: int) -> float:
        """Nanoseconds of so many calls on end, issued without waiting for each other."""
        ...

    def flush(self) -> None:
        """Take from the caches what an earlier call left there, where that is usual for this kind of device."""
        ...

    def synchronise(self) -> None:
        """Wait until all work is done."""
        ...

    def memory(self, call: Call, held_bytes: int) -> Memory:
        """Peak memory of one call; ``held_bytes`` is what weights and inputs take."""
        ...

    def conditions(self) -> Conditions:
        """Clocks, throttling and energy now."""
        ...


@dataclass(frozen=True, slots=True)
class Entry:
    """What a device's file assigns to ``DEVICE``."""

    make: Callable[[], Device]
    available: Callable[[], bool] = field(default=lambda: True)


def names() -> list[str]:
    """The kinds that have a file of their own; others that torch registers work too."""
    return sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py") if path.stem not in ("base", "accelerator"))


def find(name: str) -> Device:
    """The device that the user names, such as ``cpu`` or ``cuda``.

    Raises:
        BadInput: when torch knows no such device.
        CannotMeasure: when this machine has none, or not the one with that index.
    """
    import torch

    try:
        asked = torch.device(name)
    except RuntimeError as error:
        raise BadInput(f"no device named {name!r}", f"one of {', '.join(names())}, or another that torch knows") from error
    if asked.type in names():
        entry: Entry = import_module(f".{asked.type}", __package__).DEVICE
        if entry.available():
            return entry.make()
    here = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if here is None or here.type != asked.type or (asked.index or 0) >= torch.accelerator.device_count():
        found = f"{torch.accelerator.device_count()} x {here.type} and cpu" if here else "cpu only"
        raise CannotMeasure(f"this machine has no device {name!r} that torch can use", f"torch sees {found}")
    from .accelerator import Accelerator

    return Accelerator(asked)
