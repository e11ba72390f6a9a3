"""Which parts of a graph runtimes take: counted as ONNX Runtime's partitioner does, by what the tables say, with reasons."""

import io
import json
import subprocess
import sys
import warnings
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, parser, shape_inference
from onnxruntime.tools.mobile_helpers import usability_checker as bundled_checker
from onnxruntime.tools.onnx_model_utils import get_producer_consumer_maps

from mixbench.cli.app import main
from mixbench.cli.portability import portability_of
from mixbench.export.portability.base import find, names
from mixbench.export.portability.caveats import _find, sentences
from mixbench.export.portability.graph import nodes_of
from mixbench.export.portability.partition import partitions
from mixbench.export.portability.record import RuntimeReport
from mixbench.export.portability.report import report
from mixbench.export.portability.runtimes import ort_cpu
from mixbench.export.portability.table import bundled, parsed
from mixbench.models.errors import CannotMeasure

SCRIPT = Path(sys.executable).with_name("mixbench")
TABLES = ("nnapi_supported_ops.md", "coreml_supported_mlprogram_ops.md", "coreml_supported_neuralnetwork_ops.md")


def graph(text: str, opset: int = 20) -> onnx.ModelProto:
    """A graph in ONNX's text form."""
    more = ', "com.microsoft" : 1, "my" : 1'
    return parser.parse_model(f'<ir_version: 10, opset_import: ["" : {opset}{more}]> agraph {text}')


def reports(model: onnx.ModelProto, macs: dict[str, int] | None = None) -> dict[str, RuntimeReport]:
    return {item.runtime: item for item in report(model, macs or {})}


def reason(model: onnx.ModelProto, runtime: str) -> str:
    """Why a runtime does not take the first operator that it doesn't take; empty if it takes all."""
    found = reports(model)[runtime]
    return found.breakers[0].reason if found.breakers else ""


DIAMOND = [frozenset[int](), frozenset({0}), frozenset({0}), frozenset({1, 2})]


def test_two_nodes_with_a_left_out_one_between_them_are_in_two_parts() -> None:
    assert partitions(DIAMOND, [True] * 4) == [[0, 1, 2, 3]]
    # Nodes 0 and 3 can't be together: the way from one to the other leaves the runtime.
    assert partitions(DIAMOND, [True, True, False, True]) == [[0, 1], [3]]
    assert partitions(DIAMOND, [False, True, True, True]) == [[1, 2, 3]]
    assert partitions(DIAMOND, [False] * 4) == []


def test_nodes_of_one_part_need_not_be_connected() -> None:
    assert partitions([frozenset(), frozenset()], [True, True]) == [[0, 1]]


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[frozenset[int]], list[bool]]:
    size = draw(st.integers(1, 12))
    reads = [draw(st.frozensets(st.integers(0, place - 1), max_size=3)) if place else frozenset[int]() for place in range(size)]
    return reads, draw(st.lists(st.booleans(), min_size=size, max_size=size))


@given(graphs())
def test_parts_can_be_put_in_an_order_and_are_as_many_as_onnx_runtime_counts(
    case: tuple[list[frozenset[int]], list[bool]],
) -> None:
    reads, taken = case
    parts = partitions(reads, taken)
    assert sorted(place for part in parts for place in part) == [place for place, mine in enumerate(taken) if mine]
    # Each part and each node left out is one vertex: what reads what among them must have no circle.
    home = {place: number for number, part in enumerate(parts) for place in part}
    vertex = [home.get(place, -1 - place) for place in range(len(reads))]
    sources = {own: {vertex[s] for p, v in enumerate(vertex) if v == own for s in reads[p]} - {own} for own in vertex}
    while free := [own for own, needed in sources.items() if not needed]:
        for own in free:
            del sources[own]
        sources = {own: needed - set(free) for own, needed in sources.items()}
    assert not sources
    assert len(parts) == _bundled_count(reads, taken)


def _bundled_count(reads: list[frozenset[int]], taken: list[bool]) -> int:
    """By the checker in the installed package, on a graph without shapes: Sum is taken, Mean is not."""
    nodes = [
        helper.make_node("Sum" if mine else "Mean", [f"t{source}" for source in sorted(sources)] or ["x"], [f"t{place}"])
        for place, (sources, mine) in enumerate(zip(reads, taken, strict=True))
    ]
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    results = [helper.make_tensor_value_info(f"t{place}", TensorProto.FLOAT, [1]) for place in range(len(reads))]
    made = helper.make_graph(nodes, "g", [value], results)
    makers, readers = get_producer_consumer_maps(made)

    class Checker:
        def is_op_supported(self, node: onnx.NodeProto) -> bool:
            return bool(node.op_type == "Sum")

    info = bundled_checker._check_partitioning_for_graph(made, makers, readers, Checker(), set(), False, {})
    return int(info.num_partitions)


