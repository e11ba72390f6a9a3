"""MemoryFormer against outputs of the authors' formulas, the paper's tables, and derivations by hand."""

import hashlib
import json
import math
import subprocess
import sys
from collections import Counter
from itertools import product
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import mixbench
from mixbench.models import MemoryBlock, MemoryForm, MemoryLayer
from mixbench.models.architectures.memoryformer import rotate
from mixbench.models.case import build
from mixbench.models.lookup import resolve
from mixbench.models.spec import TensorSpec
from mixbench.profilers.runs.run import result_of

SCRIPT = Path(sys.executable).with_name("mixbench")
GOLDEN = json.loads((Path(__file__).parent / "golden" / "memoryformer.json").read_text())
CASES = {case["name"]: case for case in GOLDEN["cases"]}
WEIGHTS = {"softmax": "prob", "scaled": "l1prob", "none": "none"}
ORDERS = ("lsb", "msb")
PATHS = ("bag", "gather")
SIZES = ("tiny", "small", "base")
SMALL = {"depth": 2, "width": 32, "heads": 2, "tables": 8, "vocabulary": 50}
IDS = (TensorSpec((2, 12), "int64"),)


def filled(name: str, shape: tuple[int, ...], scale: float = 1.0) -> Tensor:
    """The golden files' rule: SplitMix64 from a name's SHA-256, uniform on [-scale, scale)."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.arange(1, math.prod(shape) + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    unit = (z >> np.uint64(11)).astype(np.float64) / float(1 << 53)
    return torch.from_numpy(((unit - 0.5) * 2 * scale).reshape(shape))


def golden_layer(case: dict[str, Any], **form: Any) -> tuple[MemoryLayer, Tensor]:
    layer = MemoryLayer(case["d"], case["h"], case["K"], temperature=case["t"], **form).double()
    layer.tables.data = filled(case["tables_key"], tuple(layer.tables.shape))
    x = filled(case["x_key"], (case["B"], case["d"]), case["x_scale"])
    x[0, 0] = 0  # the case's note: zero counts as positive
    return layer, x


def golden_block(case: dict[str, Any], **form: Any) -> tuple[MemoryBlock, Tensor]:
    form_ = MemoryForm(**form, affine=False)
    block = MemoryBlock(case["d"], case["heads"], case["K"], case["expand_bits"], form_).double()
    for layer, key in zip(block.memory_layers(), ("q", "k", "v", "m1", "m2"), strict=True):
        layer.tables.data = filled(f"mf:{case['name']}:{key}", tuple(layer.tables.shape), 0.5)
    return block, filled(f"mf:{case['name']}:x", (1, case["S"], case["d"]))


def layer_of(inputs: int, outputs: int, tables: int, seed: int = 0, **form: Any) -> MemoryLayer:
    torch.manual_seed(seed)
    return MemoryLayer(inputs, outputs, tables, **form, std=1.0).double()


def numbers(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def on_meta(model: str, **settings: Any) -> Any:
    return mixbench.build(model, **settings).module


def small(dtype: str = "float32", mode: Any = "eval", device: str = "cpu", **settings: Any) -> Any:
    return mixbench.build("memoryformer", mixbench.Workload(IDS, dtype=dtype, mode=mode), device, **SMALL | settings)


# The golden outputs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("name", "order", "weight"), [*product(CASES, ORDERS, WEIGHTS)])
def test_layers_give_the_golden_outputs(name: str, order: str, weight: str, path: str) -> None:
    case = CASES[name]
    layer, x = golden_layer(case, weight=weight, bit_order=order, path=path)
    expected = torch.tensor(case[f"y_{order}_{WEIGHTS[weight]}"], dtype=torch.float64).view(case["B"], case["h"])
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-9)
    single = layer.float()(x.float()).double()
    assert (single - expected).norm() < 1e-5 * expected.norm()


@pytest.mark.parametrize(("name", "order", "weight"), [*product(CASES, ORDERS, WEIGHTS)])
def test_bucket_numbers_and_weights_are_the_golden_ones(name: str, order: str, weight: str) -> None:
    case = CASES[name]
    layer, x = golden_layer(case, weight=weight, bit_order=order)
    rows, weights = layer.address(x)
    offsets = torch.arange(case["K"]) * 2 ** case["tau"]
    assert (rows - offsets).flatten().tolist() == case[f"idx_{order}"]
    found = torch.ones(case["B"], case["K"]) if weights is None else weights
    assert found.flatten().tolist() == pytest.approx(case[f"w_{WEIGHTS[weight]}"], abs=1e-11)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", CASES)
def test_gradients_are_the_golden_ones(name: str, path: str) -> None:
    case = CASES[name]
    layer, x = golden_layer(case, path=path)
    x.requires_grad_()
    (layer(x) * filled(case["grad_key"], (case["B"], case["h"]))).sum().backward()
    assert x.grad is not None and layer.tables.grad is not None
    assert x.grad.flatten().tolist() == pytest.approx(case["grad_x_lsb_prob"], abs=6e-7)
    touched = layer.tables.grad.abs().sum(-1) > 0
    assert int(touched.sum()) == case["table_rows_with_gradient"] == len(set(layer.address(x).rows.flatten().tolist()))


@pytest.mark.parametrize(("order", "weight", "path"), [*product(ORDERS, ("softmax", "scaled"), PATHS)])
def test_a_block_gives_the_golden_outputs(order: str, weight: str, path: str) -> None:
    (case,) = GOLDEN["blocks"]
    block, x = golden_block(case, weight=weight, bit_order=order, path=path)
    expected = torch.tensor(case[f"y_{order}_{WEIGHTS[weight]}"], dtype=torch.float64).view_as(x)
    torch.testing.assert_close(block(x), expected, rtol=0, atol=1e-9)
    assert sum(p.numel() for p in block.parameters()) == case["params"]
    torch.testing.assert_close(block.float()(x.float()).double(), expected, rtol=1e-5, atol=1e-5)


# Hash and weight, by their definitions -------------------------------------------------------------------------------

CHUNK = st.lists(st.one_of(st.just(0.0), st.just(-0.0), st.floats(-30, 30, allow_nan=False)), min_size=1, max_size=9)


@given(CHUNK, st.sampled_from(ORDERS))
@settings(deadline=None)
def test_the_signs_are_the_digits_of_the_row(chunk: list[float], order: str) -> None:
    layer = MemoryLayer(len(chunk), 1, 1, bit_order=order)
    row = int(layer.address(torch.tensor(chunk, dtype=torch.float64)).rows)
    digits = "".join("1" if z >= 0 else "0" for z in chunk)
    assert row == int(digits if order == "msb" else digits[::-1], 2)


@given(CHUNK, st.sampled_from([0.5, 1.0, 3.0]))
@settings(deadline=None)
def test_p_is_the_softmax_probability_of_the_row_among_all_corners(chunk: list[float], temperature: float) -> None:
    z = torch.tensor(chunk, dtype=torch.float64)
    layer = MemoryLayer(len(chunk), 1, 1, temperature=temperature).double()
    rows, weights = layer.address(z)
    corners = torch.tensor(list(product((-1.0, 1.0), repeat=len(chunk))), dtype=torch.float64)
    probability = (corners @ z / temperature).softmax(0)
    assert weights is not None
    assert weights.item() == pytest.approx(probability.max().item(), rel=1e-9)
    numbers_ = [sum(2**i for i, sign in enumerate(corner) if sign > 0) for corner in corners.tolist()]
    assert probability[numbers_.index(int(rows))].item() == pytest.approx(probability.max().item(), rel=1e-12)
    assert 2.0 ** -len(chunk) * (1 - 1e-12) <= weights.item() <= 1


def test_figure_2_of_the_paper_reads_the_highest_bit_first() -> None:
    z = torch.tensor([0.7, -0.1])
    assert [int(MemoryLayer(2, 1, 1, bit_order=order).address(z).rows) for order in ("msb", "lsb")] == [2, 1]


def test_the_bit_order_is_a_permutation_of_rows() -> None:
    low, high = layer_of(12, 5, 3, bit_order="lsb"), layer_of(12, 5, 3, bit_order="msb")
    reversed_ = [int(f"{row:04b}"[::-1], 2) for row in range(16)]
    high.tables.data = low.tables.data[:, reversed_]
    x = numbers((7, 12))
    assert torch.equal(low(x), high(x))


def test_the_scaled_weight_is_p_times_the_sum_of_magnitudes() -> None:
    x = numbers((5, 12))
    plain, scaled = (layer_of(12, 1, 3, weight=weight).address(x).weights for weight in ("softmax", "scaled"))
    torch.testing.assert_close(scaled, plain * x.view(5, 3, 4).abs().sum(-1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_weights_of_large_inputs_neither_overflow_nor_vanish(dtype: torch.dtype) -> None:
    x = torch.tensor([[60.0] * 10, [-1e4] * 10, [0.0] * 10], dtype=dtype)
    weights = MemoryLayer(10, 1, 1).to(dtype).address(x).weights
    assert weights is not None
    assert weights.flatten().tolist() == pytest.approx([1, 1, 2**-10], rel=0.03)


@pytest.mark.parametrize("path", PATHS)
def test_each_chunk_reads_its_own_table(path: str) -> None:
    layer = layer_of(12, 5, 3, path=path)
    x = numbers((4, 12))
    parts = []
    for k in range(3):
        alone = layer_of(12, 5, 3, path=path)
        alone.tables.data[torch.arange(3) != k] = 0
        parts.append(alone(x))
        one = MemoryLayer(4, 5, 1).double()
        one.tables.data = layer.tables.data[k : k + 1]
        torch.testing.assert_close(parts[-1], one(x[:, 4 * k : 4 * k + 4]))
    torch.testing.assert_close(sum(parts), layer(x))


# Gradients -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("temperature", "path"), [*product((0.5, 1.0, 2.0), PATHS)])
def test_gradients_are_those_of_the_formula(temperature: float, path: str) -> None:
    layer = layer_of(12, 5, 3, temperature=temperature, path=path)
    x, g = numbers((4, 12)).requires_grad_(), numbers((4, 5), 1)
    (layer(x) * g).sum().backward()
    z = x.detach().view(4, 3, 4)
    e = (-2 * z.abs() / temperature).exp()
    p = 1 / (1 + e).prod(-1)
    bits = (z >= 0).long() @ torch.tensor([1, 2, 4, 8])
    rows = layer.tables.data[torch.arange(3), bits]
    slope = p[..., None] * (2 / temperature) * z.sign() * e / (1 + e)
    torch.testing.assert_close(x.grad.view(4, 3, 4), torch.einsum("bh,bkh->bk", g, rows)[..., None] * slope)  # type: ignore[union-attr]
    expected = torch.zeros_like(layer.tables)
    for b, k in product(range(4), range(3)):
        expected[k, bits[b, k]] += p[b, k] * g[b]
    torch.testing.assert_close(layer.tables.grad, expected)


@pytest.mark.parametrize(("weight", "path"), [*product(WEIGHTS, PATHS)])
def test_gradients_pass_the_numerical_check(weight: str, path: str) -> None:
    layer = layer_of(6, 3, 2, weight=weight, bias=True, path=path)
    x = numbers((2, 6))
    x = x.sign() * (x.abs() + 0.1)  # away from the jump at zero

    def call(x: Tensor, tables: Tensor, bias: Tensor) -> Tensor:
        return torch.func.functional_call(layer, {"tables": tables, "bias": bias}, (x,))

    parameters = (layer.tables.detach().requires_grad_(), layer.bias.detach().requires_grad_())
    assert torch.autograd.gradcheck(call, (x.requires_grad_(weight != "none"), *parameters))


@pytest.mark.parametrize("path", PATHS)
def test_unweighted_rows_pass_the_input_no_gradient(path: str) -> None:
    x = numbers((2, 6)).requires_grad_()
    layer_of(6, 3, 2, weight="none", path=path)(x).sum().backward()
    assert x.grad is None


# The two paths -------------------------------------------------------------------------------------------------------


@given(
    st.integers(1, 4), st.integers(1, 6), st.integers(1, 5), st.sampled_from([(), (1,), (3,), (2, 3), (0, 3)]),
    st.sampled_from(list(WEIGHTS)), st.sampled_from(ORDERS), st.booleans(), st.integers(0, 99),
)  # fmt: skip
@settings(deadline=None, max_examples=30)
def test_both_paths_give_the_same_outputs_and_gradients(
    tables: int, bits: int, outputs: int, lead: tuple[int, ...], weight: str, order: str, bias: bool, seed: int
) -> None:
    layer = layer_of(tables * bits, outputs, tables, seed, weight=weight, bit_order=order, bias=bias)
    results = []
    for path in PATHS:
        layer.path = path
        layer.zero_grad()
        x = numbers((*lead, tables * bits), seed).requires_grad_(weight != "none")
        y = layer(x)
        assert y.shape == (*lead, outputs)
        (y * numbers(tuple(y.shape), seed + 1)).sum().backward()
        results.append([y.detach(), x.grad, *(p.grad for p in layer.parameters())])
    for first, second in zip(*results, strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=1e-12)


@pytest.mark.parametrize("form", ["paper", "code"])
def test_a_whole_model_gives_the_same_logits_by_both_paths(form: str) -> None:
    case = small("float64", form=form)
    ids = torch.arange(24).view(2, 12)
    logits = case.module(ids)
    assert case.module.use_path("gather") is case.module
    layers = [module for module in case.module.modules() if isinstance(module, MemoryLayer)]
    assert {layer.path for layer in layers} == {"gather"} and len(layers) == 10
    torch.testing.assert_close(case.module(ids), logits, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("mode", "weight"), [*product(("eval", "train"), WEIGHTS)])
def test_both_paths_count_the_same_arithmetic(mode: Any, weight: str) -> None:
    workload = mixbench.Workload((TensorSpec((3, 5, 12)),), mode=mode)
    settings_: dict[str, Any] = {"width": 12, "tables": 3, "weight": weight}
    found = [mixbench.count(mixbench.build("memoryformer-layer", workload, path=path, **settings_)) for path in PATHS]
    for counted in found:
        assert not counted.uncounted and counted.totals.macs == 0
    forward = [counted.forward.elementwise_flops for counted in found]
    assert forward[0] == forward[1]
    backward = [counted.backward.elementwise_flops for counted in found]
    assert backward[0] == backward[1]


# Figures of the paper ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_memory_and_attention_macs_are_the_golden_ones(size: str) -> None:
    expected = GOLDEN["sizes"][size]
    model = on_meta(f"memoryformer-{size}")
    block, s, d = model.blocks[0], expected["s"], expected["d"]
    assert (len(model.blocks), block.width, block.heads) == (expected["layers"], d, expected["heads"])
    layers = block.memory_layers()
    assert [(len(layer.tables), layer.bits) for layer in layers] == [(expected["K"], 8)] * 4 + [(expected["K"], 10)]
    assert block.gather_macs(s) == expected["mac_memory_exact"] == int(5.25 * expected["K"] * s * d)
    assert block.gather_macs_as_published(s) == expected["mac_memory_paper_formula"]
    assert block.attention_macs(s) == expected["mac_attention"]
    assert block.gather_macs(s) + block.attention_macs(s) == expected["total_memory_exact"]
    assert block.hashed_elements(s) == expected["elements_hashed"]
    assert block.table_bytes(1) == expected["table_bytes_read_per_token_fp32"]
    assert sum(layer.tables.numel() for layer in layers) == expected["table_params_per_block"]
    assert expected["table_params_per_block"] / (12 * d * d) == 22
    assert model.gather_macs(s) == expected["layers"] * expected["mac_memory_exact"]


@pytest.mark.parametrize("size", SIZES)
def test_counted_macs_are_attention_and_the_head_and_look_ups_are_two_flops_an_element(size: str) -> None:
    expected = GOLDEN["sizes"][size]
    counted = mixbench.count(build(f"memoryformer-{size}"))
    layers, s, d = expected["layers"], expected["s"], expected["d"]
    assert counted.device == "meta" and counted.coverage == 1 and not counted.uncounted
    assert counted.totals.macs == layers * expected["mac_attention"] + s * d * 50304
    flops = {item.operator: item.cost.elementwise_flops for item in counted.operators}
    assert flops["aten::_embedding_bag"] == 2 * layers * expected["mac_memory_exact"]
    norms = layers * (4 * d + 2 * (d + 2 * expected["K"])) + 2 * d
    assert counted.params == layers * expected["table_params_per_block"] + 2 * 50304 * d + norms


@pytest.mark.parametrize("model", [f"memoryformer-{variant}" for variant in (*SIZES, "layer")])
def test_published_figures_stand_beside_ours_and_agree_or_say_why_not(model: str) -> None:
    case = build(model)
    result = result_of(case, mixbench.count(case))
    assert len(result.published) == 2
    variant = resolve(model).variant
    assert variant is not None
    noted = {item.metric: bool(item.note) for item in variant.published}
    for item in result.published:
        assert item.agrees != noted[item.metric], item


def test_the_papers_rounded_form_explains_every_figure_but_those_of_small() -> None:
    printed = {"tiny": (0.4, 4.7), "small": (1.0, 7.4), "base": (1.6, 10.2)}
    fits = {}
    for size, (memory, total) in printed.items():
        block = on_meta(f"memoryformer-{size}").blocks[0]
        rounded = block.gather_macs_as_published(2048)
        whole = rounded + block.attention_macs(2048)
        fits[size] = (round(rounded / 1e9, 1) == memory, round(whole / 1e9, 1) == total)
    assert fits == {"tiny": (True, True), "small": (False, False), "base": (True, True)}


@pytest.mark.parametrize(
    ("width", "tables", "gflops", "megabytes"),
    [(512, 128, "0.134", "2.1"), (512, 64, "0.067", "16.8"), (510, 51, "0.053", "53.3")],
)
def test_table_3_recomputes(width: int, tables: int, gflops: str, megabytes: str) -> None:
    figures = on_meta("memoryformer-layer", width=width, tables=tables).published_figures()
    assert f"{figures['layer_lookup_macs'] / 1e9:.3f}" == gflops
    assert f"{figures['table_bytes_fp16'] / 1e6:.1f}" == megabytes


@pytest.mark.parametrize(("extra_bits", "megabytes"), [(0, "33.6"), (1, "52.4"), (2, "88.1"), (3, "157.3")])
def test_table_5_recomputes_the_bytes_of_a_memory_block(extra_bits: int, megabytes: str) -> None:
    block = MemoryBlock(512, 8, 64, extra_bits)
    found = 2 * (block.expand.tables.numel() + block.contract.tables.numel()) / 1e6
    assert f"{found:.1f}" == megabytes


def test_a_block_takes_19_percent_of_the_dense_ones_at_equal_length_and_width() -> None:
    with torch.device("meta"):
        block = MemoryBlock(2048, 16, 256)
    dense = 12 * 2048 * 2048**2 + block.attention_macs(2048)
    assert round(100 * (block.gather_macs(2048) + block.attention_macs(2048)) / dense, 1) == 19.0


def test_fresh_outputs_have_the_measured_spread() -> None:
    x = torch.randn(512, 512, generator=torch.Generator().manual_seed(0))
    spread = {}
    for weight in WEIGHTS:
        torch.manual_seed(0)
        spread[weight] = MemoryLayer(512, 512, 64, weight=weight)(x).std().item()
    assert spread == pytest.approx({"softmax": 0.025, "scaled": 0.20, "none": 0.16}, rel=0.1)


# Block and model -----------------------------------------------------------------------------------------------------


def test_query_key_and_value_share_one_hash() -> None:
    counted = mixbench.count(small(device="meta"))
    calls = Counter({item.operator: item.calls for item in counted.operators})
    assert calls["aten::ge"] == 3 * 2  # two blocks: attention's input, M_1's, M_2's
    assert calls["aten::_embedding_bag"] == 5 * 2


def test_a_block_is_the_formula_with_its_typo_mended() -> None:
    torch.manual_seed(0)
    block = MemoryBlock(32, 2, 8).double()
    x = numbers((2, 5, 32))
    a = block.norm_attention(x)
    q, k, v = (layer(a).view(2, 5, 2, 16).transpose(1, 2) for layer in (block.query, block.key, block.value))
    scores = q @ k.transpose(-1, -2) / 4 + torch.full((5, 5), -torch.inf).triu(1)
    z = x + (scores.softmax(-1) @ v).transpose(1, 2).reshape(2, 5, 32)
    y = z + block.contract(block.norm_hidden(block.expand(block.norm_memory(z))))
    torch.testing.assert_close(block(x), y, rtol=0, atol=1e-12)


def test_the_second_layers_tables_have_the_extra_bits() -> None:
    block = MemoryBlock(32, 2, 8, extra_bits=3)
    assert block.expand.tables.shape == (8, 2**4, (4 + 3) * 8)
    assert block.contract.tables.shape == (8, 2**7, 32)


def test_the_forms_are_the_papers_and_the_codes() -> None:
    paper, code = small(form="paper").module, small(form="code").module
    assert MemoryForm.named("paper") == MemoryForm()
    for model, norm, weight, order, biased in (
        (paper, nn.LayerNorm, "softmax", "lsb", False),
        (code, nn.RMSNorm, "scaled", "msb", True),
    ):
        block = model.blocks[0]
        assert [type(n) for n in (block.norm_attention, block.norm_memory, model.norm)] == [norm] * 3
        assert type(block.norm_hidden) is nn.LayerNorm
        for layer in block.memory_layers():
            assert (layer.weight, layer.bit_order, layer.bias is not None, layer.temperature) == (weight, order, biased, 1)
    assert (paper.blocks[0].rotary, code.blocks[0].rotary) == (0, 0.25)


def test_each_point_of_a_form_can_be_set() -> None:
    changes: dict[str, Any] = {
        "weight": "none",
        "bit_order": "lsb",
        "temperature": 2.0,
        "bias": False,
        "norm": "layer_norm",
        "rotary": 0.5,
    }
    block = small(form="code", affine=False, path="gather", **changes).module.blocks[1]
    layer = block.contract
    assert (layer.weight, layer.bit_order, layer.temperature, layer.bias, layer.path) == ("none", "lsb", 2.0, None, "gather")
    assert [type(norm) for norm in (block.norm_attention, block.norm_hidden)] == [nn.LayerNorm] * 2
    assert block.rotary == 0.5
    assert not any("norm" in name for name, _ in block.named_parameters())


@pytest.mark.parametrize("form", ["paper", "code"])
def test_fresh_tables_have_the_stated_deviations(form: Any) -> None:
    torch.manual_seed(0)
    block = MemoryBlock(256, 4, 32, form=MemoryForm.named(form))
    qkv = math.sqrt(2 / (5 * 256)) if form == "code" else 0.02
    found = [layer.tables.std().item() for layer in block.memory_layers()]
    assert found == pytest.approx([qkv, qkv, qkv, 0.02, 0.02], rel=0.02)
    if form == "code":
        assert block.query.bias is not None
        assert block.query.bias.std().item() == pytest.approx(0.001, rel=0.2)


@pytest.mark.parametrize("form", ["paper", "code"])
def test_a_token_does_not_see_later_ones(form: str) -> None:
    model = small("float64", form=form).module
    ids = torch.arange(12)[None]
    later = torch.cat((ids[:, :7], ids[:, 7:] + 20), 1)
    assert torch.equal(model(ids)[:, :7], model(later)[:, :7])
    assert not torch.equal(model(ids)[:, 7:], model(later)[:, 7:])


def test_rotation_keeps_lengths_and_makes_products_depend_on_distance_only() -> None:
    q, k = numbers((1, 1, 1, 16)).expand(1, 1, 9, 16), numbers((1, 1, 1, 16), 1).expand(1, 1, 9, 16)
    turned = rotate(q, 0.5)
    torch.testing.assert_close(turned.norm(dim=-1), q.norm(dim=-1))
    assert torch.equal(turned[..., 8:], q[..., 8:]) and torch.equal(turned[:, :, 0], q[:, :, 0])
    scores = (turned @ rotate(k, 0.5).transpose(-1, -2))[0, 0]
    for distance in range(-8, 9):
        diagonal = scores.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal))
    assert len({round(value, 6) for value in scores[0].tolist()}) == 9
    pair = torch.tensor([turned[0, 0, 3, 1], turned[0, 0, 3, 5]])  # the second of four pairs turns by 3 / 10000^(2/8)
    angle = 3 / 10000**0.25
    first, second = q[0, 0, 3, 1], q[0, 0, 3, 5]
    expected = [first * math.cos(angle) - second * math.sin(angle), second * math.cos(angle) + first * math.sin(angle)]
    torch.testing.assert_close(pair, torch.stack(expected))


@pytest.mark.parametrize("share", [0.0, 0.1])
def test_no_rotation_returns_its_input(share: float) -> None:
    x = numbers((1, 1, 3, 16))
    assert rotate(x, share) is x


@pytest.mark.parametrize(("form", "path", "dtype"), [*product(("paper", "code"), PATHS, ("float32", "float64", "bfloat16"))])
def test_it_trains_in_every_dtype(form: str, path: str, dtype: str) -> None:
    model = small(dtype, "train", form=form, path=path).module
    logits = model(torch.arange(24).view(2, 12))
    assert logits.shape == (2, 12, 50) and logits.dtype == getattr(torch, dtype)
    logits.float().square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_a_few_steps_of_training_learn_a_sequence_by_heart() -> None:
    model = small("float32", "train", weight="scaled", depth=1).module
    ids = torch.randint(50, (1, 13), generator=torch.Generator().manual_seed(0))
    optimiser = torch.optim.Adam(model.parameters(), 0.1)
    losses = []
    for _ in range(12):
        loss = nn.functional.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[0] > 3 and losses[-1] < 0.3


def test_a_block_and_a_layer_can_be_built_alone() -> None:
    block = mixbench.build("memoryformer", mixbench.Workload((TensorSpec((1, 6, 512)),)), part="block")
    assert isinstance(block.module, MemoryBlock)
    assert mixbench.count(block).totals.macs == block.module.attention_macs(6)
    case = build("memoryformer-layer")
    assert isinstance(case.module, MemoryLayer) and case.args[0].shape == (1, 256, 512)
    assert mixbench.count(case).totals.elementwise_flops == 2 * case.module.gather_macs(256) + 256 * (5 * 512 + 2 * 64)


# Bucket occupancy ----------------------------------------------------------------------------------------------------


def test_occupancy_counts_rows_and_measures_their_entropy() -> None:
    layer = layer_of(6, 1, 2)
    corners = torch.tensor(list(product((-1.0, 1.0), repeat=3)), dtype=torch.float64)
    x = torch.cat((corners, corners[:1].expand(8, 3)), 1)  # the first table meets every corner once, the second one only
    found = layer.occupancy(x)
    assert found.counts.tolist() == [[1] * 8, [8] + [0] * 7]
    assert found.hit.tolist() == [1, 1 / 8]
    assert found.entropy_bits.tolist() == pytest.approx([3, 0])


def test_without_a_centring_norm_few_rows_are_used() -> None:
    layer = layer_of(64, 1, 8)
    x = numbers((4096, 64))
    centred, biased = (layer.occupancy(given).entropy_bits.mean().item() for given in (x, x + 1))
    assert 7.9 < centred <= 8
    assert biased < 6


def test_occupancy_of_a_model_names_its_layers() -> None:
    model = small().module
    found = model.occupancy(torch.arange(24).view(2, 12))
    names = [f"blocks.{i}.{name}" for i in range(2) for name in ("query", "key", "value", "expand", "contract")]
    assert list(found) == names
    assert all(occupancy.counts.sum() == 8 * 24 for occupancy in found.values())
    assert torch.equal(found["blocks.0.query"].counts, found["blocks.0.value"].counts)
    assert found["blocks.1.contract"].counts.shape == (8, 2**6)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_occupancy_of_no_tokens_is_zero() -> None:
    found = layer_of(6, 1, 2).occupancy(torch.empty(0, 6, dtype=torch.float64))
    assert found.hit.tolist() == found.entropy_bits.tolist() == [0, 0]


# Errors --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"tables": 7}, "32 inputs cannot be cut into 7 equal chunks"),
        ({"tables": 0}, "cannot be cut into 0"),
        ({"extra_bits": -1}, "-1 extra bits"),
        ({"rotary": 1.5}, "1.5 of a head"),
        ({"heads": 3}, "32 cannot be shared by 3 heads"),
        ({"tables": 1}, r"2\^32 rows"),
        ({"weight": "softmin"}, "no weight 'softmin'"),
        ({"bit_order": "big"}, "no bit_order 'big'"),
        ({"path": "fast"}, "no path 'fast'"),
        ({"norm": "batch_norm"}, "no norm 'batch_norm'"),
        ({"form": "draft"}, "no form 'draft'"),
        ({"part": "head"}, "no part 'head'"),
        ({"temperature": 0.0}, "temperature of 0.0"),
        ({"expand": 4}, "no setting 'expand'"),
    ],
)
def test_wrong_settings_are_explained(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(mixbench.MixbenchError, match=words):
        small(device="meta", **wrong)


def test_another_width_is_refused() -> None:
    with pytest.raises(RuntimeError, match="hashes 12 inputs, not 16"):
        MemoryLayer(12, 4, 3)(torch.zeros(2, 16))
    with pytest.raises(mixbench.MixbenchError, match="no path"):
        small().module.use_path("fast")


def test_the_text_of_a_layer_tells_its_form() -> None:
    text = repr(MemoryLayer(12, 4, 3, weight="scaled"))
    assert "12, 4, tables=3 of 2^4 rows, scaled, lsb" in text


# Meta, compiler, export ----------------------------------------------------------------------------------------------


def test_counting_the_largest_takes_no_compiler_and_no_memory() -> None:
    program = """
