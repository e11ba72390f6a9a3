"""The layer norms of a Hopfield layer's inputs, and all three at once where one tensor is the input. See ``hopfield.py``."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SMALL = 2**15
"""Numbers in an input up to which one operator more costs more than copying the input."""


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


def affine_maps(x: Tensor, norms: Sequence[nn.LayerNorm | None]) -> tuple[list[Tensor], list[Tensor], float] | None:
    """Weights, biases and the eps of norms that `stacked` may replace, where that pays; None elsewhere.

    It pays where an operator costs more than its arithmetic. The norms have to differ in nothing but their affine maps, and
    nobody may watch their calls, as counters do. Compilers and exporters see them as they are: they fuse themselves, and a
    graph must not depend on a size. Halves would be rounded once more than by a norm.
    """
    if torch.compiler.is_compiling() or x.numel() > SMALL or x.dtype.itemsize < 4:
        return None
    weights: list[Tensor] = []
    biases: list[Tensor] = []
    eps = set()
    for norm in norms:
        if type(norm) is not nn.LayerNorm or norm._forward_hooks or norm._forward_pre_hooks:
            return None
        if norm._backward_hooks or norm._backward_pre_hooks:
            return None
        weight, bias = norm.weight, norm.bias
        if weight is None or bias is None:
            return None
        weights.append(weight)
        biases.append(bias)
        eps.add(norm.eps)
    return (weights, biases, eps.pop()) if len(eps) == 1 else None


def stacked(x: Tensor, weights: list[Tensor], biases: list[Tensor], eps: float) -> Tensor:
    """What each of three norms makes of x (B, L, E), in one tensor (3, B, L, E): normalised once, mapped in one step."""
    width = x.shape[-1]
    # An affine map that changes nothing, since torch's kernel is slower without one.
    x = F.layer_norm(x, (width,), x.new_ones(width), x.new_zeros(width), eps)
    return torch.addcmul(torch.cat(biases).view(3, 1, 1, width), x, torch.cat(weights).view(3, 1, 1, width))