RESIZE = """(float[1,3,4,4] x) => (float[1,3,8,8] y) <int64[4] to = {1, 3, 8, 8}> {
    a = Relu(x)
    b = Resize<mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor">(a, , , to)
    y = Relu(b)
}"""


def test_an_optional_input_that_is_left_out_is_not_a_dynamic_shape() -> None:
    found = reports(graph(RESIZE))
    for name in ("ort_cpu", "nnapi", "coreml_mlprogram", "coreml_neuralnetwork", "qnn"):
        assert (found[name].partitions, found[name].taken_nodes) == (1, 3), found[name].breakers
    model = shape_inference.infer_shapes(graph(RESIZE))
    assert bundled_checker.check_nnapi_partitions(model, True).num_partitions == 2  # what is not to be repeated


def test_an_operator_outside_the_table_breaks_the_graph_and_is_named() -> None:
    text = """(float[1,3,4,4] x, float[3,3,1,1] v) => (float[1,3,4,4] y) <float[3,3,1,1] w = {1,1,1,1,1,1,1,1,1}>
    {a = Conv(x, w) b = HardSigmoid(a) c = Mul(a, b) d = HardSigmoid(c) y = Mul(c, d)}"""
    found = reports(graph(text), {"a": 144, "b": 0})["nnapi"]
    assert (found.partitions, found.taken_nodes, found.nodes) == (3, 3, 5)
    assert (found.taken_macs, found.macs, found.whole) == (144, 144, False)
    (breaker,) = found.breakers
    assert (breaker.operator, breaker.nodes, breaker.partitions_if_mended) == ("HardSigmoid", ("b", "d"), 1)
    assert breaker.reason == "not among its operators"
    assert reports(graph(text))["coreml_mlprogram"].whole


def test_a_rewrite_that_mends_an_operator_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules["mixbench.export.portability.report"]
    monkeypatch.setattr(module, "mending", lambda: {"HardSigmoid": "hardsigmoid"})
    text = "(float[1,3] x) => (float[1,3] y) {a = Relu(x) b = HardSigmoid(a) c = Erf(b) y = Relu(c)}"
    found = {item.runtime: item for item in report(graph(text), {})}["nnapi"]
    assert {item.operator: item.rewrite for item in found.breakers} == {"HardSigmoid": "hardsigmoid", "Erf": ""}
    assert (found.partitions, found.partitions_if_rewritten) == (2, 2)  # Erf still stands between


def test_open_dimensions_keep_a_node_out_of_runtimes_of_fixed_shapes() -> None:
    text = "(float[N,3] x) => (float[N,3] y) {y = Relu(x)}"
    found = reports(graph(text))
    assert found["nnapi"].breakers[0].reason == found["qnn"].breakers[0].reason == "open dimensions: it takes fixed shapes only"
    assert found["coreml_mlprogram"].whole


def test_what_depends_on_constants_alone_is_no_node() -> None:
    text = """(float[2,3] x) => (float[2,3] y) <float[3] w = {1, 2, 3}> {a = Erf(w) b = Identity(x) y = Add(b, a)}"""
    assert [node.operator for node in nodes_of(graph(text))] == ["Add"]
    assert reports(graph(text))["nnapi"].whole


def test_what_a_branch_reads_from_outside_orders_the_parts() -> None:
    branch = "{n} = g () => (float[2] {r}) {{{r} = Abs(a)}}"
    branches = ", ".join((branch.format(n="then_branch", r="t"), branch.format(n="else_branch", r="e")))
    text = f"(float[2] x, bool c) => (float[2] y) {{a = Relu(x) b = If<{branches}>(c) y = Relu(b)}}"
    found = reports(graph(text))["nnapi"]
    assert (found.partitions, found.breakers[0].operator) == (2, "If")


