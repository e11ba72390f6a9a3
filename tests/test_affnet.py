"""AFFNet against outputs of the authors' code, the paper's figures, and derivations by hand."""

import math
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import mixbench
from mixbench.models import AFFBlock, AFFNet, AFFStage, AFFTokenMixer, InvertedResidual, PixelLayerNorm
from mixbench.models.architectures.affnet import FAMILY
from mixbench.models.case import Case
from mixbench.models.errors import BadInput
from mixbench.models.lookup import resolve
from mixbench.models.reparameterise import reparameterise
from mixbench.models.spec import TensorSpec
from mixbench.profilers.cost import Count
from mixbench.profilers.second_opinion import second_opinion

VARIANTS = ["et", "t", "small", "base", "large"]
SIZES = "256x256 224x224 320x320 384x384 192x256 250x218".split()
TINY = {"widths": (8, 16, 16, 24, 32), "depths": (1, 2, 1, 2, 1), "expansion": 2, "num_classes": 10}


def on_meta(model: str, size: str = "256x256", **settings: Any) -> Case:
    sides = tuple(map(int, size.split("x")))
    return mixbench.build(model, mixbench.Workload(inputs=(TensorSpec((1, 3, *sides)),)), **settings)


def counted(model: str, size: str = "256x256", **settings: Any) -> Count:
    return mixbench.count(on_meta(model, size, **settings))


@pytest.fixture(scope="session")
def et(golden: Any) -> Any:
    """The original's figures and outputs for AFFNet-ET."""
    return golden("affnet")["xx_small"]


@pytest.fixture(scope="session")
def filled(fill_rule: Any) -> Callable[[nn.Module], Any]:
    """Puts a module into float64 eval mode and fills it by the golden files' rule, which the mixers' weights extend."""

    def entry(key: str, shape: torch.Size) -> Tensor:
        last = key.rpartition(".")[2]
        if last in ("w1", "w2"):
            return fill_rule.tensor(key, shape, math.sqrt(3 / (2 * shape[-2])))
        return fill_rule.tensor(key, shape, 0.1) if last in ("b1", "b2") else fill_rule.state({key: shape})[key]

    def fill(module: nn.Module) -> nn.Module:
        module = module.double().eval()
        module.load_state_dict({key: entry(key, tensor.shape) for key, tensor in module.state_dict().items()})
        return module

    return fill


def statistics(x: Tensor) -> list[float]:
    return [value.item() for value in (x.mean(), x.std(correction=0), x.abs().max())]


