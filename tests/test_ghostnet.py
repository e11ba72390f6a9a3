"""GhostNetV2 and GhostNet against outputs of the authors' code, the paper's figures, and derivations by hand."""

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import mixbench
from mixbench.models import DFCAttention, GhostBottleneck, GhostModule, GhostNet, GhostNetV2, SqueezeExcite
from mixbench.models.architectures.ghostnetv2 import round_channels
from mixbench.models.case import Case
from mixbench.models.lookup import resolve
from mixbench.models.spec import TensorSpec
from mixbench.profilers.cost import Count

# Entry, golden file, the file's name for the sum of convolution and linear MACs.
NETS = [("ghostnetv2", "ghostnetv2", "macs_conv_linear_aff"), ("ghostnet", "ghostnetv1", "macs_conv_linear")]
OUTPUTS = [(entry, file, index) for entry, file, _ in NETS for index in (0, 1)]
RESOLUTIONS = [
    (*net, size)
    for net, sizes in zip(
        NETS, ("224x224 192x192 256x256 320x320 192x256 225x161", "224x224 192x192 256x256 160x160"), strict=True
    )
    for size in sizes.split()
]
VARIANTS = """
    ghostnetv2-0.5x ghostnetv2-1.0x ghostnetv2-1.3x ghostnetv2-1.6x
    ghostnet-0.5x ghostnet-1.0x ghostnet-1.1x ghostnet-1.3x ghostnet-1.4x ghostnet-1.7x
""".split()


def on_meta(model: str, size: str = "224x224", **settings: Any) -> Case:
    sides = tuple(map(int, size.split("x")))
    return mixbench.build(model, mixbench.Workload(inputs=(TensorSpec((1, 3, *sides)),)), **settings)


def counted(model: str, size: str = "224x224", **settings: Any) -> Count:
    return mixbench.count(on_meta(model, size, **settings))


def made(entry: str, fill_rule: Any, **settings: Any) -> nn.Module:
    """The network in float64 eval mode with the golden files' weights."""
    net: nn.Module = fill_rule.fill(mixbench.build(entry, device="cpu", **settings).module)
    return net


def statistics(x: Tensor) -> dict[str, Any]:
    found = {"mean": x.mean(), "std": x.std(correction=0), "absmax": x.abs().max()}
    return {"shape": list(x.shape)} | {name: value.item() for name, value in found.items()}