REASONS = [
    ("nnapi", "(float[1,3,4,4,4] x) => (y) {y = MaxPool<kernel_shape = [2, 2, 2]>(x)}", "its input has 5 dimensions, not 4"),
    ("nnapi", "(float[1,2,4,4] x, float[2,2,1,1] w) => (y) {y = Conv(x, w)}", "its weight or bias is computed"),
    ("nnapi", "(float[5,2] x) => (a, b) {a, b = Split<num_outputs = 2>(x)}", "its 2 parts do not divide 5 evenly"),
    ("nnapi", "(float[6,2] x) => (a, b) <int64[2] s = {4, 2}> {a, b = Split(x, s)}", "it splits 6 into unequal parts: 4, 2"),
    ("nnapi", "(float[6,2] x) => (a, b) <int64[2] s = {3, 3}> {a, b = Split(x, s)}", ""),
    ("nnapi", "(float[2,3] x, float[3,4] w) => (y) {y = Gemm(x, w)}", "its B is computed and not transposed"),
    ("nnapi", "(float[2,3] x, float[4,3] w) => (y) {y = Gemm<transB = 1>(x, w)}", ""),
    ("nnapi", "(float[2,3] x, int64[1] i) => (y) {y = Gather(x, i)}", "its indices are computed, and not int32"),
    ("nnapi", "(float[1,4,2,2] x) => (y) {y = DepthToSpace<blocksize = 2, mode = \"CRD\">(x)}", "its mode is CRD, not DCR"),
    ("nnapi", "(float[2,3] x) => (y) <int64[4] p = {0, -1, 0, 0}> {y = Pad(x, p)}", "it pads by negative sizes"),
    ("nnapi", "(float[2,3] x, float s, uint8 z) => (y) {y = QuantizeLinear(x, s, z)}", "its scale or zero point is computed"),
    ("coreml_neuralnetwork", "(float[2,3] x, float[3,4] w) => (y) {y = MatMul(x, w)}", "its B is computed"),
    ("coreml_neuralnetwork", "(float[2,3] x) => (y) <int64 i = {0}> {y = Gather(x, i)}", "its indices are one scalar"),
    ("coreml_neuralnetwork", "(float[2,3] x) => (y) <int64[1] a = {1}> {y = ReduceSum(x, a)}", ""),
    ("coreml_neuralnetwork", "(float[1,1,1,1,1,2] x) => (y) {y = Relu(x)}", "more than 5 dimensions"),
    (
        "coreml_neuralnetwork",
        "(float[1,3,4,4] x) => (y) <int64[4] to = {1, 3, 8, 8}> {y = Resize<mode = \"linear\">(x, , , to)}",
        "its coordinate_transformation_mode is half_pixel, not asymmetric",
    ),
    (
        "coreml_neuralnetwork",
        "(float[1,3,4,4] x, int64[4] to) => (float[1,3,8,8] y) "
        "{y = Resize<coordinate_transformation_mode = \"asymmetric\", nearest_mode = \"floor\">(x, , , to)}",
        "its target size is computed, not a constant",
    ),
    ("coreml_neuralnetwork", "(float[2,3] x) => (y) {y = Shape<start = 1>(x)}", "it has start"),
    ("coreml_neuralnetwork", "(float[2,3] x, int64[1] a) => (y) {y = Slice(x, a, a)}", "its range is computed"),
    ("coreml_neuralnetwork", "(float[1,2,3,3] x) => (y) <float[3] s = {1,1,1}> {y = PRelu(x, s)}", "has the shape [3]"),
    ("coreml_mlprogram", "(float[2,3] x) => (y) {y = ArgMax(x)}", ""),
    ("coreml_mlprogram", "(float[2,3] x) => (y) {y = Neg(x)}", "not among its operators"),
    ("coreml_mlprogram", "(int64[2] x) => (y) {y = Pow(x, x)}", "input 0 is INT64, not float32"),
    (
        "coreml_mlprogram",
        "(float[2,2,3] x, int64[2,1] i) => (y) {y = GatherND<batch_dims = 1>(x, i)}",
        "its batch_dims is 1, not 0",
    ),
    ("qnn", "(float[2,3] x) => (y) <int64[1] i = {-1}> {y = Gather(x, i)}", "it has negative indices"),
    ("qnn", "(float[1,8,1] x) => (y) {y = DFT(x)}", "not among its operators"),
    ("qnn", "(float[2,3] x) => (y) {y = LpNormalization<p = 1>(x)}", "its p is 1, not 2"),
    ("xnnpack", "(float[1,3,4,4] x) => (y) {y = AveragePool<kernel_shape = [2,2], count_include_pad = 1>(x)}", "is 1, not 0"),
    ("xnnpack", "(float[1,3,4,4] x) => (y) {y = AveragePool<kernel_shape = [1,1]>(x)}", "its kernel is 1 x 1"),
    ("xnnpack", "(float[2,3] x) => (y) {y = Softmax<axis = 0>(x)}", "it is over axis 0, not the last"),
    ("xnnpack", "(float[2,3] x) => (y) {y = Relu(x)}", "taken right behind Conv, MaxPool, AveragePool only"),
    ("xnnpack", "(float[1,3,4,4] x) => (y) {a = MaxPool<kernel_shape = [2, 2]>(x) y = Relu(a)}", ""),
]  # fmt: skip


