"""Reductions, as for PyTorch: a number of FLOPs for each element of the input."""

from math import ceil, log2, prod

from ..cost import FREE, Cost
from ..onnx_graph import Call
from .table import per_element, rule


def _reduced(count: int, call: Call) -> Cost:
    """Without axes, and told that this means none, a reduction is the identity."""
    axes = call.optional(1)
    nothing = axes is None if "axes" not in call.attributes else False
    return FREE if nothing and call.attributes.get("noop_with_empty_axes") else per_element(count, call.input(0))


@rule("ReduceSum ReduceMean ReduceMax ReduceMin ReduceProd")
def once(call: Call) -> Cost:
    """One addition, product or comparison an element."""
    return _reduced(1, call)


@rule("ReduceL1 ReduceL2 ReduceSumSquare ReduceLogSum")
def twice(call: Call) -> Cost:
    """A function of each element, and its sum; of a log-sum the logarithms of the sums are left out."""
    return _reduced(1 if call.operator == "ReduceLogSum" else 2, call)


@rule("ReduceLogSumExp")
def log_sum_exp(call: Call) -> Cost:
    """Maximum, difference, exponential, sum."""
    return _reduced(4, call)


@rule("ArgMax ArgMin CumSum CumProd TopK")
def along(call: Call) -> Cost:
    """One comparison, addition or product an element."""
    return per_element(1, call.input(0))


@rule("Unique")
def unique(call: Call) -> Cost:
    """An idealised comparison sort, over all elements or along an axis."""
    x = call.input(0)
    longest = x.shape[call.attributes["axis"]] if "axis" in call.attributes else prod(x.shape)
    return per_element(ceil(log2(max(2, longest))), x)


@rule("Det")
def determinant(call: Call) -> Cost:
    """LU by elimination: (2 n^3 - 3 n^2 + n) / 6 multiply-subtracts; quotients, the diagonal's product and the sign."""
    *batch, n, _ = call.input(0).shape
    matrices = prod(batch)
    return Cost(
        matrices * (n - 1) * n * (2 * n - 1) // 6,
        elementwise_flops=matrices * (n * (n - 1) // 2 + n + 1),
        activations=call.input(0).size,
    )
