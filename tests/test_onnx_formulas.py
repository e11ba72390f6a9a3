"""What each operator of an ONNX graph costs, derived by hand."""

from pathlib import Path

import pytest
from onnx import parser

from mixbench.models.spec import Workload
from mixbench.profilers.cost import Cost
from mixbench.profilers.onnx_counter import count_model
from mixbench.profilers.onnx_formulas.table import free, rule
from mixbench.profilers.onnx_inputs import graph_inputs


def cost(graph: str, opset: int = 20, more: str = "") -> Cost:
    """Of a graph in ONNX's text form, all of whose operators have to have a rule."""
    model = parser.parse_model(f'<ir_version: 10, opset_import: ["" : {opset}{more}]> {graph}')
    found = count_model(model, graph_inputs(Path("net.onnx"), model.graph, Workload())).count
    assert not found.uncounted
    return found.totals.arithmetic


CASES = [
    ("(float[2,4,9] x, float[6,2,3] w) => (float[2,6,y] y) {y = Conv<group = 2>(x, w)}", Cost(2 * 6 * 7 * 6, 0, 0, 84)),
    ("(float[1,4,5] x, float[4,3,2] w) => (float[1,3,m] y) {y = ConvTranspose(x, w)}", Cost(20 * 6, 0, 0, 18)),
    ("(float[3,4] x, float[5,4] w, float[5] b) => (float[3,5] y) {y = Gemm<transB = 1>(x, w, b)}", Cost(60, 0, 15, 15)),
    ("(float[4,3] x, float[4,5] w) => (float[3,5] y) {y = Gemm<transA = 1>(x, w)}", Cost(60, 0, 0, 15)),
    ("(float[7,1,3,4] x, float[2,4,5] w) => (float[7,2,3,5] y) {y = MatMul(x, w)}", Cost(7 * 2 * 3 * 5 * 4, 0, 0, 210)),
    ("(float[4] x, float[4] w) => (float y) {y = MatMul(x, w)}", Cost(4, 0, 0, 1)),
    ("(uint8[1,2,4,4] x, int8[3,2,3,3] w) => (int32[1,3,2,2] y) {y = ConvInteger(x, w)}", Cost(12 * 18, 0, 0, 12)),
    ("(uint8[2,4] x, uint8[4,3] w) => (int32[2,3] y) {y = MatMulInteger(x, w)}", Cost(24, 0, 0, 6)),
    (
        "(uint8[1,2,4,4] x, float s, uint8 z, uint8[3,2,3,3] w, int32[3] b) => (uint8[1,3,2,2] y)"
        "{y = QLinearConv(x, s, z, w, s, z, s, z, b)}",
        Cost(12 * 18, 0, 2 * 12, 12),
    ),
    (
        "(uint8[2,4] a, float s, uint8 z, uint8[4,3] b) => (uint8[2,3] y) {y = QLinearMatMul(a, s, z, b, s, z, s, z)}",
        Cost(24, 0, 12, 6),
    ),
    ("(float[2,5] x, float s, uint8 z) => (float[2,5] y) {q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z)}",
     Cost(0, 0, 2 * 10 + 10)),
    ("(float[2,3,4] a, float[2,5,4] b) => (float[2,3,5] y) {y = Einsum<equation = \"bik,bjk->bij\">(a, b)}",
     Cost(120, 0, 0, 30)),
    ("(float[3] a, float[4] b) => (float[3,4] y) {y = Einsum<equation = \"i,j->ij\">(a, b)}", Cost(0, 0, 12)),
    ("(float[3,4] a) => (float[3] y) {y = Einsum<equation = \"ij->i\">(a)}", Cost(0, 0, 12)),
    ("(float[2,3] a, float[3,4] b, float[4,5] c) => (float[2,5] y) {y = Einsum<equation = \"ij,jk,kl\">(a, b, c)}",
     Cost(24 + 40, 0, 0, 8 + 10)),
    ("(float[6,2,3] a, float[6,3,4] b) => (float[6,2,4] y) {y = Einsum<equation = \"...ij,...jk->...ik\">(a, b)}",
     Cost(144, 0, 0, 48)),
    ("(float[2,3,4,4] x, float[3] s) => (float[2,3,4,4] y) {y = BatchNormalization(x, s, s, s, s)}", Cost(0, 0, 2 * 96)),
    ("(float[2,6] x, float[6] s) => (float[2,6] y) {y = LayerNormalization(x, s, s)}", Cost(0, 0, 8 * 12)),
    ("(float[2,6] x) => (float[2,6] y) {y = Softmax(x)}", Cost(0, 0, 60)),
    ("(float[2,6] x) => (bool[2,6] y) {y = Greater(x, x)}", Cost(0, 0, 12)),
    ("(int64[2,6] x) => (int64[2,6] y) {y = Add(x, x)}", Cost()),
    ("(float[2,6] x) => (float[2,6] y) {y = Max(x, x, x)}", Cost(0, 0, 24)),
    ("(float[2,3,8,8] x) => (float[2,3,4,4] y) {y = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(x)}", Cost(0, 0, 4 * 96)),
    ("(float[2,3,8,8] x) => (float[2,3,1,1] y) {y = GlobalAveragePool(x)}", Cost(0, 0, 384)),
    ("(float[2,3,8] x) => (float[2,3,1] y) {y = ReduceL2<keepdims = 1>(x)}", Cost(0, 0, 2 * 48)),
    ("(float[2,8,1] x) => (float[2,5,2] y) {y = DFT<onesided = 1>(x)}", Cost(0, 2 * 60, 0)),
    ("(float[2,8,2] x) => (float[2,8,2] y) {y = DFT(x)}", Cost(0, 2 * 120, 0)),
    ("(float[5,3] x, int64[2] i) => (float[2,3] y) {y = Gather(x, i)}", Cost()),
    ("(float[5,3] x, int64[2,1] i, float[2,3] u) => (float[5,3] y) {y = ScatterND<reduction = \"add\">(x, i, u)}",
     Cost(0, 0, 6)),
]  # fmt: skip