import resource, sys, mixbench
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for settings in ({}, {"form": "code"}, {"path": "gather"}):
    assert not mixbench.count(mixbench.build("memoryformer-base", **settings)).uncounted
assert not [name for name in ("sympy", "torch._dynamo", "torch._inductor") if name in sys.modules]
assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_largest_is_counted_in_training_too() -> None:
    counted = mixbench.count(build("memoryformer-base", mixbench.Workload(mode="train")))
    expected = GOLDEN["sizes"]["base"]
    assert counted.device == "meta" and not counted.uncounted
    assert counted.backward.macs == 2 * counted.forward.macs
    flops = {item.operator: item.cost.elementwise_flops for item in counted.operators}
    looked_up = 24 * expected["mac_memory_exact"]
    assert flops["aten::_embedding_bag_backward"] == 2 * looked_up
    assert flops["aten::_embedding_bag_per_sample_weights_backward"] == 2 * looked_up


@pytest.mark.parametrize("path", PATHS)
def test_meta_and_real_tensors_are_counted_alike(path: str) -> None:
    meta, real = (mixbench.count(small(device=device, path=path)) for device in ("meta", "cpu"))
    assert meta.totals == real.totals
    assert [(item.operator, item.calls) for item in meta.operators] == [(item.operator, item.calls) for item in real.operators]


