"""torch's profiler (kineto), opened in one place: quietly, and with its events as plain lists."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch.profiler import ExecutionTraceObserver, ProfilerActivity, profile, supported_activities


@contextmanager
def recording(**options: Any) -> Iterator[profile]:
    """Profile what runs in this block, on the CPU and on the accelerator if there is one.

    Args:
        options: of ``torch.profiler.profile``, such as ``profile_memory=True``.
    """
    # kineto announces start and stop on stderr, which belongs to us; it reads this when it first writes a line.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    activities = [activity for activity in supported_activities() if activity.name != "MTIA"]
    with profile(activities=activities or [ProfilerActivity.CPU], acc_events=True, **options) as profiler:
        yield profiler


def events(profiler: profile) -> list[Any]:
    """Kineto's own events, in the order of their start."""
    results = profiler.profiler.kineto_results if profiler.profiler else None
    return sorted(results.events(), key=lambda event: event.start_ns()) if results else []


@contextmanager
def recording_execution(path: Path) -> Iterator[None]:
    """Write torch's execution trace of this block to a file."""
    observer = ExecutionTraceObserver()
    with _quiet():
        observer.register_callback(str(path))
        observer.start()
    try:
        yield
    finally:
        with _quiet():
            observer.stop()
            observer.unregister_callback()


@contextmanager
def _quiet() -> Iterator[None]:
    """torch logs the start and the end of an execution trace from C++, past Python's stderr, which belongs to us."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "w") as nowhere:  # noqa: PTH123 - a device, not a path
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
