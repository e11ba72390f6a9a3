"""Fourier transforms as matrices and AFFNet's mask on planes are the model's function, by operators that phones have."""

import copy
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from torch import Tensor, nn

import mixbench
from mixbench.export.rewrites.base import rewrite_graph, rewrite_module
from mixbench.export.rewrites.complex import RealMixer, Spectrum
from mixbench.export.rewrites.fft import KRONECKER_PIXELS, MatrixSpectrum, forward_matrices, inverse_matrices
from mixbench.models import AFFBlock, AFFNet, AFFTokenMixer
from mixbench.models.errors import BadInput
from mixbench.models.reparameterise import reparameterise

SIDES = st.integers(1, 20)
PHONES = ("nnapi_supported", "coreml_supported_mlprogram")


def lively_mixer(channels: int, seed: int = 0, **options: Any) -> AFFTokenMixer:
    """Weights of a trained size, in float64."""
    generator = torch.Generator().manual_seed(seed)
    mixer = AFFTokenMixer(channels, **options).double().eval()
    for parameter in mixer.parameters():
        parameter.data.normal_(std=0.5, generator=generator)
    return mixer


def noise(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def largest(x: Tensor | np.ndarray) -> float:
    return float(np.abs(np.asarray(x)).max())


@settings(max_examples=30)
@given(SIDES, SIDES, st.integers(1, 2), st.integers(1, 3))
@example(1, 1, 1, 1)
@example(8, 8, 1, 2)
@example(13, 5, 2, 1)
@example(5, 13, 1, 1)
@example(16, 16, 2, 2)
def test_matrices_are_the_transform_and_its_inverse(height: int, width: int, batch: int, channels: int) -> None:
    x = noise(batch, channels, height, width)
    spectrum = np.fft.rfft2(x.numpy(), norm="ortho")
    by_hand = np.stack((spectrum.real, spectrum.imag), 2).reshape(batch * channels, 2 * height, 1, -1)
    # Any planes, not only those of a real map: the mask breaks the symmetry.
    planes = noise(*by_hand.shape, seed=2)
    pairs = planes.numpy().reshape(batch, channels, 2, height, -1)
    back = np.fft.irfft2(pairs[:, :, 0] + 1j * pairs[:, :, 1], s=(height, width), norm="ortho")
    for form in (Spectrum(), MatrixSpectrum()):
        assert largest(form(x).numpy() - by_hand) < 1e-12
        assert largest(form.inverse(planes, channels, (height, width)).numpy() - back) < 1e-12


@settings(max_examples=8)
@given(SIDES, SIDES, st.sampled_from([2, 4, 8]), st.sampled_from(["silu", "relu", "hardswish"]), st.floats(0, 0.5))
@example(7, 7, 8, "silu", 0.01)
@example(9, 8, 8, "silu", 0.01)
@example(11, 1, 2, "relu", 0.0)
def test_the_rewritten_mixer_is_the_mixer(height: int, width: int, groups: int, activation: str, softshrink: float) -> None:
    mixer = lively_mixer(2 * groups, groups=groups, activation=activation, softshrink=softshrink)
    x = noise(2, 2 * groups, height, width)
    for keep in ((), ("fft",)):
        rewritten, names = rewrite_module(copy.deepcopy(mixer), keep)
        assert set(names) == {"complex", "fft", "softshrink"} - set(keep)
        with torch.inference_mode():
            wanted = mixer(x)
            assert largest(rewritten(x) - wanted) < 1e-12 * (1 + largest(wanted))
            single = rewritten.float()(x.float())
        assert single.dtype == torch.float32
        assert largest(single - wanted) < 1e-5 * (1 + largest(wanted))


def test_halves_are_transformed_in_float32_as_in_the_model() -> None:
    mixer = lively_mixer(8).bfloat16()
    x = noise(1, 8, 6, 5).bfloat16()
    rewritten, _ = rewrite_module(copy.deepcopy(mixer))
    with torch.inference_mode():
        assert rewritten(x).dtype == torch.bfloat16
        assert largest(rewritten(x).float() - mixer(x).float()) <= 2**-7 * largest(mixer(x).float())


def test_up_to_64_pixels_there_is_one_matrix_and_above_two_small_ones() -> None:
    assert KRONECKER_PIXELS == 64
    assert [m.shape for m in forward_matrices(8, 8)] == [(64, 80)]
    assert [m.shape for m in inverse_matrices(8, 8)] == [(80, 64)]
    assert [m.shape for m in forward_matrices(9, 8)] == [(8, 10), (18, 18)]
    assert [m.shape for m in inverse_matrices(32, 32)] == [(64, 64), (34, 32)]
    assert all(m.dtype == np.float64 for m in (*forward_matrices(32, 32), *inverse_matrices(7, 7)))


def test_the_users_model_is_left_as_it_is() -> None:
    model = AFFNet(widths=(8, 8, 16, 16, 16), depths=(1, 1, 1, 1, 1), expansion=2, num_classes=3)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    kinds = [type(module) for module in model.modules()]
    rewritten, names = rewrite_module(reparameterise(model))
    assert {"complex", "fft", "groupnorm", "softshrink"} <= set(names)
    assert not any(isinstance(module, AFFTokenMixer | nn.GroupNorm) for module in rewritten.modules())
    assert [type(module) for module in model.modules()] == kinds
    assert model.training
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


@pytest.fixture(scope="module")
def small_net() -> nn.Sequential:
    """Two blocks on maps of 11 x 15 (stacked) and one on 5 x 7 (one matrix), with masks that are alive."""
    torch.manual_seed(0)
    net = nn.Sequential(AFFBlock(16), AFFBlock(16), nn.AvgPool2d(2), AFFBlock(16))
    enlivened(net)
    return net.double().eval()


def enlivened(net: nn.Module) -> None:
    """Give mixers weights of a trained size."""
    for name, parameter in net.named_parameters():
        if name.rpartition(".")[2] in ("w1", "w2"):
            parameter.data.normal_(std=(2 * parameter.shape[-1]) ** -0.5)


def test_a_small_net_is_one_piece_for_phones_and_computes_the_same(small_net: nn.Sequential, exporter: Any) -> None:
    x = noise(1, 16, 11, 15)
    with torch.inference_mode():
        wanted = small_net(x).numpy()
    proto = exporter(copy.deepcopy(small_net).float(), (x.float(),))
    assert largest(exporter.run(proto, x.float())[0] - wanted) < 1e-5 * largest(wanted)
    for runtime in PHONES:
        assert not set(exporter.operators(proto)) - exporter.table(runtime)
    assert_within_the_tables_notes(proto)
    # Both blocks of 11 x 15 share four matrices.
    sizes = [tuple(tensor.dims) for tensor in proto.graph.initializer]
    for matrix, count in (((15, 16), 1), ((16, 15), 1), ((22, 22, 1, 1), 2), ((35, 40), 1), ((40, 35), 1)):
        assert sizes.count(matrix) == count


def test_keep_fft_keeps_the_transforms_and_nothing_else(small_net: nn.Sequential, exporter: Any) -> None:
    x = noise(2, 16, 6, 9)
    proto = exporter(copy.deepcopy(small_net[0]).float(), (x.float(),), keep=("fft",))
    assert set(exporter.operators(proto)) - exporter.table("nnapi_supported") == {"DFT"}
    assert exporter.operators(proto)["DFT"] == 4
    with torch.inference_mode():
        wanted = small_net[0](x).numpy()
    assert largest(exporter.run(proto, x.float())[0] - wanted) < 1e-5 * largest(wanted)


def assert_within_the_tables_notes(proto: onnx.ModelProto) -> None:
    """What the tables of NNAPI and MLProgram say about parameters, as far as an AFFNet meets it; and no tensor above rank 4."""
    known = {tensor.name for tensor in proto.graph.initializer}
    inferred = onnx.shape_inference.infer_shapes(proto, strict_mode=True).graph
    shapes = {value.name: [d.dim_value for d in value.type.tensor_type.shape.dim] for value in inferred.value_info}
    assert max(map(len, shapes.values())) <= 4
    for node in proto.graph.node:
        match node.op_type:
            case "Conv":
                assert set(node.input[1:]) <= known
                assert len(shapes[node.output[0]]) == 4
            case "Gemm" | "Squeeze" | "Reshape":
                assert node.input[1] in known
            case "Split":
                assert len({tuple(shapes[part]) for part in node.output}) == 1


def test_an_open_height_is_refused_with_the_way_out(exporter: Any) -> None:
    mixer, _ = rewrite_module(lively_mixer(8).float())
    assert isinstance(mixer, RealMixer)
    with pytest.raises(Exception, match=r".") as caught:
        exporter.capture(mixer, (noise(1, 8, 12, 12).float(),), ({2: "height"},))
    chain: list[BaseException | None] = [caught.value]
    while chain[-1] is not None:
        chain.append(chain[-1].__cause__ or chain[-1].__context__)
    refusals = [error for error in chain if isinstance(error, BadInput)]
    assert "height or width is open" in str(refusals[0])


def dft(shape: tuple[int, ...], axis: int, length: int | None = None, **attributes: Any) -> onnx.ModelProto:
    """A graph of one DFT node."""
    numbers = [helper.make_tensor("axis", TensorProto.INT64, [], [axis])]
    if length is not None:
        numbers.append(helper.make_tensor("length", TensorProto.INT64, [], [length]))
    node = helper.make_node("DFT", ["x", "length" if length else "", "axis"], ["y"], **attributes)
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * len(shape))],
        numbers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.mark.parametrize(
    ("shape", "axis", "length", "attributes"),
    [
        ((2, 3, 8, 1), 2, None, {"onesided": 1}),
        ((2, 3, 7, 1), -2, None, {"onesided": 1}),
        ((2, 3, 7, 5, 2), 2, None, {}),
        ((2, 3, 7, 5, 2), 3, None, {"inverse": 1}),
        ((2, 6, 5, 2), 1, None, {"inverse": 1}),
        ((2, 4, 5, 2), 2, 8, {"inverse": 1, "onesided": 1}),
        ((2, 4, 4, 2), 2, 7, {"inverse": 1, "onesided": 1}),
        ((2, 9, 1), 1, 6, {"onesided": 1}),
        ((2, 9, 2), 1, 12, {}),
        ((1, 1, 1), 1, None, {"onesided": 1}),
    ],
)
def test_any_dft_node_becomes_a_product(
    shape: tuple[int, ...], axis: int, length: int | None, attributes: dict[str, int], exporter: Any
) -> None:
    proto = dft(shape, axis, length, **attributes)
    x = noise(*shape).float()
    wanted = exporter.run(proto, x)[0]
    assert rewrite_graph(proto, keep=("fft",)) == ()
    assert rewrite_graph(proto) == ("fft",)
    assert "DFT" not in exporter.operators(proto)
    found = exporter.run(proto, x)[0]
    assert found.shape == wanted.shape
    assert largest(found - wanted) < 5e-5  # ONNX Runtime's own error at lengths that are no power of 2


