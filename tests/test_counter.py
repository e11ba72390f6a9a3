"""What the counter promises beside its figures: nothing leaks, everything adds up, and work goes to the module that did it."""

import inspect
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import log2
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

import mixbench
from mixbench import Cost
from mixbench.profilers.cost import CostTree, Count
from mixbench.profilers.formulas import table

SWITCHES: tuple[Callable[[], bool], ...] = (
    torch.backends.cuda.flash_sdp_enabled,
    torch.backends.cuda.mem_efficient_sdp_enabled,
    torch.backends.cuda.math_sdp_enabled,
    torch.backends.cuda.cudnn_sdp_enabled,
    torch.backends.mha.get_fastpath_enabled,
    torch._C._get_mkldnn_enabled,
)


class Two(nn.Module):
    """Two branches of different sizes, joined."""

    def __init__(self) -> None:
        super().__init__()
        self.small, self.large = nn.Linear(8, 4, bias=False), nn.Linear(8, 16, bias=False)
        self.join = nn.Linear(20, 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.join(torch.cat((self.small(x), self.large(x)), -1))


class Deep(nn.Module):
    """Two layers, computed again in the backward pass if asked."""

    def __init__(self, again: bool) -> None:
        super().__init__()
        self.again = again
        self.inner = nn.Sequential(nn.Linear(8, 16, bias=False), nn.Linear(16, 4, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        out = checkpoint(self.inner, x, use_reentrant=False) if self.again else self.inner(x)
        assert isinstance(out, Tensor)
        return out


class Fails(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("on purpose")


def macs_by_module(count: Count) -> dict[str, int]:
    return {node.name: node.own.macs for node in count.tree.walk() if node.own.macs}


@pytest.mark.parametrize("module", [nn.Linear(4, 4), Fails()])
def test_switches_and_hooks_are_put_back_whatever_happens(module: nn.Module) -> None:
    torch.backends.cuda.enable_mem_efficient_sdp(False)  # a user's own setting survives as well
    try:
        before = [switch() for switch in SWITCHES]
        for _ in range(2):
            try:
                mixbench.count_call(module, torch.ones(2, 4))
            except RuntimeError as error:
                assert str(error) == "on purpose"
            assert [switch() for switch in SWITCHES] == before
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    finally:
        torch.backends.cuda.enable_mem_efficient_sdp(True)


def test_a_module_keeps_its_mode_and_gets_no_gradients_from_counting_inference() -> None:
    module = nn.Linear(4, 4).eval()
    mixbench.count_call(module, torch.ones(2, 4))
    assert not module.training
    assert module.weight.grad is None


def test_backward_work_belongs_to_the_module_that_ran_forward() -> None:
    count = mixbench.count_call(Two(), torch.ones(3, 8), train=True)
    forward = {"small": 3 * 8 * 4, "large": 3 * 8 * 16, "join": 3 * 20 * 2}
    # The input needs no gradient, so the branches have one product in the backward pass and the join has two.
    assert macs_by_module(count) == {
        "small": 2 * forward["small"],
        "large": 2 * forward["large"],
        "join": 3 * forward["join"],
    }
    assert count.forward.macs == sum(forward.values())


def test_counting_a_step_twice_gives_the_same_and_leaves_gradients_as_they_were() -> None:
    net = Two()
    net.join.weight.grad = torch.ones_like(net.join.weight)
    counts = [mixbench.count_call(net, torch.ones(3, 8), train=True).totals for _ in range(2)]
    assert counts[0] == counts[1]
    assert net.small.weight.grad is None
    assert (net.join.weight.grad == 1).all()


def test_recomputation_is_counted_as_executed_and_at_its_place() -> None:
    plain, again = (macs_by_module(mixbench.count_call(Deep(again), torch.ones(3, 8), train=True)) for again in (False, True))
    # torch stops computing again as soon as it has what the backward pass needs: the last layer's output it does not.
    assert again["inner.0"] - plain["inner.0"] == 3 * 8 * 16
    assert again["inner.1"] == plain["inner.1"] == 3 * 3 * 16 * 4


def test_the_tree_adds_up_to_the_totals() -> None:
    count = mixbench.count(mixbench.build("ghostnetv2", mixbench.Workload(mode="train")))

    def check(node: CostTree) -> None:
        total = sum((child.total for child in node.children), node.own)
        assert node.total == total
        for child in node.children:
            check(child)

    check(count.tree)
    assert count.tree.total == count.totals
    assert count.forward + count.backward == count.totals
    assert sum((item.cost for item in count.operators), Cost()) == count.totals


def test_tied_weights_are_counted_once_and_marked_as_shared() -> None:
    net = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    net[1].weight = net[0].weight
    tree = mixbench.count_call(net, torch.ones(1, 4)).tree
    assert tree.total_params == 16
    assert [(child.params, child.shared_params) for child in tree.children] == [(16, 0), (0, 16)]


def test_a_module_under_two_names_counts_each_call_under_its_first() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(4, 4)
            self.second = self.first

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.first(x))

    tree = mixbench.count_call(Twice(), torch.ones(1, 4)).tree
    assert [(child.name, child.calls, child.own.macs) for child in tree.children] == [("first", 2, 32)]


def test_an_exception_that_a_model_catches_leaves_the_tree_right() -> None:
    class Catches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fails, self.linear = Fails(), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            try:
                x = self.fails(x)
            except RuntimeError:
                x = x + 1
            return self.linear(x)

    count = mixbench.count_call(Catches(), torch.ones(1, 4))
    assert macs_by_module(count) == {"linear": 16}
    assert count.tree.own.elementwise_flops == 4


def test_values_that_leave_torch_are_named() -> None:
    class Numpy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.from_numpy(x.numpy() * 2)

    count = mixbench.count_call(Numpy(), torch.ones(2, 2))
    assert [(item.operator, item.calls) for item in count.uncounted] == [("Tensor.numpy", 1)]


def test_compiled_and_scripted_modules_count_like_their_originals() -> None:
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    x = torch.ones(3, 4)
    plain = mixbench.count_call(net, x)
    with_part = nn.Sequential(torch.compile(net, backend="eager"))  # type: ignore[call-overload]
    scripted = torch.jit.script(net)
    assert mixbench.count_call(torch.compile(net, backend="eager"), x).totals.arithmetic == plain.totals.arithmetic  # type: ignore[arg-type]
    assert mixbench.count_call(with_part, x).totals.arithmetic == plain.totals.arithmetic
    assert mixbench.count_call(scripted, x).totals.arithmetic == plain.totals.arithmetic
    assert mixbench.count_call(nn.Sequential(scripted), x).totals.arithmetic == plain.totals.arithmetic


def test_lazy_modules_count_with_the_parameters_they_get() -> None:
    with torch.device("meta"):
        count = mixbench.count_call(nn.Sequential(nn.LazyLinear(3)), torch.ones(2, 5))
    assert (count.params, count.totals.macs) == (5 * 3 + 3, 2 * 5 * 3)


def test_flex_attention_counts_as_dense_attention() -> None:
    from torch.nn.attention.flex_attention import flex_attention

    class Flex(nn.Module):
        def forward(self, q: Tensor) -> Tensor:
            out = flex_attention(q, q, q)
            assert isinstance(out, Tensor)
            return out

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns once that an uncompiled call is slow
        count = mixbench.count_call(Flex(), torch.ones(1, 2, 16, 8))
    assert (count.totals.macs, count.uncounted) == (2 * 16 * 16 * (8 + 8), ())


def test_forced_fused_attention_keeps_the_contractions_exact() -> None:
    from torch.nn.attention import SDPBackend, sdpa_kernel

    class Fused(nn.Module):
        def forward(self, q: Tensor) -> Tensor:
            with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
                return F.scaled_dot_product_attention(q, q, q, is_causal=True)

    q = torch.ones(2, 3, 10, 8)
    count = mixbench.count_call(Fused(), q)
    assert "aten::_scaled_dot_product_flash_attention_for_cpu" in {item.operator for item in count.operators}
    assert count.totals.macs == 2 * 3 * 10 * 10 * (8 + 8)
    trained = mixbench.count_call(Fused(), q.requires_grad_(), train=True)
    assert trained.totals.macs == 3 * count.totals.macs


def test_a_rule_is_refused_when_there_is_one_or_the_name_is_short() -> None:
    with pytest.raises(ValueError, match="has a rule already, in matmul"):
        mixbench.formula("aten::mm")(lambda out, *args: Cost())
    with pytest.raises(ValueError, match="no operator's full name"):
        mixbench.formula("mm")(lambda out, *args: Cost())
    with pytest.raises(ValueError, match="has a rule already"):
        table.free("aten::mm", family="test")


@pytest.mark.parametrize("name", sorted(name for name in table._rules if name.startswith("aten::")))
def test_a_rule_of_torchs_own_operators_names_one_that_exists(name: str) -> None:
    """A rule for a misspelt operator would never be used. Some names are those of other builds or versions."""
    elsewhere = {"aten::_scaled_dot_product_attention_math_for_mps", "aten::mkldnn_linear"}
    assert name in elsewhere or hasattr(torch.ops.aten, name.removeprefix("aten::")), name


@settings(max_examples=60, deadline=None)
@given(
    data=st.data(),
    dimensions=st.integers(1, 3),
    groups=st.integers(1, 3),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
    dilation=st.integers(1, 2),
    transposed=st.booleans(),
)
def test_convolutions_of_any_kind_cost_what_their_shapes_say(
    data: st.DataObject, dimensions: int, groups: int, stride: int, padding: int, dilation: int, transposed: bool
) -> None:
    into, out = groups * data.draw(st.integers(1, 3)), groups * data.draw(st.integers(1, 3))
    kernel = data.draw(st.integers(1, 3))
    sides = [data.draw(st.integers(7, 9)) for _ in range(dimensions)]
    kinds: Any = (
        (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d) if transposed else (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    )
    layer = kinds[dimensions - 1](into, out, kernel, stride=stride, padding=padding, dilation=dilation, groups=groups)
    x = torch.randn(2, into, *sides)
    result = layer(x)
    count = mixbench.count_call(layer, x)
    small_side, channels = (x, out) if transposed else (result, into)
    assert count.totals.macs == small_side.numel() * (channels // groups) * kernel**dimensions
    assert count.totals.elementwise_flops == count.totals.activations == result.numel(), "the bias, and what is written"
    with torch.no_grad(), FlopCounterMode(display=False) as theirs:
        layer(x)
    assert theirs.get_total_flops() == count.totals.flops


@settings(max_examples=40, deadline=None)
@given(batch=st.integers(1, 3), m=st.integers(1, 5), k=st.integers(1, 5), n=st.integers(1, 5), complex_=st.booleans())
def test_products_of_matrices_cost_a_mac_a_term_and_four_when_complex(
    batch: int, m: int, k: int, n: int, complex_: bool
) -> None:
    class Product(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return a @ b

    dtype = torch.complex64 if complex_ else torch.float32
    count = mixbench.count_call(Product(), torch.ones(batch, m, k, dtype=dtype), torch.ones(batch, k, n, dtype=dtype))
    assert count.totals.macs == batch * m * k * n * (4 if complex_ else 1)


@settings(max_examples=30, deadline=None)
@given(height=st.integers(1, 9), width=st.integers(1, 9), maps=st.integers(1, 3))
def test_fourier_transforms_follow_the_idealised_formula(height: int, width: int, maps: int) -> None:
    class Transforms(nn.Module):
        def __init__(self, function: Callable[..., Tensor]) -> None:
            super().__init__()
            self.function = function

        def forward(self, x: Tensor) -> Tensor:
            return self.function(x)

    points = height * width
    x = torch.randn(maps, height, width)
    expected = round(2.5 * maps * points * log2(points))
    assert mixbench.count_call(Transforms(torch.fft.rfft2), x).totals.fft_flops == expected
    spectrum = torch.fft.rfft2(x)
    back = Transforms(lambda s: torch.fft.irfft2(s, s=(height, width)))
    assert mixbench.count_call(back, spectrum).totals.fft_flops == expected
    count = mixbench.count_call(Transforms(torch.fft.fft2), x.to(torch.complex64))
    assert count.totals.fft_flops == round(5 * maps * points * log2(points))
    assert count.totals.macs == 0


class Steps(nn.Module):
    """A function of one tensor."""

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


@pytest.mark.parametrize(
    ("function", "flops"),
    [
        (lambda x: x + 1, 120),
        (lambda x: x.relu_(), 120),
        (F.gelu, 120),
        (lambda x: F.softmax(x, -1), 5 * 120),
        (lambda x: x.sum((2, 3)), 120),
        (lambda x: x.var(), 4 * 120),
        (lambda x: x.norm(), 2 * 120),
        (lambda x: torch.lerp(x, x, 0.5), 3 * 120),
        (lambda x: F.layer_norm(x, [5]), 6 * 120),
        (lambda x: F.layer_norm(x, [5], x[0, 0, 0], x[0, 0, 0]), 8 * 120),
        (lambda x: F.group_norm(x, 3), 6 * 120),
        (lambda x: F.batch_norm(x, None, None, training=True), 6 * 120),
        (lambda x: F.batch_norm(x, torch.zeros(6), torch.ones(6)), 2 * 120),
        (lambda x: F.avg_pool2d(x, 2), 4 * 6 * 2 * 2),
        (lambda x: F.max_pool2d(x, (2, 5)), 10 * 6 * 2),
        (lambda x: F.adaptive_avg_pool2d(x, (3, 2)), 6 * (2 + 2 + 2) * (3 + 3)),
        (lambda x: F.interpolate(x, size=(8, 10)), 0),
        (lambda x: F.interpolate(x, size=(8, 10), mode="bilinear"), 7 * 6 * 8 * 10),
        (lambda x: F.pad(x, (1, 1)).roll(1, 2).flip(3).repeat(2, 1, 1, 1), 0),
        (lambda x: F.dropout(x, 0.5, training=True), 2 * 120),
        (lambda x: torch.complex(x, x) * torch.complex(x, x), 2 * 2 * 120 + 6 * 120),
        (lambda x: F.embedding_bag(torch.zeros(7, 3, dtype=torch.int64), x[0, 0], mode="sum"), 7 * 3 * 5),
        (lambda x: F.embedding(torch.zeros(7, dtype=torch.int64), x[0, 0]), 0),
        (lambda x: (x > 0).sum(), 120),
        (lambda x: torch.arange(9, device=x.device) * 2 + 1, 0),
    ],
)
def test_elementwise_work_follows_the_documented_rule(function: Callable[[Tensor], Any], flops: int) -> None:
    count = mixbench.count_call(Steps(function), torch.randn(1, 6, 4, 5))
    assert count.totals.elementwise_flops == flops
    assert count.totals.macs == 0
    assert count.uncounted == ()


def test_an_unknown_operator_lowers_the_coverage_and_is_never_a_silent_zero() -> None:
    count = mixbench.count_call(Steps(torch.linalg.eigvalsh), torch.eye(3))
    assert [item.operator for item in count.uncounted] == ["aten::_linalg_eigh"]
    assert 0 <= count.coverage < 1


def overloads_with_a_rule() -> list[Any]:
    """All overloads of torch's own operators, in-place ones too, that a rule of the table serves."""
    packets = [
        getattr(getattr(torch.ops, namespace), name + suffix, None)
        for namespace, _, name in (full.partition("::") for full in table._rules)
        if namespace in ("aten", "mkldnn")
        for suffix in ("", "_")
    ]
    found = [getattr(packet, name) for packet in packets if packet is not None for name in packet.overloads()]
    return [
        overload for overload in found if any(argument.type.kind() == "TensorType" for argument in overload._schema.arguments)
    ]


def test_each_rule_takes_the_arguments_of_each_overload_that_it_serves() -> None:
    refused = []
    for overload in overloads_with_a_rule():
        rule = table.rule_of_name(table.name_of(overload))
        assert rule is not None
        arguments = overload._schema.arguments
        positional = [item for item in arguments if not item.kwarg_only]
        keywords = {item.name: item for item in arguments if item.kwarg_only and not item.is_out}
        required = [item for item in positional if not item.has_default_value()]
        for given_ in (positional, required):
            try:
                inspect.signature(rule.formula).bind(object(), *given_, **keywords)
            except TypeError as error:
                refused.append(f"{overload}: {error}")
    assert not refused


def test_results_written_into_given_tensors_count_like_new_ones() -> None:
    def written(x: Tensor) -> Tensor:
        total, product = x.new_empty(0), x.new_empty(4, 4)
        torch.add(x, x, out=total)
        torch.mm(total, total, out=product)
        total = torch.cat((product, product), out=x.new_empty(0))
        values, places = x.new_empty(0), x.new_empty(0, dtype=torch.int64)
        torch.sort(total, out=(values, places))
        return values @ x

    for device in ("meta", "cpu"):
        count = mixbench.count_call(Steps(written), torch.ones(4, 4, device=device))
        assert count.totals.macs == 4 * 4 * 4 + 8 * 4 * 4
        assert count.totals.elementwise_flops == 16 + 3 * 32, "a sum, and ceil(log2(8)) comparisons of each of 32"
        assert count.uncounted == ()


def test_in_place_views_are_views() -> None:
    count = mixbench.count_call(
        Steps(lambda x: x.clone().squeeze_(0).transpose_(0, 1).unsqueeze_(0).detach_()), torch.ones(1, 2, 3)
    )
    assert (count.totals.arithmetic, count.uncounted) == (Cost(), ())


@contextmanager
def place(device: str) -> Iterator[None]:
    """Where tensors are made: meta, cpu, fake CPU tensors, or the CPU under inference mode."""
    modes = {"fake": FakeTensorMode, "inference": torch.inference_mode}
    with modes[device]() if device in modes else torch.device(device):
        yield


@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.l1_loss(x, x * 2),
        lambda x: F.rms_norm(x, (5,)),
        lambda x: F.rms_norm(x, (4, 5), x[0, 0]),
        lambda x: x.masked_fill(x.isfinite(), 0),
        lambda x: torch.max(x[:, :1], x),
        lambda x: torch.min(x[0, 0, 0], x),
        lambda x: x.max(1)[0].min(),
        lambda x: x.std() + x.var(1).sum(),
        lambda x: F.max_pool1d(x[0], 2) + F.avg_pool1d(x[0], 2),
        lambda x: F.adaptive_avg_pool2d(x, 1),
        lambda x: F.adaptive_avg_pool2d(x, (3, 2)),
        lambda x: F.adaptive_max_pool1d(x[0], 2),
        lambda x: F.interpolate(x, scale_factor=2, mode="bicubic"),
        lambda x: F.cross_entropy(x, torch.zeros(1, 4, 5, dtype=torch.int64, device=x.device)),
        F.mish,
        F.silu,
        F.relu6,
        F.logsigmoid,
    ],
)
def test_operators_made_of_others_count_the_same_wherever_they_arrive_whole(function: Callable[[Tensor], Tensor]) -> None:
    def counted(device: str, train: bool) -> Cost:
        with place(device):
            return mixbench.count_call(
                Steps(function), torch.ones(1, 6, 4, 5, requires_grad=train), train=train
            ).totals.arithmetic

    inference = {device: counted(device, False) for device in ("meta", "cpu", "fake", "inference")}
    assert len(set(inference.values())) == 1, inference
    training = {device: counted(device, True) for device in ("meta", "cpu", "fake")}
    assert len(set(training.values())) == 1, training


def test_products_of_groups_cost_each_row_once() -> None:
    def tokens(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.bfloat16, device="meta")

    ends = torch.empty(4, dtype=torch.int32, device="meta")
    for a, b, macs in (
        (tokens(32, 16), tokens(4, 16, 24), 32 * 16 * 24),
        (tokens(32, 16), tokens(16, 24), 32 * 16 * 24),
        (tokens(4, 32, 16), tokens(16, 24), 32 * 16 * 24),
    ):
        found = mixbench.count_call(Steps(lambda a, b=b: torch._grouped_mm(a, b, ends)), a)  # type: ignore[misc]
        assert (found.totals.macs, found.uncounted) == (macs, ())


def test_the_libraries_own_operators_are_read_by_their_own_arguments() -> None:
    """They run on devices that are not here, so their rules are asked directly."""

    def rule(name: str) -> Callable[..., Cost]:
        return table._rules[name].formula

    with torch.device("meta"):
        x, weight, grad = torch.empty(1, 4, 5, 5), torch.empty(8, 4, 3, 3), torch.empty(1, 8, 3, 3)
        rest = ([1, 1], [0, 0], [1, 1], False, [0, 0], 1, [True, True, False])
        backward = rule("aten::convolution_backward_overrideable")((x, weight, None), grad, x, weight, *rest)
        assert backward == Cost(macs=2 * grad.numel() * 4 * 9)

        x, weight, out = torch.empty(2, 3), torch.empty(7, 3), torch.empty(2, 7)
        linear = rule("mkldnn::_linear_pointwise")
        assert linear(out, x, weight, None, "relu", [], "") == Cost(macs=2 * 7 * 3, activations=14)
        assert linear(out, x, out, weight, None, "add") == Cost(macs=2 * 7 * 3, activations=14)

        q = torch.empty(1, 2, 4, 8)
        scores, plain = 2 * 4 * 4, rule("aten::_scaled_dot_product_flash_attention")((), q, q, q, 0.0, False, True)
        assert plain.macs == scores * (8 + 8)
        scale = torch.empty(1)
        calls: list[tuple[str, tuple[Any, ...], dict[str, Any], bool]] = [
            ("flash_attention", (), {}, False),
            ("flash_attention", (0.0, True), {}, True),
            ("flash_attention", (scale, scale, None, 0.0, False, True), {}, False),
            ("flash_attention_for_cpu", (0.0, False), {"attn_mask": q}, True),
            ("efficient_attention", (None, True), {}, False),
            ("efficient_attention", (None, True, 0.0, True), {}, True),
            ("efficient_attention", (q, True), {}, True),
            ("cudnn_attention", (None, True, 0.0, False, True), {}, False),
            ("fused_attention_overrideable", (None, 0.0, False, True), {}, False),
            ("fused_attention_overrideable", (None, 0.0, True), {}, True),
        ]
        for name, args, kwargs, masked in calls:
            cost = rule(f"aten::_scaled_dot_product_{name}")((), q, q, q, *args, **kwargs)
            assert cost.elementwise_flops - plain.elementwise_flops == scores * masked, (name, args)


LIBRARY = torch.library.Library("counter_test", "DEF")
LIBRARY.define("scale(Tensor x) -> Tensor")
LIBRARY.define("scale_(Tensor(a!) x) -> Tensor(a!)")
LIBRARY.impl("scale", lambda x: x * 2, "CPU")
LIBRARY.impl("scale_", lambda x: x.mul_(2), "CPU")


def test_an_in_place_variant_of_ones_own_operator_takes_the_rule_of_the_other() -> None:
    net = Steps(lambda x: torch.ops.counter_test.scale_(torch.ops.counter_test.scale(x)))
    bare = mixbench.count_call(net, torch.ones(5))
    assert {item.operator: item.calls for item in bare.uncounted} == {"counter_test::scale": 1, "counter_test::scale_": 1}
    mixbench.formula("counter_test::scale")(lambda out, x: Cost(elementwise_flops=x.numel()))
    try:
        count = mixbench.count_call(net, torch.ones(5))
        assert (count.totals.elementwise_flops, count.uncounted, count.coverage) == (10, (), 1)
    finally:
        del table._rules["counter_test::scale"]
        table._found.clear()


def test_an_operator_without_a_meta_kernel_is_counted_on_the_cpu_and_still_named(tmp_path: Path) -> None:
    program = """
import torch
from torch import nn

class Net(nn.Module):
    example_inputs = torch.ones(4, 16)
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(16, 24)
    def forward(self, x):
        return torch.ops.counter_test.scale(self.linear(x))
"""
    (tmp_path / "net.py").write_text(program)
    count = mixbench.count(mixbench.build(f"{tmp_path / 'net.py'}:Net"))
    assert (count.device, count.totals.macs) == ("cpu", 4 * 16 * 24)
    assert [(item.operator, item.calls) for item in count.uncounted] == [("counter_test::scale", 1)]
    assert any("counter_test::scale" in note for note in count.notes), count.notes


@pytest.mark.parametrize("heads", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("device", ["meta", "cpu", "fake", "inference"])
def test_multi_head_attention_counts_the_same_whatever_path_torch_would_take(heads: int, device: str) -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(12, heads, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.attention(x, x, x, need_weights=False)[0]

    with place(device):
        layer, x = Attention().eval(), torch.ones(2, 5, 12)
        counts = [mixbench.count_call(layer, x)]
        with torch.no_grad():
            counts.append(mixbench.count_call(layer, x))
    projections, products = 2 * 5 * 4 * 12 * 12, 2 * 2 * 5 * 5 * 12
    assert [count.totals.macs for count in counts] == [projections + products] * 2
    assert not any(count.uncounted for count in counts)


def test_two_linears_cost_what_the_literature_measures_forward_and_backward() -> None:
    net = nn.Sequential(nn.Linear(16, 32, bias=False), nn.Linear(32, 8, bias=False))
    count = mixbench.count_call(net, torch.ones(4, 16), train=True)
    first, second = 4 * 16 * 32, 4 * 32 * 8
    assert count.forward.flops == 2 * (first + second) == 6144
    assert count.totals.flops == 2 * (2 * first + 3 * second) == 14336, "the input needs no gradient"


@settings(max_examples=40, deadline=None)
@given(batch=st.integers(1, 3), m=st.integers(1, 5), k=st.integers(1, 5), n=st.integers(1, 5), bias=st.booleans())
def test_linear_layers_and_batched_products_agree_with_torchs_counter(batch: int, m: int, k: int, n: int, bias: bool) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(k, n, bias=bias)

        def forward(self, x: Tensor) -> Tensor:
            return torch.bmm(self.linear(x), x.new_ones(batch, n, m))

    net, x = Net(), torch.ones(batch, m, k)
    count = mixbench.count_call(net, x)
    with torch.no_grad(), FlopCounterMode(display=False) as theirs:
        net(x)
    assert count.totals.flops == theirs.get_total_flops() == 2 * batch * (m * k * n + m * n * m)
    assert count.totals.elementwise_flops == bias * batch * m * n
