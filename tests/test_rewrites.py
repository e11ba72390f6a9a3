"""Each rewrite is the same function by operators that more runtimes take, and leaves alone what it is not sure of."""

import copy
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

import mixbench
from mixbench.export.rewrites.base import names, rewrite_graph, rewrite_module
from mixbench.export.rewrites.groupnorm import MeanGroupNorm
from mixbench.export.rewrites.softshrink import ClippedShrink
from mixbench.models.architectures.memoryformer import MemoryLayer
from mixbench.models.errors import BadInput

FLOATS = st.floats(-1e3, 1e3, width=32)


def graph(
    nodes: list[onnx.NodeProto], shape: tuple[int | str, ...], rank: int, opset: int = 20, **constants: Any
) -> onnx.ModelProto:
    """A graph from ``x`` to ``y``, its shapes inferred as the exporter leaves them."""
    made = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * rank)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model)


def both(exporter: Any, model: onnx.ModelProto, x: np.ndarray, rewrite: str) -> tuple[np.ndarray, np.ndarray]:
    """What the graph computes before and after that one rewrite, which has to change something."""
    before = exporter.run(model, x)[0]
    assert rewrite_graph(model, keep=set(names()) - {rewrite}) == (rewrite,)
    return before, exporter.run(model, x)[0]


def unchanged(model: onnx.ModelProto) -> bool:
    """Whether no rewrite touches the graph."""
    before = model.SerializeToString()
    return rewrite_graph(model) == () and model.SerializeToString() == before


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def test_an_unknown_name_is_refused_with_those_that_exist() -> None:
    with pytest.raises(BadInput, match="no rewrite named 'ftt'") as caught:
        rewrite_module(nn.ReLU(), keep=["ftt"])
    assert all(name in str(caught.value.hint) for name in names())


def test_every_rewrite_says_what_it_does_and_where_it_works() -> None:
    from importlib import import_module

    for name in names():
        file = import_module(f"mixbench.export.rewrites.{name}")
        assert file.REWRITE.module or file.REWRITE.graph
        text = str(file.__doc__)
        assert "Why:" in text
        assert "Proof:" in text


def test_a_module_that_stands_in_two_places_stays_one() -> None:
    shared = nn.Softshrink(0.1)
    net, changed = rewrite_module(nn.Sequential(shared, nn.Sequential(shared), nn.ReLU()))
    assert isinstance(net, nn.Sequential)
    assert isinstance(net[1], nn.Sequential)
    assert net[0] is net[1][0]
    assert isinstance(net[0], ClippedShrink)
    assert changed == ("softshrink",)


@settings(max_examples=100)
@given(st.lists(st.floats(width=32), min_size=1), st.floats(0, 10))
@example([float("nan"), float("inf"), -float("inf"), 0.0, 0.1, -0.1], 0.1)
def test_softshrink_by_clip_is_exact(numbers: list[float], threshold: float) -> None:
    x = torch.tensor(numbers)
    finite = x.isfinite()
    found, wanted = ClippedShrink(threshold)(x), F.softshrink(x, threshold)
    assert torch.equal(found[finite], wanted[finite])
    assert torch.equal(found[~finite].nan_to_num(7.0), wanted[~finite].nan_to_num(7.0))