@pytest.mark.parametrize(("graph", "expected"), CASES, ids=[graph[graph.index("{") + 1 :][:40] for graph, _ in CASES])
def test_an_operator_costs_what_is_derived_by_hand(graph: str, expected: Cost) -> None:
    assert cost(f"agraph {graph}") == expected


FUSED = [
    (
        "(uint8[1,4,4,2] x, float s, uint8 z, uint8[3,2,3,3] w) => (y)"
        "{y = com.microsoft.QLinearConv<channels_last = 1>(x, s, z, w, s, z, s, z)}",
        Cost(12 * 18, 0, 2 * 12, 12),
    ),
    (
        "(uint8[2,4] a, float s, uint8 z, uint8[3,4] b) => (y)"
        "{t = com.microsoft.QGemm<transB = 1>(a, s, z, b, s, z, , s, z) y = DequantizeLinear(t, s, z)}",
        Cost(24, 0, 2 * 6 + 6, 6),
    ),
    (
        '(float[1,2,4,4] x, float[3,2,3,3] w, float[3] b) => (y) {y = com.microsoft.FusedConv<activation = "Relu">(x, w, b)}',
        Cost(12 * 18, 0, 12 + 12, 12),
    ),
    (
        "(float[2,4,3] x, float[2,4,5] w) => (y) {y = com.microsoft.FusedMatMul<transA = 1, alpha = 0.5>(x, w)}",
        Cost(2 * 3 * 5 * 4, 0, 30, 30),
    ),
    ("(float[2,3] x) => (y) {t = com.microsoft.QuickGelu(x) y = Relu(t)}", Cost(0, 0, 12)),
    (
        "(float[2,5,8] x, float[8,24] w, float[24] b) => (y) {y = com.microsoft.Attention<num_heads = 2>(x, w, b)}",
        Cost(2 * 5 * 8 * 24, 0, 240, 240) + Cost(100 * 8, 0, 2 * 2 * 10 * 4 + 100 * 5, 100 + 80),
    ),
    (
        "(float[2,5,8] q, float[2,7,8] k, float[2,7,6] v) => (y){y = com.microsoft.MultiHeadAttention<num_heads = 2>(q, k, v)}",
        Cost(140 * (4 + 3), 0, 2 * 2 * 12 * 4 + 140 * 5, 140 + 2 * 2 * 5 * 3),
    ),
]


@pytest.mark.parametrize(("graph", "expected"), FUSED, ids=[graph.split("com.microsoft.")[1][:20] for graph, _ in FUSED])
def test_fused_operators_cost_what_they_are_made_of(graph: str, expected: Cost) -> None:
    assert cost(f"agraph {graph}", more=', "com.microsoft" : 1') == expected


def test_attention_of_onnx_costs_what_torchs_fused_one_does() -> None:
    graph = "(float[2,4,6,8] q, float[2,2,9,8] k, float[2,2,9,5] v) => (float[2,4,6,5] y) {y = Attention(q, k, v)}"
    scores = 2 * 4 * 6 * 9
    assert cost(f"agraph {graph}", opset=23) == Cost(
        scores * (8 + 5), 0, 5 * scores + 2 * 4 * (6 + 9) * 8, scores + 2 * 4 * 6 * 5
    )


def test_an_operator_has_one_rule() -> None:
    with pytest.raises(ValueError, match="Conv has a rule already, in convolution"):
        rule("Conv")(lambda call: Cost())
    with pytest.raises(ValueError, match=r"com\.microsoft::FusedConv has a rule already, in convolution"):
        free("", "movement", fused="FusedConv")
