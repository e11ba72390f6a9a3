"""Distances between all pairs of rows, which are elementwise steps on each pair's entries unless a matrix product does it."""

from math import inf
from typing import Any

from torch import Tensor

from ..cost import FREE, Cost
from .matmul import contraction
from .table import formula

_ROOTLESS = (0, 1, inf)


def _pairs(pairs: int, size: int, p: float) -> Cost:
    """Difference, absolute value or square, sum (a comparison at p = infinity); another p raises to a power, and all but the
    norms 0, 1 and infinity take a root a pair."""
    return Cost(elementwise_flops=pairs * (size * (3 if p in (*_ROOTLESS, 2) else 4) + (p not in _ROOTLESS)))


def _pairs_backward(pairs: int, size: int, p: float) -> Cost:
    """Difference, sign or quotient by the distance, product with the gradient, sum; another p also takes an absolute value, a
    power and its product. Of p = 0 the gradient is 0."""
    return Cost(elementwise_flops=pairs * size * (4 if p in (1, 2, inf) else 7)) if p else FREE


@formula("aten::_cdist_forward")
def cdist(out: Tensor, a: Tensor, b: Tensor, p: float, *args: Any, **kwargs: Any) -> Cost:
    """(..., P, M) and (..., R, M) to (..., P, R). torch takes it for p = 2 only up to 25 rows on both sides."""
    return _pairs(out.numel(), a.shape[-1], p)


@formula("aten::_cdist_backward")
def cdist_backward(out: Tensor, grad: Tensor, a: Tensor, b: Tensor, p: float, distance: Tensor) -> Cost:
    """The gradient of the first argument; for the second it is called again."""
    return _pairs_backward(distance.numel(), a.shape[-1], p)


@formula("aten::_pdist_forward")
def pdist(out: Tensor, x: Tensor, p: float = 2.0) -> Cost:
    """(N, M) to its N (N - 1) / 2 pairs."""
    return _pairs(out.numel(), x.shape[-1], p)


@formula("aten::_pdist_backward")
def pdist_backward(out: Tensor, grad: Tensor, x: Tensor, p: float, distance: Tensor) -> Cost:
    """Each pair's term belongs to both of its rows: one more sum an entry."""
    pairs, size = distance.numel(), x.shape[-1]
    return _pairs_backward(pairs, size, p) + (Cost(elementwise_flops=pairs * size) if p else FREE)


@formula("aten::_euclidean_dist")
def euclidean(out: Tensor, a: Tensor, b: Tensor) -> Cost:
    """More than 25 rows at p = 2: |a|^2 - 2 a b + |b|^2 as one product over M + 2 terms, the norms being two of them.

    Elementwise are the squares of both sides and their sums, a's factor of -2, and the bound at zero and the root a pair.
    """
    norms = 3 * a.numel() + 2 * b.numel()
    return contraction(out, a.shape[-1] + 2, a) + Cost(elementwise_flops=norms + 2 * out.numel())