@contextmanager
def statistics_of(net: nn.Module, names: list[str]) -> Iterator[dict[str, dict[str, Any]]]:
    """Statistics of the modules' outputs, taken before a later operator overwrites them in place."""
    seen: dict[str, dict[str, Any]] = {}
    handles = [
        net.get_submodule(name).register_forward_hook(lambda _, __, out, name=name: seen.update({name: statistics(out)}))
        for name in names
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


# The original's outputs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("entry", "file", "_"), NETS)
def test_state_dict_has_the_originals_keys_in_order_with_shapes_and_dtypes(entry: str, file: str, _: str, golden: Any) -> None:
    case = golden(file)["1.0"]
    net = on_meta(entry).module
    state = net.state_dict()
    assert [[key, list(t.shape), str(t.dtype).removeprefix("torch.")] for key, t in state.items()] == case["keys"]
    assert len(state) == case["n_keys"]
    assert len(list(net.parameters())) == case["n_param_tensors"]


@pytest.mark.parametrize(("entry", "file", "_"), NETS)
def test_parameters_are_the_originals(entry: str, file: str, _: str, golden: Any) -> None:
    case = golden(file)["1.0"]
    assert counted(entry).params == case["params"]
    assert counted(entry, num_classes=10).params == case["params_10_classes"]


@pytest.mark.parametrize(("entry", "file", "macs", "size"), RESOLUTIONS)
def test_macs_are_the_originals(entry: str, file: str, macs: str, size: str, golden: Any) -> None:
    cost = golden(file)["1.0"]["cost"][size]
    found = counted(entry, size)
    by_operator = {item.operator: item.cost for item in found.operators if item.cost.macs}
    assert {name: item.macs for name, item in by_operator.items()} == {
        "aten::convolution": cost["macs"]["conv"],
        "aten::addmm": cost["macs"]["linear"],
    }
    assert found.totals.macs == cost[macs]
    assert found.totals.flops == cost["flop_counter_flops"]  # torch's counter counts two a MAC as well
    for name, flops in cost.get("flop_counter_by_op", {}).items():
        assert by_operator[name.replace("aten.", "aten::")].flops == flops
    assert not found.uncounted


@pytest.mark.parametrize(("entry", "file", "_", "size"), RESOLUTIONS)
def test_every_figure_of_fvcore_is_found_again(entry: str, file: str, _: str, size: str, golden: Any) -> None:
    cost = golden(file)["1.0"]["cost"][size]
    case = on_meta(entry, size)
    gates = []
    for module in case.module.modules():
        if isinstance(module, DFCAttention):
            module.register_forward_hook(lambda _, __, gate: gates.append(gate.numel()))
    found = {item.operator: item for item in mixbench.count(case).operators}
    fvcore = {
        "conv": found["aten::convolution"].cost.macs,
        "linear": found["aten::addmm"].cost.macs,
        "batch_norm": found["aten::native_batch_norm"].cost.elementwise_flops,
        "adaptive_avg_pool2d": found["aten::mean"].cost.elementwise_flops,
        "upsample_nearest2d": sum(gates),  # copies: fvcore counts one an element, we none
    }
    assert {name: figure for name, figure in fvcore.items() if figure} == cost["fvcore_by_op"]
    assert sum(fvcore.values()) == cost["fvcore_total"]
    names = {"aten::relu6": "aten::hardtanh_"}
    unsupported = {name: found[names.get(name, name)].calls for name in cost["fvcore_unsupported"]}
    assert unsupported == cost["fvcore_unsupported"]


@pytest.mark.parametrize(("entry", "file", "index"), OUTPUTS)
def test_float64_outputs_and_layers_are_the_originals(entry: str, file: str, index: int, fill_rule: Any, golden: Any) -> None:
    case = golden(file)["1.0"]["outputs"][index]
    net = made(entry, fill_rule)
    with torch.no_grad(), statistics_of(net, list(case["layers"])) as layers:
        logits = net(fill_rule.image(case["tag"], case["input_shape"]))
    assert logits[0, :16].tolist() == pytest.approx(case["first16"], abs=1e-9)
    assert logits[0, :8].tolist() == pytest.approx(case["first8"], abs=1e-9)
    assert logits[-1, -4:].tolist() == pytest.approx(case["last4"], abs=1e-9)
    assert logits.sum(1).tolist() == pytest.approx(case["row_sums"], abs=1e-9)
    assert logits.abs().sum(1).tolist() == pytest.approx(case["row_abs_sums"], abs=1e-9)
    assert logits.argmax(1).tolist() == case["argmax"]
    assert (logits[0] - logits[1]).abs().max().item() == pytest.approx(case["between_rows_max"], abs=1e-9)
    for name, expected in ({"logits": case["out"]} | case["layers"]).items():
        seen = statistics(logits) if name == "logits" else layers[name]
        assert seen["shape"] == expected["shape"], name
        assert [seen[key] for key in ("mean", "std", "absmax")] == pytest.approx(
            [expected[key] for key in ("mean", "std", "absmax")], abs=1e-9
        ), name


@pytest.mark.parametrize(("entry", "file", "index"), OUTPUTS)
def test_float32_outputs_are_the_originals(entry: str, file: str, index: int, fill_rule: Any, golden: Any) -> None:
    case = golden(file)["1.0"]["outputs"][index]
    net = made(entry, fill_rule)
    x = fill_rule.image(case["tag"], case["input_shape"])
    with torch.no_grad():
        exact = net(x)
        logits = net.float()(x.float())
    scale = case["out"]["std"]
    assert logits[0, :16].tolist() == pytest.approx(case["float32_first16"], abs=1e-5 * scale)
    assert (logits - exact).abs().max().item() < 4 * case["float32_max_abs_diff"]


# The published and the built figures ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "params", "folded", "macs", "macs_at_192"),
    [
        ("ghostnetv2-0.5x", 2_857_836, None, 49_640_656, None),
        ("ghostnetv2-1.0x", 6_156_908, 6_125_716, 167_048_288, 125_351_360),
        ("ghostnetv2-1.3x", 8_960_404, 8_919_880, 269_322_976, 201_904_768),
        ("ghostnetv2-1.6x", 12_392_698, 12_342_762, 398_607_224, 298_634_624),
        ("ghostnet-0.5x", 2_587_292, 2_581_800, 42_328_152, None),
        ("ghostnet-1.0x", 5_182_508, 5_171_524, 141_150_512, 104_765_696),
        ("ghostnet-1.1x", 5_855_650, None, 166_986_864, None),
        ("ghostnet-1.3x", 7_358_820, 7_344_552, 227_003_256, None),
        ("ghostnet-1.4x", 8_186_422, None, 262_787_592, None),
        ("ghostnet-1.7x", 11_000_120, None, 378_009_272, None),
    ],
)
def test_parameters_and_macs_of_every_width(
    model: str, params: int, folded: int | None, macs: int, macs_at_192: int | None
) -> None:
    found = counted(model)
    assert found.params == params
    assert folded is None or found.params_bn_folded == folded
    assert found.totals.macs == macs
    assert macs_at_192 is None or counted(model, "192x192").totals.macs == macs_at_192