def test_a_dft_along_an_open_axis_stays(exporter: Any) -> None:
    proto = dft((2, 9, 2), 1)
    proto.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "length"
    assert rewrite_graph(proto) == ()


def test_a_long_dft_stays_a_fast_transform() -> None:
    assert rewrite_graph(dft((1, 1024, 2), 1)) == ()


class GlobalFilter(nn.Module):
    """A user's module: a learned complex filter on the spectrum, as in GFNet."""

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__()
        self.filter = nn.Parameter(torch.randn(channels, height, width // 2 + 1, 2))

    def forward(self, x: Tensor) -> Tensor:
        spectrum = torch.fft.rfft2(x, norm="ortho") * torch.view_as_complex(self.filter)
        return torch.fft.irfft2(spectrum, s=(x.shape[2], x.shape[3]), norm="ortho")


@pytest.mark.parametrize("dynamic", [None, ({0: "batch"},)])
def test_a_users_own_transforms_are_swapped_in_the_graph(dynamic: Any, exporter: Any) -> None:
    torch.manual_seed(0)
    module = GlobalFilter(3, 6, 9).eval()
    x = noise(2, 3, 6, 9).float()
    proto = exporter(module, (x,), dynamic=dynamic)
    assert "DFT" not in exporter.operators(proto)
    with torch.inference_mode():
        for batch in (2, 5) if dynamic else (2,):
            given = x[:1].expand(batch, -1, -1, -1).clone()
            assert largest(exporter.run(proto, given)[0] - module(given).numpy()) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["et", "t", "small"])
def test_the_published_nets_are_one_piece_for_phones(variant: str, exporter: Any) -> None:
    torch.manual_seed(0)
    case = mixbench.build(f"affnet-{variant}", device="cpu")
    enlivened(case.module)
    proto = exporter(case.module, case.args)
    for runtime in PHONES:
        assert not set(exporter.operators(proto)) - exporter.table(runtime)
    assert_within_the_tables_notes(proto)
    with torch.inference_mode():
        wanted = case.module.eval()(*case.args).numpy()
    assert largest(exporter.run(proto, *case.args)[0] - wanted) < 1e-5 * largest(wanted)
