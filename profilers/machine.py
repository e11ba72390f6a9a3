"""The machine that a measurement was taken on, and what disturbed it: a fingerprint and warnings. No torch at the top."""

import hashlib
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path

_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
_THROTTLES = "cpu*/thermal_throttle/core_throttle_count"


@dataclass(frozen=True, slots=True)
class Machine:
    """Where a time was taken. Times of two machines with different ``fingerprint`` are not comparable.

    Attributes:
        affinity: cores that the process may use, empty where the system has no such thing.
        threads: torch's threads within one operator.
        governor: of the first core, "" where it is not known.
        device: what ran the model.
        clock: how time was taken.
    """

    system: str
    processor: str
    logical_cores: int
    affinity: tuple[int, ...]
    threads: int
    governor: str
    memory_bytes: int
    device: str
    clock: str
    versions: dict[str, str]
    fingerprint: str = ""


def look(device: str, clock: str, versions: dict[str, str]) -> Machine:
    """The machine as it is now."""
    import psutil
    import torch

    found = Machine(
        system=platform.platform(),
        processor=processor(),
        logical_cores=os.cpu_count() or 1,
        affinity=tuple(sorted(usable_cores())),
        threads=torch.get_num_threads(),
        governor=_GOVERNOR.read_text().strip() if _GOVERNOR.exists() else "",
        memory_bytes=psutil.virtual_memory().total,
        device=device,
        clock=clock,
        versions=versions,
    )
    digest = hashlib.sha256(repr(sorted(asdict(found).items())).encode()).hexdigest()[:12]
    return Machine(**{**asdict(found), "affinity": found.affinity, "fingerprint": digest})


def processor() -> str:
    """The processor's name as the system gives it; Linux keeps it in /proc."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
            return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def usable_cores() -> list[int]:
    """The cores that this process may use; all of them where the system can't tell."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def pin(threads: int) -> None:
    """Keep this process to as many cores as it has threads: the last ones, since the first serve the system's interrupts.

    Call it before torch is imported, so that its threads inherit it. Does nothing where the system has no affinity.
    """
    cores = usable_cores()
    if hasattr(os, "sched_setaffinity") and threads < len(cores):
        os.sched_setaffinity(0, cores[-threads:])


class Disturbances:
    """What else the machine did between two moments: other load, swapping, throttling, stolen time."""

    def __init__(self) -> None:
        self._before = _counters()

    def warnings(self) -> list[str]:
        """A sentence for each thing that can have falsified a time, with its number."""
        before, now = self._before, _counters()
        wall = max(now["wall_s"] - before["wall_s"], 1e-9)
        grown = {name: now[name] - before[name] for name in now}
        cores = len(usable_cores())
        busy_elsewhere = (grown["busy_s"] - grown["own_s"]) / wall
        found = []
        if busy_elsewhere > 0.15:
            found.append(f"other work kept {busy_elsewhere:.1f} of {os.cpu_count() or 1} cores busy meanwhile")
        if grown["stolen_s"] / wall > 0.01 * cores:
            found.append(f"the hypervisor gave {100 * grown['stolen_s'] / wall:.0f} % of a core to others (steal time)")
        if grown["swapped_bytes"] > 0:
            found.append(f"the system swapped {grown['swapped_bytes'] / 1e6:.0f} MB meanwhile")
        if grown["throttles"] > 0:
            found.append(f"the processor throttled itself {grown['throttles']:.0f} times for heat")
        if grown["preempted"] / wall > 20 * cores:
            found.append(f"the process lost its core {grown['preempted'] / wall:.0f} times a second to others")
        return found


def _counters() -> dict[str, float]:
    import time

    import psutil

    own = psutil.Process()
    cpu = psutil.cpu_times()
    try:
        swap = psutil.swap_memory()
        swapped = swap.sin + swap.sout
    except (OSError, RuntimeError):
        swapped = 0
    throttles = (int(path.read_text()) for path in Path("/sys/devices/system/cpu").glob(_THROTTLES))
    return {
        "wall_s": time.monotonic(),
        "own_s": sum(own.cpu_times()[:4]),
        "busy_s": sum(cpu) - cpu.idle - getattr(cpu, "iowait", 0.0) - getattr(cpu, "guest", 0.0) - getattr(cpu, "steal", 0.0),
        "stolen_s": getattr(cpu, "steal", 0.0),
        "swapped_bytes": swapped,
        "throttles": sum(throttles),
        "preempted": own.num_ctx_switches().involuntary,
    }