@pytest.mark.parametrize(("form", "path"), [*product(("paper", "code"), PATHS)])
def test_it_compiles_whole(form: str, path: str) -> None:
    model = small("float64", form=form, path=path).module
    ids = torch.arange(24).view(2, 12)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(ids), model(ids), rtol=0, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_inductor_gives_the_same_outputs_and_gradients(path: str) -> None:
    model = small("float64", path=path).module
    ids = torch.arange(24).view(2, 12)
    compiled = torch.compile(model)
    for call in (model, compiled):
        model.zero_grad()
        y = call(ids)
        y.square().sum().backward()
        found = [y.detach(), *(p.grad.clone() for p in model.parameters())]
        if call is model:
            expected = found
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("form", ["paper", "code"])
def test_the_gather_form_is_exported_for_any_length(form: str) -> None:
    model = small("float64", form=form).module
    ids = torch.arange(24).view(2, 12)
    expected = model(ids)
    dynamic = {"ids": {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", min=2, max=64)}}
    program = torch.export.export(model.use_path("gather"), (ids,), dynamic_shapes=dynamic)
    torch.testing.assert_close(program.module()(ids), expected, rtol=0, atol=1e-12)
    longer = torch.arange(50).view(1, 50)
    torch.testing.assert_close(program.module()(longer), model(longer), rtol=0, atol=1e-12)
    operators = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert "aten.embedding.default" in operators
    assert not any("embedding_bag" in operator for operator in operators)


def test_the_command_counts_each_variant() -> None:
    done = subprocess.run([SCRIPT, "flops", "memoryformer-layer", "memoryformer-base"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "6,746,961,920" in done.stdout and "block lookup MACs" in done.stdout
    info = subprocess.run([SCRIPT, "info", "memoryformer"], capture_output=True, text=True, check=True).stdout
    assert "1x256x512 (layer)" in info and "zero shot average" in info


@pytest.mark.slow
def test_the_benchmark_runs_and_draws(tmp_path: Path) -> None:
    script = Path(__file__).parent.parent / "benchmarks" / "memoryformer_speed.py"
    words = ["--quick", "--width", "64", "--plot", str(tmp_path / "plot.svg")]
    done = subprocess.run([sys.executable, script, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "1024" in done.stdout and "naive" in done.stdout
    drawing = ElementTree.parse(tmp_path / "plot.svg")
    lines = drawing.findall("{http://www.w3.org/2000/svg}polyline")
    assert [len(line.get("points", "").split()) for line in lines] == [6, 6]
