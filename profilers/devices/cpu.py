"""The CPU: calls end when their work is done, so time is the clock on the wall; memory is what torch's allocator gave out."""

from time import perf_counter_ns

from .base import Call, Conditions, Entry, Memory


class Cpu:
    """The CPU, with torch's threads as they are set."""

    kind = "cpu"
    clock = "monotonic wall clock around each call"
    flushes = False  # a model that runs again and again on a CPU finds its weights in cache: that is the steady state

    def describe(self) -> str:
        """The processor's name."""
        from ..machine import processor

        return processor()

    def time_ns(self, call: Call) -> float:
        """Nanoseconds of one call."""
        start = perf_counter_ns()
        call()
        return perf_counter_ns() - start

    def time_many_ns(self, call: Call, calls: int) -> float:
        """Nanoseconds of so many calls on end."""
        start = perf_counter_ns()
        for _ in range(calls):
            call()
        return perf_counter_ns() - start

    def flush(self) -> None:
        """Nothing: caches stay as the last call left them."""

    def synchronise(self) -> None:
        """Nothing: calls end when their work is done."""

    def memory(self, call: Call, held_bytes: int) -> Memory:
        """Most bytes that torch's CPU allocator gave out at once, from the profiler's record of every block.

        Exact and repeatable, unlike resident memory; scratch that oneDNN and BLAS take for themselves is not in it.
        """
        from ..memory import allocator_peak

        working = allocator_peak(call)
        return Memory(held_bytes + working, working, "torch's CPU allocator, every block of one call")

    def conditions(self) -> Conditions:
        """The clock of the first core that the process may use, where the system tells it."""
        import psutil

        try:
            frequency = psutil.cpu_freq()
        except (OSError, NotImplementedError, RuntimeError):
            frequency = None
        return Conditions(clock_mhz=frequency.current if frequency and frequency.current else None)


DEVICE = Entry(make=Cpu)
