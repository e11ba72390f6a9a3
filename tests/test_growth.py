"""Growth is found as it was planted: polynomials in exact fractions, power laws by their exponent and their miss."""

import math
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixbench.profilers.growth import HIGHEST, polynomial, power_law, slopes
from mixbench.profilers.runs.sweep_run import formula, grow

DOUBLING = [1024 * 2**place for place in range(8)]


@given(
    coefficients=st.lists(st.integers(0, 10**12), min_size=1, max_size=HIGHEST + 1).filter(lambda found: bool(found[-1])),
    sizes=st.sets(st.integers(1, 10**5), min_size=HIGHEST + 2, max_size=12),
)
def test_a_planted_polynomial_is_found_exactly(coefficients: list[int], sizes: set[int]) -> None:
    points = [(size, sum(part * size**power for power, part in enumerate(coefficients))) for size in sorted(sizes)]
    found = polynomial(points)
    assert found is not None
    assert found.points == len(points)
    assert found.coefficients == tuple(map(Fraction, coefficients))


@given(sizes=st.sets(st.integers(1, 10**4), min_size=5, max_size=9), at=st.integers(0, 8), miss=st.integers(1, 10**6))
def test_one_point_off_the_curve_is_not_overlooked(sizes: set[int], at: int, miss: int) -> None:
    ordered = sorted(sizes)
    points = [(size, 3 * size * size + 7 * size) for size in ordered]
    place = at % len(points)
    points[place] = (points[place][0], points[place][1] + miss)
    found = polynomial(points)
    assert found is None or found.points < len(points) or found.coefficients != (0, 7, 3)
    if found:  # what it claims to pass through it passes through
        assert all(found(size) == cost for size, cost in points[-found.points :])


def test_small_sizes_may_have_rules_of_their_own() -> None:
    """A window of 256: up to there attention grows with the square, then with the length."""
    points = [(size, size * min(size, 256)) for size in (64, 128, 256, 512, 1024, 2048)]
    found = polynomial(points)
    assert found is not None
    assert (found.points, found.coefficients) == (4, (0, 256))


def test_two_points_are_no_line_and_three_are() -> None:
    assert polynomial([(1, 5), (2, 10)]) is None
    assert polynomial([(1, 5), (2, 10), (4, 20)]) is not None
    assert polynomial([(1, 5.5), (2, 11.0), (4, 22.0)]) is None, "what is no integer is not exact"


@given(exponent=st.floats(-3, 4), factor=st.floats(1e-3, 1e12), count=st.integers(2, 12))
def test_a_planted_power_law_is_found(exponent: float, factor: float, count: int) -> None:
    points = [(size, factor * size**exponent) for size in (3 * 2**place for place in range(count))]
    law = power_law(points)
    assert law is not None
    assert law.exponent == pytest.approx(exponent, abs=1e-6)
    assert law.worst == pytest.approx(0, abs=1e-6)
    assert [slope for *_, slope in slopes(points)] == pytest.approx([exponent] * (count - 1), abs=1e-6)


def test_the_exponent_is_numpys_and_the_miss_is_the_largest() -> None:
    numpy = pytest.importorskip("numpy")
    points = [(size, 262_144 * size**2 + 6_607_077_376 * size) for size in DOUBLING]
    law = power_law(points)
    assert law is not None
    logs = numpy.log([[size, cost] for size, cost in points])
    exponent, constant = numpy.polyfit(logs[:, 0], logs[:, 1], 1)
    assert law.exponent == pytest.approx(exponent)
    misses = [abs(cost / (math.exp(constant) * size**exponent) - 1) for size, cost in points]
    assert law.worst == pytest.approx(max(math.expm1(abs(math.log1p(m))) for m in misses), rel=0.3)


def test_slopes_of_attention_rise_towards_two_and_stay_below() -> None:
    points = [(size, 262_144 * size**2 + 6_607_077_376 * size) for size in DOUBLING]
    found = [slope for *_, slope in slopes(points)]
    assert all(earlier < later < 2 for earlier, later in pairwise(found))
    # By hand: doubling S multiplies a S + b S^2 by 2 (a + 2 b S) / (a + b S).
    a, b, size = 6_607_077_376, 262_144, DOUBLING[-2]
    assert found[-1] == pytest.approx(math.log2(2 * (a + 2 * b * size) / (a + b * size)))


def test_the_sentence_says_the_exact_form_first_and_where_it_leads() -> None:
    found = grow("seq", "macs", [(size, 262_144 * size**2 + 6_607_077_376 * size) for size in DOUBLING])
    assert formula(found) == "262,144 S^2 + 6,607,077,376 S"
    assert (found.exact_from, found.exact_points) == (1024, 8)
    assert found.sentence == (
        "MACs = 262,144 S^2 + 6,607,077,376 S, exactly at the 8 sizes from 1,024 up; "
        "~ S^1.36 between 1,024 and 131,072, slope 1.78 at the end, coming to S^2"
    )


def test_the_sentence_of_a_line_a_constant_and_no_polynomial() -> None:
    assert grow("batch", "macs", [(n, 7 * n) for n in (1, 2, 4, 8)]).sentence == "MACs = 7 B, exactly at the 4 sizes from 1 up"
    assert grow("batch", "params", [(n, 12) for n in (1, 2, 4)]).sentence == "parameters: 12 at every size"
    ceilings = [(side, 5 * math.ceil(side / 32) ** 2) for side in (100, 130, 170, 200, 260)]
    found = grow("resolution", "macs", ceilings)
    assert found.terms == ()
    assert found.sentence.startswith("MACs ~ R^")
    assert "slope" in found.sentence


def test_an_exponent_holds_where_there_is_a_cost() -> None:
    found = grow("seq", "macs", [(1, 0), (2, 4), (4, 16), (8, 64), (16, 257)])
    assert (found.start, found.stop) == (2, 16)
    assert "between 2 and 16" in found.sentence


def test_negative_and_broken_coefficients_are_written_as_they_are() -> None:
    triangle = [(n, n * (n - 1) // 2) for n in range(1, 8)]
    assert formula(grow("seq", "macs", triangle)) == "1/2 S^2 - 1/2 S"
