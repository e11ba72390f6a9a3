"""What ONNX files cost: equal to the PyTorch models that they were exported from, and to counts by hand."""

import io
import json
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import redirect_stdout
from math import log2
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, parser
from torch import Tensor, nn

import mixbench
from mixbench.cli.app import main
from mixbench.models.errors import BadInput
from mixbench.models.reparameterise import reparameterise
from mixbench.models.spec import TensorSpec, Workload
from mixbench.profilers.cost import Cost, Count
from mixbench.profilers.onnx_counter import OnnxCount, count_model, count_onnx
from mixbench.profilers.onnx_inputs import graph_inputs
from mixbench.profilers.onnx_subject import onnx_subject

SCRIPT = Path(sys.executable).with_name("mixbench")


def exported(module: nn.Module, *args: Tensor, **settings: Any) -> onnx.ModelProto:
    """A module through PyTorch's exporter, which warns of itself and prints."""
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(module.eval(), args, dynamo=True, opset_version=20, verbose=False, **settings)
    assert program is not None
    return program.model_proto


def count(model: onnx.ModelProto, *inputs: TensorSpec, batch: int | None = None) -> OnnxCount:
    return count_model(model, graph_inputs(Path("net.onnx"), model.graph, Workload(inputs, batch)))


def counted(graph: str, opset: int = 20, more: str = "") -> OnnxCount:
    """The count of a graph in ONNX's text form."""
    return count(parser.parse_model(f'<ir_version: 10, opset_import: ["" : {opset}{more}]> {graph}'))


def cost(graph: str, opset: int = 20, more: str = "") -> Cost:
    found = counted(graph, opset, more).count
    assert not found.uncounted
    return found.totals


def families(found: Count) -> dict[str, Cost]:
    """The cost of each family of rules that costs something."""
    totals: dict[str, Cost] = {}
    for item in found.operators:
        totals[item.family] = totals.get(item.family, Cost()) + item.cost.arithmetic
    return {family: total for family, total in totals.items() if total != Cost()}


def elementwise(found: Count) -> dict[str, int]:
    return {family: total.elementwise_flops for family, total in families(found).items() if total.elementwise_flops}


class Pictures(nn.Module):
    """Convolutions of each kind, norms, pooling, interpolation, gates."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, 1, 1, groups=8, bias=False)
        self.up, self.group_norm = nn.ConvTranspose2d(8, 6, 4, 2, 1, groups=2), nn.GroupNorm(3, 6)
        self.fc = nn.Linear(6, 5)
        nn.init.normal_(self.bn.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.depthwise(F.hardswish(self.bn(self.stem(x))))
        x = F.max_pool2d(self.group_norm(self.up(x)), 3, 2, 1)
        x = F.interpolate(x, scale_factor=2, mode="bilinear")
        x = F.silu(F.avg_pool2d(F.interpolate(x, size=(10, 12), mode="nearest"), 2))
        x = F.adaptive_avg_pool2d(x, 1).flatten(1) * F.hardsigmoid(x.mean((2, 3)))
        return F.softmax(self.fc(x), -1)


class Words(nn.Module):
    """A transformer block behind an embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.norm = nn.Embedding(11, 16), nn.LayerNorm(16)
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)
        self.mlp = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids)
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, 4, 4)).permute(2, 0, 3, 1, 4).unbind(0)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + self.mlp(x)


class Waves(nn.Module):
    """A product of spectra."""

    def forward(self, x: Tensor) -> Tensor:
        spectrum = torch.fft.rfft2(x)
        return torch.fft.irfft2(spectrum * spectrum, s=x.shape[-2:])


