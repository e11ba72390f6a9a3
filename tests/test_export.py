"""A model leaves as a verified file or not at all; what the file holds; what is said of models that can't leave."""

import hashlib
import io
import json
import os
import resource
import signal
import subprocess
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from mixbench.cli.app import main
from mixbench.export import capture as capturing
from mixbench.export import deliver as delivering
from mixbench.export import graph as graphs
from mixbench.export.artifact import Artifact
from mixbench.export.capture import capture, describe
from mixbench.export.deliver import deliver
from mixbench.export.graph import Graph, to_graph
from mixbench.export.graph_checks import decides
from mixbench.export.opset import OPSETS
from mixbench.export.quiet import quiet
from mixbench.export.samples import calibrate_norms, draw
from mixbench.export.source import Source
from mixbench.export.targets import base
from mixbench.export.targets.base import Target, find
from mixbench.export.verify import compare, expect, verify
from mixbench.models.case import Case, build
from mixbench.models.errors import BadInput, CheckFailed
from mixbench.models.spec import Workload

ROOT = Path(__file__).resolve().parent.parent
NETS = Path(__file__).with_name("export_nets.py")
SCRIPT = Path(sys.executable).with_name("mixbench")


def case_of(net: str, **changes: Any) -> Case:
    return build(f"{NETS}:{net}", Workload(**changes), "cpu")


def ship(net: str, output: Path, dynamic: tuple[str, ...] = (), target: Target | None = None, opset: int = 20) -> Artifact:
    source = capture(case_of(net), dynamic=dynamic)
    graph = to_graph(source, opset)
    return deliver("onnx", target or find("onnx"), source, graph, expect(source, decides(graph.model)), output)


@dataclass(frozen=True)
class Shipped:
    case: Case
    source: Source
    graph: Graph
    artifact: Artifact
    path: Path


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Shipped:
    """The small network, exported once with an open batch."""
    path = tmp_path_factory.mktemp("shipped") / "small.onnx"
    case = case_of("Small")
    source = capture(case, dynamic=["batch"])
    graph = to_graph(source)
    artifact = deliver("onnx", find("onnx"), source, graph, expect(source), path)
    return Shipped(case, source, graph, artifact, path)


def test_the_file_gives_what_the_model_gives_at_other_batches(shipped: Shipped) -> None:
    net = shipped.source.reference
    session = onnxruntime.InferenceSession(str(shipped.path), providers=["CPUExecutionProvider"])
    for batch in (1, 2, 5):
        image = torch.randn(batch, 3, 16, 16, generator=torch.Generator().manual_seed(batch))
        with torch.no_grad():
            logits, enlarged = net(image)
        found = session.run(["logits", "image_out"], {"image": image.numpy()})
        np.testing.assert_allclose(found[0], logits.numpy(), atol=1e-5)
        np.testing.assert_allclose(found[1], enlarged.numpy(), atol=1e-5)


def test_the_record_says_what_lies_there(shipped: Shipped) -> None:
    made = shipped.artifact
    content = shipped.path.read_bytes()
    model = onnx.load(str(shipped.path))
    assert made.sha256 == hashlib.sha256(content).hexdigest()
    assert made.files == {"small.onnx": len(content)} and made.bytes == len(content)
    assert (made.opset, made.ir) == (20, 10) == (model.opset_import[0].version, model.ir_version)
    assert sum(made.operators.values()) == len(model.graph.node)
    assert made.inputs[0].shape == ("batch", 3, 16, 16) and made.dynamic == ("batch",)
    assert [value.name for value in made.outputs] == ["logits", "image_out"]
    assert made.metadata == {entry.key: entry.value for entry in model.metadata_props}
    verification = made.verification
    assert verification is not None and verification.passed
    assert {tuple(check.sizes.items()) for check in verification.checks} == {(), (("batch", 3),)}
    assert 0 < verification.max_abs_error <= verification.tolerance < 1e-4
    assert verification.dependence is not None and verification.dependence > 0.01


