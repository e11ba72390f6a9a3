"""Intervals and ratios of times: against exact binomial sums, against simulation, and as properties."""

import math
import random
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixbench.profilers.stats import dependence, estimate, interval_ranks, median, quantile, ratio, share_interval

times = st.lists(st.floats(1.0, 1e9), min_size=1, max_size=80)


@pytest.mark.parametrize("q", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("count", [8, 9, 31, 100, 527, 1000])
def test_ranks_are_the_tightest_that_exact_sums_allow(count: int, q: float) -> None:
    tail, exact = Fraction(1, 200), Fraction(q).limit_denominator(100)

    def below(most: int, p: Fraction) -> Fraction:
        return sum((math.comb(count, k) * p**k * (1 - p) ** (count - k) for k in range(most + 1)), Fraction(0))

    ranks = interval_ranks(count, q, 0.99)
    if ranks is None:
        assert below(0, exact) > tail or below(0, 1 - exact) > tail
        return
    low, high = ranks
    assert below(low, exact) <= tail < below(low + 1, exact)
    assert below(count - 1 - high, 1 - exact) <= tail < below(count - high, 1 - exact)


def test_eight_samples_are_the_fewest_with_an_interval_of_the_median() -> None:
    assert interval_ranks(7, 0.5, 0.99) is None
    assert interval_ranks(8, 0.5, 0.99) == (0, 7)


def test_the_interval_holds_the_median_as_often_as_it_says() -> None:
    draw = random.Random(1)
    hits = 0
    for _ in range(1000):
        found = estimate([draw.lognormvariate(0, 1) for _ in range(60)])
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= 1.0 <= found.high  # the median of that distribution is 1
    assert hits >= 980


def test_samples_that_go_together_widen_it() -> None:
    draw = random.Random(2)
    hits, moods = 0, 0.0
    for _ in range(300):
        samples = []
        for _ in range(400):
            moods = 0.9 * moods + draw.gauss(0, 1)
            samples.append(math.exp(moods))
        found = estimate(samples)
        hits += found.low is not None and found.high is not None and found.low <= 1.0 <= found.high
    assert hits >= 280  # without the widening some 200


def test_dependence_is_one_of_independent_samples_and_more_of_blocks() -> None:
    draw = random.Random(3)
    assert dependence([draw.random() < 0.5 for _ in range(2000)]) < 1.3
    assert dependence([bool(i // 20 % 2) for i in range(2000)]) > 5
    assert dependence([True] * 10) == 1.0
    assert dependence([]) == 1.0


@given(times)
def test_a_quantile_lies_within_the_samples_and_moves_with_its_order(samples: list[float]) -> None:
    ordered = sorted(samples)
    low, middle, high = (quantile(ordered, q) for q in (0.1, 0.5, 0.9))
    assert ordered[0] <= low <= middle <= high <= ordered[-1]
    assert median(samples) == middle


@given(times, st.floats(0.01, 100.0))
def test_scaling_all_times_scales_the_estimate_and_leaves_a_ratio_to_itself(samples: list[float], factor: float) -> None:
    scaled = [sample * factor for sample in samples]
    assert estimate(scaled).value == pytest.approx(estimate(samples).value * factor)
    found = ratio(samples, scaled)
    assert found.value == pytest.approx(factor)
    if found.low is not None and found.high is not None:
        assert (found.low, found.high) == (pytest.approx(factor), pytest.approx(factor))


def test_a_ratio_needs_pairs() -> None:
    with pytest.raises(ValueError, match="zip"):
        ratio([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="no samples"):
        estimate([])


def test_pairs_take_out_what_hits_both() -> None:
    draw = random.Random(4)
    drift = [1 + draw.random() for _ in range(200)]  # up to twice as slow, but both alike
    found = ratio([100 * d for d in drift], [103 * d * draw.uniform(0.999, 1.001) for d in drift])
    assert found.low is not None
    assert found.high is not None
    assert 1.029 < found.low <= found.value <= found.high < 1.031


@pytest.mark.parametrize(("hits", "count"), [(0, 300), (3, 300), (95, 100), (100, 100), (5, 10)])
def test_a_share_is_just_likely_at_the_ends_of_its_interval(hits: int, count: int) -> None:
    low, high = share_interval(hits, count)
    at_most = math.fsum(math.comb(count, k) * high**k * (1 - high) ** (count - k) for k in range(hits + 1))
    at_least = math.fsum(math.comb(count, k) * low**k * (1 - low) ** (count - k) for k in range(hits, count + 1))
    assert low <= hits / count <= high
    assert at_most == pytest.approx(1.0 if hits == count else 0.025, abs=1e-6)
    assert at_least == pytest.approx(1.0 if hits == 0 else 0.025, abs=1e-6)


def test_no_share_of_nothing() -> None:
    with pytest.raises(ValueError, match="no share"):
        share_interval(1, 0)
