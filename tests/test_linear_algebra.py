"""Factorisations and solves against textbook algorithms that count their own steps, and the leading orders of the book."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import mixbench


class Call(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Tensor) -> Any:
        return self.function(*args)


def counted(function: Callable[..., Any], *args: Tensor, train: bool = False) -> tuple[int, int]:
    """MACs and elementwise FLOPs; nothing may be left uncounted."""
    count = mixbench.count_call(Call(function), *args, train=train)
    assert count.uncounted == ()
    return count.totals.macs, count.totals.elementwise_flops


class Tally:
    """Runs algorithms on lists of numbers, and counts each multiply-add and each other step as it is made."""

    def __init__(self) -> None:
        self.macs = self.steps = 0

    def minus(self, a: float, b: float, c: float) -> float:
        self.macs += 1
        return a - b * c

    def over(self, a: float, b: float) -> float:
        self.steps += 1
        return a / b

    @property
    def figures(self) -> tuple[int, int]:
        return self.macs, self.steps

    def lu(self, a: list[list[float]]) -> None:
        """Outer-product elimination in place, without pivoting (Golub and Van Loan, Algorithm 3.2.1)."""
        m, n = len(a), len(a[0])
        for k in range(min(m, n)):
            for i in range(k + 1, m):
                a[i][k] = self.over(a[i][k], a[k][k])
                for j in range(k + 1, n):
                    a[i][j] = self.minus(a[i][j], a[i][k], a[k][j])

    def cholesky(self, a: list[list[float]]) -> None:
        """Column by column, the lower triangle in place (the book's section 4.2)."""
        for j in range(len(a)):
            for i in range(j, len(a)):
                for k in range(j):
                    a[i][j] = self.minus(a[i][j], a[i][k], a[j][k])
                self.steps += 1  # a root on the diagonal, a quotient below it
                a[i][j] = math.sqrt(a[j][j]) if i == j else a[i][j] / a[j][j]

    def forward(self, a: list[list[float]], b: list[float], unit: bool) -> None:
        """Forward substitution in place (Algorithm 3.1.1)."""
        for i in range(len(b)):
            for j in range(i):
                b[i] = self.minus(b[i], a[i][j], b[j])
            if not unit:
                b[i] = self.over(b[i], a[i][i])

    def backward(self, a: list[list[float]], b: list[float]) -> None:
        """Back substitution in place (Algorithm 3.1.2)."""
        for i in reversed(range(len(b))):
            for j in range(i + 1, len(b)):
                b[i] = self.minus(b[i], a[i][j], b[j])
            b[i] = self.over(b[i], a[i][i])

    def reflect(self, rows: int, columns: int) -> None:
        """A reflection of a block: w = v^T A, A - v w, a multiply-add each (the book's section 5.1.4)."""
        for _ in range(rows * columns):
            self.macs += 2

    def qr(self, m: int, n: int, q: int) -> None:
        """Householder reflectors, then Q's first columns from the last reflector to the first (5.2.2 and 5.1.6)."""
        for j in range(min(m, n)):
            self.steps += 3 * (m - j)  # square, sum, scale
            self.reflect(m - j, n - j - 1)
        for j in reversed(range(min(m, n) if q else 0)):
            self.reflect(m - j, q - j - 1)
            self.steps += m - j  # its own column is the reflector, scaled


def definite(n: int) -> Tensor:
    x = torch.randn(n, n, dtype=torch.float64, generator=torch.Generator().manual_seed(n))
    return x @ x.T + n * torch.eye(n, dtype=torch.float64)


SIDES = st.integers(1, 7)


@settings(max_examples=30)
@given(m=SIDES, n=SIDES)
def test_lu_makes_the_textbooks_steps(m: int, n: int) -> None:
    tally = Tally()
    tally.lu([[3.0 + (i == j) * 9 + i * j % 2 for j in range(n)] for i in range(m)])
    a = torch.randn(m, n)
    assert counted(lambda x: torch.linalg.lu_factor_ex(x).LU, a) == tally.figures
    assert counted(lambda x: torch.linalg.lu(x)[1], a) == tally.figures
    pair = torch.randn(2, 5, m, n, device="meta")
    assert counted(lambda x: torch.linalg.lu_factor_ex(x).LU, pair) == (10 * tally.macs, 10 * tally.steps)


@pytest.mark.filterwarnings("ignore:torch.triangular_solve is deprecated")
@settings(max_examples=20)
@given(n=SIDES, rhs=SIDES)
def test_cholesky_and_solves_make_the_textbooks_steps_and_give_the_solution(n: int, rhs: int) -> None:
    a, b = definite(n), torch.randn(n, rhs, dtype=torch.float64)
    factor, tally = a.tolist(), Tally()
    tally.cholesky(factor)
    torch.testing.assert_close(torch.tensor(factor, dtype=a.dtype).tril(), torch.linalg.cholesky(a))
    assert counted(torch.linalg.cholesky, a) == tally.figures

    lower, columns = torch.linalg.cholesky(a), b.T.tolist()
    for unit in (False, True):
        tally, solved = Tally(), [list(column) for column in columns]
        for column in solved:
            tally.forward(lower.tolist(), column, unit)
        if not unit:
            torch.testing.assert_close(
                torch.tensor(solved, dtype=a.dtype).T, torch.linalg.solve_triangular(lower, b, upper=False)
            )
        kinds = {"upper": False, "unitriangular": unit}
        assert counted(lambda x, y, kinds=kinds: torch.linalg.solve_triangular(x, y, **kinds), lower, b) == tally.figures
        assert counted(lambda x, y, kinds=kinds: torch.triangular_solve(y, x, **kinds)[0], lower, b) == tally.figures
        transposed = counted(lambda x, y, kinds=kinds: torch.linalg.solve_triangular(x, y.mT, left=False, **kinds), lower, b)
        assert transposed == tally.figures

    tally = Tally()
    for column in columns:
        tally.forward(lower.tolist(), column, unit=False)
        tally.backward(lower.T.tolist(), column)
    torch.testing.assert_close(torch.tensor(columns, dtype=a.dtype).T, torch.linalg.solve(a, b))
    assert counted(torch.cholesky_solve, b, lower) == tally.figures


@settings(max_examples=20)
@given(n=SIDES, rhs=SIDES)
def test_general_systems_inverses_and_determinants_are_an_elimination_and_substitutions(n: int, rhs: int) -> None:
    a, b = definite(n), torch.randn(n, rhs, dtype=torch.float64)

    def eliminated(columns: list[list[float]]) -> tuple[Tally, Tally]:
        both, only = Tally(), Tally()
        factors = a.tolist()
        both.lu(factors)
        for column in columns:
            for tally in (both, only):
                copy = column if tally is both else list(column)
                tally.forward(factors, copy, unit=True)
                tally.backward(factors, copy)
        return both, only

    columns = b.T.tolist()
    solve, substitutions = eliminated(columns)
    torch.testing.assert_close(torch.tensor(columns, dtype=a.dtype).T, torch.linalg.solve(a, b))
    assert counted(torch.linalg.solve, a, b) == solve.figures
    assert counted(torch.linalg.solve, a.expand(3, n, n), b.expand(3, n, rhs)) == (3 * solve.macs, 3 * solve.steps)
    factors = torch.linalg.lu_factor(a)
    assert counted(torch.linalg.lu_solve, *factors, b) == substitutions.figures
    assert counted(torch.linalg.inv, a) == eliminated(torch.eye(n).tolist())[0].figures
    lu = eliminated([])[0]
    assert counted(torch.linalg.det, a) == (lu.macs, lu.steps + n + 1)
    assert counted(torch.linalg.slogdet, a) == (lu.macs, lu.steps + 5 * n + 1)


def test_a_matrix_that_is_broadcast_is_factored_once_and_a_vector_is_one_right_hand_side() -> None:
    assert counted(torch.linalg.solve, definite(4), torch.ones(4, dtype=torch.float64)) == (14 + 4 * 3, 6 + 4)
    b = torch.ones(5, 4, 1, dtype=torch.float64)
    assert torch.linalg.solve_ex(definite(4), b).result.shape == b.shape
    assert torch.ops.aten._linalg_solve_ex(definite(4), b)[1].shape == (4, 4)
    assert counted(torch.linalg.solve, definite(4), b) == (14 + 5 * 4 * 3, 6 + 5 * 4)


@settings(max_examples=30)
@given(m=SIDES, n=SIDES, mode=st.sampled_from(["r", "reduced", "complete"]))
def test_qr_makes_the_reflections_of_its_mode(m: int, n: int, mode: str) -> None:
    tally = Tally()
    tally.qr(m, n, {"r": 0, "reduced": min(m, n), "complete": m}[mode])
    assert counted(lambda x: torch.linalg.qr(x, mode), torch.randn(m, n)) == tally.figures
    if mode == "reduced" and m >= n:
        parts = lambda x: torch.linalg.householder_product(*torch.geqrf(x))  # noqa: E731
        assert counted(parts, torch.randn(m, n)) == tally.figures


def test_leading_orders_are_the_books() -> None:
    n, m = 3000, 9000
    square, tall = torch.empty(n, n, device="meta"), torch.empty(m, n, device="meta")
    cases: list[tuple[Callable[..., Any], Tensor, float]] = [
        (lambda x: torch.linalg.lu_factor_ex(x).LU, square, 2 * n**3 / 3),
        (torch.linalg.cholesky, square, n**3 / 3),
        (lambda x: torch.linalg.solve_triangular(x, x, upper=True), square, n * n**2),
        (torch.linalg.inv, square, 8 * n**3 / 3),
        (lambda x: torch.linalg.qr(x, "r"), tall, 2 * m * n**2 - 2 * n**3 / 3),
        (torch.linalg.qr, tall, 2 * (2 * m * n**2 - 2 * n**3 / 3)),
        (lambda x: torch.linalg.lu_factor_ex(x).LU, tall, m * n**2 - n**3 / 3),
    ]
    for function, x, flops in cases:
        assert 2 * counted(function, x)[0] == pytest.approx(flops, rel=2e-3)


def test_complex_factorisations_take_four_macs_and_eleven_flops_a_quotient() -> None:
    macs, steps = counted(lambda x: torch.linalg.lu_factor_ex(x).LU, definite(5))
    assert counted(lambda x: torch.linalg.lu_factor_ex(x).LU, definite(5).to(torch.complex128)) == (4 * macs, 11 * steps)


@pytest.mark.parametrize(
    "function",
    [
        torch.linalg.inv,
        torch.linalg.cholesky,
        torch.linalg.det,
        torch.linalg.slogdet,
        torch.linalg.qr,
        lambda x: torch.linalg.solve(x, x),
        lambda x: torch.linalg.lu_solve(*torch.linalg.lu_factor(x), x),
        lambda x: torch.cholesky_solve(x, x),
        lambda x: torch.linalg.solve_triangular(x, x, upper=False),
    ],
)
def test_their_gradients_count_alike_on_meta_and_on_the_cpu_with_nothing_left_out(function: Callable[..., Any]) -> None:
    a = definite(4).requires_grad_()
    trained = counted(function, a, train=True)
    assert trained == counted(function, a.detach().to("meta").requires_grad_(), train=True)
    assert trained > counted(function, a)


@pytest.mark.parametrize(("function", "operator"), [(torch.linalg.eigh, "_linalg_eigh"), (torch.linalg.svd, "_linalg_svd")])
def test_iterations_stay_uncounted(function: Callable[..., Any], operator: str) -> None:
    count = mixbench.count_call(Call(function), definite(3))
    assert [item.operator for item in count.uncounted] == [f"aten::{operator}"]
