"""Measuring how long calls take: several subjects in random order side by side, so that drift of the machine hits all alike.

What the method is built on was measured (see docs/timing.md): the first calls of a process are ten times slower than the
rest; one mean over a run varies seven times as much from process to process as its median; and a block of A before a block of
B finds differences that are not there, while pairs do not.
"""

import gc
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter_ns

import torch
from torch import nn

from ..models.errors import CannotMeasure, first_line
from .devices.base import Call, Conditions, Device, Memory
from .machine import Disturbances
from .stats import Estimate, estimate, median, ratio
from .subject import Subject

MIN_ROUNDS = 8
"""Fewer samples have no 99 % interval of their median."""
_WARM_NS, _WARM_MAX_NS, _WARM_WINDOW, _STEADY = 0.3e9, 4e9, 10, 0.02
_LOOK_NS, _EARLY_ROUNDS = 2e8, 100
_BLOCK_NS = 50e6
"""Throughput is taken over blocks of so long, which hold many calls of a small model and one of a large."""
_BLOCKS = 12


@dataclass
class Timing:
    """Times of one subject in ns, in the order in which they were taken; nothing is left out of ``samples``.

    Attributes:
        cold_ns: the first call, with whatever it compiles and allocates.
        warm_up: times of the calls after that, until they were steady.
        samples: latency, one call each; the i-th samples of all subjects were taken next to one another.
        blocks: ns per call in blocks of calls issued on end, for throughput.
        energy_mj: per call, None without a counter.
    """

    subject: Subject
    cold_ns: float = 0.0
    warm_up: list[float] = field(default_factory=list)
    steady: bool = False
    samples: list[float] = field(default_factory=list)
    blocks: list[float] = field(default_factory=list)
    energy_mj: float | None = None

    @property
    def latency(self) -> Estimate:
        """The median of one call and its interval, in ns."""
        return estimate(self.samples)

    def percentile(self, q: float) -> Estimate | None:
        """A tail, in ns; None unless ten samples lie beyond it, fewer say nothing."""
        return estimate(self.samples, q) if len(self.samples) * (1 - q) >= 10 else None

    @property
    def throughput(self) -> Estimate | None:
        """Calls per second, issued on end, and its interval."""
        return estimate([1e9 / block for block in self.blocks]) if self.blocks else None


@dataclass
class Measurement:
    """What `measure` found.

    Attributes:
        overhead_ns: what the method itself takes per call: the median over an empty module.
        partial: whether the user stopped it.
    """

    timings: list[Timing]
    overhead_ns: float
    before: Conditions
    after: Conditions
    warnings: list[str]
    partial: bool = False

    def ratio(self, index: int) -> Estimate | None:
        """Time of this subject over the first one's, from samples taken in pairs; None without samples."""
        base, other = self.timings[0].samples, self.timings[index].samples
        return ratio(base, other) if base and other else None


Progress = Callable[[Sequence[Timing], float], None]
"""Gets the timings so far and the share that is done, 0 to 1."""


def measure(
    subjects: Sequence[Subject],
    device: Device,
    seconds: float = 5.0,
    samples: int | None = None,
    precision: float = 0.01,
    seed: int = 0,
    progress: Progress = lambda timings, share: None,
) -> Measurement:
    """Time subjects against each other.

    Each round takes one sample of each subject, in random order. Ctrl-C ends it early: what was measured so far is returned
    and marked as partial, unless there is no complete round yet.

    Args:
        seconds: of sampling for each subject at most; `MIN_ROUNDS` rounds are made in any case.
        samples: rounds to make, instead of a time.
        precision: sampling ends early when the interval of each median and ratio reaches no further than this share to either
            side. It asks how wide an interval is, never where it lies, so that stopping favours no outcome.
        progress: is called a few times a second, never while a sample is taken.

    Raises:
        CannotMeasure: when a subject fails.
    """
    timings = [Timing(subject) for subject in subjects]
    watch, before = Disturbances(), device.conditions()
    found = Measurement(timings, 0.0, before, before, [])
    try:
        with collector_off():
            found.overhead_ns = overhead_ns(device)
            for timing in timings:
                _warm_up(timing, device)
            _sample(timings, device, seconds, samples, precision, random.Random(seed), progress)
            for timing in timings:
                _throughput(timing, device, seconds / 3)
    except KeyboardInterrupt:
        rounds = min(len(timing.samples) for timing in timings)
        if not rounds:
            raise
        for timing in timings:
            del timing.samples[rounds:]
        found.partial = True
    found.after = device.conditions()
    found.warnings = [*watch.warnings(), *_doubts(found)]
    return found


def overhead_ns(device: Device, rounds: int = 500) -> float:
    """What the method adds to each call: the median time of a module that does nothing."""
    nothing, argument = _Nothing(), torch.zeros(1)
    with torch.inference_mode():
        return median([device.time_ns(lambda: nothing(argument)) for _ in range(rounds)])