@pytest.mark.parametrize("model", VARIANTS)
def test_published_figures_agree_or_say_why_not(model: str) -> None:
    found = counted(model)
    ours = {"params_bn_folded": found.params_bn_folded, "macs": found.totals.macs}
    variant = resolve(model).variant
    assert variant is not None
    for published in variant.published:
        if published.metric in ours:
            assert published.agrees(ours[published.metric]) != bool(published.note), published
        else:
            assert published.metric == "top1_percent"


CHANNELS = {
    "0.5": "8 | 8/8, 24/12, 36/12, 36/20/12, 60/20/16, 120/40, 100/40, 92/40, 92/40, 240/56/60, 336/56/84, 336/80/84, "
    "480/80, 480/80/120, 480/80, 480/80/120 | 480",
    "1.0": "16 | 16/16, 48/24, 72/24, 72/40/20, 120/40/32, 240/80, 200/80, 184/80, 184/80, 480/112/120, 672/112/168, "
    "672/160/168, 960/160, 960/160/240, 960/160, 960/160/240 | 960",
    "1.3": "20 | 20/20, 64/32, 92/32, 92/52/24, 156/52/40, 312/104, 260/104, 240/104, 240/104, 624/144/156, 872/144/220, "
    "872/208/220, 1248/208, 1248/208/312, 1248/208, 1248/208/312 | 1248",
    "1.6": "24 | 24/24, 76/40, 116/40, 116/64/28, 192/64/48, 384/128, 320/128, 296/128, 296/128, 768/180/192, "
    "1076/180/268, 1076/256/268, 1536/256, 1536/256/384, 1536/256, 1536/256/384 | 1536",
}


@pytest.mark.parametrize("entry", ["ghostnetv2", "ghostnet"])
@pytest.mark.parametrize("width", CHANNELS)
def test_channels_of_every_bottleneck(entry: str, width: str) -> None:
    state = on_meta(entry, width=float(width)).module.state_dict()
    rows = []
    for key in state:
        if match := re.fullmatch(r"(blocks\.\d+\.\d+)\.ghost1\.primary_conv\.0\.weight", key):
            block = match[1]
            hidden, outputs = (2 * len(state[f"{block}.{ghost}.primary_conv.0.weight"]) for ghost in ("ghost1", "ghost2"))
            squeezed = state.get(f"{block}.se.conv_reduce.weight")
            rows.append("/".join(map(str, (hidden, outputs) if squeezed is None else (hidden, outputs, len(squeezed)))))
    found = f"{len(state['conv_stem.weight'])} | {', '.join(rows)} | {len(state['blocks.9.0.conv.weight'])}"
    assert found == CHANNELS[width]


@pytest.mark.parametrize("model", VARIANTS)
def test_the_number_of_entries_does_not_depend_on_the_width(model: str) -> None:
    attention = model.startswith("ghostnetv2")
    net = on_meta(model).module
    kinds = Counter(type(module).__name__ for module in net.modules())
    assert len(net.state_dict()) == (764 if attention else 512)
    assert len(list(net.parameters())) == (398 if attention else 272)
    assert (kinds["BatchNorm2d"], kinds["Conv2d"], kinds["Linear"]) == ((122, 137, 1) if attention else (80, 95, 1))


