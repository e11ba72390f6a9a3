"""Attention under a graph window against a dense one, in results and gradients, and the decoder around it."""

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import mixbench
from mixbench.models import GraphWindow, GraphWindowDecoder, PromptTree, TokenGraph
from mixbench.models.errors import BadInput
from mixbench.models.windows import (
    additive_mask,
    window_mask,
)

FULL = PromptTree.of_sizes([8] * 8)


def edges_of(nodes: int, drawn: Any) -> list[tuple[int, int]]:
    node = st.integers(0, nodes - 1)
    return drawn(st.lists(st.tuples(node, node), max_size=2 * nodes))


@st.composite
def token_graphs(draw: Any) -> TokenGraph:
    """Spans of one to four tokens with text before, between and behind, padding, any edges, sometimes a hub."""
    padding = draw(st.integers(0, 3))
    token, spans = padding + draw(st.integers(0, 2)), []
    for _ in range(draw(st.integers(1, 7))):
        size = draw(st.integers(1, 4))
        spans.append((token, token + size))
        token += size + draw(st.integers(0, 2))
    edges = edges_of(len(spans), draw)
    if draw(st.booleans()):
        edges += [(0, node) for node in range(len(spans))]
    order = draw(st.permutations(range(len(spans))))  # spans needn't come in the order of the nodes
    text = [place for place in range(token) if all(not start <= place < end for start, end in spans)]
    holes = draw(st.lists(st.sampled_from(text), unique=True, max_size=2)) if text else []
    return TokenGraph(token, tuple(spans[place] for place in order), tuple(edges), padding, tuple(holes))


# Attention -------------------------------------------------------------------------------------------------------------


def results_and_gradients(window: GraphWindow, tensors: list[Tensor]) -> list[Tensor]:
    q, k, v = (tensor.clone().requires_grad_() for tensor in tensors)
    y = window(q, k, v)
    nought = 0 * (q + k + v).sum()  # so that there are gradients where nothing is seen at all
    ((y * y.detach().cos()).sum() + nought).backward()
    return [y.detach(), *(t.grad for t in (q, k, v) if t.grad is not None)]


@given(token_graphs(), st.integers(0, 4), st.sampled_from(["uni", "bi"]), st.integers(1, 3), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_the_sparse_path_has_the_dense_ones_results_and_gradients(
    graph: TokenGraph, k: int, direction: Any, batch: int, seed: int
) -> None:
    torch.manual_seed(seed)
    tensors = [torch.randn(batch, graph.length, 2, 4, dtype=torch.float64) for _ in range(3)]
    dense, sparse = (results_and_gradients(GraphWindow(graph, k, direction, path), tensors) for path in ("dense", "sparse"))
    for one, other in zip(dense, sparse, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("path", ["dense", "sparse"])
def test_attention_is_a_softmax_over_the_allowed_cells_and_zero_on_padding(path: str) -> None:
    graph = PromptTree.of_sizes([2, 0, 3]).graph(padding=2)
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, graph.length, 1, 6, dtype=torch.float64) for _ in range(3))
    y = GraphWindow(graph, 2, "bi", path)(q, k, v)[0, :, 0]
    mask = window_mask(graph, 2, "bi")
    for i in range(graph.length):
        keys = [j for j in range(graph.length) if mask[i, j]]
        weights = torch.tensor([float(q[0, i, 0] @ k[0, j, 0]) / 6**0.5 for j in keys], dtype=torch.float64).exp()
        expected = sum((w * v[0, j, 0] for w, j in zip(weights, keys, strict=True)), torch.zeros(6, dtype=torch.float64))
        torch.testing.assert_close(y[i], expected / weights.sum() if keys else expected, rtol=1e-12, atol=1e-12)


def test_minus_six_thousand_blocks_like_minus_infinity() -> None:
    mask = window_mask(FULL.graph(), 1)
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 2, 177, 8) for _ in range(3))
    results = [F.scaled_dot_product_attention(q, k, v, attn_mask=additive_mask(mask, blocked=b)) for b in (-6000.0, -torch.inf)]
    torch.testing.assert_close(*results)
    torch.testing.assert_close(results[1], F.scaled_dot_product_attention(q, k, v, attn_mask=mask))
    assert additive_mask(mask, torch.bfloat16).dtype == torch.bfloat16