class _Nothing(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


@contextmanager
def collector_off() -> Iterator[None]:
    """No garbage collection within a sample: collected once before, and again after."""
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@contextmanager
def _ready(subject: Subject) -> Iterator[Call]:
    """The subject's call with autograd as it needs it, and failures that name the subject."""
    try:
        with torch.inference_mode(not subject.grad), torch.set_grad_enabled(subject.grad):
            yield subject.call
    except (KeyboardInterrupt, CannotMeasure):
        raise
    except Exception as error:
        raise CannotMeasure(
            f"{subject.name} fails while it is timed: {first_line(error)}",
            "--debug shows the traceback; check --input and --dtype",
        ) from error


def _warm_up(timing: Timing, device: Device) -> None:
    """The cold call apart; then calls until enough time has passed and the last window is no faster than the one before."""
    with _ready(timing.subject) as call:
        timing.cold_ns = device.time_ns(call)
        start, spent = perf_counter_ns(), timing.warm_up
        while True:
            spent.append(device.time_ns(call))
            passed = perf_counter_ns() - start
            if len(spent) >= 2 * _WARM_WINDOW:
                earlier, later = median(spent[-2 * _WARM_WINDOW : -_WARM_WINDOW]), median(spent[-_WARM_WINDOW:])
                timing.steady = earlier - later <= _STEADY * earlier  # not getting faster any more
            if (passed >= _WARM_NS and timing.steady) or passed >= _WARM_MAX_NS:
                return


def _sample(
    timings: Sequence[Timing],
    device: Device,
    seconds: float,
    samples: int | None,
    precision: float,
    draw: random.Random,
    progress: Progress,
) -> None:
    order = list(timings)
    begin = shown = perf_counter_ns()
    budget = seconds * 1e9 * len(order)
    done = 0
    while True:
        draw.shuffle(order)
        for timing in order:
            with _ready(timing.subject) as call:
                if device.flushes:
                    device.flush()
                elapsed = device.time_ns(call)
            timing.samples.append(elapsed)
        done += 1
        now = perf_counter_ns()
        share = done / samples if samples else min((now - begin) / budget, done / MIN_ROUNDS)
        if now - shown > _LOOK_NS:
            gc.collect(0)  # the youngest generation only: cycles that models leave would else fill the memory
            if not samples and done >= _EARLY_ROUNDS and _precise(timings, precision):
                share = 1.0
            progress(timings, share)
            shown = perf_counter_ns()
            begin += shown - now  # what looking took is not measuring
        if share >= 1:
            return


def _precise(timings: Sequence[Timing], precision: float) -> bool:
    """Whether the first median and every ratio to it are known well enough; a median alone when there is no other."""
    first, *others = timings
    wanted = [ratio(first.samples, other.samples) for other in others] or [first.latency]
    return all(e.low is not None and e.high is not None and e.high - e.low <= 2 * precision * e.value for e in wanted)


def _throughput(timing: Timing, device: Device, seconds: float) -> None:
    calls = max(1, round(_BLOCK_NS / max(median(timing.samples), 1)))
    begin = perf_counter_ns()
    with _ready(timing.subject) as call:
        while len(timing.blocks) < MIN_ROUNDS or (len(timing.blocks) < _BLOCKS and perf_counter_ns() - begin < seconds * 1e9):
            energy = device.conditions().energy_mj
            timing.blocks.append(device.time_many_ns(call, calls) / calls)
            if energy is not None and (after := device.conditions().energy_mj) is not None:
                timing.energy_mj = (after - energy) / calls
            if perf_counter_ns() - begin > max(2 * seconds, 1) * 1e9:  # a model of seconds per call: better few than none
                return


def peak_memory(subject: Subject, device: Device) -> Memory:
    """Peak memory of one call, apart from all timing."""
    with _ready(subject) as call:
        return device.memory(call, subject.held_bytes)


def _doubts(found: Measurement) -> list[str]:
    """What the times themselves say against them."""
    said = []
    for timing in found.timings:
        if not timing.samples:
            continue
        middle, tail = median(timing.samples), timing.percentile(0.9)
        if not timing.steady:
            said.append(f"{timing.subject.name} was not steady after {len(timing.warm_up)} warm-up calls")
        if tail and tail.value > 1.5 * middle:
            said.append(
                f"one in ten calls of {timing.subject.name} took over {tail.value / middle:.1f} x its median: a noisy machine"
            )
        if (share := found.overhead_ns / middle) > 0.02:
            method = f"the method's own {found.overhead_ns / 1e3:.2f} us a call"
            said.append(f"{method} are {100 * share:.0f} % of the time of {timing.subject.name}; they are not subtracted")
    for conditions in (found.before, found.after):
        if conditions.throttled:
            said.append(f"the device is throttled: {conditions.throttled}")
            break
    return said
