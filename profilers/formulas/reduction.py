"""Reductions: a number of FLOPs for each element of the input. Losses are here too: a pointwise part, then a sum."""

from math import ceil, log2
from typing import Any

from torch import Tensor

from ..cost import FREE, Cost
from .pointwise import is_floating, one_per_element
from .table import formula


def per_input(count: int, x: Any) -> Cost:
    """``count`` FLOPs for each element of ``x``, doubled for complex numbers, none for integers."""
    if isinstance(x, tuple | list):
        return sum((per_input(count, item) for item in x), FREE)
    return Cost(elementwise_flops=count * x.numel() * (2 if x.is_complex() else 1)) if is_floating(x) else FREE


@formula(
    *(
        f"aten::{name}"
        for name in (
            "sum mean prod nansum amax amin aminmax argmax argmin any all cumsum cumprod cummax cummin "
            "_cummax_helper _cummin_helper count_nonzero median nanmedian trace topk kthvalue mode bincount histc "
            "nll_loss_forward nll_loss2d_forward nll_loss_nd _foreach_norm equal logcumsumexp unique_dim _unique2"
        ).split()
    )
)
def once(out: Any, x: Any, *args: Any, **kwargs: Any) -> Cost:
    """One addition, product or comparison an element of the input."""
    return per_input(1, x)


@formula("aten::max", "aten::min")
def extreme(out: Any, x: Tensor, *args: Any, **kwargs: Any) -> Cost:
    """Of one tensor a reduction, of two a pointwise operator."""
    return one_per_element(out) if args and isinstance(args[0], Tensor) else per_input(1, x)


@formula("aten::linalg_vector_norm", "aten::norm", "aten::mse_loss", "aten::dist")
def twice(out: Any, x: Any, *args: Any, **kwargs: Any) -> Cost:
    """A function of each element, and its sum."""
    return per_input(2, x)


@formula("aten::smooth_l1_loss", "aten::huber_loss", "aten::binary_cross_entropy")
def thrice(out: Any, x: Any, *args: Any, **kwargs: Any) -> Cost:
    """Two functions of each element, and their sum."""
    return per_input(3, x)


@formula("aten::var", "aten::std", "aten::var_mean", "aten::std_mean", "aten::logsumexp")
def moments(out: Any, x: Any, *args: Any, **kwargs: Any) -> Cost:
    """Four an element: mean, difference, square, sum; or maximum, difference, exponential, sum."""
    return per_input(4, x)


@formula("aten::sort", "aten::argsort", "aten::msort")
def sort(out: Any, x: Tensor, *args: Any, **kwargs: Any) -> Cost:
    """An idealised comparison sort: ceil(log2 n) comparisons an element, n the longest side."""
    return per_input(ceil(log2(max(2, *x.shape))) if x.ndim else 0, x)


@formula("aten::col2im")
def fold(out: Tensor, x: Tensor, *args: Any, **kwargs: Any) -> Cost:
    """Overlapping patches are added up: one addition an element of the patches."""
    return per_input(1, x)


@formula("aten::binary_cross_entropy_with_logits")
def logits_loss(
    out: Tensor, x: Tensor, target: Tensor, weight: Tensor | None = None, pos_weight: Tensor | None = None, reduction: int = 1
) -> Cost:
    """(1 - t) x - w log sigmoid(x): four an element. The weight of the positives is w = 1 + (pos_weight - 1) t, three more and
    its own difference; a weight of the elements is one more, and so is adding them up."""
    each = 4 + 3 * (pos_weight is not None) + (weight is not None) + (reduction != 0)
    return per_input(each, x) + (FREE if pos_weight is None else per_input(1, pos_weight))


_ALPHA = 13
"""A state of the trellis: the log-sum-exp of three, 4 each, and a log probability added."""


@formula("aten::_ctc_loss")
def ctc(out: Any, *args: Any, **kwargs: Any) -> Cost:
    """The forward recursion on the padded trellis (N, T, 2 L + 1), L the longest target: sequences that end early save none."""
    return per_input(_ALPHA, out[1])


@formula("aten::_ctc_loss_backward")
def ctc_backward(
    out: Tensor, grad: Tensor, log_probs: Tensor, targets: Tensor, inputs: Any, lengths: Any, loss: Tensor, alpha: Tensor,
    *args: Any, **kwargs: Any
) -> Cost:  # fmt: skip
    """The backward recursion, times the forward one, summed in logs to the classes (1 + 4); six a class and step: two
    exponentials, the loss added and the probability taken off in logs, a difference, the product with the gradient."""
    return per_input(_ALPHA + 5, alpha) + per_input(6, log_probs)
