"""Peak memory of one call on the CPU: the profiler reports each block that torch's allocator gives out or takes back."""

from collections.abc import Callable

from .kineto import events, recording


def allocator_peak(call: Callable[[], object]) -> int:
    """Most bytes that a call holds at once beyond what was held when it began.

    Blocks that the call gives back without having taken them (the last call's output, say) are left out: they are not its own.
    """
    with recording(profile_memory=True) as profiler:
        call()
    live = peak = 0
    for event in events(profiler):
        if event.name() == "[memory]" and event.device_type().name == "CPU":
            live = max(0, live + event.nbytes())
            peak = max(peak, live)
    return peak
