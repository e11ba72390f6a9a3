"""Where a series of measured figures changed its level, and not merely wavered. No torch here.

Optimal partitioning (Jackson et al. 2005, IEEE Signal Processing Letters 12, 105) of the logarithms: of all ways to cut the
series, the one with the least sum of absolute deviations from the segments' medians, plus a price for every cut. Absolute
deviations let a few wild runs pass; logarithms make a tenth more the same everywhere. The noise is taken from the differences
of neighbours, which a change of level disturbs in one place only (von Neumann 1941).
"""

import math
from collections.abc import Sequence
from heapq import heappush, heappushpop
from itertools import pairwise

from .stats import median

FLOOR = 0.02
"""Levels closer than this share are one: two processes of the same code differ by as much."""
SHORTEST = 3
"""Runs that a level needs, so that no single one makes a change."""
_DIFFERENCE = 0.9539
"""The median of |a - b| for independent standard normal a and b: sqrt 2 times the upper quartile."""
LONGEST = 500
"""Only so many of the last points are looked at: the work grows with their square."""


def price(count: int) -> float:
    """What a cut has to save, in standard deviations: chosen by simulation, see benchmarks/history_alarms.py."""
    return 7.0 + 2.0 * math.log(count) + 60.0 / count


def change_points(values: Sequence[float]) -> list[int]:
    """The first place of every new level; empty where nothing is found, or the points are too few to tell.

    Args:
        values: positive, in order.
    """
    skipped = max(0, len(values) - LONGEST)
    logs = [math.log(value) for value in values[skipped:] if value > 0]
    count = len(logs)
    if count < 2 * SHORTEST or count < len(values) - skipped:
        return []
    scale = median([abs(b - a) for a, b in pairwise(logs)]) / _DIFFERENCE
    if scale == 0:  # most neighbours are equal: whatever differs beyond the floor does so for a reason
        scale = FLOOR / (2 * price(count))
    cuts = _partition(logs, scale * price(count))
    return [cut + skipped for cut in _beyond_floor(logs, cuts)]


def _partition(logs: Sequence[float], cut: float) -> list[int]:
    """The cheapest cuts."""
    count = len(logs)
    least = [-cut, *[math.inf] * count]  # of the first so many points
    begin = [0] * (count + 1)  # of the last segment among them
    for start in range(count - SHORTEST + 1):
        if math.isinf(least[start]):
            continue
        for end, cost in _deviations(logs, start):
            total = least[start] + cost + cut
            if end - start >= SHORTEST and total < least[end]:
                least[end], begin[end] = total, start
    cuts = []
    place = begin[count]
    while place:
        cuts.append(place)
        place = begin[place]
    return cuts[::-1]


def _deviations(logs: Sequence[float], start: int) -> list[tuple[int, float]]:
    """(end, sum of absolute deviations from the median) of every segment that begins there, by two heaps around the median."""
    below: list[float] = []  # negated
    above: list[float] = []
    low = high = 0.0
    found = []
    for end in range(start + 1, len(logs) + 1):
        value = logs[end - 1]
        if len(below) == len(above):
            moved = heappushpop(above, value)
            heappush(below, -moved)
            high += value - moved
            low += moved
        else:
            moved = -heappushpop(below, -value)
            heappush(above, moved)
            low += value - moved
            high += moved
        middle = -below[0]
        found.append((end, (high - middle * len(above)) + (middle * len(below) - low)))
    return found


def _beyond_floor(logs: Sequence[float], cuts: list[int]) -> list[int]:
    """The cuts between levels that differ by more than the floor; the least is given up first, and the rest looked at again."""
    while cuts:
        edges = [0, *cuts, len(logs)]
        levels = [median(logs[a:b]) for a, b in pairwise(edges)]
        steps = [abs(b - a) for a, b in pairwise(levels)]
        least = min(range(len(steps)), key=steps.__getitem__)
        if steps[least] > math.log1p(FLOOR):
            break
        cuts = cuts[:least] + cuts[least + 1 :]
    return cuts