def test_norms_are_folded_and_nodes_bear_their_modules_names(shipped: Shipped) -> None:
    model = onnx.load(str(shipped.path))
    assert "BatchNormalization" not in shipped.artifact.operators
    names = {node.op_type: node.name.partition("/")[0] for node in model.graph.node}
    assert names["Conv"] in ("conv", "norm") and names["Gemm"] == "head" and names["Resize"] == ""


def test_nothing_in_the_file_tells_of_this_machine(shipped: Shipped) -> None:
    content = shipped.path.read_bytes()
    for word in (str(NETS), "export_nets", str(Path.home()), ".py", "stack_trace", "pkg.torch"):
        assert word.encode() not in content, word
    model = onnx.load(str(shipped.path))
    assert model.producer_name == "mixbench"
    values = (*model.graph.node, *model.graph.input, *model.graph.value_info, *model.graph.initializer)
    assert not any(item.metadata_props or item.doc_string for item in values)


def test_metadata_names_the_model_and_its_weights(shipped: Shipped) -> None:
    said = shipped.artifact.metadata
    assert said["model"] == "Small"
    assert said["inputs"] == '{"image": "1x3x16x16 float32"}'
    assert said["batch_norms"].startswith("never trained")
    assert float(said["verified_max_abs_error_below"]) > shipped.artifact.verification.max_abs_error  # type: ignore[union-attr]
    again = capture(case_of("Small"))
    assert again.metadata["weights_sha256"] == said["weights_sha256"]
    assert capture(case_of("Small", seed=1)).metadata["weights_sha256"] != said["weights_sha256"]


def test_a_familys_file_says_how_images_become_inputs() -> None:
    case = build("ghostnetv2-0.5x", device="cpu", num_classes=3)
    said = describe(case, case.module, {"x": case.args[0]})
    assert said["input_layout"] == "NCHW, RGB" and json.loads(said["input_range"]) == [0, 1]
    assert json.loads(said["mean"]) == [0.485, 0.456, 0.406] and said["crop"] == "224" and said["resize"] == "256"
    assert said["paper_url"] == "https://arxiv.org/abs/2211.12905" and said["weights"] == "random"
    assert json.loads(said["settings"]) == {"num_classes": 3, "width": 0.5}


@pytest.mark.slow
@pytest.mark.parametrize("opset", OPSETS)
def test_every_opset_comes_out_as_asked(opset: int, tmp_path: Path) -> None:
    assert ship("Small", tmp_path / "small.onnx", opset=opset).opset == opset


@pytest.mark.parametrize("opset", [11, 17, 26])
def test_an_opset_that_torch_would_change_is_refused(shipped: Shipped, opset: int) -> None:
    with pytest.raises(BadInput, match=f"opset {opset}"):
        to_graph(shipped.source, opset)


def test_names_come_from_parameters_and_containers(tmp_path: Path) -> None:
    made = ship("Named", tmp_path / "named.onnx")
    assert [value.name for value in made.inputs] == ["x", "scale"]
    assert [value.name for value in made.outputs] == ["y", "x_out", "more_0", "more_1_0"]
    assert "flag=True is fixed in the file" in made.notes and "count is no tensor and left out of the results" in made.notes


FAULTS = {
    "Branch": ("depends on a tensor's values", "torch.where or torch.cond", "if x.sum() > 0"),
    "Unsupported": ("no ONNX form of aten._linalg_svd", "rewrite", "in inner, "),
    "WrongShape": ("mat1 and mat2", "--input", "F.relu(self.linear(x))"),
    "Own": ("export_nets.own has no fake", "register_fake", "torch.ops.export_nets.own"),
    "Dropping": ("training mode", "training=self.training", ""),
    "Random": ("draws random numbers", "as an input", ""),
}


