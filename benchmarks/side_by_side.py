"""Times taken next to one another in one process, and the ratio of two of them: what the scripts named *_speed.py share.

Times on a shared machine drift, so a round takes one sample of each call, in random order, and only samples of the same round
are compared. A ratio is the median of the rounds' ratios; its interval is that of `mixbench.profilers.stats`: order statistics,
without a distribution assumed, wider where the rounds depend on one another. Where the rounds are too few for one, it says so.

    ours, theirs = times(41, call, other_call)
    found = ratio(ours, theirs)
    print(f"theirs / ours {found.value:.2f} ({interval(found)})")
"""

import gc
import random
from collections.abc import Callable
from functools import partial
from time import perf_counter

from mixbench.profilers.stats import Estimate

WARM_UP = 2
"""Rounds that are not kept."""
_draw = random.Random(0)


def seconds(work: Callable[[], object], calls: int = 1) -> float:
    """Wall-clock seconds of a call, as the mean of ``calls`` in a row."""
    start = perf_counter()
    for _ in range(calls):
        work()
    return (perf_counter() - start) / calls


def samples(rounds: int, *clocks: Callable[[], float], collector: bool = False) -> list[list[float]]:
    """What each clock reads in so many rounds; the i-th readings of all were taken next to one another.

    Args:
        collector: whether garbage is collected while a clock runs, as it is for a user: where Python's own work is timed.
    """
    found: list[list[float]] = [[] for _ in clocks]
    was_on = gc.isenabled()
    gc.collect()
    if not collector:
        gc.disable()
    try:
        for index in range(-WARM_UP, rounds):
            gc.collect(0)  # the youngest generation only: it takes what a round left, and leaves the caches as they are
            for place in _draw.sample(range(len(clocks)), len(clocks)):
                reading = clocks[place]()
                if index >= 0:
                    found[place].append(reading)
    finally:
        if was_on:
            gc.enable()
    return found


def times(rounds: int, *works: Callable[[], object], calls: int = 1, collector: bool = False) -> list[list[float]]:
    """Seconds of each work in rounds, as `samples` takes them, each the mean of ``calls`` in a row."""
    return samples(rounds, *(partial(seconds, work, calls) for work in works), collector=collector)


def bounds(found: Estimate, digits: int = 2) -> str:
    """The interval's ends, for a column of them."""
    if found.low is None or found.high is None:
        return "too few rounds"
    return f"{found.low:.{digits}f} to {found.high:.{digits}f}"


def interval(found: Estimate, digits: int = 2) -> str:
    """The interval in words, and over how many rounds; or that there is none."""
    level = f"{100 * found.level:.0f} % interval"
    if found.low is None or found.high is None:
        return f"no {level}: {found.samples} rounds are too few"
    return f"{level} {bounds(found, digits)} over {found.samples}"