@settings(max_examples=60)
@given(
    st.integers(1, 3),
    st.sampled_from([(1, 1), (1, 5), (2, 4), (3, 6), (4, 4)]),
    st.lists(st.integers(1, 5), min_size=1, max_size=3),
    st.booleans(),
    st.floats(0, 10),
)
def test_group_norm_by_means_is_group_norm(
    batch: int, channels: tuple[int, int], rest: list[int], affine: bool, offset: float
) -> None:
    groups, width = channels
    norm = nn.GroupNorm(groups, width, affine=affine).double()
    for parameter in norm.parameters():
        parameter.data.normal_()
    x = torch.randn(batch, width, *rest, dtype=torch.float64) + offset
    if x[0].numel() == groups:  # torch refuses a single number a group
        return
    rewritten, changed = rewrite_module(copy.deepcopy(norm))
    assert isinstance(rewritten, MeanGroupNorm)
    assert changed == ("groupnorm",)
    with torch.inference_mode():
        # The difference from a large mean is rounded once more than torch does: eps bounds how much that is blown up.
        torch.testing.assert_close(rewritten(x), norm(x), rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(rewritten.float()(x.float()).double(), norm.double()(x), rtol=1e-2, atol=1e-2)


def test_group_norm_in_float32_is_as_exact_as_torchs() -> None:
    norm = nn.GroupNorm(1, 64)
    nn.init.normal_(norm.weight)
    x = 2 * torch.randn(1, 64, 32, 32) + 3
    rewritten = MeanGroupNorm(norm)
    with torch.inference_mode():
        exact = copy.deepcopy(norm).double()(x.double())
        assert (rewritten(x) - exact).abs().max() < 1e-5


@pytest.mark.parametrize(("shape", "scale"), [((2, 3, 4, 5), None), ((2, 3, 7), "learned"), ((1, 4, 2, 3, 2), "learned")])
def test_an_instance_norm_in_the_graph_goes_the_same_way(shape: tuple[int, ...], scale: str | None, exporter: Any) -> None:
    width = shape[1]
    weight, bias = (noise(2, width) if scale else np.stack((np.ones(width), np.zeros(width)))).astype(np.float32)
    node = helper.make_node("InstanceNormalization", ["x", "w", "b"], ["y"], epsilon=1e-3)
    model = graph([node], shape, len(shape), w=weight, b=bias)
    before, after = both(exporter, model, 3 * noise(*shape) + 1, "groupnorm")
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5)
    operators = exporter.operators(model)
    assert not set(operators) - exporter.table("nnapi_supported") - {"Constant"}
    assert operators["Mul"] == (2 if scale else 1)


@settings(max_examples=30)
@given(st.floats(0.05, 3), st.floats(-2, 2), st.lists(FLOATS, min_size=4, max_size=4), st.booleans())
@example(1 / 6, 0.5, [-3, 3, -4, 0.0], True)
def test_hard_gates_become_add_clip_mul(exporter: Any, slope: float, shift: float, numbers: list[float], gate: bool) -> None:
    attributes: dict[str, Any] = {} if gate else {"alpha": slope, "beta": shift}
    node = helper.make_node("HardSwish" if gate else "HardSigmoid", ["x"], ["y"], **attributes)
    model = graph([node], (2, 2), 2)
    x = np.array(numbers, np.float32).reshape(2, 2)
    before, after = both(exporter, model, x, "hardsigmoid")
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=(1e-3 if gate else 0) + 4e-7 * (1 + abs(shift)))
    assert list(exporter.operators(model)) == ["Add", "Clip", "Mul"]


def test_a_falling_hard_sigmoid_is_left_alone() -> None:
    assert unchanged(graph([helper.make_node("HardSigmoid", ["x"], ["y"], alpha=-1.0)], (2, 2), 2))


def test_integers_keep_their_neg_and_their_mean() -> None:
    model = graph(
        [helper.make_node("Neg", ["x"], ["n"]), helper.make_node("ReduceMean", ["n", "axes"], ["y"])],
        (1, 2, 3, 3),
        4,
        axes=np.array([2, 3]),
    )
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        value.type.tensor_type.elem_type = TensorProto.INT32
    assert unchanged(model)


def test_neg_as_a_product_is_exact(exporter: Any) -> None:
    model = graph([helper.make_node("Neg", ["x"], ["y"])], (4,), 1)
    before, after = both(exporter, model, np.array([0.0, -0.0, 3e38, -1e-45], np.float32), "neg")
    assert before.tobytes() == after.tobytes()
    assert list(exporter.operators(model)) == ["Mul"]


@pytest.mark.parametrize("order", [["x", "r"], ["r", "x"]])
def test_a_product_with_a_reciprocal_is_a_quotient(order: list[str], exporter: Any) -> None:
    made = [helper.make_node("Abs", ["x"], ["a"]), helper.make_node("Reciprocal", ["a"], ["r"])]
    model = graph([*made, helper.make_node("Mul", order, ["y"])], (50,), 1)
    before, after = both(exporter, model, noise(50), "reciprocal")
    np.testing.assert_allclose(after, before, rtol=3e-7)
    assert "Reciprocal" not in exporter.operators(model)