@pytest.mark.parametrize("net", FAULTS)
def test_a_model_that_cannot_leave_is_explained_with_the_users_line(net: str) -> None:
    fault, remedy, line = FAULTS[net]
    with pytest.raises(BadInput) as caught:
        to_graph(capture(case_of(net)))
    assert fault in caught.value.what and line in caught.value.what
    assert not line or "export_nets.py:" in caught.value.what
    assert remedy in caught.value.hint
    assert len(caught.value.what) < 300


def test_an_open_dimension_that_a_loop_fixes_is_an_error() -> None:
    with pytest.raises(BadInput, match="turns one of them into a number"):
        to_graph(capture(case_of("Loop"), dynamic=["batch"]))


def test_a_result_that_grows_with_an_open_size_is_declared_open(tmp_path: Path) -> None:
    made = ship("Recurrent", tmp_path / "net.onnx", ("batch", "seq"))
    (declared,) = onnx.load(str(tmp_path / "net.onnx")).graph.output
    assert [size.dim_param or size.dim_value for size in declared.type.tensor_type.shape.dim] == ["batch", "seq", 4]
    assert made.outputs[0].shape == ("batch", "seq", 4)


def test_a_model_that_remembers_its_calls_is_no_file_and_the_reason_is_said(tmp_path: Path) -> None:
    with pytest.raises(CheckFailed) as caught:
        ship("Counting", tmp_path / "net.onnx")
    assert "forward changes the model's own buffers (calls)" in caught.value.hint
    case = case_of("Caching")
    source = capture(case)
    assert source.mutated == ("last",) and any("own buffers (last)" in note for note in source.notes)
    assert not bool(case.module.get_buffer("last").any()) and not bool(source.reference.get_buffer("last").any())


def test_complex_numbers_are_refused_early() -> None:
    for net, side in (("Spectral", "input x"), ("Phase", "a result")):
        with pytest.raises(BadInput, match=f"{side} is complex"):
            capture(case_of(net))


def test_a_norm_without_statistics_is_noted() -> None:
    assert any("no statistics of its own (norm)" in note for note in capture(case_of("Statless")).notes)


def test_what_others_print_is_caught_wherever_python_writes(capfd: pytest.CaptureFixture[str]) -> None:
    """In a notebook sys.stdout is no file; and who keeps the stream, as a log does, may write to it later."""
    cell = io.StringIO()
    with redirect_stdout(cell):
        with quiet() as text:
            kept = sys.stdout
            sys.stdout.write("python")
            os.write(1, b" and C")
            assert text() == "python and C"
        kept.write("later")
    assert cell.getvalue() == "later" and capfd.readouterr().out == ""


def test_a_dimension_that_comes_back_fixed_is_an_error(shipped: Shipped) -> None:
    """The exporter may fix one without a word, so the file is read back; here it is told of one that was never opened."""
    with pytest.raises(BadInput, match=r"seq \(dimension 2 of image\) was fixed to 16"):
        from mixbench.export.axes import check_open

        check_open(shipped.graph.model, {"image": {2: "seq"}})


def test_a_size_that_depends_on_values_is_noted(tmp_path: Path) -> None:
    made = ship("Picking", tmp_path / "picking.onnx")
    assert any("NonZero" in note and "size depends on values" in note for note in made.notes)


def test_train_mode_is_refused_and_a_part_left_in_it_is_not() -> None:
    with pytest.raises(BadInput, match="train mode"):
        capture(build(f"{NETS}:Rows", Workload(mode="train"), "cpu"))
    case = case_of("Stuck")
    case.module.train()
    source = capture(case)
    assert not any(part.training for part in source.module.modules())
    assert case.module.training  # the caller's own


def test_other_dtypes_are_refused() -> None:
    with pytest.raises(BadInput, match="float64"):
        capture(build(f"{NETS}:Rows", Workload(dtype="float64"), "cpu"))


# -- verification


