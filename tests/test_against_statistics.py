"""The sequential test behind `check --against`: its boundaries counted out path by path, its error rates by simulation."""

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest

from mixbench.profilers.against.compare import Found, decide
from mixbench.profilers.against.pairs import PairTimes
from mixbench.profilers.against.sequential import ERROR, FIRST, LAST, boundaries, look


def _crossing_chance(heads: float, needed: dict[int, int]) -> float:
    """The chance that a coin's heads ever reach the boundary, over every sequence of throws."""
    total = 0.0
    for throws in itertools.product((0, 1), repeat=LAST):
        above = list(itertools.accumulate(throws))
        if any(above[count - 1] >= least for count, least in needed.items()):
            total += heads ** sum(throws) * (1 - heads) ** (LAST - sum(throws))
    return total


def test_a_fair_coin_reaches_the_boundary_no_more_often_than_stated() -> None:
    chance = _crossing_chance(0.5, boundaries())
    assert 0.8 * ERROR < chance <= ERROR
    assert _crossing_chance(0.5, boundaries(0.01)) <= 0.01


def test_five_pairs_of_one_mind_are_enough_and_four_are_not() -> None:
    assert boundaries()[FIRST] == FIRST == 5
    assert look([0.1] * 4, 0.03).word is None
    assert look([0.1, 0.11, 0.12, 0.13, 0.14], 0.03).word == "worse"
    assert look([0.1, 0.11, 0.12, 0.13, -0.001], 0.03).word is None


@pytest.mark.parametrize(
    ("pairs", "word"),
    [
        ([-0.01, 0.0, 0.01, 0.02, 0.029], "same"),
        ([-0.01, 0.0, 0.01, 0.02, 0.031], None),
        ([0.001, 0.002, 0.031, 0.04, 0.05], "worse"),
        ([0.001, 0.002, 0.029, 0.04, 0.05], None),
        ([-0.001, -0.002, -0.031, -0.04, -0.05], "better"),
        ([-0.001, -0.002, -0.029, -0.04, -0.05], "same"),
    ],
)
def test_a_word_needs_both_the_interval_and_the_size(pairs: list[float], word: str | None) -> None:
    assert look(pairs, 0.03).word == word


def test_the_interval_holds_the_median_at_every_look_at_once() -> None:
    # Uniform around 0, whose median is 0: sides of the interval that ever leave it out count.
    draws = np.random.default_rng(1).uniform(-1, 1, (4000, LAST))
    missed = sum(
        any((seen := look(row[:count], 9)).low is not None and seen.low > 0 for count in range(FIRST, LAST + 1))
        for row in draws.tolist()
    )
    assert missed / len(draws) < ERROR + 3 * math.sqrt(ERROR / len(draws))


class Machine:
    """Times as they were recorded: what a process has for life, drift that both sides share, bursts that hang together.

    Attributes:
        slowdown: of the new side, a ratio.
        process: standard deviation of what a process has for life, as a share.
        odd: share of processes that are ``oddly`` slower for life.
    """

    def __init__(self, seed: int, slowdown: float, process: float = 0.008, odd: float = 0.02, oddly: float = 0.2) -> None:
        self._draw = np.random.default_rng(seed)
        self._slowdown, self._process, self._odd, self._oddly = math.log(slowdown), process, odd, oddly
        self._made: list[PairTimes] = []

    def __call__(self) -> PairTimes:
        if not self._made:
            self._made = self._make(2000)
        return self._made.pop()

    def _make(self, count: int, rounds: int = 16) -> list[PairTimes]:
        draw = self._draw
        life = self._process * draw.standard_normal((count, 2, 1))
        life += np.log1p(self._oddly) * (draw.random((count, 2, 1)) < self._odd)
        drift = np.cumsum(0.02 * draw.standard_normal((count, 1, rounds)), axis=2)
        # Correlated over bursts, alternating sides: what one side meets the other meets a moment later.
        own = 0.01 * draw.standard_normal((count, 2, rounds)) + 0.1 * (draw.random((count, 2, rounds)) < 0.1)
        own[:, :, 1:] += 0.5 * own[:, :, :-1]
        logs = life + drift + own + np.array([0.0, self._slowdown])[None, :, None]
        ratios = np.median(logs[:, 1] - logs[:, 0], axis=1)
        times = 3e6 * np.exp(np.median(logs, axis=2))
        return [PairTimes(float(r), float(a), float(b), rounds) for r, (a, b) in zip(ratios, times, strict=True)]


def _share(machine: Callable[[], PairTimes], checks: int, wanted: Callable[[Found], bool], limit: float = 1.03) -> float:
    return sum(wanted(decide(machine, limit)) for _ in range(checks)) / checks


def _worse(found: Found) -> bool:
    return found.answer.word == "worse"


def test_the_same_code_is_called_slower_or_faster_in_less_than_one_check_of_a_hundred() -> None:
    assert _share(Machine(2, 1.0), 4000, lambda found: found.answer.word in ("worse", "better")) < 0.002


def test_the_stated_error_holds_where_size_does_not_help() -> None:
    # A machine so noisy that every median is beyond the limit: only the sequential test stands against a false alarm.
    noisy = Machine(3, 1.0, process=0.5)
    assert _share(noisy, 4000, _worse, limit=1.0001) < ERROR**2 + 3 * math.sqrt(ERROR**2 / 4000)


@pytest.mark.parametrize(("slowdown", "least"), [(1.05, 0.97), (1.10, 0.99)])
def test_slowdowns_are_found(slowdown: float, least: float) -> None:
    assert _share(Machine(4, slowdown), 2000, _worse) >= least


def test_a_slowdown_of_the_limit_seldom_passes() -> None:
    passes = _share(Machine(5, 1.03), 2000, lambda found: found.answer.word == "same")
    assert passes < 2 * ERROR


def test_the_same_code_mostly_takes_few_pairs() -> None:
    machine = Machine(6, 1.0)
    pairs = sorted(len(found.run) for found in (decide(machine) for _ in range(500)))
    assert pairs[250] == FIRST
    assert pairs[400] <= 9  # four checks of five