@pytest.mark.parametrize("kept", [0, 1])
def test_means_over_the_map_become_pools(kept: int, exporter: Any) -> None:
    node = helper.make_node("ReduceMean", ["x", "axes"], ["y"], keepdims=kept)
    model = graph([node], (2, 3, 5, 7), 4 if kept else 2, axes=np.array([-1, 2]))
    before, after = both(exporter, model, noise(2, 3, 5, 7), "pool")
    assert after.shape == before.shape == ((2, 3, 1, 1) if kept else (2, 3))
    np.testing.assert_allclose(after, before, atol=1e-6)
    assert list(exporter.operators(model)) == ["GlobalAveragePool", "Squeeze"][: 2 - kept]


@pytest.mark.parametrize(
    ("shape", "axes"), [((2, 3, 5, 7), [1, 2, 3]), ((2, 3, 5, 7), [3]), ((2, 3, 5), [1, 2]), ((2, 3, 5, 7, 2), [2, 3])]
)
def test_other_means_stay(shape: tuple[int, ...], axes: list[int]) -> None:
    node = helper.make_node("ReduceMean", ["x", "axes"], ["y"])
    assert unchanged(graph([node], shape, len(shape), axes=np.array(axes)))


def masked_attention(mask: np.ndarray, scores: str = "MatMul") -> onnx.ModelProto:
    """Softmax of x times itself under an additive mask, guarded as the exporter does."""
    make = helper.make_node
    made = [
        make(scores, ["x", "x"], ["scores"]),
        make("Add", ["scores", "mask"], ["masked"]),
        make("Softmax", ["masked"], ["s"], axis=-1),
        make("IsNaN", ["s"], ["nan"]),
        make("Where", ["nan", "zero", "s"], ["guarded"]),
        make("MatMul", ["guarded", "v"], ["y"]),
    ]
    return graph(made, (1, 2, 3, 3), 4, mask=mask.astype(np.float32), zero=np.float32(0), v=noise(3, 4))


def test_a_known_mask_that_shows_every_row_something_needs_no_guard(exporter: Any) -> None:
    model = masked_attention(np.where(np.tri(3), 0, -np.inf))
    before, after = both(exporter, model, noise(1, 2, 3, 3), "nan")
    np.testing.assert_array_equal(after, before)
    assert list(exporter.operators(model)) == ["MatMul", "Add", "Softmax"]


@pytest.mark.parametrize("cell", [-np.inf, np.nan, np.inf])
def test_a_mask_with_a_blind_row_keeps_its_guard(cell: float) -> None:
    mask = np.zeros((3, 3))
    mask[1] = cell
    assert unchanged(masked_attention(mask))


def test_scores_that_may_hide_a_second_mask_keep_their_guard() -> None:
    assert unchanged(masked_attention(np.where(np.tri(3), 0, -np.inf), scores="Add"))


def test_constants_above_the_exporters_limit_are_computed_at_export(exporter: Any) -> None:
    made = [helper.make_node("Cos", ["angles"], ["c"]), helper.make_node("Mul", ["x", "c"], ["y"])]
    model = graph(made, (100, 100), 2, angles=noise(100, 100))
    before, after = both(exporter, model, noise(100, 100), "constants")
    np.testing.assert_allclose(after, before, atol=1e-6)
    assert list(exporter.operators(model)) == ["Mul"]


class Gated(nn.Module):
    """A hard gate at half the size, brought back by nearest neighbours: what an open batch makes of a Resize."""

    def forward(self, x: Tensor) -> Tensor:
        gate = F.hardsigmoid(F.avg_pool2d(x, 2))
        return F.hardswish(x) * F.interpolate(gate, size=(x.shape[2], x.shape[3]), mode="nearest")


