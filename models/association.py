"""The association of modern Hopfield networks as functions of tensors: masks, updates, the stop rule, the readout.

Source: Ramsauer et al., "Hopfield Networks is All You Need", ICLR 2021 (arXiv 2008.02217), section 2 and equation 10. A
state q looks at stored patterns k and reads their values v; before it reads, it may be updated as often as asked, each
time by k, never by v::

    A_0 = softmax(mask(beta q k^T));   q_t = A_{t-1} k,   A_t = softmax(mask(beta q_t k^T));   out = A_last v

Letters: B batch, H heads, L states, S stored patterns, a width of the association space, p width of a value.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

UNLIMITED = -1
"""A number of updates: as many as it takes until the association matrix moves by no more than eps."""

PATIENCE = 10_000
"""Updates without a limit after which a head is taken for one that never rests."""


@dataclass(frozen=True, slots=True)
class Steps:
    """How often each head updates its states.

    Attributes:
        most: the most updates of each head, `UNLIMITED` for no limit.
        eps: a head stops once its association matrix has moved by no more than this (Frobenius norm, the largest of the
            batch); 0 never stops a head early.
    """

    most: tuple[int, ...]
    eps: tuple[float, ...]

    @property
    def fixed(self) -> bool:
        """Whether the number of updates is known before: the rule first looks after one update, and eps 0 never stops."""
        return all(0 <= most <= 1 or (most > 1 and eps == 0) for most, eps in zip(self.most, self.eps, strict=True))


@dataclass(frozen=True, slots=True)
class Mask:
    """Which patterns a state may see: ``allowed`` (bool) or ``added`` (float, to the logits), broadcast to (B, H, L, S)."""

    allowed: Tensor | None = None
    added: Tensor | None = None

    @classmethod
    def make(cls, association: Tensor | None, padding: Tensor | None, batch: int, heads: int, dtype: torch.dtype) -> "Mask":
        """Join both masks of a call.

        Args:
            association: (L, S) or (B * H, L, S), batch outside: True or a nonzero integer blocks, floats are added.
            padding: (B, S): True or nonzero ignores a stored pattern.
        """
        if association is not None:
            association = association.unflatten(0, (batch, heads)) if association.ndim == 3 else association[None, None]
        if padding is not None:
            padding = padding.bool()[:, None, None, :]
        if association is not None and association.is_floating_point():
            added = association.to(dtype)
            return cls(added=added if padding is None else added.masked_fill(padding, float("-inf")))
        blocked = [mask.bool() for mask in (association, padding) if mask is not None]
        return cls(allowed=~(blocked[0] | blocked[-1])) if blocked else cls()

    def softmax(self, logits: Tensor) -> Tensor:
        """Softmax over the patterns; a state that may see none of them gets zeros, as from torch's fused attention."""
        if self.allowed is None and self.added is None:
            return logits.softmax(-1)
        if self.allowed is not None:
            hidden = ~self.allowed
        else:
            assert self.added is not None
            hidden = self.added == float("-inf")
            logits = logits + self.added
        blind = hidden.all(-1, keepdim=True)
        # A blind row is computed as if it saw everything and then emptied: -inf alone would be NaN, in the gradient too.
        logits = logits.masked_fill(hidden & ~blind, float("-inf")).masked_fill(blind, 0.0)
        return logits.softmax(-1).masked_fill(blind, 0.0)


