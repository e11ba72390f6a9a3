"""The layer norms of a Hopfield layer's inputs, and their affine maps folded into what follows. See ``hopfield.py``."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def is_affine(norm: nn.LayerNorm | None) -> bool:
    return norm is not None and norm.elementwise_affine


def norm_of(name: str, width: int | None, wanted: bool, affine: bool, eps: float) -> nn.LayerNorm | None:
    """The layer norm of an input that the options ask for.

    Raises:
        ValueError: when they contradict each other.
    """
    if affine and not wanted:
        raise ValueError(f"normalize_{name}_affine does nothing without normalize_{name}: turn both off")
    if not wanted:
        return None
    if width is None:
        raise ValueError(f"normalize_{name} needs a width: give input_size, or see Hopfield.retrieval")
    return nn.LayerNorm(width, eps, affine)


def shared_norm(norms: Sequence[nn.LayerNorm | None]) -> tuple[Tensor, Tensor, nn.LayerNorm] | None:
    """The gains and the shifts of three norms of width E, each (3 E), and the norm that is left in place of all three.

    None where the norms differ in more than their affine maps, or have none.
    """
    gains: list[Tensor] = []
    shifts: list[Tensor] = []
    eps = set()
    for norm in norms:
        if type(norm) is not nn.LayerNorm or norm.weight is None or norm.bias is None:
            return None
        gains.append(norm.weight)
        shifts.append(norm.bias)
        eps.add(norm.eps)
    if len(eps) > 1:
        return None
    # It keeps an affine map that changes nothing, since torch's kernel is slower without one.
    left = nn.LayerNorm(len(gains[0]), eps.pop(), device=gains[0].device, dtype=gains[0].dtype)
    return torch.cat(gains), torch.cat(shifts), left
