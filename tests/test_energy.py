"""The theorems of modern Hopfield networks, as properties of random patterns, states and temperatures."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mixbench.models.energy import (
    _lambert,
    capacity,
    contraction_bound,
    energy,
    fixed_point,
    head_class,
    retrieval_error_bound,
    separation,
    update,
)

SIZES = st.tuples(st.integers(1, 12), st.integers(1, 10), st.integers(0, 2**31))
BETAS = st.floats(0.05, 20)


def drawn(sizes: tuple[int, int, int], scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """Patterns (N, d), and eight states (8, d) of the same scale."""
    count, width, seed = sizes
    generator = torch.Generator().manual_seed(seed)
    patterns = scale * torch.randn(count, width, generator=generator, dtype=torch.float64)
    return patterns, scale * torch.randn(8, width, generator=generator, dtype=torch.float64)


@given(SIZES, BETAS, st.floats(0.1, 3))
@settings(deadline=None)
def test_an_update_lowers_the_energy_by_at_least_half_its_squared_step(
    sizes: tuple[int, int, int], beta: float, scale: float
) -> None:
    """Theorem 1, sharpened: the energy is half a square minus a convex function, so the procedure descends that much."""
    patterns, state = drawn(sizes, scale)
    for _ in range(5):
        after = update(state, patterns, beta)
        descent = energy(state, patterns, beta) - energy(after, patterns, beta)
        assert (descent >= (after - state).square().sum(-1) / 2 - 1e-9).all()
        state = after


@given(SIZES, BETAS)
@settings(deadline=None, max_examples=15)
def test_updates_converge_to_a_stationary_point_of_the_energy(sizes: tuple[int, int, int], beta: float) -> None:
    """Theorem 2: by the descent above, 100 squared steps add up to no more than twice the first energy, so one is small."""
    patterns, state = drawn(sizes)
    first, shortest = energy(state, patterns, beta), torch.full((8,), torch.inf, dtype=torch.float64)
    for _ in range(100):
        before, state = state, update(state, patterns, beta)
        shortest = torch.minimum(shortest, (state - before).square().sum(-1))
    assert (shortest <= 2 * first / 100 + 1e-9).all()
    point = state.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(energy(point, patterns, beta).sum(), point)
    torch.testing.assert_close(gradient, state - update(state, patterns, beta), atol=1e-9, rtol=0)


@given(SIZES, BETAS)
@settings(deadline=None)
def test_the_energy_is_never_negative_and_bounded_in_the_convex_hull(sizes: tuple[int, int, int], beta: float) -> None:
    patterns, state = drawn(sizes)
    assert (energy(state, patterns, beta) >= -1e-9).all()
    inside = torch.softmax(state @ patterns.mT, -1) @ patterns
    longest = patterns.norm(dim=-1).max()
    found = energy(inside, patterns, beta)
    assert (found <= math.log(len(patterns)) / beta + longest**2 / 2 + 1e-9).all()
    assert (found <= 2 * longest**2 + 1e-9).all()


@given(SIZES, BETAS, st.floats(0, 0.5))
@settings(deadline=None)
def test_retrieval_errors_stay_within_theorem_5(sizes: tuple[int, int, int], beta: float, noise: float) -> None:
    patterns, states = drawn(sizes)
    near = patterns + noise * states[:1]
    distance = (near - patterns).norm(dim=-1)
    error = (update(near, patterns, beta) - patterns).norm(dim=-1)
    assert (error <= retrieval_error_bound(patterns, beta, distance) + 1e-9).all()


@given(st.integers(2, 12), st.integers(0, 2**31), st.floats(1, 4))
@settings(deadline=None, max_examples=30)
def test_stored_patterns_are_retrieved_and_approached_as_theorems_4_and_5_say(count: int, seed: int, beta: float) -> None:
    """Random patterns on a large sphere are well separated: the fixed point lies at the pattern, and the map contracts."""
    patterns, states = drawn((count, 24, seed))
    patterns = 4 * patterns / patterns.norm(dim=-1, keepdim=True)
    radius = 1 / (2 * beta * 4)
    state = patterns + radius * states[:1] / states[:1].norm()
    rest = fixed_point(state, patterns, beta)
    away = (rest - patterns).norm(dim=-1)
    inside = away <= radius
    assert (away <= retrieval_error_bound(patterns, beta) + 1e-9)[inside].all()
    largest = torch.maximum(away, (state - patterns).norm(dim=-1))
    shrunk = (update(state, patterns, beta) - rest).norm(dim=-1)
    assert (shrunk <= contraction_bound(patterns, beta, largest) * (state - rest).norm(dim=-1) + 1e-9)[inside].all()


def test_separation_is_the_lead_of_a_pattern_over_the_most_similar_one() -> None:
    patterns = torch.tensor([[2.0, 0.0], [1.0, 1.0], [0.0, 3.0]])
    assert separation(patterns).tolist() == [4 - 2, 2 - 3, 9 - 3]
    assert separation(patterns[:1]).tolist() == [math.inf]
    assert retrieval_error_bound(patterns[:1], 1.0).tolist() == [0.0]


def test_a_very_high_temperature_averages_all_patterns_and_a_low_one_picks_the_nearest() -> None:
    patterns, states = drawn((5, 8, 1))
    torch.testing.assert_close(update(states, patterns, 1e-9), patterns.mean(0).expand(8, -1), atol=1e-6, rtol=0)
    torch.testing.assert_close(update(states, patterns, 1e4), patterns[(states @ patterns.mT).argmax(-1)], atol=1e-9, rtol=0)


@pytest.mark.parametrize(("size", "radius", "base"), [(20, 3.0, 3.1546), (75, 1.0, 1.3718)])
def test_the_papers_worked_capacities(size: int, radius: float, base: float) -> None:
    found, patterns = capacity(size, radius, beta=1.0, failure=0.001)
    assert found == pytest.approx(base, abs=1e-4)  # the paper rounds down, in both cases
    assert patterns == pytest.approx(math.sqrt(0.001) * found ** ((size - 1) / 4))


def test_too_small_a_sphere_has_no_promised_capacity() -> None:
    with pytest.raises(ValueError, match="Theorem 3 says nothing"):
        capacity(5, 0.5, beta=1.0, failure=0.001)


@given(st.floats(-600, 600))
def test_lamberts_function_inverts_w_exp_w(log: float) -> None:
    w = _lambert(log)
    assert w + math.log(w) == pytest.approx(log, abs=1e-9)


def test_a_state_that_does_not_come_to_rest_is_reported() -> None:
    with pytest.raises(RuntimeError, match="2 updates do not bring"):
        patterns, states = drawn((6, 8, 3))
        fixed_point(states, patterns, 0.5, most=2)


def test_head_classes_have_the_papers_limits() -> None:
    """Rows that spread their mass evenly over m of 64 patterns need ceil(0.9 m) of them."""

    def even(m: int) -> Tensor:
        row = torch.zeros(64, dtype=torch.float64)
        row[:m] = 1 / m
        return row.expand(2, 3, 64)

    heads = [even(m) for m in (64, 36, 35, 10, 9, 8, 3, 2, 1)]
    assert [math.ceil(0.9 * m) for m in (36, 35, 10, 9, 8, 3, 2, 1)] == [33, 32, 9, 9, 8, 3, 2, 1]
    assert head_class(torch.stack(heads, 1)) == ("I", "I", "II", "II", "II", "III", "III", "IV", "IV")


def test_a_head_class_goes_by_the_median_state() -> None:
    rows = torch.eye(64, dtype=torch.float64)[:3].clone()
    rows[0] = 1 / 64
    assert head_class(rows[None, None]) == ("IV",)
    rows[1] = 1 / 64
    assert head_class(rows[None, None]) == ("I",)