@pytest.mark.parametrize(
    ("runtime", "text", "expected"), REASONS, ids=[f"{r}-{t[t.rindex('{') :][:30]}" for r, t, _ in REASONS]
)
def test_a_remark_of_a_table_is_checked(runtime: str, text: str, expected: str) -> None:
    found = reason(graph(text), runtime)
    assert (expected in found) if expected else (found == "")


def test_every_sentence_of_the_installed_tables_is_checked_or_known_to_be_unchecked() -> None:
    unknown = {
        sentence
        for name in TABLES
        for remark in bundled(name, "it").remarks.values()
        for sentence in sentences(remark)
        if _find(sentence) is None
    }
    assert unknown == {
        "See resize_op_builder.cc implementation",
        "kernel_shape must have default values",
        "'mode' of 'linear' or 'zeros'",
        "(mode==linear && padding_mode==reflection && align_corners==0) is not supported",
        "Only support for transA == 0, alpha == 1.0 and beta == 1.0 is currently implemented",
        "this ask for a epislon (default 1e-4) where onnx don't provide",
        "repeats may be a constant initializer or a runtime tensor (MLProgram only)",
        "Input rank up to 5",
        "Produced by ORT's QuickGeluFusion optimizer pass",
        "Decomposed into mul / sigmoid / mul",
        "Produced by ORT's ConvActivationFusion pass",
        "Decomposed into conv + the fused activation (Relu, Sigmoid, Tanh, LeakyRelu, Clip, HardSigmoid)",
    }


def test_a_node_that_makes_no_sense_is_left_out_and_no_traceback() -> None:
    assert (
        reason(graph("(float[2,3] x) => (float[1] a, float[1] b) {a, b = Split<axis = 7>(x)}"), "nnapi")
        == "it is not understood"
    )


def test_an_unchecked_sentence_is_passed_on() -> None:
    found = reports(graph(RESIZE))["coreml_mlprogram"]
    assert found.unchecked == ("Resize: See resize_op_builder.cc implementation",)


def test_rows_with_a_dot_for_the_colon_and_names_in_another_case_are_read() -> None:
    text = "|Operator|Note|\n|--|--|\n|ai.onnx:Argmax||\n|ai.onnx.ReduceSum|x|\n|com.microsoft:QuickGelu||\n"
    assert parsed(text) == {"argmax": "", "reducesum": "x", "com.microsoft::quickgelu": ""}


def test_a_table_that_is_not_there_is_an_answer_and_no_traceback() -> None:
    with pytest.raises(CannotMeasure, match=r"has no table other\.md of the operators that X takes"):
        bundled("other.md", "X")


SESSIONS = [
    ("(float[1,8,1] x) => (float[1,5,2] y) {y = DFT<onesided = 1>(x)}", True),
    ("(float16[1,8,1] x) => (float16[1,5,2] y) {y = DFT<onesided = 1>(x)}", True),  # cast
    ("(float[2,3] x) => (float[2,3] y) {y = HardSwish(x)}", True),  # by other operators
    ("(float[2,3] x) => (float[2,3] y) {y = my.Magic(x)}", False),
    ("(bfloat16[2,3] x) => (bfloat16[2,3] y) {y = Sin(x)}", False),
    ("(double[1,2,4,4] x, double[2,2,1,1] w) => (double[1,2,4,4] y) {y = Conv(x, w)}", False),
    ("(int32[2,3] x, int32[3,2] w) => (int32[2,2] y) {y = MatMul(x, w)}", True),
    ("(int8[2,3] x, int8[3,2] w) => (int8[2,2] y) {y = MatMul(x, w)}", False),
]


@pytest.mark.parametrize(("text", "runs"), SESSIONS)
def test_onnx_runtimes_own_word_agrees_with_its_sessions(text: str, runs: bool) -> None:
    model = graph(text)
    try:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        opened = True
    except Exception:  # noqa: BLE001 - ONNX Runtime has an exception class for each status
        opened = False
    assert opened == runs
    assert reports(model)["ort_cpu"].whole == runs


def test_a_kernel_without_a_last_version_is_for_no_later_form_of_its_operator() -> None:
    newest = 2**31 - 1
    assert ort_cpu._is_for(13, 13, newest)
    assert not ort_cpu._is_for(22, 13, newest)
    assert ort_cpu._is_for(9, 7, 12)
    assert not ort_cpu._is_for(13, 7, 12)