def test_norms_without_data_are_calibrated_and_trained_ones_left_alone() -> None:
    linear = nn.Linear(4, 4)
    fresh = nn.Sequential(linear, nn.BatchNorm1d(4)).eval()
    x = {"x": torch.tensor([[1.0, 2.0, 3.0, 6.0]])}
    calibrated, count = calibrate_norms(fresh, x)
    norm, before = (module.get_buffer("1.running_mean") for module in (calibrated, fresh))
    assert count == 1 and not calibrated.training
    assert bool(norm.all()) and not bool(before.any())
    # Four batches of eight, normal with the example's mean of 3 and its deviation, which is sqrt(14 / 3).
    generators = [torch.Generator().manual_seed(seed) for seed in range(1, 5)]
    seen = torch.cat([torch.randn(8, 4, generator=generator) * (14 / 3) ** 0.5 + 3 for generator in generators])
    with torch.no_grad():
        torch.testing.assert_close(norm, linear(seen).mean(0), rtol=1e-5, atol=1e-6)
    fresh.train()
    fresh(torch.randn(8, 4))
    fresh.eval()
    same, count = calibrate_norms(fresh, x)
    assert same is fresh and count == 0


def test_a_network_whose_signal_has_died_proves_nothing(tmp_path: Path) -> None:
    with pytest.raises(CheckFailed, match="two different inputs give outputs that differ by") as caught:
        ship("Dead", tmp_path / "dead.onnx")
    assert caught.value.exit_code == 1
    assert not list(tmp_path.iterdir())


def test_a_wrong_rewrite_of_the_graph_is_caught_and_its_operator_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(model: onnx.ModelProto, keep: Any) -> tuple[str, ...]:
        node = next(node for node in model.graph.node if node.op_type == "Relu")
        node.op_type = "Softplus"
        return ("wrong",)

    monkeypatch.setattr(graphs, "rewrite_graph", wrong)
    (tmp_path / "rows.onnx").write_bytes(b"before")
    with pytest.raises(CheckFailed, match=r"differ from torch's by .* dB") as caught:
        ship("Rows", tmp_path / "rows.onnx")
    assert "the first operator whose output departs is Softplus" in caught.value.hint
    assert [path.name for path in tmp_path.iterdir()] == ["rows.onnx"]
    assert (tmp_path / "rows.onnx").read_bytes() == b"before"


def test_a_wrong_rewrite_of_a_module_is_caught_and_the_module_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(module: nn.Module, keep: Any) -> tuple[nn.Module, tuple[str, ...]]:
        module.head.weight.mul_(1.01)  # type: ignore[union-attr, operator]
        return module, ("wrong",)

    monkeypatch.setattr(capturing, "rewrite_module", wrong)
    with pytest.raises(CheckFailed) as caught:
        ship("Small", tmp_path / "small.onnx")
    assert "differs already in torch, first in module head (Linear)" in caught.value.hint


def test_the_tolerance_follows_torchs_own_rounding(shipped: Shipped) -> None:
    """A network that amplifies rounding is given more room, and an error that rounding does not explain fails in both."""
    expectation = expect(shipped.source)
    exact = {id(sample.inputs): sample.expected for sample in expectation.samples}

    def off(by: float) -> Any:
        return lambda feeds: [array + by * np.float32(np.abs(array).max()) for array in exact[id(feeds)]]

    assert verify(off(0.0), expectation).passed
    assert verify(off(3e-7), expectation).passed
    assert not verify(off(1e-4), expectation).passed
    rough = replace(
        expectation, samples=tuple(replace(s, own_error=tuple(1e-3 for _ in s.expected)) for s in expectation.samples)
    )
    assert verify(off(1e-4), rough).passed