@given(token_graphs(), st.integers(0, 3), st.sampled_from(["uni", "bi"]), st.integers(1, 150), st.integers(1, 2))
@settings(max_examples=80, deadline=None)
def test_both_paths_agree_on_cut_and_on_longer_sequences(
    graph: TokenGraph, k: int, direction: Any, length: int, batch: int
) -> None:
    torch.manual_seed(length)
    length = length % graph.length + 1 if length % 2 else length  # every other one is cut
    tensors = [torch.randn(batch, length, 2, 4, dtype=torch.float64) for _ in range(3)]
    windows = [GraphWindow(graph, k, direction, path) for path in ("dense", "sparse")]
    dense, sparse = (results_and_gradients(window, tensors) for window in windows)
    for one, other in zip(dense, sparse, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
    useful = int(window_mask(graph, k, direction, length).sum())
    assert useful == windows[0].cells(length).useful == windows[1].cells(length).useful


@pytest.mark.parametrize("length", [20, 100, 177, 178, 300])
@pytest.mark.parametrize("direction", ["uni", "bi"])
def test_macs_of_other_lengths_are_those_of_the_cells_that_run(length: int, direction: Any) -> None:
    inputs = (mixbench.models.spec.TensorSpec((1, length), "int64"),)
    case = mixbench.build("graphwindow", mixbench.Workload(inputs), path="sparse", direction=direction)
    assert isinstance(case.module, GraphWindowDecoder)
    counted = mixbench.count(case)
    useful, executed = (getattr(case.module.window.cells(length), side) for side in ("useful", "executed"))
    layer = length * (4 * 256**2 + 3 * 256 * 688) + 2 * executed * 256
    assert counted.totals.macs == 2 * layer + length * 256 * 2048
    assert useful <= executed < length**2
    assert f"{useful:,} useful of {executed:,} executed" in counted.notes[0]


@torch.no_grad()
def test_a_cut_leaves_out_the_blocks_behind_it_and_text_behind_the_graph_goes_in_runs() -> None:
    window = GraphWindow(TokenGraph.of_nodes(4, 16, [(0, 1), (2, 3)]), 1, "bi", "sparse")
    assert window.cells(64).executed == 2 * 32 * 32
    assert (window.cells(32).executed, window.cells(20).executed) == (32 * 32, 20 * 20)
    assert window.cells(64 + 70).executed == 2 * 32 * 32 + 64 * 128 + 6 * 134
    window(*torch.randn(3, 1, 32, 1, 8))
    assert window.cost_note() == "attention: 1,024 useful of 1,024 executed cells per head and layer (1 batches of row blocks)"


@torch.no_grad()
def test_the_sparse_decoder_generates_as_the_dense_one() -> None:
    dense, sparse = (tiny(path=path, direction="bi").double() for path in ("dense", "sparse"))
    sparse.load_state_dict(dense.state_dict())
    written = []
    for model in (dense, sparse):
        ids = ids_of(model)
        for _ in range(3):
            ids = torch.cat((ids, model(ids)[:, -1:].argmax(-1)), 1)
        written.append(ids)
    assert torch.equal(*written)
    torch.testing.assert_close(dense(ids[:, :11]), sparse(ids[:, :11]))


@pytest.mark.parametrize("setting", [{"children": [8, 3, 0]}, {"children": []}, {"padding": 20}])
@pytest.mark.parametrize("path", ["dense", "sparse"])
def test_the_example_input_is_the_prompt_that_the_settings_ask_for(setting: dict[str, Any], path: str) -> None:
    case = mixbench.build("graphwindow", path=path, **setting)
    assert isinstance(case.module, GraphWindowDecoder)
    length = case.module.window.graph.length
    assert length != 177
    assert [str(item) for item in case.workload.inputs] == [f"1x{length}:int64"]
    assert case.module.window.cells(length) == GraphWindow(case.module.window.graph, path=path).cells(length)
    given = mixbench.Workload((mixbench.models.spec.TensorSpec((2, 9), "int64"),))
    assert mixbench.build("graphwindow", given, path=path, **setting).args[0].shape == (2, 9)


@pytest.mark.parametrize("children", [3, ["x"], "88", [-1], [1.5]])
def test_children_that_are_no_sizes_are_refused(children: Any) -> None:
    with pytest.raises(BadInput, match="no list of sizes"):
        mixbench.build("graphwindow", children=children)


# The decoder -----------------------------------------------------------------------------------------------------------

TINY = {"layers": 2, "width": 32, "heads": 2, "hidden": 48, "vocabulary": 64}


def tiny(**given: Any) -> GraphWindowDecoder:
    module = mixbench.build("graphwindow", device="cpu", **{**TINY, "children": [2, 0, 3], "padding": 2, **given}).module
    assert isinstance(module, GraphWindowDecoder)
    return module


def ids_of(model: GraphWindowDecoder) -> Tensor:
    graph = model.window.graph
    ids = torch.arange(graph.length) % 60 + 1
    ids[: graph.padding] = 0
    for node, (start, end) in enumerate(graph.spans):
        ids[start:end] = model.model.vocabulary + node
    return ids[None]


def test_the_llama_shape_has_its_published_parameters_to_the_last_one() -> None:
    counted = mixbench.count(mixbench.build("graphwindow-llama2-7b", nodes=0))
    assert counted.params == 6_738_415_616 == 2 * 32000 * 4096 + 32 * (4 * 4096**2 + 3 * 4096 * 11008 + 2 * 4096) + 4096
    assert mixbench.count(mixbench.build("graphwindow-llama2-7b")).params == counted.params + 73 * 4096


@pytest.mark.parametrize(("path", "cells"), [("dense", 177 * 177), ("sparse", 0)])
def test_macs_are_those_of_the_executed_cells(path: str, cells: int) -> None:
    case = mixbench.build("graphwindow", path=path)
    counted = mixbench.count(case)
    assert isinstance(case.module, GraphWindowDecoder)
    planned = case.module.window.planned
    executed = planned.executed if planned is not None else cells
    layer = 177 * (4 * 256**2 + 3 * 256 * 688) + 2 * executed * 256
    assert counted.totals.macs == 2 * layer + 177 * 256 * 2048
    assert counted.coverage == 1
    assert counted.notes[0].startswith(f"window: attention: 13,197 useful of {executed:,} executed cells per head and layer")
    blocks = [node for node in counted.tree.walk() if node.kind == "GraphWindowAttention"]
    assert [node.total.macs for node in blocks] == [177 * 4 * 256**2 + 2 * executed * 256] * 2


def test_a_given_mask_is_not_looked_into() -> None:
    inputs = (
        mixbench.models.spec.TensorSpec((1, 40), "int64"),
        mixbench.models.spec.TensorSpec((1, 1, 40, 40), "bool", "mask"),
    )
    assert mixbench.count(mixbench.build("graphwindow", mixbench.Workload(inputs=inputs))).notes == ()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("path", ["dense", "sparse"])
def test_the_decoder_runs_both_ways_in_every_dtype(dtype: torch.dtype, path: str) -> None:
    model = tiny(path=path, direction="bi", k=2).to(dtype)
    logits = model(ids_of(model).expand(2, -1))
    assert (logits.shape, logits.dtype) == ((2, model.window.graph.length, 64), dtype)
    logits.float().square().mean().backward()
    for name, parameter in model.named_parameters():
        if name != "model.node_tokens.weight":
            assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), name