class Series(nn.Module):
    """Recurrent layers, one of them in two directions."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.gru = nn.LSTM(5, 7, batch_first=True, bidirectional=True), nn.GRU(14, 6, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.gru(self.lstm(x)[0])[0]


@pytest.fixture(scope="module")
def pictures() -> Iterator[tuple[nn.Module, Tensor, onnx.ModelProto]]:
    module, x = Pictures().eval(), torch.randn(2, 3, 17, 20)
    yield module, x, exported(module, x)


@pytest.fixture(scope="module")
def words() -> Iterator[tuple[nn.Module, Tensor, onnx.ModelProto]]:
    module, ids = Words().eval(), torch.randint(0, 11, (2, 6))
    yield module, ids, exported(module, ids, dynamic_shapes=({0: "batch", 1: "length"},))


def test_a_convolutional_net_costs_in_onnx_what_it_costs_in_torch(pictures: tuple[nn.Module, Tensor, onnx.ModelProto]) -> None:
    module, x, model = pictures
    ours, theirs = count(model).count, mixbench.count_call(module, x)
    assert not ours.uncounted
    assert (ours.totals.macs, ours.totals.activations) == (theirs.totals.macs, theirs.totals.activations)
    gaps = {family: flops - elementwise(theirs).get(family, 0) for family, flops in elementwise(ours).items()}
    maps, channels_last = 2 * 6 * 18 * 20, 2 * 6 * 5 * 6
    assert {family: gap for family, gap in gaps.items() if gap} == {
        "norm": -2 * 2 * 8 * 9 * 10,  # the batch norm is in the convolution before it
        "pointwise": 2 * maps + channels_last,  # GroupNorm's affine map, and SiLU as Sigmoid and Mul, are nodes of their own
    }


def test_parameters_are_those_of_the_folded_model(pictures: tuple[nn.Module, Tensor, onnx.ModelProto]) -> None:
    module, _, model = pictures
    built = sum(parameter.numel() for parameter in module.parameters())
    batch_norm = 2 * 8  # in the weights and the bias of the convolution before it
    scale_and_shift_of_groups = 2 * 3  # InstanceNormalization asks for them
    assert count(model).count.params == built - batch_norm + scale_and_shift_of_groups


def test_attention_costs_in_onnx_what_it_costs_in_torch(words: tuple[nn.Module, Tensor, onnx.ModelProto]) -> None:
    module, ids, model = words
    ours = count(model, TensorSpec((2, 6), "int64")).count
    theirs = mixbench.count_call(module, ids)
    assert not ours.uncounted
    assert (ours.totals.macs, ours.totals.activations) == (theirs.totals.macs, theirs.totals.activations)
    assert ours.totals.elementwise_flops == theirs.totals.elementwise_flops
    gaps = {family: flops - elementwise(theirs).get(family, 0) for family, flops in elementwise(ours).items()}
    biases = 2 * 6 * (48 + 16 + 32 + 16)
    assert {family: gap for family, gap in gaps.items() if gap} == {"pointwise": biases}  # nodes of their own behind a MatMul


def test_open_dimensions_are_filled_and_shared_by_their_names(words: tuple[nn.Module, Tensor, onnx.ModelProto]) -> None:
    module, _, model = words
    found = count(model, TensorSpec((3, 9), "int64"))
    assert found.workload.inputs[0].shape == (3, 9)
    assert found.count.totals.macs == mixbench.count_call(module, torch.zeros(3, 9, dtype=torch.int64)).totals.macs
    with pytest.raises(BadInput, match=r"net\.onnx leaves length open"):
        count(model, batch=3)


def test_recurrent_layers_cost_in_one_operator_what_torch_decomposes_them_into() -> None:
    module, x = Series().eval(), torch.randn(2, 4, 5)
    ours, theirs = count(exported(module, x)).count, mixbench.count_call(module, x)
    assert ours.totals.arithmetic == theirs.totals.arithmetic
    assert set(families(ours)) == {"recurrent"}


def test_a_transform_over_two_axes_is_two_nodes() -> None:
    module, x = Waves(), torch.randn(2, 3, 6, 8)
    ours, theirs = count(exported(module, x)).count, mixbench.count_call(module, x)
    maps = 2 * 3
    rows, columns = round(2.5 * maps * 6 * 8 * log2(8)), round(5 * maps * 5 * 6 * log2(6))
    assert ours.totals.fft_flops == 2 * (rows + columns)
    assert theirs.totals.fft_flops == 2 * round(2.5 * maps * 48 * log2(48))
    assert ours.uncounted == ()
    assert theirs.totals.elementwise_flops == 6 * maps * 6 * 5  # a complex product
    scaled = ours.totals.elementwise_flops - theirs.totals.elementwise_flops
    assert 0 <= scaled <= 4 * x.numel()  # the inverse's quotient by the number of points


@pytest.mark.slow
def test_ghostnetv2_costs_in_onnx_exactly_what_it_costs_in_torch() -> None:
    module = mixbench.build("ghostnetv2", device="cpu").module.eval()
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):  # else the exporter leaves out the biases, which are zero
            nn.init.normal_(norm.bias, 0.0, 0.1)
    folded, x = reparameterise(module), torch.randn(1, 3, 224, 224)
    ours, theirs = count(exported(folded, x)).count, mixbench.count_call(folded, x)
    assert ours.totals.arithmetic == theirs.totals.arithmetic
    assert ours.totals.macs == 167_048_288
    assert ours.params == theirs.params
    assert families(ours) == families(theirs)


def test_sizes_that_are_computed_in_the_graph_are_followed() -> None:
    graph = """(float[2,3,4] x, float[12,5] w) => (float[2,5] y) <int64[1] zero = {0}, int64[1] rest = {-1}> {
        shape = Shape(x) first = Gather(shape, zero) target = Concat<axis = 0>(first, rest)
        flat = Reshape(x, target) y = MatMul(flat, w)
    }"""
    assert cost(f"agraph {graph}").macs == 2 * 12 * 5


def test_an_operator_without_a_rule_is_named_and_never_a_silent_zero() -> None:
    graph = "(float[2,3] x) => (y) {t = my.Magic(x) u = Relu(t) y = my.Magic(u)}"
    found = counted(f"agraph {graph}", more=', "my" : 1').count
    missed = {item.operator: item.calls for item in found.uncounted}
    assert missed == {"my::Magic": 2, "Relu (shape unknown)": 1}
    assert found.coverage == 0.0


def test_a_node_that_makes_no_sense_is_uncounted_and_no_traceback() -> None:
    graph = '(float[2,3] x) => (y) {a = Einsum<equation = "ijk->i">(x) b = MaxPool(x) y = Gemm(x)}'
    found = counted(f"agraph {graph}").count
    assert {item.operator for item in found.uncounted} == {
        "Einsum (not understood)", "MaxPool (not understood)", "Gemm (shape unknown)",
    }  # fmt: skip


def test_a_fused_node_that_makes_no_sense_is_uncounted_too() -> None:
    graph = "(float[2,3] x) => (y) {a = com.microsoft.FusedMatMul(x) b = com.microsoft.MatMulNBits(x, x) y = Relu(b)}"
    assert counted(f"agraph {graph}", more=', "com.microsoft" : 1').count.coverage == 0.0


def test_what_depends_on_constants_alone_is_free_and_noted() -> None:
    graph = """(float[2,3] x) => (float[2,3] y) <float[3] a = {1, 2, 3}> {b = Exp(a) y = Mul(x, b)}"""
    found = counted(f"agraph {graph}").count
    assert found.totals.arithmetic == Cost(0, 0, 6)
    assert found.notes == ("nodes that depend on constants alone, computed when the file is loaded and free after that: 1",)


BODY = "body = inner (int64 i, bool c, float[2,2] s) => (bool d, float[2,2] t) {d = Identity(c) t = MatMul(s, s)}"


def test_a_loop_costs_its_body_times_its_turns() -> None:
    graph = "(float[2,2] x) => (float[2,2] y) <int64 n = {5}, bool go = {1}> {y = Loop<" + BODY + ">(n, go, x)}"
    found = counted(f"agraph {graph}")
    assert found.count.totals.macs == 5 * 8
    assert {item.operator: item.calls for item in found.count.operators} == {"MatMul": 5, "Identity": 5}
    assert found.node_macs == {"y": 40}


def test_a_loop_whose_turns_are_unknown_is_listed() -> None:
    graph = "(float[2,2] x, int64 n) => (float[2,2] y) {y = Loop<" + BODY + ">(n, , x)}"
    found = counted(f"agraph {graph}").count
    assert [item.operator for item in found.uncounted] == ["Loop (number of turns unknown)"]
    assert found.notes[0].startswith("what is inside Loop y is uncounted: the number of turns")


def test_a_loop_whose_values_change_their_shape_is_listed() -> None:
    body = "body = b (int64 i, bool c, float[2,2] s) => (bool d, float[4,2] t) {d = Identity(c) t = Concat<axis = 0>(s, s)}"
    graph = "(float[2,2] x) => (float[N,2] y) <int64 n = {3}> {y = Loop<" + body + ">(n, , x)}"
    found = counted(f"agraph {graph}").count
    assert [item.operator for item in found.operators] == ["Loop (shape unknown)"]


def test_a_scan_costs_its_body_for_each_row() -> None:
    body = "body = inner (float[4] s, float[4] r) => (float[4] t, float[4] o) {t = Add(s, r) o = Relu(t)}"
    graph = "(float[4] s, float[7,4] x) => (float[4] t, float[7,4] y) {t, y = Scan<num_scan_inputs = 1, " + body + ">(s, x)}"
    found = counted(f"agraph {graph}")
    assert found.count.totals.arithmetic == Cost(0, 0, 7 * 8)


@pytest.mark.parametrize(("chosen", "macs"), [("1", 8), ("0", 0)])
def test_an_if_costs_the_branch_that_is_taken(chosen: str, macs: int) -> None:
    branches = "then_branch = a () => (float[2,2] t) {t = MatMul(x, x)}, else_branch = b () => (float[2,2] e) {e = Relu(x)}"
    graph = f"(float[2,2] x) => (float[2,2] y) <bool c = {{{chosen}}}> {{y = If<{branches}>(c)}}"
    assert cost(f"agraph {graph}").macs == macs
    unknown = counted(f"agraph (float[2,2] x, bool c) => (float[2,2] y) {{y = If<{branches}>(c)}}").count
    assert [item.operator for item in unknown.uncounted] == ["If (condition unknown)"]


def test_functions_of_the_file_are_counted_by_what_they_are_made_of() -> None:
    text = """<ir_version: 10, opset_import: ["" : 20, "my" : 1]>
    agraph (float[2,3] x, float[3,4] w) => (float[2,4] y) {y = my.both(x, w)}
    <domain: "my", opset_import: ["" : 20]> both (a, b) => (c) {t = MatMul(a, b) c = Relu(t)}"""
    assert count(parser.parse_model(text)).count.totals.arithmetic == Cost(24, 0, 8, 8)


def test_shared_weights_are_counted_once() -> None:
    graph = "(float[3,3] x) => (float[3,3] y) <float[3,3] w = {1,1,1,1,1,1,1,1,1}> {t = MatMul(x, w) y = MatMul(t, w)}"
    found = counted(f"agraph {graph}").count
    assert found.params == 9
    assert sum(node.shared_params for node in found.tree.walk()) == 9


def test_quantised_weights_are_parameters_and_sizes_are_not() -> None:
    graph = """(float[1,4] x) => (float[2,2] y)
    <int8[4,2] w = {1,1,1,1,1,1,1,1}, float s = {0.5}, int8 z = {0}, int64[2] to = {2,2}>
    {d = DequantizeLinear(w, s, z) m = MatMul(x, d) y = Expand(x, to)}"""
    assert counted(f"agraph {graph}").count.params == 8


def test_names_with_slashes_or_dots_make_the_tree_of_modules() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], name="/blocks/0/act/Relu"),
        helper.make_node("MatMul", ["a", "a"], ["b"], name="/blocks/1/MatMul"),
        helper.make_node("Sigmoid", ["b"], ["y"], name="head.act.sigmoid"),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 2]) for name in ("x", "y")]
    found = count(helper.make_model(helper.make_graph(nodes, "g", values[:1], values[1:])))
    names = [node.name for node in found.count.tree.walk()]
    assert names == [
        "", "blocks", "blocks.0", "blocks.0.act", "blocks.0.act.Relu", "blocks.1", "blocks.1.MatMul", "head", "head.act",
        "head.act.sigmoid",
    ]  # fmt: skip
    assert found.node_macs["/blocks/1/MatMul"] == 8


def test_modules_of_torchs_exporter_carry_their_names_and_classes(pictures: tuple[nn.Module, Tensor, onnx.ModelProto]) -> None:
    _, _, model = pictures
    kinds = {node.name: node.kind for node in count(model).count.tree.walk()}
    assert (kinds["depthwise"], kinds["group_norm"], kinds["fc"]) == ("Conv2d", "GroupNorm", "Linear")
    assert kinds["fc.node_linear"] == "Gemm"


def test_nodes_that_share_a_name_are_told_apart() -> None:
    node = [helper.make_node("MatMul", ["x", "x"], [result], name="same") for result in ("a", "y")]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 2]) for name in ("x", "y")]
    assert count(helper.make_model(helper.make_graph(node, "g", values[:1], values[1:]))).node_macs == {"a": 8, "y": 8}


def save(tmp_path: Path, graph: str) -> Path:
    path = tmp_path / "net.onnx"
    onnx.save(parser.parse_model(f'<ir_version: 10, opset_import: ["" : 20]> agraph {graph}'), str(path))
    return path


OPEN = "(float[N,3,H] x, float[N,4] z) => (float[N,M] y) {y = Relu(z) t = Sigmoid(x)}"


def test_a_fixed_dimension_is_not_to_be_changed(tmp_path: Path) -> None:
    path = save(tmp_path, OPEN)
    assert count_onnx(path, Workload((TensorSpec((2, 3, 5), name="x"),))).count.totals.arithmetic == Cost(0, 0, 30 + 8)
    assert count_onnx(path, Workload((TensorSpec((1, 3, 5)),), batch=2)).count.totals.arithmetic == Cost(0, 0, 30 + 8)
    for inputs, batch, text in (
        ((TensorSpec((2, 4, 5)),), None, r"input 'x' is \?x3x\?, not 2x4x5"),
        ((TensorSpec((2, 3)),), None, r"input 'x' is \?x3x\?, not 2x3"),
        ((TensorSpec((2, 3, 5)), TensorSpec((3, 4))), None, "can't be 2 and 3"),
        ((TensorSpec((2, 3, 5), name="q"),), None, "has no input 'q'"),
        ((TensorSpec((2, 3, 5)),) * 3, None, "3 inputs are given"),
        ((), 2, "leaves H open"),
    ):
        with pytest.raises(BadInput, match=text):
            count_onnx(path, Workload(inputs, batch))


def test_the_command_counts_a_file_in_the_record_of_every_model(tmp_path: Path) -> None:
    path = save(tmp_path, "(float[2,3] x, float[3,4] w) => (float[2,4] y) {y = MatMul(x, w)}")
    program = (
        "import sys; from mixbench.cli.app import main; code = main(sys.argv[1:]); sys.exit(code or ('torch' in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program, "flops", str(path), "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr  # and torch has stayed out
    result = json.loads(done.stdout)["models"][0]
    assert (result["device"], result["totals"]["macs"], result["totals"]["flops"]) == ("onnx", 24, 48)
    assert [item["operator"] for item in result["operators"]] == ["MatMul"]
    refused = subprocess.run([SCRIPT, "flops", str(path), "--verify", "torch"], capture_output=True, text=True)
    assert refused.returncode == 2
    assert "--verify is for PyTorch models" in refused.stderr


def test_a_file_stands_beside_a_model(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = save(tmp_path, "(float[2,3] x, float[3,4] w) => (float[2,4] y) {y = MatMul(x, w)}")
    assert main(["flops", str(path), "ghostnet-0.5x", "--reparameterised"]) == 0
    macs = next(line.split() for line in capfd.readouterr().out.splitlines() if line.startswith("MACs  "))
    assert macs == ["MACs", "24", "42,328,152"]


def test_a_files_time_stands_beside_what_the_machine_could_do(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = save(tmp_path, "(float[2,3] x) => (float[2,4] y) <float[3,4] w = {1,1,1,1,1,1,1,1,1,1,1,1}> {y = MatMul(x, w)}")
    assert main(["time", str(path), "--samples", "7", "--json"]) == 0
    (timed,) = json.loads(capfd.readouterr().out)["models"]
    assert timed["achieved"]["flops"] == 2 * 2 * 3 * 4
    assert timed["achieved"]["moved_bytes"] == 4 * (2 * 3 + 3 * 4 + 2 * 4)
    integers = save(tmp_path, "(int8[2,3] x) => (float[2,3] y) <float s = {0.5}> {y = DequantizeLinear(x, s)}")
    assert onnx_subject(integers, Workload(), 1).flops is None


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a model at all")
    with pytest.raises(BadInput, match="is no ONNX model"):
        count_onnx(broken)
    with pytest.raises(BadInput, match="can't be trained"):
        count_onnx(broken, Workload(mode="train"))
