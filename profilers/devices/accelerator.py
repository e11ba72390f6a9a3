"""Any accelerator that torch knows, through its device-generic API: events instead of the wall clock, and a flushed cache.

Work on an accelerator is queued, so a clock on the wall sees its launch only. Events are marks in the queue itself. Before each
sample a buffer larger than any L2 cache is overwritten, as a model in production finds the cache full of other things.
"""

from collections.abc import Callable
from typing import Any, Protocol

import torch

from ...models.errors import CannotMeasure, first_line
from .base import Call, Conditions, Memory

_FLUSH_BYTES = 256 * 2**20
"""Five times the L2 cache of an H100 (50 MB): also what triton's do_bench overwrites."""


class Api(Protocol):
    """The part of ``torch.accelerator`` that is used here, so that a test can put a device of its own in its place."""

    def synchronize(self) -> None: ...
    def max_memory_allocated(self) -> int: ...
    def memory_allocated(self) -> int: ...
    def reset_peak_memory_stats(self) -> None: ...


class Accelerator:
    """An asynchronous device.

    Args:
        device: torch's device.
        api: where synchronisation and memory are asked for.
        event: makes an event with ``record``, ``synchronize`` and ``elapsed_time`` in milliseconds.
        buffer: makes what `flush` overwrites.
    """

    clock = "device events around each call"
    flushes = True

    def __init__(
        self,
        device: torch.device,
        api: Api | None = None,
        event: Callable[[], Any] | None = None,
        buffer: Callable[[], torch.Tensor] | None = None,
    ) -> None:
        self.kind = device.type
        self._device = device
        self._api: Any = api or torch.accelerator
        self._event = event or (lambda: torch.Event(device, enable_timing=True))
        self._make_buffer = buffer or (lambda: torch.empty(_FLUSH_BYTES, dtype=torch.int8, device=device))
        self._buffer: torch.Tensor | None = None

    def describe(self) -> str:
        """The device's name, where torch's module for this kind tells it."""
        name = getattr(getattr(torch, self.kind, None), "get_device_name", None)
        return str(name(self._device)) if name else str(self._device)

    def time_ns(self, call: Call) -> float:
        """Nanoseconds between events before and after one call."""
        start, end = self._event(), self._event()
        start.record()
        call()
        end.record()
        end.synchronize()
        elapsed = float(start.elapsed_time(end)) * 1e6
        if elapsed < 0:
            raise CannotMeasure(f"{self._device} says that a call took {elapsed:.0f} ns", "its event clock can't be trusted")
        return elapsed

    def time_many_ns(self, call: Call, calls: int) -> float:
        """Nanoseconds of so many calls, queued without waiting for one another."""

        def burst() -> None:
            for _ in range(calls):
                call()

        return self.time_ns(burst)

    def flush(self) -> None:
        """Overwrite more than the L2 cache holds; queued before the start event, so not in the time."""
        if self._buffer is None:
            self._buffer = self._make_buffer()
        self._buffer.zero_()

    def synchronise(self) -> None:
        """Wait for the device."""
        self._api.synchronize()

    def memory(self, call: Call, held_bytes: int) -> Memory:
        """The allocator's peak over one call; what the cache holds in reserve is not in it."""
        try:
            self._buffer = None
            self.synchronise()
            self._api.reset_peak_memory_stats()
            before = self._api.memory_allocated()
            call()
            self.synchronise()
            peak = self._api.max_memory_allocated()
        except (AttributeError, NotImplementedError, RuntimeError) as error:
            raise CannotMeasure(f"torch has no memory counter for {self._device}", first_line(error)) from error
        return Memory(held_bytes + peak - before, peak - before, f"torch's allocator of {self._device}, max allocated")

    def conditions(self) -> Conditions:
        """Nothing is known of an accelerator in general."""
        return Conditions()
