"""Elementwise operators: one FLOP for each element of the result and each arithmetic step or function applied to it.

An addition, a maximum, an exponential and a GELU count alike: one. Operators that fuse several steps say how many below.
Arithmetic on integers and booleans is no floating point work and counts nothing. Complex numbers: a product is six real
FLOPs, a sum two, a quotient eleven, any other function two.
"""

from typing import Any

from torch import Tensor

from ..cost import FREE, Cost
from .table import formula

_COMPLEX_STEPS = {"mul": 6, "div": 11, "reciprocal": 11, "addcmul": 8}


def is_floating(tensor: Any) -> bool:
    """Whether arithmetic on it is floating point work."""
    return isinstance(tensor, Tensor) and (tensor.is_floating_point() or tensor.is_complex())


def elements(out: Any) -> int:
    """Elements of a result: a tensor, or several."""
    if isinstance(out, Tensor):
        return out.numel()
    return sum(elements(item) for item in out) if isinstance(out, tuple | list) else 0


def steps(count: int, out: Any, *args: Any) -> Cost:
    """``count`` FLOPs an element of the result, if anything floating takes part."""
    if not any(is_floating(item) for item in (*(out if isinstance(out, tuple | list) else (out,)), *args)):
        return FREE
    return Cost(elementwise_flops=count * elements(out))


def one_per_element(out: Any, *args: Any, **kwargs: Any) -> Cost:
    """The default of every pointwise operator on real numbers, and two FLOPs on complex ones."""
    complex_out = isinstance(out, Tensor) and out.is_complex()
    return steps(2 if complex_out else 1, out, *args)


def _complex_aware(name: str) -> None:
    @formula(f"aten::{name}")
    def rule(out: Tensor, *args: Any, **kwargs: Any) -> Cost:
        return steps(_COMPLEX_STEPS[name] if out.is_complex() else (2 if name == "addcmul" else 1), out, *args)


for _name in _COMPLEX_STEPS:
    _complex_aware(_name)


@formula(
    *(
        f"aten::{name}"
        for name in (
            "add sub rsub neg abs sign maximum minimum fmax fmin clamp clamp_min clamp_max relu relu6 hardtanh threshold "
            "leaky_relu _prelu_kernel elu celu rrelu_with_noise sigmoid hardsigmoid tanh silu hardswish mish gelu softplus "
            "softshrink hardshrink exp exp2 expm1 log log2 log10 log1p sqrt rsqrt pow square sin cos "
            "tan asin acos atan atan2 sinh cosh erf erfc erfinv floor ceil round trunc frac fmod remainder where "
            "masked_fill eq ne lt le gt ge isnan isinf logical_not logical_and logical_or logical_xor heaviside "
            "floor_divide nan_to_num bitwise_and bitwise_or bitwise_xor bitwise_not __and__ __or__ __xor__ "
            "bitwise_left_shift bitwise_right_shift polar complex angle sgn tril triu xlogy special_entr "
            "threshold_backward hardtanh_backward sigmoid_backward tanh_backward silu_backward gelu_backward "
            "hardsigmoid_backward hardswish_backward leaky_relu_backward elu_backward softplus_backward "
            "softshrink_backward hardshrink_backward log_sigmoid_backward rrelu_with_noise_backward glu_backward "
            "_prelu_kernel_backward mse_loss_backward smooth_l1_loss_backward huber_loss_backward "
            "binary_cross_entropy_backward nll_loss_backward "
            "nll_loss2d_backward"
        ).split()
    )
)
def single_step(out: Any, *args: Any, **kwargs: Any) -> Cost:
    """One FLOP an element; a function's derivative counts like the function."""
    return one_per_element(out, *args)


@formula("aten::addcdiv", "aten::native_dropout", "aten::native_dropout_backward", "aten::glu", "aten::_masked_scale")
def two_steps(out: Any, *args: Any, **kwargs: Any) -> Cost:
    """Two steps an element: a quotient or a product and a sum; masking and scaling; a gate and its product."""
    first = out[0] if isinstance(out, tuple) else out
    return steps(2, first, *args)


@formula("aten::log_sigmoid_forward")
def log_sigmoid(out: Any, *args: Any, **kwargs: Any) -> Cost:
    """One step an element; the second result is kept for the gradient, on some devices."""
    return steps(1, out[0])


@formula("aten::lerp")
def lerp(out: Tensor, *args: Any, **kwargs: Any) -> Cost:
    """a + w (b - a): three steps."""
    return steps(3, out, *args)


@formula("aten::_softmax", "aten::_log_softmax", "aten::_safe_softmax", "aten::_masked_softmax")
def softmax(out: Tensor, *args: Any, **kwargs: Any) -> Cost:
    """Five an element: maximum, difference, exponential, sum, quotient (or, in logs, difference)."""
    return steps(5, out)


@formula("aten::_softmax_backward_data", "aten::_log_softmax_backward_data", "aten::_masked_softmax_backward")
def softmax_backward(out: Tensor, *args: Any, **kwargs: Any) -> Cost:
    """Four an element: product with the output, sum, difference, product."""
    return steps(4, out)