def test_every_runtime_says_where_its_list_is_from() -> None:
    assert names()[0] == "ort_cpu"
    assert set(names()) == {"ort_cpu", "nnapi", "coreml_mlprogram", "coreml_neuralnetwork", "qnn", "xnnpack"}
    for name in names():
        assert any(mark in find(name).table().source for mark in ("installed ONNX Runtime 1.", "https://"))
    assert "deprecated since Android 15" in find("nnapi").notes[0]
    assert ort_cpu._KERNELS["Conv"]


def test_a_file_gets_a_record_and_a_table(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "net.onnx"
    text = """(float[1,3,4,4] x) => (float[1,3,4,4] y) <float[3,3,1,1] w = {1,1,1,1,1,1,1,1,1}>
    {a = Conv(x, w) b = HardSigmoid(a) y = Mul(a, b)}"""
    onnx.save(graph(text), str(path))
    words = ["export", str(path), "--report"]
    record = json.loads(subprocess.run([SCRIPT, *words, "--json"], capture_output=True, text=True, check=True).stdout)
    assert record["artifacts"] == []
    nnapi = next(item for item in record["portability"] if item["runtime"] == "nnapi")
    assert (nnapi["partitions"], nnapi["macs"], nnapi["breakers"][0]["nodes"]) == (2, 144, ["b"])
    assert nnapi["breakers"][0]["rewrite"] == "hardsigmoid"
    assert main(words) == 0
    shown = capfd.readouterr().out
    assert "NNAPI (Android): HardSigmoid, b: not among its operators; 1 part without it" in shown
    assert "nothing: it takes all in one piece" in shown


def test_the_view_and_the_record_load_nothing_heavy() -> None:
    program = "import sys, mixbench.cli.views.portability_view; assert not {'torch', 'onnx', 'onnxruntime'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_unused_weights_beside_the_file_are_not_read(tmp_path: Path) -> None:
    weight = onnx.numpy_helper.from_array(np.ones((3, 3, 1, 1), np.float32), "w")
    model = graph("(float[1,3,4,4] x, float[3,3,1,1] w) => (float[1,3,4,4] y) {y = Conv(x, w)}")
    del model.graph.input[1]
    model.graph.initializer.append(weight)
    path = tmp_path / "net.onnx"
    onnx.save_model(model, str(path), save_as_external_data=True, location="net.data", size_threshold=0)
    assert all(item.whole for item in portability_of(path))


def _ghostnetv2() -> onnx.ModelProto:
    import torch

    import mixbench
    from mixbench.models.reparameterise import reparameterise

    module = reparameterise(mixbench.build("ghostnetv2", device="cpu").module)
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(module, (torch.zeros(1, 3, 224, 224),), dynamo=True, opset_version=20, verbose=False)
    assert program is not None
    return program.model_proto


@pytest.mark.slow
def test_ghostnetv2_is_one_part_and_eight_with_hardsigmoid_as_an_operator() -> None:
    model = _ghostnetv2()
    found = reports(model)
    assert {name: found[name].partitions for name in ("nnapi", "coreml_mlprogram", "qnn", "ort_cpu")} == dict.fromkeys(
        ("nnapi", "coreml_mlprogram", "qnn", "ort_cpu"), 1
    )
    assert (found["coreml_neuralnetwork"].partitions, found["coreml_neuralnetwork"].breakers[0].operator) == (9, "ReduceMean")
    gates = _with_hardsigmoid(model)
    found = reports(gates)
    assert len(nodes_of(gates)) == 307
    assert (found["nnapi"].partitions, found["nnapi"].breakers[0].partitions_if_mended) == (8, 1)
    assert (found["coreml_neuralnetwork"].partitions, found["coreml_mlprogram"].partitions) == (16, 1)


def _with_hardsigmoid(model: onnx.ModelProto) -> onnx.ModelProto:
    """Each Add-Clip-Div of a gate as the one operator that it is in other implementations."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    makers = {node.output[0]: node for node in made.graph.node}
    gone, nodes = set(), []
    for node in made.graph.node:
        if node.op_type == "Div":
            clip = makers[node.input[0]]
            add = makers[clip.input[0]]
            gone |= {clip.output[0], add.output[0]}
            (source,) = (name for name in add.input if name in makers)
            node = helper.make_node("HardSigmoid", [source], node.output, alpha=1 / 6, beta=0.5)  # noqa: PLW2901
        nodes.append(node)
    kept = [node for node in nodes if node.output[0] not in gone]
    del made.graph.node[:]
    made.graph.node.extend(kept)
    return made
