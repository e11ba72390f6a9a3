"""Recurrent layers that arrive as one operator of a library. The counter asks for the decomposed form first."""

from typing import Any

from torch import Tensor

from ..cost import Cost
from .matmul import contraction
from .pointwise import steps
from .table import formula


@formula("aten::mkldnn_rnn_layer")
def onednn_layer(
    out: Any, x: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor, *args: Any, **kwargs: Any
) -> Cost:
    """One direction of one LSTM layer, x (T, B, I): both matrices at each step, and nine elementwise steps a cell."""
    steps_in_time, batch = x.shape[:2]
    gates = x.new_empty((steps_in_time * batch, w_ih.shape[0]), device="meta")
    cells = x.new_empty((steps_in_time, batch, w_hh.shape[1]), device="meta")
    products = contraction(gates, w_ih.shape[1], x, added=b_ih) + contraction(gates, w_hh.shape[1], x, added=b_hh)
    return products + steps(1, gates) + steps(9, cells)


@formula("aten::_thnn_fused_lstm_cell", "aten::_thnn_fused_gru_cell")
def fused_cell(out: Any, gates: Tensor, *args: Any, **kwargs: Any) -> Cost:
    """The elementwise half of a cell; its matrix products arrive on their own."""
    return steps(4, gates)