def test_a_jump_where_a_last_bit_decides_is_forgiven_on_a_minority_only() -> None:
    source = capture(case_of("Hash"))
    graph = to_graph(source)
    assert decides(graph.model)
    expectation = expect(source, decides=True)
    assert len(expectation.samples) == 7

    def jumping(count: int) -> Any:
        bad = {id(sample.inputs) for sample in expectation.samples[:count]}
        exact = {id(sample.inputs): sample.expected for sample in expectation.samples}
        return lambda feeds: [array + (1.0 if id(feeds) in bad else 0.0) for array in exact[id(feeds)]]

    assert verify(jumping(3), expectation).passed
    assert not verify(jumping(4), expectation).passed
    assert not verify(jumping(1), replace(expectation, decides=False)).passed
    # A jump in torch itself loosens nothing.
    first, *rest = expectation.samples
    jumped = replace(first, own_error=(1.0,))
    assert not verify(jumping(4), replace(expectation, samples=(jumped, *rest))).passed


def test_reduced_precision_is_judged_by_its_ratio(shipped: Shipped) -> None:
    expectation = expect(shipped.source)
    exact = {id(sample.inputs): sample.expected for sample in expectation.samples}
    coarse = lambda feeds: [array * np.float32(1.001) for array in exact[id(feeds)]]  # noqa: E731 - 60 dB
    assert verify(coarse, expectation, min_snr_db=59).passed
    assert not verify(coarse, expectation, min_snr_db=61).passed


def test_comparison_knows_infinities_and_shapes() -> None:
    a = np.array([1.0, np.inf, np.nan])
    assert compare(a, a.copy()) == (0.0, None)
    assert compare(a, np.array([1.0, 2.0, np.nan]))[0] == np.inf
    assert compare(a, a[:2])[0] == np.inf
    error, snr = compare(np.array([3.0, 4.0]), np.array([3.0, 4.5]))
    assert error == 0.5 and snr == pytest.approx(20.0)  # 25 over 0.25


def test_draws_have_generators_of_their_own(shipped: Shipped) -> None:
    torch.manual_seed(1)
    first = draw(shipped.source, 3)["image"]
    state = torch.random.get_rng_state()
    torch.manual_seed(2)
    assert torch.equal(first, draw(shipped.source, 3)["image"])
    assert not torch.equal(first, draw(shipped.source, 4)["image"])
    torch.manual_seed(1)
    assert torch.equal(state, torch.random.get_rng_state())
    assert draw(shipped.source, 1, {"batch": 3})["image"].shape == (3, 3, 16, 16)


# -- files


def test_large_weights_lie_beside_the_file_under_their_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "LIMIT_BYTES", 10_000)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    one, other = (ship("Large", tmp_path / name / f"{name}.onnx") for name in ("a", "b"))
    main, beside = one.files
    assert main == "a.onnx" and beside.startswith("weights-") and one.files[beside] > 4 * 48_000
    assert list(other.files) == ["b.onnx", beside] and one.sha256 == other.sha256
    model = onnx.load(str(tmp_path / "a" / "a.onnx"), load_external_data=False)
    places = {entry.value for tensor in model.graph.initializer for entry in tensor.external_data if entry.key == "location"}
    assert places == {beside}
    assert one.verification is not None and one.verification.passed
    moved = tmp_path / "moved"
    (tmp_path / "a").rename(moved)
    onnxruntime.InferenceSession(str(moved / "a.onnx"), providers=["CPUExecutionProvider"])


def fake(convert: Any, **changes: Any) -> Target:
    return replace(find("onnx"), title="Fake", convert=convert, **changes)


def test_a_converter_that_writes_nothing_has_failed(shipped: Shipped, tmp_path: Path) -> None:
    with pytest.raises(CheckFailed, match="wrote nothing"):
        deliver_fake(shipped, tmp_path, fake(lambda source, model, folder: folder / "none"))

    def rubbish(source: Source, model: onnx.ModelProto, folder: Path) -> Path:
        (folder / "model.onnx").write_bytes(b"rubbish")
        return folder / "model.onnx"

    with pytest.raises(CheckFailed, match="does not open it"):
        deliver_fake(shipped, tmp_path, fake(rubbish))
    assert not list(tmp_path.iterdir())


