"""When enough pairs have been seen: an exact sequential sign test, and the interval that belongs to it. Pure numbers, no torch.

A pair of processes gives one number, the logarithm of how long the new side takes of the old side's time. All that is assumed
of these numbers is that pairs are independent and that each lies above their common median as often as below it. Then the
count of pairs above the median is a fair coin's, and the chance that it ever reaches a boundary while pairs come in is a
finite sum. The boundaries spend that chance over the pairs as Lan and DeMets do (Discrete sequential boundaries for clinical
trials, Biometrika 1983, their alpha_2), exactly as for binomial counts in Jennison and Turnbull (Group Sequential Methods,
1999, chapter 12). Turned around, a boundary gives an interval of order statistics that holds at all looks at once.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

from ..stats import median

FIRST, LAST = 5, 12
"""Pairs of one run: at least, at most."""
ERROR = 1 / 16
"""Of one run, to either side. What fails a check needs two runs in a row: a false alarm has less than 1/256, 0.4 %."""

Word = Literal["worse", "better", "same"]


@dataclass(frozen=True, slots=True)
class Look:
    """What the pairs so far say, as logarithms; ``word`` is None while they say nothing. ``low`` and ``high`` likewise."""

    estimate: float
    low: float | None
    high: float | None
    word: Word | None


@cache
def boundaries(error: float = ERROR, first: int = FIRST, last: int = LAST) -> dict[int, int]:
    """How many of so many pairs have to lie on one side, by the number of pairs; one more than there are: none suffice.

    Under a fair coin the chance of ever reaching them is at most ``error``.
    """
    chance = {0: 1.0}  # of so many pairs on the side in question, without a boundary reached before
    spent, needed = 0.0, {}
    for pairs in range(1, last + 1):
        grown: dict[int, float] = {}
        for above, p in chance.items():
            for to in (above, above + 1):
                grown[to] = grown.get(to, 0.0) + p / 2
        chance = grown
        if pairs < first:
            continue
        allowed = error * math.log1p((math.e - 1) * pairs / last)
        needed[pairs] = pairs + 1
        while spent + (step := chance.get(needed[pairs] - 1, 0.0)) <= allowed:
            spent += step
            needed[pairs] -= 1
            chance.pop(needed[pairs], None)
    return needed


def look(pairs: Sequence[float], limit: float) -> Look:
    """Judge the log-ratios of so many pairs.

    Worse: the interval lies above 0 and the median beyond the limit; better: the mirror image. Same: the whole interval lies
    below the limit.

    Args:
        pairs: in any order, `LAST` at most.
        limit: a logarithm, above 0.
    """
    ordered, count = sorted(pairs), len(pairs)
    estimate = median(ordered)
    needed = boundaries().get(count, count + 1)
    if needed > count:
        return Look(estimate, None, None, None)
    low, high = ordered[count - needed], ordered[needed - 1]
    word: Word | None = None
    if low > 0 and estimate > limit:
        word = "worse"
    elif high < 0 and estimate < -limit:
        word = "better"
    elif high <= limit:
        word = "same"
    return Look(estimate, low, high, word)
