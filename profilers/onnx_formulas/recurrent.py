"""Recurrent layers, one operator for all steps and directions: x (T, B, I), w (D, gates, I), r (D, gates, H)."""

from math import prod

from ..cost import Cost
from ..onnx_graph import Call
from .table import rule

# Elementwise steps of a cell beside its gates' sums and biases, as PyTorch's decomposed layers take them.
_STEPS = {"LSTM": 9, "GRU": 8, "RNN": 1}
_SUMMED_GATES = {"LSTM": 4, "GRU": 2, "RNN": 1}


@rule("LSTM GRU RNN")
def layer(call: Call) -> Cost:
    """Both matrices at each step, whatever the lengths of the sequences; two biases a gate, and the two products' sum."""
    x, w, r = call.input(0), call.input(1), call.input(2)
    directions, gates, _ = w.shape
    hidden = r.shape[-1]
    turns = prod(x.shape[:2]) * directions
    biases = 2 * gates if call.optional(3) is not None else 0
    elementwise = biases + (_SUMMED_GATES[call.operator] + _STEPS[call.operator]) * hidden
    return Cost(turns * gates * (w.shape[-1] + hidden), elementwise_flops=turns * elementwise, activations=2 * turns * gates)