@pytest.mark.parametrize("direction", ["uni", "bi"])
def test_both_paths_give_the_same_logits_and_gradients(direction: Any) -> None:
    dense, sparse = (tiny(path=path, direction=direction).double() for path in ("dense", "sparse"))
    sparse.load_state_dict(dense.state_dict())
    for model in (dense, sparse):
        model(ids_of(model)).square().mean().backward()
    torch.testing.assert_close(dense(ids_of(dense)), sparse(ids_of(sparse)))
    for one, other in zip(dense.parameters(), sparse.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


@torch.no_grad()
def test_logits_depend_on_exactly_what_the_window_lets_through() -> None:
    model = tiny(layers=1, k=1, direction="bi").double()
    ids = ids_of(model)
    before = model(ids)
    for token in range(model.window.graph.padding, ids.shape[1]):
        other = ids.clone()
        other[0, token] = 1 if ids[0, token] != 1 else 2
        changed = (model(other) != before)[0].any(-1)
        assert torch.equal(changed, model.window.allowed[:, token]), token


@torch.no_grad()
def test_the_widest_unidirectional_window_is_plain_causal_attention() -> None:
    model = tiny(k=4, padding=0).double()
    ids = ids_of(model)
    causal = torch.ones(ids.shape[1], ids.shape[1]).tril().bool()
    torch.testing.assert_close(model(ids), model(ids, mask=causal[None, None]))


@torch.no_grad()
def test_generated_tokens_attend_to_everything_before_them() -> None:
    model = tiny(k=0, layers=1).double()
    ids = torch.cat((ids_of(model), torch.tensor([[5, 6]])), 1)
    torch.testing.assert_close(model(ids)[:, :-2], model(ids[:, :-2]))
    last = model.window.mask(ids.shape[1])[-1]
    assert last.tolist() == [False] * 2 + [True] * (ids.shape[1] - 2)


@torch.no_grad()
def test_node_tokens_are_the_nodes_feature_vectors() -> None:
    model = tiny()
    features = torch.randn(9, 32)
    model.set_node_features(features)
    x, _ = model.model.start(ids_of(model))
    for node, (start, _) in enumerate(model.window.graph.spans):
        assert torch.equal(x[0, start], features[node])
    assert torch.equal(x[0, 0], model.model.embed_tokens.weight[0])
    with pytest.raises(BadInput, match="for 9 node tokens"):
        model.set_node_features(features[:3])


def test_keys_are_those_of_hugging_faces_llama_and_the_node_tokens() -> None:
    layer = "self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.o_proj mlp.gate_proj mlp.up_proj mlp.down_proj"
    names = {
        f"model.layers.{i}.{name}" for i in range(2) for name in f"{layer} input_layernorm post_attention_layernorm".split()
    }
    names |= {"model.embed_tokens", "model.node_tokens", "model.norm", "lm_head"}
    assert set(tiny().state_dict()) == {f"{name}.weight" for name in names}
    assert "model.node_tokens.weight" not in tiny(nodes=0).state_dict()


@torch.no_grad()
def test_attention_maps_are_the_weights_that_the_model_applies() -> None:
    model = tiny(k=1, direction="bi", heads=1).double()
    ids = ids_of(model)
    maps = model.attention_maps(ids)
    graph = model.window.graph
    assert maps.shape == (2, 1, graph.length, graph.length)
    sums = torch.ones(graph.length, dtype=torch.float64)
    sums[: graph.padding] = 0
    torch.testing.assert_close(maps.sum(-1), sums.expand(2, 1, -1))
    assert torch.equal(maps[0, 0] > 0, model.window.allowed)
    x, rotation = model.model.start(ids)
    block = model.model.layers[0]
    normed = block.input_layernorm(x)
    expected = block.self_attn.o_proj(maps[0] @ block.self_attn.v_proj(normed))
    torch.testing.assert_close(block.self_attn(normed, rotation), expected)
    additive = additive_mask(model.window.allowed, torch.float64)
    torch.testing.assert_close(model.attention_maps(ids, additive), maps)


@torch.no_grad()
def test_rotary_positions_are_relative() -> None:
    model = tiny(layers=1, padding=0, nodes=0, k=4).double()
    x = torch.randn(1, 1, 32, dtype=torch.float64).expand(1, 40, 32)
    weights = model.model.layers[0].self_attn
    q, k = weights._queries_and_keys(x, model.model.start(torch.zeros(1, 40, dtype=torch.int64))[1])
    scores = torch.einsum("ihd,jhd->hij", q[0], k[0])
    torch.testing.assert_close(scores[:, 5:, 5:], scores[:, :-5, :-5], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(scores[:, 0], scores[:, 7])


def test_the_example_of_the_documentation_prints_what_it_says() -> None:
    page = (Path(__file__).parent.parent / "docs" / "graphwindow.md").read_text(encoding="utf-8")
    program = page.split("```python\n")[1].split("```")[0]
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "torch.Size([1, 7, 32]) attention: 38 useful of" in done.stdout
    count = mixbench.count(mixbench.build("graphwindow"))
    assert f"note on graphwindow-small: {count.notes[0]}\n" in page


def exported(model: GraphWindowDecoder, ids: Tensor, **given: Any) -> Any:
    return torch.export.export(model, (ids,), **given).module()


@pytest.mark.parametrize("path", ["dense", "sparse"])
@pytest.mark.parametrize("more", [-9, 0, 5])
def test_exports_with_the_window_inside(path: str, more: int) -> None:
    model = tiny(path=path, direction="bi").eval()
    ids = ids_of(model)
    ids = F.pad(ids, (0, more), value=1) if more > 0 else ids[:, : ids.shape[1] + more]
    torch.testing.assert_close(exported(model, ids)(ids), model(ids))


@pytest.mark.parametrize("additive", [False, True])
def test_exports_with_the_mask_as_an_input_of_any_batch_and_length(additive: bool) -> None:
    model = tiny().eval()
    mask = torch.ones(2, 1, 12, 12).tril().bool()
    mask = additive_mask(mask) if additive else mask
    batch, length = torch.export.Dim("batch", max=64), torch.export.Dim("length", max=512)
    shapes = {"ids": {0: batch, 1: length}, "mask": {0: batch, 2: length, 3: length}}
    program = exported(model, torch.ones(2, 12, dtype=torch.int64), kwargs={"mask": mask}, dynamic_shapes=shapes)
    ids = ids_of(model).repeat(3, 1)
    window = model.window.allowed.expand(3, 1, -1, -1)
    window = additive_mask(window) if additive else window
    rows = model.window.graph.padding
    torch.testing.assert_close(program(ids, mask=window)[:, rows:], model(ids)[:, rows:])


@pytest.mark.parametrize("path", ["dense", "sparse"])
def test_compiles_to_the_same_logits_and_gradients(path: str) -> None:
    model = tiny(path=path, direction="bi")
    twin = copy.deepcopy(model)
    compiled = torch.compile(twin, backend="eager", fullgraph=True)
    ids = ids_of(model)
    for module in (model, compiled):
        module(ids).square().mean().backward()
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


@pytest.mark.slow
@pytest.mark.parametrize("path", ["dense", "sparse"])
def test_inductor_gives_the_same_logits(path: str) -> None:
    model = tiny(path=path, direction="bi")
    ids = ids_of(model)
    torch.testing.assert_close(torch.compile(model)(ids), model(ids), rtol=1e-4, atol=1e-5)
