"""Between floating point and integers. The zero point is an integer, and adding it no floating point work.

To quantise is a quotient (or product) by the scale and a rounding, two FLOPs an element; to dequantise a product, one. An
operator that works on quantised tensors has integer products inside, which are MACs, and rescales its result: two more.
"""

from ..cost import Cost
from ..onnx_graph import Call, Value
from .table import per_result, rule

_QUANTISE = 2


def requantised(out: Value) -> Cost:
    """An integer result brought to another scale."""
    return Cost(elementwise_flops=_QUANTISE * out.size)


@rule("QuantizeLinear", fused="QuantizeLinear")
def quantise(call: Call) -> Cost:
    """Quotient and rounding."""
    return requantised(call.out)


@rule("DequantizeLinear", fused="DequantizeLinear")
def dequantise(call: Call) -> Cost:
    """A product."""
    return per_result(1, call)


@rule("DynamicQuantizeLinear")
def dynamic(call: Call) -> Cost:
    """Minimum and maximum are found first."""
    return Cost(elementwise_flops=(2 + _QUANTISE) * call.input(0).size)


@rule("", fused="QLinearAdd QLinearMul")
def binary(call: Call) -> Cost:
    """Both inputs dequantised, the step itself, and the result quantised."""
    return Cost(elementwise_flops=call.input(0).size + call.input(3).size + call.out.size) + requantised(call.out)


@rule("", fused="QLinearSigmoid QLinearLeakyRelu")
def unary(call: Call) -> Cost:
    """Runtimes look the 256 results up."""
    return Cost()