@pytest.mark.parametrize(
    ("channels", "rounded"),
    [
        (1, 4),
        (5.9, 8),
        (6, 8),
        (6.1, 8),
        (9.9, 12),
        (10, 12),
        (16 * 1.3, 20),
        (40 * 1.3, 52),
        (80 * 1.1, 88),
        (112 * 1.6, 180),
    ],
)
def test_channels_are_rounded_to_four_and_never_below_ninety_per_cent(channels: float, rounded: int) -> None:
    assert round_channels(channels) == rounded


def test_shares_of_the_macs_are_those_of_the_original() -> None:
    shares: Counter[str] = Counter()
    parameters: Counter[str] = Counter()
    parts = "short_conv primary_conv cheap_operation shortcut se conv_dw blocks.9 conv_stem conv_head classifier".split()
    for node in counted("ghostnetv2").tree.walk():
        part = next((part for part in parts if f".{part}." in f".{node.name}."), "")
        shares[part] += node.own.macs
        parameters[part] += node.params
    assert {part: round(macs / 1e6, 1) for part, macs in shares.items() if macs} == {
        "primary_conv": 101.3,
        "short_conv": 25.9,
        "cheap_operation": 12.4,
        "blocks.9": 7.5,
        "shortcut": 6.5,
        "conv_stem": 5.4,
        "conv_dw": 4.0,
        "se": 1.5,
        "classifier": 1.3,
        "conv_head": 1.2,
    }
    assert parameters["short_conv"] == 974_400 == 6_156_908 - 5_182_508


# The whole network ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [0.5, 1.0, 1.3, 1.6])
def test_weights_of_ghostnet_fill_everything_but_the_branches(width: float) -> None:
    v1, v2 = on_meta("ghostnet", width=width).module, on_meta("ghostnetv2", width=width).module
    loaded = v2.load_state_dict(v1.state_dict(), strict=False, assign=True)
    assert loaded.unexpected_keys == []
    branches = [key for key in v2.state_dict() if ".short_conv." in key]
    assert len(branches) == 14 * 18
    # torch sets a batch norm's missing counter to zero without a word.
    assert loaded.missing_keys == [key for key in branches if not key.endswith("num_batches_tracked")]
    assert list(v1.state_dict()) == [key for key in v2.state_dict() if ".short_conv." not in key]


def test_fourteen_bottlenecks_from_the_third_on_have_a_branch() -> None:
    blocks = [module for module in on_meta("ghostnetv2").module.modules() if isinstance(module, GhostBottleneck)]
    assert [block.ghost1.short_conv is not None for block in blocks] == [False, False] + [True] * 14
    assert all(block.ghost2.short_conv is None for block in blocks)


@pytest.mark.parametrize("size", ["32x32", "32x64", "64x32", "1x1"])
def test_images_of_32_pixels_are_too_small_for_attention(size: str, golden: Any) -> None:
    assert golden("ghostnetv2")["1.0"]["at_32x32"] == "raises RuntimeError"
    sides = tuple(map(int, size.split("x")))
    with pytest.raises(RuntimeError, match=f"at least 33x33 pixels, not {size}"):
        GhostNetV2(width=0.25).eval()(torch.zeros(1, 3, *sides))
    with pytest.raises(mixbench.MixbenchError, match="at least 33x33 pixels"):
        counted("ghostnetv2", size)


@torch.no_grad()
def test_33_pixels_are_enough_for_attention() -> None:
    assert GhostNetV2(width=0.25).eval()(torch.zeros(1, 3, 33, 33)).shape == (1, 1000)
    assert counted("ghostnetv2", "33x33").device == "meta"


@pytest.mark.parametrize("side", [32, 16, 1])
@torch.no_grad()
def test_ghostnet_without_attention_runs_at_any_size(side: int) -> None:
    assert GhostNet(width=0.25).eval()(torch.zeros(1, 3, side, side)).shape == (1, 1000)
    assert counted("ghostnet", f"{side}x{side}").device == "meta"