def deliver_fake(shipped: Shipped, folder: Path, target: Target) -> Artifact:
    return deliver("fake", target, shipped.source, shipped.graph, expect(shipped.source), folder / "out.fake")


def test_what_nobody_here_can_run_is_labelled(shipped: Shipped, tmp_path: Path) -> None:
    def folder_format(source: Source, model: onnx.ModelProto, folder: Path) -> Path:
        (folder / "model.fake").mkdir()
        (folder / "model.fake" / "part").write_bytes(b"part")
        return folder / "model.fake"

    for _ in range(2):  # the second replaces the first
        made = deliver_fake(shipped, tmp_path, fake(folder_format, open=None, folder=True))
    assert made.verification is None and made.runtime == "" and made.files == {"out.fake/part": 4}
    assert "not verified: nothing on this machine runs Fake" in made.notes
    assert [path.name for path in tmp_path.iterdir()] == ["out.fake"]


def test_open_sizes_are_refused_by_a_format_that_has_none(shipped: Shipped, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="fixes all sizes"):
        deliver_fake(shipped, tmp_path, fake(None, dynamic=False))


# -- the command


WORDS = ["export", "nets.py:Small", "-o", "net.onnx", "--labels", "../labels.txt", "--licence", "MIT", "--json"]


def make_nets(folder: Path, *names: str) -> None:
    """A folder for each name with the nets, whose own operators can be registered once only."""
    (folder / "labels.txt").write_text("a\nb\nc\nd\ne\n")
    for name in names:
        (folder / name).mkdir()
        (folder / name / "nets.py").write_text(NETS.read_text().replace("export_nets::", f"{name}::"))


def test_the_record_in_two_folders_is_the_same_and_follows_the_schema(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    make_nets(tmp_path, "one", "two")
    records = []
    for name in ("one", "two"):
        monkeypatch.chdir(tmp_path / name)
        assert main(WORDS) == 0
        records.append(json.loads(capfd.readouterr().out))
    record, other = records
    assert record == other
    jsonschema.validate(record, json.loads((ROOT / "export" / "export-1.schema.json").read_text()))
    ours, theirs = ((tmp_path / name / "net.onnx").read_bytes() for name in ("one", "two"))
    (made,) = record["artifacts"]
    assert made["sha256"] == hashlib.sha256(ours).hexdigest() == hashlib.sha256(theirs).hexdigest()
    assert json.loads(made["metadata"]["labels"]) == ["a", "b", "c", "d", "e"] and made["metadata"]["licence"] == "MIT"
    # 8 x 3 x 9 taps on 256 pixels and the head; the convolution's bias and the norm are no MACs.
    assert made["metadata"]["macs"] == str(8 * 3 * 9 * 256 + 8 * 5)
    assert made["metadata"]["params"] == str(8 * 3 * 9 + 8 + 16 + 8 * 5 + 5)


@pytest.mark.slow
def test_two_processes_in_two_folders_write_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The command from end to end: the installed script, and its parts here; other hash seed, folder, threads, file."""
    make_nets(tmp_path, "here", "there")
    environment = os.environ | {"PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "2"}
    done = subprocess.run([SCRIPT, *WORDS], capture_output=True, text=True, cwd=tmp_path / "there", env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    monkeypatch.chdir(tmp_path / "here")
    assert main(WORDS) == 0
    assert json.loads(done.stdout) == json.loads(capfd.readouterr().out)
    ours, theirs = ((tmp_path / name / "net.onnx").read_bytes() for name in ("here", "there"))
    assert ours == theirs


def test_an_interruption_leaves_the_old_file(shipped: Shipped, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*given: Any) -> None:
        raise KeyboardInterrupt

    (tmp_path / "out.fake").write_bytes(b"before")
    monkeypatch.setattr(delivering, "verify", interrupt)
    with pytest.raises(KeyboardInterrupt):
        deliver_fake(shipped, tmp_path, find("onnx"))
    assert [path.name for path in tmp_path.iterdir()] == ["out.fake"]
    assert (tmp_path / "out.fake").read_bytes() == b"before"


KILLED = """
import os, signal, sys
import mixbench.export.deliver as delivering
from mixbench.cli.app import main
delivering.verify = lambda *given, **named: os.kill(os.getpid(), signal.SIGKILL)
main(["export", sys.argv[1], "-o", "rows.onnx"])
"""


@pytest.mark.slow
def test_killed_in_the_middle_the_old_file_stays(tmp_path: Path) -> None:
    (tmp_path / "rows.onnx").write_bytes(b"before")
    done = subprocess.run([sys.executable, "-c", KILLED, f"{NETS}:Rows"], cwd=tmp_path, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert (tmp_path / "rows.onnx").read_bytes() == b"before"


def test_a_full_disk_is_said_and_the_old_file_stays(shipped: Shipped, tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk: the system refuses to write on in the same way."""
    (tmp_path / "out.fake").write_bytes(b"before")
    expectation = expect(shipped.source)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, hard))
    try:
        with pytest.raises(BadInput, match=r"cannot write '.*out.fake': the disk is full"):
            deliver("onnx", find("onnx"), shipped.source, shipped.graph, expectation, tmp_path / "out.fake")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == ["out.fake"]
    assert (tmp_path / "out.fake").read_bytes() == b"before"


