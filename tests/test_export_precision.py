"""``mixbench export --precision`` through the installed script."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from torch import nn

from mixbench.export.graph import Graph
from mixbench.export.precision.apply import apply, least_snr_db
from mixbench.export.precision.asked import check_asked
from mixbench.export.precision.judge import run
from mixbench.export.source import Source
from mixbench.export.verify import Expectation, Sample, verify
from mixbench.models.errors import BadInput, CheckFailed

SCRIPT = Path(sys.executable).with_name("mixbench")

NET = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 24, 3, 2, 1), nn.ReLU(), nn.Conv2d(24, 48, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(48, 10))
"""


def mixbench(*words: str, cwd: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "MIXBENCH_DEBUG")}
    done = subprocess.run([SCRIPT, *words], capture_output=True, text=True, env=env, cwd=cwd, timeout=900, encoding="utf-8")
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    return done


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder: a model, arrays, and a file from before."""
    place = tmp_path_factory.mktemp("user")
    (place / "net.py").write_text(NET)
    generator = np.random.Generator(np.random.PCG64(0))
    np.savez(place / "runs.npz", input=generator.standard_normal((24, 3, 32, 32)).astype(np.float32))
    return place


def record_of(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_an_int8_file_meets_its_budget_and_says_how_it_came_about(folder: Path) -> None:
    asked = ("--precision", "int8", "--calibrate", "runs.npz", "--min-snr", "44")
    run = record_of(mixbench("export", "net.py:make", "--input", "1x3x32x32", "-o", "net.onnx", *asked, "--json", cwd=folder))
    reduced, (artifact,) = run["precision"], run["artifacts"]
    assert reduced["met"] and reduced["exact"]["snr_db"] >= 44
    assert reduced["kept"] and reduced["evaluations"] > 1  # not met at once, or the test shows nothing
    assert reduced["calibration"]["samples"] == 18 and reduced["calibration"]["evaluated"] == 6
    file = onnx.load(folder / "net.onnx")
    assert (folder / "net.onnx").stat().st_size == artifact["bytes"] < reduced["float32_bytes"] / 2
    assert any(node.op_type == "QuantizeLinear" for node in file.graph.node)
    said = {entry.key: entry.value for entry in file.metadata_props}
    assert said["precision"] == "int8" and said["precision_calibration"] == "arrays: runs.npz"
    assert json.loads(said["precision_kept_float32"]) == reduced["kept"]
    assert said["precision_calibration_sha256"] == reduced["calibration"]["sha256"]
    assert "weights_sha256" in said and str(folder) not in json.dumps(said)
    session = onnxruntime.InferenceSession(folder / "net.onnx", providers=["CPUExecutionProvider"])
    assert session.run(None, {"input": np.zeros((1, 3, 32, 32), np.float32)})[0].shape == (1, 10)


def test_a_budget_out_of_reach_ends_with_1_and_leaves_the_old_file(folder: Path) -> None:
    (folder / "old.onnx").write_bytes(b"from before")
    asked = ("--precision", "int8", "--calibrate", "runs.npz", "--min-snr", "120")
    done = mixbench("export", "net.py:make", "--input", "1x3x32x32", "-o", "old.onnx", *asked, cwd=folder, code=1)
    error, hint = done.stderr.splitlines()
    assert error.startswith("error: int8 cannot reach 120 dB: best ") and "nodes in float32" in error
    assert hint.startswith("hint: ") and done.stdout == ""
    assert (folder / "old.onnx").read_bytes() == b"from before"


def test_what_can_not_be_done_is_refused_with_one_line_and_a_hint(folder: Path) -> None:
    done = mixbench("export", "net.py:make", "--precision", "int8", cwd=folder, code=2)
    error, hint = done.stderr.splitlines()
    assert error == "error: int8 learns the ranges of its numbers from data, and none is named"
    assert "--calibrate FOLDER" in hint and done.stdout == ""


@pytest.mark.parametrize(
    ("asked", "targets", "said"),  # precision, calibration, budget
    [
        (("int9", None, None), ["onnx"], "no precision named 'int9'"),
        (("fp32", "runs.npz", None), ["onnx"], "--calibrate is for files of fewer bits"),
        (("fp32", None, 25.0), ["onnx"], "--min-snr is for files of fewer bits"),
        (("int8", "gone.npz", None), ["onnx"], "there is no file or folder 'gone.npz'"),
        (("int8", "random", float("nan")), ["onnx"], "no number of dB"),
        (("int8", "random", None), ["onnx", "executorch"], "executorch is made from the float32 module"),
    ],
)
def test_what_contradicts_itself_is_refused_before_any_work(
    asked: tuple[str, str | None, float | None], targets: list[str], said: str
) -> None:
    with pytest.raises(BadInput, match=said) as caught:
        check_asked(*asked, targets)
    assert caught.value.hint


def test_what_goes_together_is_taken() -> None:
    for precision, calibrate, budget in (("fp32", None, None), ("fp16", None, None), ("int8", "file.py:loader", 25.0)):
        check_asked(precision, calibrate, budget, ["onnx", "ort"])


def test_refusing_takes_no_torch() -> None:
    script = "import sys, mixbench.export.precision.asked as a; a.check_asked('int8', 'random', 25.0, ['onnx'])"
    subprocess.run([sys.executable, "-c", f"{script}; assert 'torch' not in sys.modules"], check=True)


def case_of(expected_scale: float) -> tuple[Source, Graph, Expectation]:
    """A product with the identity, and what torch is said to make of it."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["input", "w"], ["logits"], "product")],
        "net",
        [value("input", TensorProto.FLOAT, [1, 8])],
        [value("logits", TensorProto.FLOAT, [1, 8])],
        [numpy_helper.from_array(np.eye(8, dtype=np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    generator = np.random.Generator(np.random.PCG64(1))
    inputs = [generator.standard_normal((1, 8)).astype(np.float32) for _ in range(3)]
    samples = [Sample(seed, {}, {"input": x}, (x * np.float32(expected_scale),), (1e-7,)) for seed, x in enumerate(inputs)]
    source = Source("net", nn.Identity(), nn.Identity(), {}, ("logits",), metadata={"model": "net"})
    return source, Graph(model, None, (), ()), Expectation(tuple(samples), 1.0, False)  # type: ignore[arg-type]


def test_a_float32_graph_that_is_not_the_model_is_not_converted() -> None:
    with pytest.raises(CheckFailed, match="the float32 graph is not the model"):
        apply(*case_of(expected_scale=1.01), "int8", "random", None)  # 40 dB, as good as 8 bits: only torch tells


def test_the_source_says_what_the_graph_became() -> None:
    told: list[str] = []
    source, graph, _, record = apply(*case_of(expected_scale=1.0), "int8", "random", None, told.append)
    assert record is not None and record.precision == source.metadata["precision"] == "int8"
    assert source.metadata["model"] == "net" and "RANDOM NUMBERS" in source.metadata["precision_calibration"]
    assert any(node.op_type == "QuantizeLinear" for node in graph.model.graph.node)
    assert told[0] == "verifying the float32 graph" and any(words.startswith("int8: ") for words in told)
    least = least_snr_db(record)
    assert least is not None and least <= 3


def test_the_file_is_run_once_more_on_data_that_was_held_back(tmp_path: Path) -> None:
    """Learnt on numbers a thousandth the size of the drawn ones, 8 bits are good for such numbers only."""
    source, graph, expectation = case_of(1.0)
    runs = np.random.Generator(np.random.PCG64(2)).standard_normal((8, 8)).astype(np.float32) / 1000
    np.savez(tmp_path / "runs.npz", input=runs)
    source = replace(source, inputs={"input": torch.zeros(1, 8)})
    _, reduced, used, record = apply(source, graph, expectation, "int8", str(tmp_path / "runs.npz"), None)
    assert [sample.inputs["input"].tolist() for sample in used.samples] == [runs[3:4].tolist(), runs[7:8].tolist()]
    least = least_snr_db(record)
    assert verify(lambda feeds: run(reduced.model, [feeds], optimised=True)[0], used, least).passed
    assert not verify(lambda feeds: run(reduced.model, [feeds], optimised=True)[0], expectation, least).passed


def test_float32_passes_through_as_it_is() -> None:
    source, graph, expectation = case_of(1.0)
    assert apply(source, graph, expectation, "fp32", None, None) == (source, graph, expectation, None)
    assert least_snr_db(None) is None


@pytest.mark.slow
@pytest.mark.parametrize(("model", "size"), [("ghostnetv2-1.0x", 224), ("affnet-et", 256)])
def test_full_size_networks_reach_25_db_in_8_bits_on_images(model: str, size: int, tmp_path: Path) -> None:
    generator = np.random.Generator(np.random.PCG64(0))
    (tmp_path / "photos").mkdir()
    for number in range(16):  # smooth colours with some grain, the spectrum of a photograph
        small = generator.uniform(0, 255, (6, 6, 3)).astype(np.uint8)
        image = Image.fromarray(small).resize((320, 300), Image.Resampling.BICUBIC)
        grain = np.asarray(image, dtype=np.float32) + generator.normal(0, 12, (300, 320, 3))
        Image.fromarray(grain.clip(0, 255).astype(np.uint8)).save(tmp_path / "photos" / f"{number:02}.png")
    asked = ("--precision", "int8", "--calibrate", "photos", "--min-snr", "25")
    run = record_of(mixbench("export", model, "-o", "net.onnx", *asked, "--json", cwd=tmp_path))
    reduced = run["precision"]
    assert reduced["met"] and reduced["exact"]["snr_db"] >= 25
    assert reduced["bytes"] < 0.5 * reduced["float32_bytes"]
    (entry,) = onnx.load(tmp_path / "net.onnx").graph.input
    assert [side.dim_value for side in entry.type.tensor_type.shape.dim] == [1, 3, size, size]
