"""Statistics of timings: quantiles, their distribution-free intervals, and the ratio of two samples. Pure numbers, no torch.

Times are skewed and have outliers, so nothing here assumes a distribution. An interval consists of two order statistics: the
number of samples below a quantile q is binomial (n, q), whatever the samples are (David and Nagaraja, Order Statistics, 3rd
edition, section 7.1). That holds for independent samples; those of a machine that speeds up and slows down are not. The
interval's ranks are therefore moved outwards by the square root of the integrated autocorrelation of "below the quantile",
which is the factor by which dependence widens the error of a quantile (Sen 1972), summed as far as it stays positive in pairs
(Geyer 1992, initial positive sequence).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from operator import mul

LEVEL = 0.99
_LAGS = 64
"""How far dependence is looked for: in pairs of lags, until a pair is not positive any more."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A quantile and the interval that holds it with probability ``level``; None where the samples are too few for one."""

    value: float
    low: float | None
    high: float | None
    level: float
    samples: int


def quantile(ordered: Sequence[float], q: float) -> float:
    """The q-quantile of sorted samples, linear between order statistics.

    Raises:
        ValueError: without samples.
    """
    if not ordered:
        raise ValueError("no samples, no quantile")
    place = q * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def median(samples: Sequence[float]) -> float:
    """The middle of samples in any order."""
    return quantile(sorted(samples), 0.5)


def estimate(samples: Sequence[float], q: float = 0.5, level: float = LEVEL) -> Estimate:
    """The q-quantile of samples in the order in which they were taken, with its interval."""
    ordered = sorted(samples)
    count = len(ordered)
    value = quantile(ordered, q)
    ranks = interval_ranks(count, q, level)
    if ranks is None:
        return Estimate(value, None, None, level, count)
    low, high = ranks
    widening = math.sqrt(dependence([sample <= value for sample in samples]))
    centre = q * (count + 1) - 1  # where the quantile lies among ranks from 0
    low = math.floor(centre - widening * (centre - low) + 1e-9)
    high = math.ceil(centre + widening * (high - centre) - 1e-9)
    if low < 0 or high >= count:
        return Estimate(value, None, None, level, count)
    return Estimate(value, ordered[low], ordered[high], level, count)


def interval_ranks(count: int, q: float, level: float) -> tuple[int, int] | None:
    """Ranks from 0 of the order statistics that enclose the q-quantile with at least this probability; None if none do.

    The lower one is the largest l with P(B < l + 1) <= (1 - level) / 2 for B binomial (count, q), the upper one likewise.
    """
    tail = (1 - level) / 2
    low = _largest_below(count, q, tail)
    high = _largest_below(count, 1 - q, tail)
    return None if low is None or high is None else (low, count - 1 - high)


def _largest_below(count: int, q: float, tail: float) -> int | None:
    """The largest rank l from 0 such that at most l of ``count`` samples lie below the q-quantile with probability <= tail."""
    start = max(0, math.floor(count * q - 9 * math.sqrt(count * q * (1 - q)) - 2))  # what lies before is below 1e-15
    probability, rank = 0.0, None
    for below in range(start, count):
        log = math.lgamma(count + 1) - math.lgamma(below + 1) - math.lgamma(count - below + 1)
        probability += math.exp(log + below * math.log(q) + (count - below) * math.log1p(-q))
        if probability > tail:
            break
        rank = below
    return rank


def dependence(signs: Sequence[bool]) -> float:
    """The integrated autocorrelation of a sequence of yes and no, at least 1: how many samples weigh as much as one.

    1 for independent samples. Nothing is known of a sequence without both answers: 1.
    """
    count = len(signs)
    mean = sum(signs) / count if count else 0.0
    if mean in (0.0, 1.0):
        return 1.0
    centred = [sign - mean for sign in signs]
    variance = sum(value * value for value in centred)
    total = 0.0
    for lag in range(1, min(_LAGS, count - 2), 2):
        # `map` ends with its shorter argument; no line of Python runs for each product, of which there may be millions.
        pair = sum(map(mul, centred, centred[lag:])) + sum(map(mul, centred, centred[lag + 1 :]))
        # What chance alone brings about: products of independent signs, two lags of them.
        if pair <= variance * math.sqrt(2 / count):
            break
        total += pair
    return max(1.0, 1.0 + 2.0 * total / variance)


def ratio(base: Sequence[float], other: Sequence[float], level: float = LEVEL) -> Estimate:
    """The median of ``other / base`` over samples taken in pairs: below 1, ``other`` is faster.

    Raises:
        ValueError: when the samples are not pairs.
    """
    return estimate([b / a for a, b in zip(base, other, strict=True)], 0.5, level)


def share_interval(hits: int, count: int, level: float = 0.95) -> tuple[float, float]:
    """Clopper and Pearson's interval (1934) of a share: the probabilities under which so few or so many hits are just likely.

    Raises:
        ValueError: when there are more hits than tries, or none.
    """
    if not 0 <= hits <= count or not count:
        raise ValueError(f"{hits} hits of {count} tries are no share")
    tail = (1 - level) / 2

    def solve(below: int, tail: float) -> float:
        """The p with P(B <= below) = tail for B binomial (count, p), by bisection: that probability falls as p grows."""
        low, high = 0.0, 1.0
        for _ in range(60):
            p = (low + high) / 2
            reached = math.fsum(math.comb(count, k) * p**k * (1 - p) ** (count - k) for k in range(below + 1))
            low, high = (p, high) if reached > tail else (low, p)
        return (low + high) / 2

    return 0.0 if hits == 0 else solve(hits - 1, 1 - tail), 1.0 if hits == count else solve(hits, tail)