REFUSED = {
    ("ghostnetv2", "-o", "no/such/x.onnx"): "there is no folder 'no/such'",
    ("ghostnetv2", "--opset", "17"): "opset 17 can't be exported to",
    ("ghostnetv2", "--keep", "nothing"): "no rewrite named 'nothing'",
    ("ghostnetv2", "--to", "rubbish"): "no export target named 'rubbish'",
    ("ghostnetv2", "--labels", "none.txt"): "labels can't be read from 'none.txt'",
    ("ghostnetv2", "--weights", "none.pth"): "there is no file 'none.pth'",
    ("net.onnx",): "is an ONNX file already",
}


def test_all_formats_make_one_table_and_a_refusal_is_no_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(source: Source, model: onnx.ModelProto, folder: Path) -> Path:
        sys.stdout.write("the converter's own words")
        raise RuntimeError("it takes no Relu")

    formats = {"onnx": find("onnx"), "fake": fake(refuse, suffix=".fake"), "missing": fake(refuse, needs=("no_such",))}
    monkeypatch.setattr(base, "names", lambda: list(formats))
    monkeypatch.setattr(base, "find", formats.__getitem__)
    monkeypatch.chdir(tmp_path)
    assert main(["export", f"{NETS}:Rows", "-o", "rows.any", "--to", "all"]) == 0
    printed = capfd.readouterr()
    assert printed.err == ""
    head, row = (line for line in printed.out.splitlines()[1:] if line[:6] in ("format", "onnx  "))
    assert head.split() == ["format", "file", "size", "error", "latency", "here", "runs", "on"]
    assert row.split()[:2] == ["onnx", "rows.onnx"] and ("us" in row or "µs" in row or "ms" in row)
    assert "can't be converted to fake: RuntimeError: it takes no Relu" in printed.out
    assert "--to missing needs the package no_such" in printed.out
    assert [path.name for path in tmp_path.iterdir()] == ["rows.onnx"]
    assert main(["export", f"{NETS}:Rows", "-o", "rows.fake", "--to", "fake"]) == 2
    assert capfd.readouterr().err.startswith("error: ")


def test_bad_use_is_found_before_any_work(tmp_path: Path) -> None:
    program = f"""
import sys
from mixbench.cli.app import main
for words in {list(REFUSED)!r}:
    assert main(["export", *words]) == 2
assert not [name for name in ("torch", "onnx", "onnxruntime", "numpy") if name in sys.modules]
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = done.stderr.splitlines()
    assert len(said) == 2 * len(REFUSED)
    for error, fault in zip(said[::2], REFUSED.values(), strict=True):
        assert fault in error