def test_settings_reach_the_network() -> None:
    net = mixbench.build("ghostnetv2", device="cpu", width=0.25, num_classes=7, in_channels=1, dropout=0.5).module
    assert net.dropout == 0.5
    with torch.no_grad():
        assert net(torch.zeros(2, 1, 40, 40)).shape == (2, 7)


def test_dropout_acts_on_the_head_while_training_only() -> None:
    torch.manual_seed(0)
    net = GhostNet(width=0.25, dropout=0.2)
    seen: list[Tensor] = []
    net.conv_head.register_forward_hook(lambda _, __, out: seen.append(out.detach().relu().flatten(1)))
    net.classifier.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach()))
    with torch.no_grad():
        net.eval()(torch.randn(4, 3, 32, 32))
        net.train()(torch.randn(4, 3, 32, 32))
    features, given, features_train, given_train = seen
    assert torch.equal(given, features)
    alive = features_train > 0
    kept = given_train[alive] != 0
    assert 0.75 < kept.double().mean() < 0.85
    torch.testing.assert_close(given_train[alive][kept], features_train[alive][kept] / 0.8)


def test_every_parameter_gets_a_gradient() -> None:
    torch.manual_seed(0)
    net = GhostNetV2(width=0.5).train()
    # Smaller images leave the last branches a single pixel, where the next batch norm takes a bias off again.
    net(torch.randn(4, 3, 96, 96)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.abs().sum() > 0 for p in net.parameters())


@torch.no_grad()
def test_an_input_is_not_overwritten() -> None:
    net = GhostNetV2(width=0.25).eval()
    x = torch.randn(1, 3, 64, 64)
    before = x.clone()
    net(x)
    assert torch.equal(x, before)


# The layers alone ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("outputs", "ratio"), [(7, 2), (8, 2), (1, 2), (10, 3), (7, 3), (12, 3), (5, 4)])
@torch.no_grad()
def test_ghost_module_concatenates_and_cuts(outputs: int, ratio: int, fill_rule: Any) -> None:
    module = fill_rule.fill(GhostModule(6, outputs, relu=True, ratio=ratio))
    x = fill_rule.image("ghost", (2, 6, 5, 4))
    primary = module.primary_conv(x)
    ghosts = module.cheap_operation(primary)
    assert primary.shape[1] == -(-outputs // ratio)
    assert ghosts.shape[1] == primary.shape[1] * (ratio - 1)
    y = module(x)
    assert y.shape == (2, outputs, 5, 4)
    assert torch.equal(y[:, : primary.shape[1]], primary)
    assert torch.equal(y[:, primary.shape[1] :], ghosts[:, : outputs - primary.shape[1]])
    assert (y >= 0).all()


@torch.no_grad()
def test_ghosts_come_group_by_group(fill_rule: Any) -> None:
    module = fill_rule.fill(GhostModule(4, 9, relu=False, ratio=3))
    weight = module.cheap_operation[0].weight.zero_()
    weight[2:4, 0, 1, 1] = 1  # the two ghosts of the second primary channel
    norm = nn.BatchNorm2d(6).double().eval()
    module.cheap_operation[1].load_state_dict(norm.state_dict())
    y = module(fill_rule.image("groups", (1, 4, 3, 3)))
    scale = (1 + norm.eps) ** -0.5
    torch.testing.assert_close(y[:, 5:7], y[:, 1:2].expand(-1, 2, -1, -1) * scale)
    assert (y[:, [3, 4, 7, 8]] == 0).all()


@pytest.mark.parametrize(("kernel", "cheap", "stride", "size"), [(3, 5, 2, (4, 3)), (1, 3, 1, (7, 6)), (5, 1, 3, (3, 2))])
@torch.no_grad()
def test_ghost_module_takes_kernels_and_a_stride(kernel: int, cheap: int, stride: int, size: tuple[int, int]) -> None:
    module = GhostModule(3, 5, kernel=kernel, cheap_kernel=cheap, stride=stride, attention=True).eval()
    assert module(torch.randn(2, 3, 7, 6)).shape == (2, 5, *size)
    assert module.primary_conv[0].weight.shape == (3, 3, kernel, kernel)
    assert module.cheap_operation[0].weight.shape == (3, 1, cheap, cheap)


@torch.no_grad()
def test_the_gate_looks_at_the_modules_input_and_multiplies_the_cut_output(fill_rule: Any) -> None:
    gated = fill_rule.fill(GhostModule(6, 7, attention=True))
    plain = GhostModule(6, 7).double().eval()
    plain.load_state_dict({key: value for key, value in gated.state_dict().items() if "short_conv" not in key})
    x = fill_rule.image("gated", (2, 6, 7, 9))
    torch.testing.assert_close(gated(x), plain(x) * gated.short_conv(x), rtol=0, atol=1e-12)


def batch_norm(x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    """By its definition, with the running statistics and eps 1e-5."""
    given = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    weight, bias, mean, variance = (t[:, None, None] for t in given if t is not None)
    return (x - mean) / (variance + 1e-5).sqrt() * weight + bias


@torch.no_grad()
def test_attention_on_a_7x7_map_by_hand(fill_rule: Any) -> None:
    attention = fill_rule.fill(DFCAttention(6, 8))
    x = fill_rule.image("attention", (2, 6, 7, 7))
    horizontal, vertical = attention[2].weight, attention[4].weight
    assert (horizontal.shape, vertical.shape) == ((8, 1, 1, 5), (8, 1, 5, 1))

    pooled = x[:, :, :6, :6].unflatten(3, (3, 2)).unflatten(2, (3, 2)).mean((3, 5))  # the last row and column are lost
    y = batch_norm(torch.einsum("bchw,oc->bohw", pooled, attention[0].weight[:, :, 0, 0]), attention[1])
    wide = F.pad(y, (2, 2))
    y = sum(wide[..., i : i + 3] * horizontal[:, 0, 0, i, None, None] for i in range(5))
    tall = F.pad(batch_norm(y, attention[3]), (0, 0, 2, 2))
    y = sum(tall[..., i : i + 3, :] * vertical[:, 0, i, 0, None, None] for i in range(5))
    gate = 1 / (1 + (-batch_norm(y, attention[5])).exp())
    nearest = torch.tensor([0, 0, 0, 1, 1, 2, 2])  # floor(3 i / 7)
    torch.testing.assert_close(attention(x), gate[..., nearest, :][..., nearest], rtol=0, atol=1e-12)


@torch.no_grad()
def test_the_gate_takes_the_size_that_it_is_asked_for() -> None:
    attention = DFCAttention(3, 4).eval()
    assert attention(torch.randn(1, 3, 7, 9)).shape == (1, 4, 7, 9)
    assert attention(torch.randn(1, 3, 8, 8), (4, 5)).shape == (1, 4, 4, 5)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 8), (8, 1)])