@contextmanager
def statistics_of(net: nn.Module, names: list[str]) -> Iterator[dict[str, tuple[list[int], list[float]]]]:
    """Shape, mean, deviation and largest magnitude of the modules' outputs."""
    seen: dict[str, tuple[list[int], list[float]]] = {}
    handles = [
        net.get_submodule(name).register_forward_hook(
            lambda _, __, out, name=name: seen.update({name: (list(out.shape), statistics(out))})
        )
        for name in names
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def parts(x: Tensor) -> Tensor:
    """Real and imaginary part as two rows more at the front."""
    return torch.stack((x.real, x.imag))


def mixer_by_definition(mixer: AFFTokenMixer, x: Tensor, act: Callable[[Tensor], Tensor]) -> Tensor:
    """The original's four real products, frequency by frequency and group by group, with Fourier matrices instead of an FFT."""
    height, width = x.shape[2:]

    def fourier(n: int, k: int) -> Tensor:
        angle = 2 * math.pi * torch.outer(torch.arange(n), torch.arange(k)).double() / n
        return torch.polar(torch.full_like(angle, n**-0.5), -angle)

    columns = width // 2 + 1
    down, across = fourier(height, height), fourier(width, columns)
    spectrum = down @ x.to(torch.complex128) @ across
    re, im = parts(spectrum.unflatten(1, (mixer.groups, -1)))

    def linear(part: Tensor, weight: Tensor) -> Tensor:
        return torch.einsum("bkihw,kio->bkohw", part, weight)

    def layer(re: Tensor, im: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        shift_re, shift_im = b[..., None, None]
        return linear(re, w[0]) - linear(im, w[1]) + shift_re, linear(im, w[0]) + linear(re, w[1]) + shift_im

    re, im = map(act, layer(re, im, mixer.w1, mixer.b1))
    re, im = layer(re, im, mixer.w2, mixer.b2)
    re, im = (part.sign() * (part.abs() - mixer.softshrink).clamp(min=0) for part in (re, im))
    filtered = spectrum * torch.complex(re, im).flatten(1, 2)
    rows = down.conj() @ filtered
    # Column k stands for itself and its mirror image, except for 0 and, if the width is even, the last.
    twice = torch.full((columns,), 2.0, dtype=torch.float64)
    twice[0] = 1
    if width % 2 == 0:
        twice[-1] = 1
    return (rows * twice @ across.conj().mT).real + x


# The original's outputs ----------------------------------------------------------------------------------------------


def test_state_dict_has_the_originals_keys_in_order_with_shapes_and_dtypes(et: Any) -> None:
    net = on_meta("affnet-et").module
    state = net.state_dict()
    assert [[key, list(t.shape), str(t.dtype).removeprefix("torch.")] for key, t in state.items()] == et["keys"]
    assert len(state) == et["n_keys"]
    assert len(list(net.parameters())) == et["n_param_tensors"]


@pytest.mark.parametrize(("variant", "entries"), list(zip(VARIANTS, (416, 416, 416, 404, 970), strict=True)))
def test_every_variant_has_as_many_entries_as_the_original(variant: str, entries: int) -> None:
    assert len(on_meta(f"affnet-{variant}").module.state_dict()) == entries


@pytest.mark.parametrize("index", [0, 1])
@torch.no_grad()
def test_float64_outputs_and_layers_are_the_originals(index: int, et: Any, filled: Any, fill_rule: Any) -> None:
    case = et["outputs"][index]
    net = filled(mixbench.build("affnet-et", device="cpu").module)
    with statistics_of(net, list(case["layers"])) as layers:
        logits = net(fill_rule.image(case["tag"], case["input_shape"]))
    assert logits[0, :16].tolist() == pytest.approx(case["first16"], abs=1e-9)
    assert logits[-1, -4:].tolist() == pytest.approx(case["last4"], abs=1e-9)
    assert logits.sum(1).tolist() == pytest.approx(case["row_sums"], abs=1e-9)
    assert logits.abs().sum(1).tolist() == pytest.approx(case["row_abs_sums"], abs=1e-9)
    assert logits.argmax(1).tolist() == case["argmax"]
    assert (logits[0] - logits[1]).abs().max().item() == pytest.approx(case["between_rows_max"], abs=1e-9)
    layers["logits"] = (list(logits.shape), statistics(logits))
    for name, expected in ({"logits": case["out"]} | case["layers"]).items():
        shape, found = layers[name]
        assert shape == expected["shape"], name
        assert found == pytest.approx([expected[key] for key in ("mean", "std", "absmax")], abs=1e-9), name


@pytest.mark.parametrize(
    ("index", "layout"), [(0, torch.contiguous_format), (1, torch.contiguous_format), (1, torch.channels_last)]
)
@torch.no_grad()
def test_float32_outputs_are_the_originals(
    index: int, layout: torch.memory_format, et: Any, filled: Any, fill_rule: Any
) -> None:
    case = et["outputs"][index]
    net = filled(mixbench.build("affnet-et", device="cpu").module).float().to(memory_format=layout)
    logits = net(fill_rule.image(case["tag"], case["input_shape"]).float().to(memory_format=layout))
    assert logits[0, :16].tolist() == pytest.approx(case["float32"]["first16"], abs=1e-5 * case["out"]["std"])
    assert logits[0, :16].tolist() == pytest.approx(case["first16"], abs=4 * case["float32_max_abs_diff"])
    assert logits.mean().item() == pytest.approx(case["float32"]["mean"], abs=1e-6)


@pytest.mark.parametrize(
    ("setting", "least"),
    [
        ({"activation": "relu"}, 0.5),
        ({"norm": "layer_norm"}, 0.03),
        ({"softshrink": 0.0}, 1e-3),
        ({"softshrink": 0.1}, 0.01),
    ],
    ids=str,
)
@torch.no_grad()
def test_another_setting_is_seen_in_the_golden_logits(
    setting: dict[str, Any], least: float, et: Any, filled: Any, fill_rule: Any
) -> None:
    """Also the two that a loose tolerance would let through: another norm with the same keys, and the softshrink."""
    case = et["outputs"][1]
    net = filled(mixbench.build("affnet-et", device="cpu", **setting).module)
    logits = net(fill_rule.image(case["tag"], case["input_shape"]))
    difference = (logits[0, :16] - torch.tensor(case["first16"], dtype=torch.float64)).abs().max().item()
    assert difference > least


# Costs ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_macs_are_the_originals(size: str, et: Any) -> None:
    cost = et["cost"][size]
    found = counted("affnet-et", size)
    by_operator = {item.operator: item.cost.macs for item in found.operators if item.cost.macs}
    assert by_operator == {
        "aten::convolution": cost["macs"]["conv"],
        "aten::baddbmm": cost["macs"]["aff_group_linear"],
        "aten::addmm": cost["macs"]["linear"],
    }
    assert found.totals.macs == cost["macs_conv_linear_aff"]
    assert found.totals.flops == cost["flop_counter_flops"]
    by_name = {item.operator: item for item in found.operators}
    assert by_name["aten::mul"].cost.elementwise_flops == 6 * cost["macs"]["aff_mask_multiply_complex"]
    for kind, count in cost["fvcore_by_op"].items():
        norms = {"batch_norm": "aten::native_batch_norm", "group_norm": "aten::native_group_norm"}
        if kind in norms:  # fvcore counts 2 an element of a batch norm, 5 of a group norm, we 2 and 6
            elements = count // (2 if kind == "batch_norm" else 5)
            assert by_name[norms[kind]].cost.elementwise_flops == elements * (2 if kind == "batch_norm" else 6)
    assert found.device == "meta"
    assert found.coverage == 1


TOTALS = {  # parameters, MACs, MACs of the mixers, points times channels over all blocks
    "et": (1_436_264, 356_236_800, 13_174_784, 11_642_880),
    "t": (2_654_232, 786_462_720, 29_196_288, 17_489_920),
    "small": (5_568_696, 1_453_721_088, 67_862_528, 25_436_160),
    "base": (17_178_104, 5_342_520_832, 271_450_112, None),
    "large": (46_068_088, 13_244_671_488, 963_641_344, None),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_parameters_macs_and_transforms_of_every_variant(variant: str) -> None:
    found = counted(f"affnet-{variant}")
    params, macs, mixers, transforms = TOTALS[variant]
    assert found.params == params
    assert found.totals.macs == macs
    assert sum(item.cost.macs for item in found.operators if item.operator == "aten::baddbmm") == mixers
    assert transforms is None or found.totals.fft_flops == transforms
    assert (found.coverage, found.device, found.uncounted) == (1, "meta", ())


def test_parameters_with_another_number_of_classes(et: Any) -> None:
    assert counted("affnet-et", num_classes=10).params == et["params_10_classes"]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("size", [256, 224, 101])
def test_macs_by_hand(variant: str, size: int) -> None:
    """In closed form: convolutions by their maps, and 8 H R c (c/8) MACs a mixer; the transforms 5 N log2 N a channel."""
    table: Any = FAMILY.variants[variant].settings

    def half(side: int) -> int:
        return (side + 1) // 2

    def mbconv(side: int, inputs: int, outputs: int, stride: int, hidden: int) -> int:
        after = half(side) if stride == 2 else side
        return side**2 * inputs * hidden + after**2 * hidden * (9 + outputs)

    side, channels, macs, fft = half(size), 16, half(size) ** 2 * 27 * 16, 0.0
    for stage, (width, depth) in enumerate(zip(table["widths"], table["depths"], strict=True)):
        stride = 1 if stage == 0 else 2
        macs += mbconv(side, channels, width, stride, channels * table["expansion"])
        side = half(side) if stride == 2 else side
        if stage < 2:
            macs += (depth - 1) * mbconv(side, width, width, 1, width * table["expansion"])
        else:
            fused = table.get("fusion", (True,) * 3)[stage - 2]
            macs += depth * (mbconv(side, width, width, 1, 2 * width) + 8 * side * (side // 2 + 1) * width * width // 8)
            macs += side**2 * width**2 * (3 if fused else 1)
            fft += depth * width * 5 * side**2 * math.log2(side**2)
        channels = width
    features = min(4 * channels, 960)
    macs += side**2 * channels * features + features * 1000
    found = counted(f"affnet-{variant}", f"{size}x{size}").totals
    assert found.macs == macs
    assert found.fft_flops == pytest.approx(fft, abs=len(table["depths"]) * 30)


def test_shares_of_the_macs_are_those_of_the_original() -> None:
    shares: Counter[str] = Counter()
    for node in counted("affnet-et").tree.walk():
        names = node.name.split(".")
        part = next((name for name in ("filter", "mlp", "conv_proj", "fusion") if name in names), "")
        place = names[0] + (".0" if names[0] in ("layer_3", "layer_4", "layer_5") and not part else "")
        shares[f"{place} {part}".strip()] += node.own.macs
    assert {part: round(macs / 1e6, 3) for part, macs in shares.items() if macs} == {
        "conv_1": 7.078,
        "layer_1": 29.884,
        "layer_2": 131.072,
        "layer_3.0": 26.051,
        "layer_4.0": 12.091,
        "layer_5.0": 7.575,
        "layer_3 mlp": 35.914,
        "layer_4 mlp": 46.219,
        "layer_5 mlp": 16.423,
        "layer_3 filter": 4.456,
        "layer_4 filter": 6.230,
        "layer_5 filter": 2.488,
        "layer_3 conv_proj": 4.194,
        "layer_4 conv_proj": 2.769,
        "layer_5 conv_proj": 1.327,
        "layer_3 fusion": 8.389,
        "layer_4 fusion": 5.538,
        "layer_5 fusion": 2.654,
        "conv_1x1_exp": 5.308,
        "classifier": 0.576,
    }


def test_a_training_step_counts_two_gradients_of_every_product() -> None:
    """Twice the forward's MACs again, but for the first convolution, whose input takes no gradient."""
    workload = mixbench.Workload(inputs=(TensorSpec((2, 3, 64, 64)),), mode="train")
    found = mixbench.count(mixbench.build("affnet-et", workload))
    first = 2 * 32**2 * 27 * 16
    assert found.backward.macs == 2 * found.forward.macs - first
    # torch runs the gradient of a real transform as a complex one on the whole spectrum, that of an inverse as a real one.
    assert 2 * found.backward.fft_flops == 3 * found.forward.fft_flops
    assert found.uncounted == ()


def test_torchs_counter_takes_a_complex_product_for_one_mac_and_the_second_opinion_says_so() -> None:
    case = on_meta("affnet-et")
    found = mixbench.count(case)
    opinion = second_opinion(case, found, "torch")
    by_name = {item.operators: item for item in opinion.differences}
    product = by_name["aten::baddbmm"]
    assert product.ours_macs == 4 * product.theirs_macs == 13_174_784
    assert "complex products" in product.explanation
    assert opinion.theirs_macs == found.totals.macs - 3 * product.theirs_macs


def test_the_inference_form_has_no_batch_norms(filled: Any, fill_rule: Any) -> None:
    net = filled(mixbench.build("affnet-et", device="cpu").module)
    folded = reparameterise(net)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert sum(p.numel() for p in folded.parameters()) == counted("affnet-et").params_bn_folded == 1_428_240
    x = fill_rule.image("folded", (2, 3, 64, 96))
    with torch.inference_mode():
        torch.testing.assert_close(folded(x), net(x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("variant", VARIANTS)
def test_published_figures_agree_or_say_why_not(variant: str) -> None:
    found = counted(f"affnet-{variant}")
    ours = {"params": found.params, "macs": found.totals.macs}
    described = resolve(f"affnet-{variant}").variant
    assert described is not None
    assert bool(described.published) == (variant in ("et", "t", "small"))
    for published in described.published:
        if published.metric in ours:
            assert published.agrees(ours[published.metric]) != bool(published.note), published


@pytest.mark.parametrize(("variant", "printed"), [("et", 1.428), ("t", 2.643), ("small", 5.551)])
def test_the_authors_count_leaves_out_block_norms_and_mixer_biases(variant: str, printed: float) -> None:
    net = on_meta(f"affnet-{variant}").module
    left_out = [
        p
        for block in net.modules()
        if isinstance(block, AFFBlock)
        for p in (*block.norm1.parameters(), *block.norm2.parameters(), block.filter.b1, block.filter.b2)
    ]
    counted_by_authors = sum(p.numel() for p in net.parameters()) - sum(p.numel() for p in left_out)
    assert round(counted_by_authors / 1e6, 3) == printed


def test_affnet_alone_means_the_papers_affnet() -> None:
    assert resolve("affnet").name == "affnet-small"
    assert resolve("affnet").settings == FAMILY.variants["small"].settings
    default, named = AFFNet(num_classes=2).state_dict(), mixbench.build("affnet-small", num_classes=2).module.state_dict()
    assert {key: value.shape for key, value in default.items()} == {key: value.shape for key, value in named.items()}


@pytest.mark.parametrize(("variant", "operators"), [("et", 724_997_376), ("t", 1_591_733_248), ("small", 2_934_829_056)])
def test_flops_with_transforms_and_complex_products(variant: str, operators: int) -> None:
    found = counted(f"affnet-{variant}")
    products = next(item.cost.elementwise_flops for item in found.operators if item.operator == "aten::mul")
    assert found.totals.flops + found.totals.fft_flops + products == operators


# The token mixer -----------------------------------------------------------------------------------------------------

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": lambda x: x / (1 + (-x).exp()),
    "relu": lambda x: x.clamp(min=0),
    "hardswish": lambda x: x * (x + 3).clamp(0, 6) / 6,
}


@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(1, 3),
    size=st.integers(1, 3),
    groups=st.sampled_from([1, 2, 8]),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    activation=st.sampled_from(sorted(ACTIVATIONS)),
    softshrink=st.sampled_from([0.0, 0.01, 0.05, 0.3]),
    permuted=st.booleans(),
)
@torch.no_grad()
def test_the_mixer_is_the_originals_four_real_products(
    filled: Any,
    fill_rule: Any,
    batch: int,
    size: int,
    groups: int,
    height: int,
    width: int,
    activation: str,
    softshrink: float,
    permuted: bool,
) -> None:
    mixer = filled(AFFTokenMixer(size * groups, groups, activation, softshrink))
    x = fill_rule.image("mixer", (batch, size * groups, height, width))
    expected = mixer_by_definition(mixer, x, ACTIVATIONS[activation])
    given = x.to(memory_format=torch.channels_last) if permuted else x
    torch.testing.assert_close(mixer(given), expected, rtol=0, atol=1e-11)


@settings(max_examples=25, deadline=None)
@given(height=st.integers(1, 10), width=st.integers(1, 10), batch=st.integers(1, 2))
@example(height=32, width=28, batch=1)
@example(height=7, width=7, batch=2)
@torch.no_grad()
def test_the_filter_is_a_circular_convolution_with_a_kernel_as_large_as_the_map(
    filled: Any, fill_rule: Any, height: int, width: int, batch: int
) -> None:
    """Summed directly over the map. The kernel is the inverse transform of the mask in the backward norm."""
    mixer = filled(AFFTokenMixer(8))
    x = fill_rule.image("kernel", (batch, 8, height, width))
    kernel = torch.fft.irfft2(mixer.mask(torch.fft.rfft2(x, norm="ortho")), s=(height, width))
    convolved = torch.zeros_like(x)
    for row in range(height):
        for column in range(width):
            convolved += kernel[..., row, column, None, None] * x.roll((row, column), (2, 3))
    torch.testing.assert_close(mixer(x) - x, convolved, rtol=0, atol=1e-11)


@torch.no_grad()
def test_the_mixer_does_not_commute_with_shifts(filled: Any, fill_rule: Any) -> None:
    mixer = filled(AFFTokenMixer(16))
    x = fill_rule.image("shift", (1, 16, 12, 12))
    assert (mixer(x.roll((3, 5), (2, 3))) - mixer(x).roll((3, 5), (2, 3))).abs().max() > 0.1


@torch.no_grad()
def test_with_a_threshold_above_the_mask_only_the_input_is_left() -> None:
    x = torch.randn(2, 16, 7, 5)
    assert torch.equal(AFFTokenMixer(16, softshrink=1e3)(x), x)


@torch.no_grad()
def test_a_constant_mask_scales_the_map() -> None:
    mixer = AFFTokenMixer(16, softshrink=0.5)
    for parameter in mixer.parameters():
        parameter.zero_()
    mixer.b2[0] = 2.5
    x = torch.randn(2, 16, 7, 6)
    torch.testing.assert_close(mixer(x), 3 * x)


def test_gradients_of_the_mixer_are_those_of_the_definition(filled: Any, fill_rule: Any) -> None:
    mixer = filled(AFFTokenMixer(16))
    x = fill_rule.image("gradient", (2, 16, 5, 6)).requires_grad_()
    weights = (x, *mixer.parameters())
    seed = fill_rule.image("seed", (2, 16, 5, 6))
    ours = torch.autograd.grad(mixer(x), weights, seed)
    expected = torch.autograd.grad(mixer_by_definition(mixer, x, F.silu), weights, seed)
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@torch.no_grad()
def test_half_precision_is_transformed_in_float32(dtype: torch.dtype, filled: Any, fill_rule: Any) -> None:
    mixer = filled(AFFTokenMixer(16)).to(dtype)
    x = fill_rule.image("half", (2, 16, 7, 9)).to(dtype)
    exact = mixer.float()(x.float())
    y = mixer.to(dtype)(x)
    assert y.dtype == dtype
    assert torch.equal(y, exact.to(dtype))


@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_autocast_leaves_the_mixer_in_float32(weights: torch.dtype, filled: Any, fill_rule: Any) -> None:
    mixer = filled(AFFTokenMixer(16)).to(weights)
    x = fill_rule.image("autocast", (2, 16, 7, 9)).bfloat16()
    expected = mixer(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(mixer(x), expected)


def test_float64_stays_float64_also_where_the_weights_are_float32() -> None:
    x = torch.randn(1, 16, 5, 5, dtype=torch.float64)
    seen: list[torch.dtype] = []
    mixer = AFFTokenMixer(16)
    mixer.act.register_forward_hook(lambda _, given, out: seen.append(out.dtype))
    assert mixer(x).dtype == torch.float64
    assert seen == [torch.float64]


def test_channels_have_to_fill_the_groups() -> None:
    with pytest.raises(BadInput, match="20 channels are not 8 equal groups"):
        AFFTokenMixer(20)


# The other layers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("inputs", "outputs", "stride"), [(8, 8, 1), (8, 16, 1), (8, 8, 2)])
@torch.no_grad()
def test_inverted_residuals_add_their_input_where_size_and_channels_stay(
    inputs: int, outputs: int, stride: int, filled: Any, fill_rule: Any
) -> None:
    module = filled(InvertedResidual(inputs, outputs, stride, 4))
    x = fill_rule.image("mbconv", (2, inputs, 7, 5))
    plain = module.block(x)
    assert plain.shape == (2, outputs, -(-7 // stride), -(-5 // stride))
    assert torch.equal(module(x), x + plain if stride == 1 and inputs == outputs else plain)


@pytest.mark.parametrize(("inputs", "expansion", "hidden"), [(104, 2, 208), (10, 1.5, 16), (9, 2, 24), (3, 1.1, 8)])
def test_hidden_channels_are_multiples_of_eight(inputs: int, expansion: float, hidden: int) -> None:
    assert InvertedResidual(inputs, 8, 1, expansion).block.conv_3x3.block.conv.in_channels == hidden


def test_without_expansion_there_is_no_first_convolution() -> None:
    assert [name for name, _ in InvertedResidual(16, 16, 1, 1).block.named_children()] == ["conv_3x3", "red_1x1"]


@torch.no_grad()
def test_a_block_has_the_convolution_first_and_three_additive_paths(filled: Any, fill_rule: Any) -> None:
    block = filled(AFFBlock(16))
    x = fill_rule.image("block", (2, 16, 6, 7))
    normed = block.norm1(x)
    convolved = block.mlp.block(normed) + normed
    expected = mixer_by_definition(block.filter, block.norm2(convolved), F.silu) + x
    torch.testing.assert_close(block(x), expected, rtol=0, atol=1e-10)


@torch.no_grad()
def test_the_default_norm_runs_over_channels_and_pixels(filled: Any, fill_rule: Any) -> None:
    norm = filled(AFFBlock(16)).norm1
    x = fill_rule.image("norm", (3, 16, 5, 4))
    mean = x.mean((1, 2, 3), keepdim=True)
    variance = (x - mean).square().mean((1, 2, 3), keepdim=True)
    expected = (x - mean) / (variance + 1e-5).sqrt() * norm.weight[:, None, None] + norm.bias[:, None, None]
    torch.testing.assert_close(norm(x), expected, rtol=0, atol=1e-11)


@torch.no_grad()
def test_the_other_norm_runs_over_a_pixels_channels_and_adds_eps_to_the_deviation(filled: Any, fill_rule: Any) -> None:
    norm = filled(PixelLayerNorm(16))
    x = 1e-4 * fill_rule.image("norm", (3, 16, 5, 4))  # so small that it matters where eps is added
    mean = x.sum(1, keepdim=True) / 16
    deviation = ((x - mean).square().sum(1, keepdim=True) / 16).sqrt()
    expected = (x - mean) / (deviation + 1e-5) * norm.weight[:, None, None] + norm.bias[:, None, None]
    torch.testing.assert_close(norm(x), expected, rtol=0, atol=1e-11)
    assert (norm(x) - F.layer_norm(x.movedim(1, 3), (16,), norm.weight, norm.bias).movedim(3, 1)).abs().max() > 0.1


def test_a_constant_pixel_has_finite_gradients() -> None:
    x = torch.zeros(1, 8, 2, 2, requires_grad=True)
    PixelLayerNorm(8)(x).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


@torch.no_grad()
def test_a_stage_concatenates_its_input_before_its_result(filled: Any, fill_rule: Any) -> None:
    stage = filled(AFFStage(16, 2))
    x = fill_rule.image("stage", (1, 16, 4, 5))
    y = stage.conv_proj(stage.global_rep(x))
    weight, norm = stage.fusion.block.conv.weight[:, :, 0, 0], stage.fusion.block.norm
    mixed = torch.einsum("oc,bchw->bohw", weight[:, :16], x) + torch.einsum("oc,bchw->bohw", weight[:, 16:], y)
    torch.testing.assert_close(stage(x), F.silu(norm(mixed)), rtol=0, atol=1e-11)
    assert "act" not in dict(stage.conv_proj.block.named_children())


@torch.no_grad()
def test_a_stage_without_fusion_ends_in_the_projection(filled: Any, fill_rule: Any) -> None:
    stage = filled(AFFStage(16, 1, fusion=False))
    x = fill_rule.image("stage", (1, 16, 4, 5))
    assert torch.equal(stage(x), stage.conv_proj(stage.global_rep(x)))
    assert not any("fusion" in key for key in stage.state_dict())


# The whole network ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(16, 16), (1, 1), (33, 47), (224, 224), (250, 218), (32, 256)])
@torch.no_grad()
def test_any_image_size_runs(size: tuple[int, int]) -> None:
    net = AFFNet(**TINY).eval()
    maps: list[tuple[int, int]] = []
    for stage in (net.layer_3, net.layer_4, net.layer_5):
        stage.register_forward_hook(lambda _, __, out: maps.append((out.shape[2], out.shape[3])))
    assert net(torch.randn(2, 3, *size)).shape == (2, 10)
    assert maps == [tuple(-(-side // stride) for side in size) for stride in (8, 16, 32)]


@pytest.mark.parametrize(
    ("dtype", "activation", "norm"),
    [
        (torch.float32, "silu", "layer_norm_2d"),
        (torch.float32, "relu", "layer_norm"),
        (torch.float32, "hardswish", "layer_norm_2d"),
        (torch.bfloat16, "silu", "layer_norm_2d"),
        (torch.bfloat16, "relu", "layer_norm"),
        (torch.float16, "silu", "layer_norm_2d"),
        (torch.float64, "silu", "layer_norm_2d"),
    ],
)
def test_forward_and_backward_in_every_setting_and_dtype(dtype: torch.dtype, activation: str, norm: str) -> None:
    torch.manual_seed(0)
    net = AFFNet(**TINY, activation=activation, norm=norm, softshrink=0.02).to(dtype)
    x = torch.randn(2, 3, 48, 33, dtype=dtype)
    before = x.clone()
    y = net(x)
    y.float().square().sum().backward()
    assert y.dtype == dtype
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    assert torch.equal(x, before)


def test_every_parameter_gets_a_gradient_but_the_biases_that_a_batch_norm_takes_off_again() -> None:
    """A constant added to a channel stays one in a 1x1 convolution, and a batch norm in training subtracts it. So a bias with
    nothing but such convolutions behind it learns only what rounding leaves."""
    torch.manual_seed(0)
    net = AFFNet(**TINY).double().train()
    net(torch.randn(4, 3, 96, 96, dtype=torch.float64)).square().sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    dead = {name for name, p in net.named_parameters() if p.grad is not None and p.grad.abs().max() < 1e-12}
    projections = {f"layer_{i}.block.red_1x1.block.norm.bias" for i in ("1.0", "2.0", "2.1")}
    last_norms = {f"layer_{i}.bias" for i in ("3.1.global_rep.1", "4.1.global_rep.2", "5.1.global_rep.1")}
    before_fusion = {f"layer_{i}.1.conv_proj.block.norm.bias" for i in (3, 4, 5)}
    assert dead == projections | last_norms | before_fusion


def test_initialisation_is_what_the_authors_code_leaves() -> None:
    torch.manual_seed(0)
    net = AFFNet()
    for module in net.modules():
        if isinstance(module, AFFTokenMixer):
            assert all(0.015 < p.std().item() < 0.025 for p in module.parameters())
        elif isinstance(module, nn.Conv2d) and module.weight.numel() > 5000:
            fan_in = module.weight[0].numel()
            assert module.weight.std().item() * math.sqrt(3 * fan_in) == pytest.approx(1, abs=0.05)
    head = net.classifier.fc
    assert (head.bias == 0).all()
    assert head.weight.abs().max().item() == pytest.approx(math.sqrt(6 / (960 + 1000)), rel=1e-3)


@torch.no_grad()
def test_a_fresh_net_loses_a_third_of_its_mask_to_the_softshrink() -> None:
    torch.manual_seed(0)
    net = mixbench.build("affnet-et", device="cpu").module
    shares = []
    for module in net.modules():
        if isinstance(module, AFFTokenMixer):
            module.register_forward_hook(
                lambda mixer, given, _: shares.append(parts(mixer.mask(torch.fft.rfft2(given[0], norm="ortho"))) == 0)
            )
    net(torch.rand(1, 3, 256, 256))
    assert 0.30 < torch.cat([share.flatten() for share in shares]).double().mean() < 0.42


def test_dropout_acts_on_the_pooled_features_while_training_only() -> None:
    net = AFFNet(**TINY, dropout=0.5)
    assert net.classifier.dropout.p == 0.5
    assert net.classifier.dropout.training
    assert AFFNet(**TINY).classifier.dropout.p == 0.1
    assert not [key for key in net.state_dict() if "dropout" in key]


def test_settings_reach_the_network() -> None:
    net = mixbench.build("affnet-et", device="cpu", num_classes=7, in_channels=1, activation="relu", softshrink=0.3).module
    kinds = Counter(type(module).__name__ for module in net.modules())
    assert (kinds["ReLU"], kinds["SiLU"], kinds["GroupNorm"], kinds["PixelLayerNorm"]) == (37 + 9, 0, 0, 0)
    assert {module.softshrink for module in net.modules() if isinstance(module, AFFTokenMixer)} == {0.3}
    with torch.no_grad():
        assert net.eval()(torch.zeros(2, 1, 40, 40)).shape == (2, 7)
    assert list(net.state_dict()) == list(on_meta("affnet-et", norm="layer_norm").module.state_dict())


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"activation": "swosh"}, r"no activation 'swosh'"),
        ({"norm": "batch_norm"}, r"no norm 'batch_norm'"),
        ({"widths": (8, 16, 20, 24, 32)}, r"20 channels are not 8 equal groups"),
        ({"widths": (8, 16)}, r"2 widths, 5 depths and 3 fusions"),
    ],
)
def test_wrong_settings_are_refused_with_the_choices(setting: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words) as caught:
        mixbench.build("affnet", **setting)
    assert caught.value.hint


@torch.no_grad()
def test_samples_of_a_batch_do_not_touch_each_other(filled: Any, fill_rule: Any) -> None:
    net = filled(AFFNet(**TINY))
    x = fill_rule.image("batch", (3, 3, 50, 70))
    torch.testing.assert_close(net(x), torch.cat([net(one) for one in x.split(1)]), rtol=0, atol=1e-11)


@torch.no_grad()
def test_channels_last_goes_through_and_gives_the_same_logits(filled: Any, fill_rule: Any) -> None:
    net = filled(AFFNet(**TINY))
    x = fill_rule.image("layout", (2, 3, 40, 24))
    expected = net(x)
    net.to(memory_format=torch.channels_last)
    kept = []
    net.layer_3[1].global_rep[0].filter.register_forward_hook(
        lambda _, __, out: kept.append(out.is_contiguous(memory_format=torch.channels_last))
    )
    torch.testing.assert_close(net(x.to(memory_format=torch.channels_last)), expected, rtol=0, atol=1e-9)
    assert kept == [True]


# Checkpoints, compilers, the command ---------------------------------------------------------------------------------


@pytest.mark.parametrize("wrapper", ["", "state_dict", "model_state_dict", "ema_state_dict"])
def test_what_the_authors_code_saves_loads(wrapper: str, filled: Any, tmp_path: Path) -> None:
    state = {key: value.float() for key, value in filled(AFFNet(**TINY)).state_dict().items()}
    saved: dict[str, Any] = {wrapper: state, "epoch": 3, "best_metric": 73.0, "iterations": 9} if wrapper else state
    if wrapper == "ema_state_dict":  # the averaged weights beside the last ones: the former were evaluated
        saved["model_state_dict"] = {key: torch.zeros_like(value) for key, value in state.items()}
    torch.save(saved, tmp_path / "checkpoint_ema_best.pt")
    net = AFFNet(**TINY)
    mixbench.load_weights(net, tmp_path / "checkpoint_ema_best.pt")
    assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items() if value.is_floating_point())


def test_weights_of_another_variant_are_refused(filled: Any, tmp_path: Path) -> None:
    torch.save(AFFNet(**TINY).state_dict(), tmp_path / "tiny.pt")
    with pytest.raises(BadInput, match="does not fit AFFNet"):
        mixbench.load_weights(AFFNet(**{**TINY, "fusion": (True, True, False)}), tmp_path / "tiny.pt")


@torch.no_grad()
def test_torch_compile_takes_the_whole_graph_at_once() -> None:
    net = AFFNet(**TINY).eval()
    x = torch.randn(2, 3, 40, 56)
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(net, backend="eager", fullgraph=True)(x), net(x))


@pytest.mark.slow
@pytest.mark.parametrize("train", [False, True])
@pytest.mark.filterwarnings("ignore:Torchinductor does not support code generation for complex:UserWarning")
def test_inductor_gives_the_same_logits_and_gradients(train: bool) -> None:
    import torch._inductor.config

    torch.manual_seed(0)
    net = AFFNet(**{**TINY, "dropout": 0.0}).train(train)
    x = torch.randn(2, 3, 40, 56)
    torch._dynamo.reset()
    compiled = torch.compile(net, fullgraph=True)
    # Channels-last convolutions permute real views of complex gradients, and compiling a step fails (torch 2.13). The setting
    # is torch's own patch to undo: monkeypatch would delete it, being none of the module's variables, for all tests to come.
    with torch._inductor.config.patch(layout_optimization=not train), torch.set_grad_enabled(train):
        torch.testing.assert_close(compiled(x), net(x), rtol=1e-4, atol=1e-5)
        if train:
            gradients = []
            for model in (net, compiled):
                net.zero_grad()
                model(x).square().sum().backward()
                gradients.append(torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None]))
            assert (gradients[0] - gradients[1]).norm() < 1e-3 * gradients[0].norm()


@torch.no_grad()
def test_torch_export_keeps_the_operators_and_the_outputs() -> None:
    net = AFFNet(**TINY).eval()
    x = torch.randn(2, 3, 40, 56)
    exported = torch.export.export(net, (x,))
    torch.testing.assert_close(exported.module()(x), net(x))
    kinds = Counter(str(node.target) for node in exported.graph.nodes if node.op == "call_function")
    assert kinds["aten.fft_rfft2.default"] == kinds["aten.fft_irfft2.default"] == 4


@pytest.mark.slow
@torch.no_grad()
def test_torch_export_leaves_batch_and_size_open() -> None:
    net = AFFNet(**TINY).eval()
    sides = {0: torch.export.Dim("batch", min=1, max=64), 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    exported = torch.export.export(net, (torch.randn(2, 3, 64, 96),), dynamic_shapes=(sides,))
    for shape in ((1, 3, 96, 64), (3, 3, 65, 47)):
        x = torch.randn(shape)
        torch.testing.assert_close(exported.module()(x), net(x), rtol=1e-4, atol=1e-5)


def test_the_command_counts_it() -> None:
    command = [sys.executable, "-m", "mixbench", "flops", "affnet-et"]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    for figure in ("1,436,264", "356,236,800", "712,473,600", "11,642,880", "100 %"):
        assert figure in out
