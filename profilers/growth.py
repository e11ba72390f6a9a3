"""How a cost grows with a size: exactly where it is a polynomial, else as a power law with its local slopes. Pure numbers.

A cost of a network is often a polynomial of the size, such as a S + b S^2 of attention. Of such a cost a fitted exponent says
little, since it lies between the powers and moves with the range. So the polynomial is looked for first, in exact fractions,
through the fewest points that determine it, and it counts only if it passes through all others as well, one at the least.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

HIGHEST = 4
"""The highest power looked for: attention over an image's pixels grows with the fourth power of its side."""

Points = Sequence[tuple[int, int | float]]
"""(size, cost), the sizes positive and rising."""


@dataclass(frozen=True, slots=True)
class Polynomial:
    """Coefficients from the constant upwards, and how many of the last points it passes through exactly."""

    coefficients: tuple[Fraction, ...]
    points: int

    @property
    def degree(self) -> int:
        """The highest power; what the growth comes to in the end."""
        return len(self.coefficients) - 1

    def __call__(self, size: int) -> Fraction:
        value = Fraction(0)
        for coefficient in reversed(self.coefficients):
            value = value * size + coefficient
        return value


@dataclass(frozen=True, slots=True)
class PowerLaw:
    """cost ~ size ^ exponent by least squares of the logarithms; ``worst`` is its largest miss, as a share of the cost."""

    exponent: float
    worst: float


def polynomial(points: Points) -> Polynomial | None:
    """The polynomial through as many of the last points as possible, or None: small sizes may have rules of their own.

    It takes one point more than determine it, so two equal costs at the end are no constant, but three are.
    """
    whole = [(size, int(cost)) for size, cost in points if cost == int(cost)]
    if len(whole) != len(points):
        return None
    for start in range(len(whole) - 2):
        rest = whole[start:]
        for degree in range(min(HIGHEST, len(rest) - 2) + 1):
            found = Polynomial(_through(rest[: degree + 1]), len(rest))
            if all(found(size) == cost for size, cost in rest[degree + 1 :]):
                return found
    return None


def _through(points: Sequence[tuple[int, int]]) -> tuple[Fraction, ...]:
    """Coefficients of the polynomial that the points determine, by Newton's divided differences."""
    sizes = [size for size, _ in points]
    divided = [Fraction(cost) for _, cost in points]
    for level in range(1, len(points)):
        for place in range(len(points) - 1, level - 1, -1):
            divided[place] = (divided[place] - divided[place - 1]) / (sizes[place] - sizes[place - level])
    coefficients = [Fraction(0)] * len(points)
    for place in range(len(points) - 1, -1, -1):
        # coefficients * (x - size) + divided difference
        shifted = [Fraction(0), *coefficients[:-1]]
        coefficients = [up - sizes[place] * same for up, same in zip(shifted, coefficients, strict=True)]
        coefficients[0] += divided[place]
    while len(coefficients) > 1 and not coefficients[-1]:
        coefficients.pop()
    return tuple(coefficients)


def power_law(points: Points) -> PowerLaw | None:
    """The power law through the points with a cost; None for fewer than two."""
    logs = [(math.log(size), math.log(cost)) for size, cost in points if cost > 0]
    if len(logs) < 2:
        return None
    middle_x, middle_y = (sum(values) / len(logs) for values in zip(*logs, strict=True))
    spread = sum((x - middle_x) ** 2 for x, _ in logs)
    exponent = sum((x - middle_x) * (y - middle_y) for x, y in logs) / spread
    misses = [abs(y - middle_y - exponent * (x - middle_x)) for x, y in logs]
    return PowerLaw(exponent, math.expm1(max(misses)))


def slopes(points: Points) -> list[tuple[int, int, float]]:
    """(size, next size, slope) between neighbours in logarithms: the exponent there."""
    known = [(size, cost) for size, cost in points if cost > 0]
    return [(a, b, math.log(q / p) / math.log(b / a)) for (a, p), (b, q) in pairwise(known)]
