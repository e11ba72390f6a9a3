"""The energy of continuous modern Hopfield networks, its update rule, and what the theorems promise about retrieval.

Source: Ramsauer et al., "Hopfield Networks is All You Need", ICLR 2021 (arXiv 2008.02217), sections 2 and 3.

Letters: N stored patterns of d components, the rows of X (the paper has them as columns); M the largest norm among them;
xi a state of d components; beta > 0 the inverse temperature. States may have any leading dimensions.
"""

import math

import torch
from torch import Tensor

MASS = 0.9
"""The share of the softmax that a head class looks at (paper, section on the analysis of transformer heads)."""


def energy(state: Tensor, patterns: Tensor, beta: float) -> Tensor:
    """Energy of states (equation 2): -lse(beta, X xi) + xi^T xi / 2 + ln(N) / beta + M^2 / 2.

    Never negative; at most ln(N) / beta + M^2 / 2, and at most 2 M^2, for states in the convex hull of the patterns.

    Shapes: state (..., d), patterns (N, d) to (...).
    """
    similarity = torch.logsumexp(beta * state @ patterns.mT, -1) / beta
    count = len(patterns)
    return -similarity + state.square().sum(-1) / 2 + math.log(count) / beta + patterns.square().sum(-1).max() / 2


def update(state: Tensor, patterns: Tensor, beta: float) -> Tensor:
    """The new state (equation 3): the patterns averaged by softmax(beta X xi). It never raises the energy (Theorem 1).

    Shapes: state (..., d), patterns (N, d) to (..., d).
    """
    return torch.softmax(beta * state @ patterns.mT, -1) @ patterns


def fixed_point(state: Tensor, patterns: Tensor, beta: float, tolerance: float = 1e-12, most: int = 10_000) -> Tensor:
    """Where the updates lead (Theorem 2): iterated until a step is no longer than ``tolerance``.

    Raises:
        RuntimeError: when ``most`` updates are not enough.
    """
    for _ in range(most):
        updated = update(state, patterns, beta)
        if (updated - state).norm(dim=-1).max() <= tolerance:
            return updated
        state = updated
    raise RuntimeError(f"{most} updates do not bring the state to rest within {tolerance:g}")


def separation(patterns: Tensor) -> Tensor:
    """Separation of each pattern from the others (definition 2): x_i^T x_i - max over j of x_i^T x_j; (N, d) to (N,).

    Negative when another pattern is more similar to x_i than x_i itself; infinite for a single pattern.
    """
    products = patterns @ patterns.mT
    own = products.diagonal()
    return own - products.masked_fill(torch.eye(len(patterns), dtype=torch.bool, device=patterns.device), -torch.inf).amax(-1)


def contraction_bound(patterns: Tensor, beta: float, distance: Tensor | float) -> Tensor:
    """Theorem 4: the update shrinks the distance to the fixed point near pattern i at least by this factor; (N,).

    2 beta N M^2 (N - 1) exp(-beta (Delta_i - 2 M distance)).

    Args:
        distance: the larger one of the distances of the state and of the fixed point from pattern i; a number or (N,).
    """
    count, longest = len(patterns), patterns.norm(dim=-1).max()
    away = separation(patterns) - 2 * distance * longest
    return 2 * beta * count * longest**2 * (count - 1) * torch.exp(-beta * away)


def retrieval_error_bound(patterns: Tensor, beta: float, distance: Tensor | float | None = None) -> Tensor:
    """Theorem 5: how far from pattern i its retrieval may end; (N,).

    With a ``distance`` (see `contraction_bound`) it bounds ||f(xi) - x_i|| after one update:
    2 (N - 1) M exp(-beta (Delta_i - 2 M distance)). Without one it bounds ||x_i* - x_i|| for the fixed point, by
    2 e (N - 1) M exp(-beta Delta_i), which holds where state and fixed point are within 1 / (2 beta M) of the pattern.
    """
    count, longest = len(patterns), patterns.norm(dim=-1).max()
    if distance is None:
        distance = 1 / (2 * beta * longest)
    return 2 * (count - 1) * longest * torch.exp(-beta * (separation(patterns) - 2 * distance * longest))


def capacity(size: int, radius: float, beta: float, failure: float) -> tuple[float, float]:
    """Theorem 3: how many random patterns on a sphere can be stored: the base c, and sqrt(p) c^((d - 1) / 4) of them.

    Args:
        size: d, components of a pattern, at least 2.
        radius: K; the sphere's radius is M = K sqrt(d - 1).
        failure: p, the probability that storing fails.

    Raises:
        ValueError: where the theorem says nothing: c is below (2 / sqrt(p))^(4 / (d - 1)).
    """
    a = 2 / (size - 1) * (1 + math.log(2 * beta * radius**2 * failure * (size - 1)))
    b = 2 * radius**2 * beta / 5
    base = b / _lambert(a + math.log(b))
    least = (2 / math.sqrt(failure)) ** (4 / (size - 1))
    if base < least:
        raise ValueError(f"Theorem 3 says nothing here: c = {base:.4g} is below (2/sqrt(p))^(4/(d-1)) = {least:.4g}")
    return base, math.sqrt(failure) * base ** ((size - 1) / 4)


def _lambert(log: float) -> float:
    """W0(exp(log)), upper branch: Newton's method on w + ln w = log, which cannot overflow."""
    w = max(log - math.log(max(log, 1.0)), math.exp(min(log, 0.0)) / 2)
    for _ in range(100):
        step = (w + math.log(w) - log) * w / (w + 1)
        w = max(w - step, w / 16)
        if abs(step) <= 1e-15 * w:
            break
    return w


def head_class(matrix: Tensor) -> tuple[str, ...]:
    """The class of each head (paper, section 3): how many patterns it averages over.

    k is the number of largest softmax values that reach a mass of 0.90, kbar its median over the states (and the batch). Of
    S patterns, class I (global average) has kbar > S / 2, II S / 8 < kbar <= S / 2, III S / 32 < kbar <= S / 8, and IV
    (single patterns) fewer.

    Shapes: association matrix (B, H, L, S) to H words.
    """
    patterns = matrix.shape[-1]
    mass = matrix.sort(-1, descending=True).values.cumsum(-1)
    needed = (mass < MASS).sum(-1).clamp_max(patterns - 1) + 1
    medians = needed.transpose(0, 1).flatten(1).double().quantile(0.5, dim=1)
    words = []
    for kbar in medians.tolist():
        words.append("I" if kbar > patterns / 2 else "II" if kbar > patterns / 8 else "III" if kbar > patterns / 32 else "IV")
    return tuple(words)
