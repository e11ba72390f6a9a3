"""Elementwise operators, as for PyTorch: one FLOP for each element of the result and each step; integers and booleans none."""

from ..cost import FREE, Cost
from ..onnx_graph import Call
from .table import per_element, per_result, rule


@rule(
    "Abs Acos Acosh Add And Asin Asinh Atan Atanh BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Ceil Celu Clip Cos Cosh "
    "Div Elu Equal Erf Exp Floor Gelu Greater GreaterOrEqual HardSigmoid HardSwish Hardmax IsInf IsNaN LeakyRelu Less "
    "LessOrEqual Log Mish Mod Mul Neg Not Or PRelu Pow Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Sinh Softplus "
    "Softsign Sqrt Sub Swish Tan Tanh ThresholdedRelu Trilu Where Xor",
    fused="QuickGelu Gelu FastGelu",
)
def single_step(call: Call) -> Cost:
    """One FLOP an element."""
    return per_result(1, call)


@rule("", fused="BiasGelu")
def bias_gelu(call: Call) -> Cost:
    """A sum, then the function."""
    return per_result(2, call)


@rule("Max Min Mean Sum")
def several(call: Call) -> Cost:
    """One step for each operand after the first; a mean divides as well."""
    return per_result(len(call.inputs) - 1 + (call.operator == "Mean"), call)


@rule("Softmax LogSoftmax")
def softmax(call: Call) -> Cost:
    """Five an element: maximum, difference, exponential, sum, quotient (or, in logs, difference)."""
    return per_result(5, call)


@rule("", fused="QLinearSoftmax")
def quantised_softmax(call: Call) -> Cost:
    """Softmax on integers, which are dequantised first and quantised again: 1 + 5 + 2."""
    return Cost(elementwise_flops=8 * call.out.size)


@rule("Dropout")
def dropout(call: Call) -> Cost:
    """Nothing in inference; in training masking and scaling."""
    training = call.optional(2)
    on = training is not None and training.content is not None and bool(training.content.item())
    return per_element(2, call.input(0)) if on else FREE
