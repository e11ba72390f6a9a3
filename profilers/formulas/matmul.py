"""Matrix products. A complex product takes four real MACs; a bias or an added matrix goes into the elementwise bucket."""

from typing import Any

from torch import Tensor

from ..cost import Cost
from .table import formula


def real_macs(*factors: Tensor) -> int:
    """Real MACs of one multiply-accumulate on these factors."""
    return 4 if any(factor.is_complex() for factor in factors) else 1


def flops_per_add(tensor: Tensor) -> int:
    """Floating point additions in adding one element; none for integers."""
    return 2 if tensor.is_complex() else int(tensor.is_floating_point())


def contraction(out: Tensor, inner: int, *factors: Tensor, added: Tensor | None = None) -> Cost:
    """A contraction over ``inner`` terms for each element of ``out``, with an optional tensor added to the result."""
    adds = 0 if added is None else out.numel() * flops_per_add(out)
    return Cost(macs=out.numel() * inner * real_macs(*factors), elementwise_flops=adds, activations=out.numel())


@formula("aten::mm", "aten::bmm", "aten::mv", "aten::_int_mm", "aten::_scaled_mm")
def mm(out: Tensor, a: Tensor, b: Tensor, *args: Any, **kwargs: Any) -> Cost:
    """(…, M, K) times (…, K, N) or (K,)."""
    return contraction(out, a.shape[-1], a, b)


@formula("aten::_grouped_mm")
def grouped_mm(out: Tensor, a: Tensor, b: Tensor, *args: Any, **kwargs: Any) -> Cost:
    """Products of groups of rows, each with a matrix of its own, as experts have them. Of two matrices (M, K) and (K, N) the
    groups divide K, and each has a result."""
    macs = a.numel() * b.shape[-1] if a.ndim == b.ndim == 2 else out.numel() * a.shape[-1]
    return Cost(macs=macs, activations=out.numel())


@formula("aten::dot", "aten::vdot")
def dot(out: Tensor, a: Tensor, b: Tensor) -> Cost:
    """(K,) times (K,)."""
    return contraction(out, a.shape[0], a, b)


@formula("aten::addmm", "aten::addmv", "aten::baddbmm", "aten::_addmm_activation")
def addmm(out: Tensor, added: Tensor, a: Tensor, b: Tensor, *args: Any, **kwargs: Any) -> Cost:
    """An added tensor plus a product."""
    return contraction(out, a.shape[-1], a, b, added=added)


@formula("aten::addbmm")
def addbmm(out: Tensor, added: Tensor, a: Tensor, b: Tensor, **kwargs: Any) -> Cost:
    """An added matrix plus the sum of a batch of products: the batch is contracted too."""
    return contraction(out, a.shape[0] * a.shape[2], a, b, added=added)


@formula("aten::addr")
def addr(out: Tensor, added: Tensor, a: Tensor, b: Tensor, **kwargs: Any) -> Cost:
    """An added matrix plus an outer product: one MAC an element."""
    return Cost(macs=out.numel() * real_macs(a, b), activations=out.numel())


@formula("aten::mkldnn_linear", "aten::linear")
def linear(out: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None = None, *args: Any, **kwargs: Any) -> Cost:
    """A fully connected layer that arrives whole, as under inference mode."""
    return contraction(out, weight.shape[-1], x, weight, added=bias)


@formula("mkldnn::_linear_pointwise")
def fused_linear(out: Tensor, x: Tensor, *args: Any, **kwargs: Any) -> Cost:
    """A fully connected layer and what follows it, (x, weight, bias, name, ...) or, with a second operand, (x, other, weight,
    bias, name). The contraction is exact, what follows is left out."""
    return linear(out, x, *(args[1:3] if isinstance(args[3], str) else args[:2]))


@formula("aten::_trilinear")
def trilinear(out: Tensor, i1: Tensor, i2: Tensor, i3: Tensor, *args: Any, **kwargs: Any) -> Cost:
    """nn.Bilinear, (B, I), (O, I, J), (B, J) to (B, O): x1 against the weight (a MAC each), the result against x2."""
    batch, first, outputs, second = out.shape[0], i1.shape[-1], i2.shape[0], i3.shape[-1]
    products = batch * outputs * second * (first + 1)
    return Cost(macs=products * real_macs(i1, i2, i3), activations=out.numel())