def test_attention_refuses_maps_that_it_cannot_pool(height: int, width: int) -> None:
    with pytest.raises(RuntimeError, match=f"at least 2x2, not {height}x{width}"):
        DFCAttention(3, 4)(torch.zeros(1, 3, height, width))


def test_attention_refuses_other_channels() -> None:
    with pytest.raises(RuntimeError, match="channels"):
        DFCAttention(3, 4)(torch.zeros(1, 5, 4, 4))


@torch.no_grad()
def test_squeeze_and_excite_by_hand(fill_rule: Any) -> None:
    module = fill_rule.fill(SqueezeExcite(24))
    x = fill_rule.image("squeeze", (2, 24, 3, 5))
    reduce, expand = module.conv_reduce, module.conv_expand
    assert reduce.weight.shape == (8, 24, 1, 1)  # a quarter is 6, and 6 rounds up to 8
    squeezed = (x.mean((2, 3)) @ reduce.weight[:, :, 0, 0].T + reduce.bias).clamp(min=0)
    gate = ((squeezed @ expand.weight[:, :, 0, 0].T + expand.bias + 3) / 6).clamp(0, 1)
    torch.testing.assert_close(module(x), x * gate[:, :, None, None], rtol=0, atol=1e-12)


@pytest.mark.parametrize("entry", ["ghostnetv2", "ghostnet"])
@torch.no_grad()
def test_channels_last_gives_the_same_logits(entry: str, fill_rule: Any) -> None:
    net = made(entry, fill_rule)
    x = fill_rule.image("layout", (2, 3, 64, 96))
    expected = net(x)
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub leaves it out
    torch.testing.assert_close(net(x.to(memory_format=torch.channels_last)), expected, rtol=0, atol=1e-9)
