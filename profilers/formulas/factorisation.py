"""Direct linear algebra: the textbook algorithms, multiply-subtract by multiply-subtract.

Elimination, substitution and reflections are products of matrices in parts, so their multiply-adds are MACs; divisions, roots,
and the norm and scale of a reflector are elementwise. The counts are exact for the unblocked algorithms of Golub and Van Loan,
"Matrix Computations", 4th ed., whose leading orders they have: LU 2 n^3 / 3 FLOPs (section 3.2), Cholesky n^3 / 3 (4.2), a
triangular system n^2 a right-hand side (3.1), Householder QR 2 m n^2 - 2 n^3 / 3, and as many again for a reduced Q (5.2).
Iterative algorithms (eigenvalues, singular values) have no count that shapes tell, and no rule here.
"""

from typing import Any

from torch import Tensor

from ..cost import Cost
from .matmul import real_macs
from .table import formula, free

_COMPLEX_QUOTIENT = 11

free("aten::lu_unpack", family="factorisation")


def _cost(macs: int, steps: int, kind: Tensor, written: int) -> Cost:
    """``steps`` are mostly quotients, and count like them."""
    per_step = _COMPLEX_QUOTIENT if kind.is_complex() else 1
    return Cost(macs * real_macs(kind), elementwise_flops=steps * per_step, activations=written)


def _batch(x: Tensor) -> int:
    """Matrices in (..., m, n)."""
    return x.shape[:-2].numel()


def _trailing(m: int, n: int, steps: int) -> int:
    """The sum over j = 1 ... steps of (m - j) (n - j), which are the sizes of what is left of a matrix (m, n) after step j."""
    line = steps * (steps + 1) // 2
    return steps * m * n - (m + n) * line + line * (2 * steps + 1) // 3


def _lu(a: Tensor) -> Cost:
    """Gaussian elimination of (..., m, n): step j divides m - j entries of a column, and updates what is left."""
    m, n = a.shape[-2:]
    steps = min(m, n)
    below = steps * m - steps * (steps + 1) // 2
    return _cost(_batch(a) * _trailing(m, n, steps), _batch(a) * below, a, a.numel())


def _substitution(x: Tensor, size: int, systems: int, quotients: int) -> Cost:
    """Solutions x of ``systems`` triangular systems of ``size`` unknowns in turn, ``quotients`` of which divide."""
    return _cost(systems * x.numel() * (size - 1) // 2, quotients * x.numel(), x, x.numel())


def _reflections(batch: int, m: int, n: int, steps: int, norms: int, kind: Tensor) -> Cost:
    """Reflection j of the m - j rows and n - j - 1 columns that are left, j = 0 ...: a product with its vector, then an update.

    ``norms`` are the elementwise steps on the reflector's own m - j entries.
    """
    rows = steps * m - steps * (steps - 1) // 2
    macs = 2 * (_trailing(m, n, steps) + steps * n - steps * (steps + 1) // 2)
    return _cost(batch * macs, batch * norms * rows, kind, batch * m * n)


@formula("aten::linalg_lu_factor_ex", "aten::linalg_lu")
def lu(out: Any, a: Tensor, *args: Any, **kwargs: Any) -> Cost:
    """P L U of (..., m, n); pivoting only compares and moves."""
    return _lu(a)


@formula("aten::_linalg_det")
def determinant(out: Any, a: Tensor, **kwargs: Any) -> Cost:
    """LU, the product of its diagonal, and the sign of its permutation."""
    return _lu(a) + _cost(0, _batch(a) * (a.shape[-1] + 1), a, 0)


@formula("aten::_linalg_slogdet")
def log_determinant(out: Any, a: Tensor, **kwargs: Any) -> Cost:
    """LU; the diagonal's signs and their product, its absolute values, logarithms and their sum; the permutation's sign."""
    return _lu(a) + _cost(0, _batch(a) * (5 * a.shape[-1] + 1), a, 0)


@formula("aten::_linalg_solve_ex")
def solve(out: Any, a: Tensor, b: Tensor, **kwargs: Any) -> Cost:
    """LU, once also where the matrix is broadcast; then forward and backward substitution, the diagonal of L being ones."""
    return _lu(a) + _substitution(out[0], a.shape[-1], systems=2, quotients=1)


@formula("aten::linalg_inv_ex")
def inverse(out: Any, a: Tensor, **kwargs: Any) -> Cost:
    """A solve with the identity, as torch runs it: 8 n^3 / 3 FLOPs, not the 2 n^3 that its zeros would allow."""
    return _lu(a) + _substitution(out[0], a.shape[-1], systems=2, quotients=1)


@formula("aten::linalg_lu_solve")
def lu_solve(out: Tensor, factors: Tensor, *args: Any, **kwargs: Any) -> Cost:
    """Both substitutions."""
    return _substitution(out, factors.shape[-1], systems=2, quotients=1)


@formula("aten::linalg_cholesky_ex")
def cholesky(out: Any, a: Tensor, **kwargs: Any) -> Cost:
    """Entry (i, j) of L subtracts j products from its own, j = 0 ... i: (n^3 - n) / 6; then a quotient, or a root."""
    n = a.shape[-1]
    return _cost(_batch(a) * (n**3 - n) // 6, _batch(a) * n * (n + 1) // 2, a, a.numel())


@formula("aten::cholesky_solve")
def cholesky_solve(out: Tensor, b: Tensor, factor: Tensor, *args: Any, **kwargs: Any) -> Cost:
    """Two substitutions, neither with a diagonal of ones."""
    return _substitution(out, factor.shape[-1], systems=2, quotients=2)


@formula("aten::linalg_solve_triangular")
def solve_triangular(out: Tensor, a: Tensor, b: Tensor, **kwargs: Any) -> Cost:
    """One substitution: n (n - 1) / 2 MACs and n quotients a right-hand side."""
    return _substitution(out, a.shape[-1], systems=1, quotients=int(not kwargs.get("unitriangular")))


@formula("aten::triangular_solve")
def triangular_solve(
    out: Any, b: Tensor, a: Tensor, upper: bool = True, transpose: bool = False, unitriangular: bool = False
) -> Cost:
    """The same, by its older name."""
    return _substitution(out[0], a.shape[-1], systems=1, quotients=int(not unitriangular))


@formula("aten::geqrf")
def householder(out: Any, a: Tensor) -> Cost:
    """Reflectors of (..., m, n): square, sum and scale, then the columns to the right are reflected."""
    m, n = a.shape[-2:]
    return _reflections(_batch(a), m, n, min(m, n), 3, a)


@formula("aten::linalg_householder_product")
def householder_product(out: Tensor, reflectors: Tensor, factors: Tensor, **kwargs: Any) -> Cost:
    """The first columns of Q: reflections from the last to the first, each of the columns to its right; its own is scaled."""
    m, n = out.shape[-2:]
    return _reflections(_batch(out), m, n, factors.shape[-1], 1, out)


@formula("aten::linalg_qr")
def qr(out: Any, a: Tensor, mode: str = "reduced") -> Cost:
    """Reflectors, then Q by their product unless only R is asked for."""
    m, n = a.shape[-2:]
    steps, columns = min(m, n), m if mode == "complete" else min(m, n)
    factor = _reflections(_batch(a), m, n, steps, 3, a)
    return factor if mode == "r" else factor + _reflections(_batch(a), m, columns, steps, 1, a)