def association(q: Tensor, k: Tensor, beta: float | Tensor, steps: Steps, mask: Mask) -> tuple[Tensor, tuple[int, ...] | None]:
    """The association matrix after all updates (B, H, L, S), and how many updates each head has made.

    The stop rule is the reference's: after update t >= 1 a head goes on while t is below its limit and the Frobenius norm
    over (L, S) of A_t - A_{t-1}, the largest of the batch, is above eps. It compares matrices, not states, and couples the
    samples of a batch. A finished head is left as it is and costs nothing more.

    Inside a graph that is being compiled or exported nothing may depend on values: there all updates run, a finished head
    is held by selection, and the number of updates is None. Without a limit that is impossible.

    Args:
        q: (B, H, L, a); k: (B, H, S, a).
        beta: one number, or a tensor that broadcasts to (H, 1, 1).

    Raises:
        RuntimeError: when a head does not rest within `PATIENCE` updates, as with a negative beta, or an eps finer than the
            dtype; on meta tensors, and on export without a limit.
    """
    matrix = _look(q, k, beta, mask)
    if torch.compiler.is_compiling() and UNLIMITED not in steps.most:
        return _unrolled(matrix, k, beta, steps, mask), None
    if torch.compiler.is_exporting():
        raise RuntimeError("a graph cannot hold updates without a limit: give update_steps_max a number to export")
    made = [0] * len(steps.most)
    active = [head for head, most in enumerate(steps.most) if most != 0]
    step = 0
    while active:
        step += 1
        everyone = len(active) == len(made)
        heads = torch.tensor(active, device=k.device)
        before, keys, factor, seen = (
            (matrix, k, beta, mask) if everyone else (matrix[:, heads], k[:, heads], _of(beta, heads), _seen(mask, heads))
        )
        after = _look(before @ keys, keys, factor, seen)
        matrix = after if everyone else matrix.index_copy(1, heads, after)
        for head in active:
            made[head] = step
        going = [steps.most[head] == UNLIMITED or step < steps.most[head] for head in active]
        if any(going) and any(steps.eps[head] > 0 for head in active):
            if matrix.is_meta:
                raise RuntimeError("how often a head updates depends on values, which meta tensors lack")
            moves = _move(before, after).tolist()  # waits for the device: the rule depends on values
            settled = [steps.eps[head] > 0 and not move > steps.eps[head] for head, move in zip(active, moves, strict=True)]
            going = [goes and not rests for goes, rests in zip(going, settled, strict=True)]
            if step >= PATIENCE and any(going):
                what = f"an association matrix still moves by {max(moves):.3g} after {step:,} updates"
                raise RuntimeError(f"{what}: give a limit, a larger update_steps_eps, or a positive scaling, in a finer dtype")
        active = [head for head, goes in zip(active, going, strict=True) if goes]
    return matrix, tuple(made)


def retrieve_fixed(
    q: Tensor, k: Tensor, v: Tensor, beta: float | Tensor, most: Sequence[int], mask: Mask, dropout: float = 0.0
) -> Tensor:
    """Fixed numbers of updates and the readout through torch's fused attention, which never writes the matrix down.

    Shapes: q (B, H, L, a), k (B, H, S, a), v (B, H, S, p) to (B, H, L, p).

    Args:
        most: how many updates each head makes.
        dropout: rate on the association matrix of the readout.
    """
    seen = mask.allowed if mask.added is None else mask.added
    scale, factor = (None, beta) if isinstance(beta, Tensor) else (beta, None)

    def attend(states: Tensor, values: Tensor, rate: float = 0.0) -> Tensor:
        if factor is not None:
            states = states * factor
        return F.scaled_dot_product_attention(states, k, values, seen, rate, scale=1.0 if scale is None else scale)

    for step in range(max(most)):
        updated = attend(q, k)
        goes = [step < limit for limit in most]
        q = updated if all(goes) else torch.where(torch.tensor(goes, device=q.device)[:, None, None], updated, q)
    return attend(q, v, dropout)


def _look(q: Tensor, k: Tensor, beta: float | Tensor, mask: Mask) -> Tensor:
    return mask.softmax((q * beta) @ k.mT)


def _move(before: Tensor, after: Tensor) -> Tensor:
    """How far each head's matrix has moved, (H,): Frobenius norm over (L, S), the largest of the batch."""
    return torch.linalg.vector_norm((after - before).detach(), dim=(2, 3)).amax(0)


def _unrolled(matrix: Tensor, k: Tensor, beta: float | Tensor, steps: Steps, mask: Mask) -> Tensor:
    most = torch.tensor(steps.most, device=k.device)
    eps = torch.tensor(steps.eps, device=k.device, dtype=matrix.dtype)
    active = most > 0
    for step in range(1, max(steps.most) + 1):
        after = torch.where(active[:, None, None], _look(matrix @ k, k, beta, mask), matrix)
        active = active & (most > step) & ((_move(matrix, after) > eps) | (eps == 0))
        matrix = after
    return matrix


def _of(beta: float | Tensor, heads: Tensor) -> float | Tensor:
    return beta[heads] if isinstance(beta, Tensor) and beta.ndim else beta


def _seen(mask: Mask, heads: Tensor) -> Mask:
    """The mask of some heads; one that is the same for all heads stays."""
    allowed, added = (m if m is None or m.shape[1] == 1 else m[:, heads] for m in (mask.allowed, mask.added))
    return Mask(allowed, added)