def test_with_an_open_batch_only_height_and_width_are_resized(exporter: Any) -> None:
    x = torch.from_numpy(noise(1, 3, 7, 9))
    proto = exporter(Gated(), (x,), dynamic=({0: "batch"},))
    assert not set(exporter.operators(proto)) - exporter.table("nnapi_supported")
    assert "Shape" not in exporter.operators(proto)
    plain = exporter(Gated(), (x,), keep=("resize",), dynamic=({0: "batch"},))
    assert exporter.operators(plain)["Shape"] > 0
    for batch in (1, 3):
        given = noise(batch, 3, 7, 9)
        np.testing.assert_array_equal(exporter.run(proto, given)[0], exporter.run(plain, given)[0])
        np.testing.assert_allclose(exporter.run(proto, given)[0], Gated()(torch.from_numpy(given)).numpy(), atol=1e-6)


@settings(max_examples=30)
@given(st.integers(1, 3), st.integers(1, 5), st.sampled_from(["sum", "mean"]), st.booleans())
def test_bags_by_gather_are_the_bags(bags: int, size: int, mode: str, weighted: bool) -> None:
    bag = nn.EmbeddingBag(11, 4, mode=mode).double()
    rows = torch.randint(0, 11, (bags, size))
    weights = torch.rand(bags, size, dtype=torch.float64) if weighted and mode == "sum" else None
    rewritten, changed = rewrite_module(copy.deepcopy(bag))
    assert changed == ("bag",)
    torch.testing.assert_close(rewritten(rows, per_sample_weights=weights), bag(rows, per_sample_weights=weights))
    ends = torch.tensor([0, size])
    flat = torch.randint(0, 11, (2 * size,))
    torch.testing.assert_close(rewritten(flat, ends), bag(flat, ends))


@pytest.mark.parametrize("options", [{"mode": "max"}, {"padding_idx": 1}, {"max_norm": 1.0}])
def test_bags_that_a_sum_of_rows_is_not_are_left_alone(options: dict[str, Any]) -> None:
    bag = nn.EmbeddingBag(5, 3, **options)
    assert rewrite_module(bag) == (bag, ())


def test_a_memory_layer_leaves_without_a_loop(exporter: Any) -> None:
    layer = MemoryLayer(16, 6, 4)
    x = torch.from_numpy(noise(1, 5, 16))
    proto = exporter(layer, (x,))
    assert layer.path == "bag"
    assert not {"Loop", "SequenceEmpty", "ConcatFromSequence"} & set(exporter.operators(proto))
    with torch.inference_mode():
        np.testing.assert_allclose(exporter.run(proto, x)[0], layer(x).numpy(), atol=1e-6)


def test_rewriting_twice_changes_nothing_more(exporter: Any) -> None:
    model = masked_attention(np.where(np.tri(3), 0, -np.inf))
    rewrite_graph(model)
    assert unchanged(model)


@pytest.mark.slow
@pytest.mark.parametrize("width", ["0.5", "1.0", "1.6"])
@pytest.mark.parametrize("dynamic", [None, ({0: "batch"},)])
def test_ghostnetv2_is_one_piece_for_every_table(width: str, dynamic: Any, exporter: Any) -> None:
    case = mixbench.build("ghostnetv2", device="cpu", width=float(width))
    proto = exporter(case.module, case.args, dynamic=dynamic)
    for table in ("nnapi_supported", "coreml_supported_mlprogram", "coreml_supported_neuralnetwork"):
        assert not set(exporter.operators(proto)) - exporter.table(table)
    with torch.inference_mode():
        wanted = case.module.eval()(*case.args).numpy()
    np.testing.assert_allclose(exporter.run(proto, *case.args)[0], wanted, atol=1e-5 * abs(wanted).max())


@pytest.mark.slow
@pytest.mark.parametrize(("model", "left"), [("graphwindow", {"Less", "GreaterOrEqual", "Where"}), ("tokenring", set())])
def test_decoders_lose_their_guards_signs_and_reciprocals(model: str, left: set[str], exporter: Any) -> None:
    case = mixbench.build(model, device="cpu")
    proto = exporter(case.module, case.args)
    assert set(exporter.operators(proto)) - exporter.table("nnapi_supported") == left
    with torch.inference_mode():
        wanted = case.module.eval()(*case.args).numpy()
    np.testing.assert_allclose(exporter.run(proto, *case.args)[0], wanted, atol=1e-5 * abs(wanted).max())
