"""`mixbench trace`: where the time of a call goes, and what stands beside it."""

import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from mixbench.cli.views import flame, trace_view
from mixbench.models.case import build
from mixbench.models.errors import BadInput, CannotMeasure
from mixbench.models.spec import TensorSpec, Workload
from mixbench.profilers import calltree, onnx_tracing, tensorboard, timing, tracing
from mixbench.profilers.counter import count
from mixbench.profilers.devices.base import find
from mixbench.profilers.onnx_session import open_onnx
from mixbench.profilers.onnx_tracing import trace_onnx
from mixbench.profilers.runs.trace_run import Frame, OperatorTime, Trace, TraceRun, Work, compared, middle, read
from mixbench.profilers.subject import torch_subject

pytestmark = pytest.mark.alone

SCRIPT = Path(sys.executable).with_name("mixbench")
NET = '''
import torch
from torch import nn


class Net(nn.Module):
    """Two calls of one layer, an operator of the model's own, and a head."""

    def __init__(self):
        super().__init__()
        self.twice = nn.Linear(64, 64)
        self.block = nn.Sequential(nn.Linear(64, 32), nn.ReLU())
        self.head = nn.Linear(32, 4)

    def forward(self, x):
        return self.head(self.block(self.twice(self.twice(x)).flatten(1) + 1))

    def example_inputs(self):
        return torch.ones(8, 64)


class Table(nn.Module):
    """A look-up in a table far larger than what it returns."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(1000, 16)

    def forward(self, ids):
        return self.table(ids)

    def example_inputs(self):
        return torch.zeros(2, 5, dtype=torch.int64)


class Refuses(Net):
    """Cannot run on meta: it looks at a value."""

    def forward(self, x):
        y = self.twice(x)
        return self.head(self.block(y)) if float(x.sum()) > 0 else y


class Fails(Net):
    def forward(self, x):
        if not torch.is_inference_mode_enabled():
            return super().forward(x)
        raise ValueError("not today")
'''


@pytest.fixture(autouse=True, scope="module")
def quick() -> Iterator[None]:
    """One thread, since two wait for each other on a busy machine; and little of the untraced time: it is not tested."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tracing, "UNTRACED_S", 0.01)
        patch.setattr(onnx_tracing, "UNTRACED_S", 0.01)
        patch.setattr(timing, "_WARM_NS", 1e6)
        patch.setattr(timing, "_WARM_MAX_NS", 1e8)
        patch.setattr(timing, "_BLOCK_NS", 1e5)
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's file with models."""
    path = tmp_path_factory.mktemp("user") / "net.py"
    path.write_text(NET)
    return path


@cache
def recorded(net: Path, name: str = "Net", mode: Any = "eval") -> tracing.Recording:
    """Four traced steps; the same ones for all who ask."""
    case = build(f"{net}:{name}", Workload(mode=mode))
    return tracing.trace_torch(torch_subject(case.on("cpu")), find("cpu"), case, 4)


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """softmax(relu(x W)), W 16 x 8, an open batch."""
    weights = helper.make_tensor("W", TensorProto.FLOAT, [16, 8], np.linspace(-1, 1, 128).tolist())
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "W"], ["y"], name="/fc/MatMul"),
            helper.make_node("Relu", ["y"], ["z"], name="/act/Relu"),
            helper.make_node("Softmax", ["z"], ["out"], name="/act/Softmax"),
        ],
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 16])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["N", 8])],
        [weights],
    )
    path = tmp_path_factory.mktemp("onnx") / "small.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def operators(trace: Trace, phase: str = "forward") -> dict[str, OperatorTime]:
    return {item.operator: item for item in trace.operators if not item.within and item.phase == phase}


def check_sums(trace: Trace) -> None:
    """Each way to cut a call's time adds up to the same."""
    outermost = sum(item.total_ns for item in trace.operators if not item.within)
    assert sum(item.self_ns for item in trace.operators) == pytest.approx(outermost)
    assert sum(frame.self_ns for _, frame in trace.frames.walk()) == pytest.approx(trace.traced_ns)
    of_operators = [frame for _, frame in trace.frames.walk() if frame.kind == "operator"]
    assert sum(frame.self_ns for frame in of_operators) == pytest.approx(outermost)
    assert sum(item.self_ns for item in trace.modules) == pytest.approx(trace.modules[0].total_ns)
    assert outermost <= trace.traced_ns
    for _, frame in trace.frames.walk():
        assert frame.self_ns >= 0
        assert frame.total_ns == pytest.approx(frame.self_ns + sum(child.total_ns for child in frame.children))


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_times_add_up_by_operator_module_and_call_stack(net: Path, mode: str) -> None:
    trace = recorded(net, mode=mode).trace
    check_sums(trace)
    assert (len(trace.step_ns), trace.used_steps) == (4, 2)
    assert trace.traced_ns == pytest.approx(sum(sorted(trace.step_ns)[1:3]) / 2)
    assert 0 < trace.untraced_ns < trace.traced_ns, "a profiler does not make a small model faster"


def test_calls_flops_and_bytes_of_operators_are_exact(net: Path) -> None:
    found = operators(recorded(net).trace)
    assert {name: item.calls for name, item in found.items()} == {
        "aten::linear": 4,
        "aten::relu": 1,
        "aten::flatten": 1,
        "aten::add": 1,
    }
    linear = found["aten::linear"]
    assert linear.work.macs == 8 * (2 * 64 * 64 + 64 * 32 + 32 * 4)
    weights = 2 * (64 * 64 + 64) + (64 * 32 + 32) + (32 * 4 + 4)
    assert linear.work.bytes_read == 4 * (weights + 8 * (3 * 64 + 32))
    assert linear.work.bytes_written == 4 * 8 * (2 * 64 + 32 + 4)
    assert (found["aten::relu"].work.macs, found["aten::relu"].work.elementwise_flops) == (0, 8 * 32)
    assert (found["aten::flatten"].work.bytes_read, found["aten::flatten"].work.bytes_written) == (0, 0), "a view"


def test_inner_operators_stand_with_the_one_that_calls_them(net: Path) -> None:
    trace = recorded(net).trace
    inner = {item.operator: item for item in trace.operators if item.within == "aten::linear"}
    assert inner["aten::addmm"].calls == 4
    assert inner["aten::addmm"].work.macs == operators(trace)["aten::linear"].work.macs
    assert inner["aten::addmm"].total_ns <= operators(trace)["aten::linear"].total_ns


def test_modules_are_called_as_often_as_they_are_and_have_the_counters_flops(net: Path) -> None:
    for mode in ("eval", "train"):
        trace = recorded(net, mode=mode).trace
        calls = {item.name: item.calls for item in trace.modules}
        assert calls == {"": 1, "twice": 2, "block": 1, "block.0": 1, "block.1": 1, "head": 1}
        tree = count(build(f"{net}:Net", Workload(mode=mode))).tree
        assert {item.name: item.work.macs for item in trace.modules} == {node.name: node.total.macs for node in tree.walk()}
        assert [item.depth for item in trace.modules] == [0, 1, 1, 2, 2, 1]


def test_backward_operators_belong_to_the_module_whose_forward_made_them(net: Path) -> None:
    trace = recorded(net, mode="train").trace
    backward = operators(trace, "backward")
    # Each weight's gradient, and each input's but the model's own.
    assert backward["aten::mm"].calls == 4 + 3
    assert backward["aten::mm"].work.macs == 2 * 8 * (2 * 64 * 64 + 64 * 32 + 32 * 4) - 8 * 64 * 64
    modules = {item.name: item for item in trace.modules}
    assert modules["head"].backward_ns > 0
    assert modules["block"].backward_ns == pytest.approx(modules["block.0"].backward_ns + modules["block.1"].backward_ns)
    relu = [path for path, frame in paths(trace.frames) if frame.name == "aten::threshold_backward"]
    assert relu == [[trace.model, "backward", trace.model, "block", "block.1", "aten::threshold_backward"]]
    mm = [path[-2] for path, frame in paths(trace.frames) if frame.name == "aten::mm"]
    assert sorted(mm) == ["block.0", "head", "twice"]
    assert "aten::add_" in operators(trace, "update"), "the update is neither forward nor backward"
    # Bytes too: a weight's gradient reads the gradient and the input of its layer.
    assert (modules["head"].work.bytes_read or 0) > 4 * (8 * 32 + 32 * 4 + 4) + 2 * 4 * 8 * 4


def paths(frame: Frame, above: tuple[str, ...] = ()) -> Iterator[tuple[list[str], Frame]]:
    here = (*above, frame.name)
    yield list(here), frame
    for child in frame.children:
        yield from paths(child, here)


def test_a_look_up_reads_what_it_returns_and_not_its_table(net: Path) -> None:
    work = operators(recorded(net, "Table").trace)["aten::embedding"].work
    assert (work.macs, work.bytes_written, work.bytes_read) == (0, 4 * 10 * 16, 4 * 10 * 16 + 8 * 10)


def test_a_model_that_refuses_meta_has_its_flops_all_the_same(net: Path) -> None:
    trace = recorded(net, "Refuses").trace
    assert operators(trace)["aten::linear"].work.macs == 8 * (64 * 64 + 64 * 32 + 32 * 4)
    assert any("counted on real CPU tensors" in note for note in trace.notes)


def test_what_is_not_counted_stays_unknown(net: Path) -> None:
    case = build(f"{net}:Net", device="cpu")
    trace = tracing.trace_torch(torch_subject(case), find("cpu"), None, 2).trace
    assert operators(trace)["aten::linear"].work.macs is None
    assert trace_view.flop_rate(Work(), 1.0) == "?"
    assert trace_view.flop_rate(Work(macs=0), 1.0) == ""
    assert trace_view.flop_rate(Work(macs=500), 1.0) == "1 TFLOP/s"


def test_hooks_are_gone_after_a_trace_and_after_a_failure(net: Path) -> None:
    case = build(f"{net}:Net", device="cpu")
    tracing.trace_torch(torch_subject(case), find("cpu"), None, 1)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in case.module.modules())
    failing = build(f"{net}:Fails", device="cpu")
    with pytest.raises(CannotMeasure, match="not today"):
        tracing.trace_torch(torch_subject(failing), find("cpu"), None, 1)
    assert not any(module._forward_hooks for module in failing.module.modules())


def test_ctrl_c_within_a_traced_call_leaves_nothing_open(net: Path, capfd: pytest.CaptureFixture[str]) -> None:
    case = build(f"{net}:Net", device="cpu")
    subject = torch_subject(case)
    calls = iter(range(10_000))

    def interrupt(*_: Any) -> None:
        if torch.autograd.profiler._is_profiler_enabled and next(calls) == 2:
            raise KeyboardInterrupt

    case.module.get_submodule("block.1").register_forward_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        tracing.trace_torch(subject, find("cpu"), None, 5)
    assert capfd.readouterr() == ("", "")
    assert not case.module._forward_hooks


def test_the_chrome_trace_has_the_modules_as_ranges(net: Path, tmp_path: Path) -> None:
    recording = recorded(net, mode="train")
    with pytest.raises(BadInput, match="cannot write"):
        tracing.write_chrome_trace(recording.profiler, tmp_path / "none" / "trace.json")
    tracing.write_chrome_trace(recording.profiler, tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert sum(event["name"] == "block.0 [Linear]" for event in events) == 4
    assert [path.name for path in tmp_path.iterdir()] == ["trace.json"]


def test_csv_has_a_line_for_each_operator_and_module_or_for_each_change(net: Path, onnx_file: Path) -> None:
    trace, other = recorded(net).trace, trace_onnx(onnx_file)
    lines = list(trace_view.rows(TraceRun(trace)))
    assert len({tuple(line) for line in lines}) == 1, "all with the same columns"
    assert [line["name"] for line in lines if line["table"] == "module"] == [item.name for item in trace.modules]
    assert sum(line["self_ns"] for line in lines if line["table"] == "module") == pytest.approx(trace.modules[0].total_ns)
    changes = list(trace_view.rows(compared(trace, other)))
    assert {line["name"] for line in changes} == set(operators(trace)) | set(operators(other))
    assert {line["table"] for line in changes} == {"operator"}, "no module's name agrees"


def test_the_middle_half_leaves_out_the_fastest_and_slowest() -> None:
    assert middle([5.0]) == [0]
    assert middle([1.0, 9.0, 2.0]) == [0, 1, 2]
    assert middle([90.0, 2.0, 3.0, 1.0, 4.0]) == [1, 2, 4]
    assert len(middle([1.0] * 8)) == 4


def event(name: str, start: int, end: int, thread: int = 1, device: str = "CPU", **other: Any) -> SimpleNamespace:
    """What kineto tells of an event."""
    values = {"is_user_annotation": False, "scope": 0, "sequence_nr": -1, "correlation_id": 0, "linked_correlation_id": 0}
    values |= {"activity_type": "cpu_op"} | other
    facts = {key: (lambda value=value: value) for key, value in values.items()}
    times = {"start_ns": lambda: start, "end_ns": lambda: end, "duration_ns": lambda: end - start}
    place = {"start_thread_id": lambda: thread, "device_type": lambda: SimpleNamespace(name=device)}
    return SimpleNamespace(name=lambda: name, **facts, **times, **place)


def test_kernels_count_for_the_operator_that_launched_them() -> None:
    """An accelerator as the profiler describes it: a backward thread of its own, launches, kernels by correlation."""
    events = [
        event("ProfilerStep#0", 0, 1000, is_user_annotation=True, activity_type="user_annotation", correlation_id=1),
        event("aten::linear", 10, 60, correlation_id=2),
        event("aten::addmm", 20, 50, correlation_id=3),
        event("cudaLaunchKernel", 30, 40, activity_type="cuda_runtime", correlation_id=3),
        event("gemm", 500, 900, device="CUDA", activity_type="kernel", linked_correlation_id=3),
        event("ProfilerStep#0", 0, 1000, device="CUDA", is_user_annotation=True),
        event("autograd::engine::evaluate_function: AddmmBackward0", 70, 90, thread=2, sequence_nr=7, correlation_id=4),
        event("aten::mm", 75, 85, thread=2, correlation_id=5),
        event("gemm", 900, 950, device="CUDA", activity_type="kernel", linked_correlation_id=5),
    ]
    for on_device, linear, addmm, backward in ((True, 0, 400, 50), (False, 20, 20, 10)):
        (step,) = calltree.steps(calltree.from_profile(events, on_device))
        found = {visit.operators[-1]: visit for visit in calltree.visits(step, None) if visit.node.kind == "operator"}
        times = [found[name].node.self_ns for name in ("aten::linear", "aten::addmm", "aten::mm")]
        assert times == [linear, addmm, backward]
        assert [found[name].phase for name in ("aten::addmm", "aten::mm")] == ["forward", "backward"]


def test_frames_of_the_flame_graph_fill_their_callers_exactly(net: Path) -> None:
    trace = recorded(net, mode="train").trace
    root = ET.fromstring(flame.svg(trace.frames))
    boxes = [rect.attrib for rect in root.iter("rect")]
    drawn = [(float(box["x"]), float(box["width"]), float(box["y"])) for box in boxes]
    assert drawn[0][:2] == (0.0, 1200.0)
    by_row: dict[float, list[tuple[float, float]]] = {}
    for x, width, y in drawn:
        by_row.setdefault(y, []).append((x, x + width))
    for y, row in by_row.items():
        row.sort()
        assert all(left[1] <= right[0] + 0.01 for left, right in pairwise(row)), "no two overlap"
        if y:
            above = by_row[y - 18]
            assert all(any(a <= x + 0.01 and end <= b + 0.01 for a, b in above) for x, end in row), "each lies under its caller"
    for child in trace.frames.children:
        told = [title.text or "" for title in root.iter("title")]
        assert any(text.startswith(f"{child.name} ({child.kind})") for text in told)
    operators_drawn = sum(float(box["width"]) for box in boxes if box["class"] == "step")
    assert operators_drawn == 1200.0


def test_the_page_needs_no_network_and_no_script(net: Path) -> None:
    trace = recorded(net).trace
    page = flame.page(TraceRun(trace))
    assert page.startswith("<!DOCTYPE html>")
    assert not re.search(r"https?://|<script|@import|url\(|src=", page)
    assert "prefers-color-scheme: dark" in page
    for words in ("aten::linear", "block.0", "without the profiler", "<title>"):
        assert words in page
    other = flame.page(compared(trace, trace))
    assert "What changed: operators" in other


def test_a_page_escapes_names() -> None:
    frame = Frame("<b>&", "module", 1.0, 10.0, 10.0)
    assert "<b>" not in flame.svg(frame)


def test_onnx_nodes_have_their_calls_bytes_and_provider(onnx_file: Path) -> None:
    trace = trace_onnx(onnx_file, Workload(batch=3), number=5)
    check_sums(trace)
    found = operators(trace)
    assert {name: item.calls for name, item in found.items()} == {"MatMul": 1, "Relu": 1, "Softmax": 1}
    assert {item.provider for item in found.values()} == {"CPUExecutionProvider"}
    assert found["MatMul"].work == Work(3 * 16 * 8, bytes_read=4 * (3 * 16 + 16 * 8), bytes_written=4 * 3 * 8)
    assert found["Relu"].work == Work(0, bytes_read=4 * 3 * 8, bytes_written=4 * 3 * 8)
    assert trace.modules[0].work.macs == 3 * 16 * 8 and not any("FLOPs" in note for note in trace.notes)
    assert [(item.name, item.kind, item.calls) for item in trace.modules[1:]] == [
        ("/fc/MatMul", "MatMul", 1),
        ("/act/Relu", "Relu", 1),
        ("/act/Softmax", "Softmax", 1),
    ]
    assert (trace.inputs, trace.engine, len(trace.step_ns)) == (("x=3x16",), "onnxruntime", 5)


def test_inputs_of_an_onnx_file_follow_its_description(onnx_file: Path, tmp_path: Path) -> None:
    _, feeds = open_onnx(onnx_file)
    assert feeds["x"].shape == (1, 16)
    assert feeds["x"].dtype == np.float32
    assert np.array_equal(feeds["x"], open_onnx(onnx_file, Workload(seed=0))[1]["x"])
    assert open_onnx(onnx_file, Workload((TensorSpec.parse("x=5x16"),)))[1]["x"].shape == (5, 16)
    assert open_onnx(onnx_file, Workload((TensorSpec.parse("7x16"),)))[1]["x"].shape == (7, 16)
    session, feeds = open_onnx(onnx_file, Workload(batch=2), threads=1, profile_to=tmp_path / "p")
    assert session.run(None, feeds)[0].sum() == pytest.approx(2.0)
    assert Path(session.end_profiling()).parent == tmp_path


@pytest.mark.parametrize(
    ("inputs", "what"),
    [
        ([TensorSpec.parse("y=1x16")], "no input 'y'"),
        ([TensorSpec.parse("1x16"), TensorSpec.parse("1x16")], "2 inputs are given"),
        ([TensorSpec.parse("x=1x15")], r"'x' is \?x16, not 1x15"),
        ([TensorSpec.parse("x=16")], r"'x' is \?x16, not 16"),
    ],
)
def test_inputs_that_do_not_fit_an_onnx_file_are_explained(onnx_file: Path, inputs: list[TensorSpec], what: str) -> None:
    with pytest.raises(BadInput, match=what):
        open_onnx(onnx_file, Workload(tuple(inputs)))


def test_a_broken_onnx_file_is_explained(onnx_file: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(onnx_file.read_bytes()[:50])
    text = tmp_path / "text.onnx"
    text.write_text("no model\n")
    for path in (cut, text):
        with pytest.raises(BadInput, match="is no ONNX model"):
            open_onnx(path)
    with pytest.raises(BadInput, match="there is no file"):
        open_onnx(tmp_path / "none.onnx")


def test_a_difference_is_by_name_and_sorted_by_its_size(net: Path) -> None:
    eval_trace, train_trace = recorded(net).trace, recorded(net, mode="train").trace
    run = compared(eval_trace, train_trace)
    gaps = [abs(item.difference_ns) for item in run.operator_changes]
    assert gaps == sorted(gaps, reverse=True)
    named = {item.name: item for item in run.operator_changes}
    assert (named["aten::mm (backward)"].calls, named["aten::mm (backward)"].other_calls) == (0, 7)
    assert (named["aten::linear"].calls, named["aten::linear"].other_calls) == (4, 4)
    before = operators(eval_trace)["aten::linear"].total_ns
    assert named["aten::linear"].difference_ns == operators(train_trace)["aten::linear"].total_ns - before
    assert {item.name for item in run.module_changes} == {"", "twice", "block", "block.0", "block.1", "head"}
    assert all(item.difference_ns == 0 for item in compared(eval_trace, eval_trace).operator_changes)


def test_durations_are_shown_with_three_digits() -> None:
    shown = [trace_view.time(ns) for ns in (0, 999, 1234, 999_600, 123_456_789, 5e9)]
    assert shown == ["0 ns", "999 ns", "1.23 us", "1000 us", "123 ms", "5 s"]


def mixbench(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the installed script on one thread."""
    plain = {name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "MIXBENCH_DEBUG")}
    return subprocess.run([SCRIPT, "trace", *words], capture_output=True, text=True, env=plain, timeout=120, encoding="utf-8")


@pytest.fixture(scope="module")
def saved(net: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that one call writes."""
    folder = tmp_path_factory.mktemp("saved")
    files_written = ("-o", folder / "run.json", "--trace", folder / "chrome.json.gz", "--tensorboard-dir", folder / "board")
    done = mixbench(f"{net}:Net", "--threads", "1", "--steps", "2", *files_written)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return folder


def test_json_is_valid_by_the_shipped_schema_and_read_back_as_it_was(saved: Path) -> None:
    found = json.loads((saved / "run.json").read_text())
    schema = json.loads((files("mixbench.profilers.runs") / "trace-1.schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(found, schema)
    del found["trace"]["frames"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(found, schema)
    trace = read(saved / "run.json")
    check_sums(trace)
    assert operators(trace)["aten::linear"].calls == 4
    assert gzip.decompress((saved / "chrome.json.gz").read_bytes()).count(b"block.0 [Linear]") == 2
    assert len(list((saved / "board").glob("*/mixbench.*.pt.trace.json.gz"))) == 1


@pytest.mark.parametrize("text", ["{", "{}", '{"trace": 1}', None])
def test_what_is_no_saved_trace_is_explained(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "x.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(BadInput, match=r"is no saved trace|cannot read"):
        read(path)


def test_a_saved_trace_of_another_schema_is_refused(saved: Path, tmp_path: Path) -> None:
    found = json.loads((saved / "run.json").read_text())
    (tmp_path / "new.json").write_text(json.dumps(found | {"schema": 2}))
    with pytest.raises(BadInput, match="schema 2"):
        read(tmp_path / "new.json")


def test_the_command_compares_with_a_saved_trace(net: Path, saved: Path) -> None:
    done = mixbench(f"{net}:Net", "--threads", "1", "--steps", "1", "--against", saved / "run.json")
    assert (done.returncode, done.stderr) == (0, "")
    assert "operators, by difference" in done.stdout
    assert re.search(r"aten::linear +4 .* 4 .*s\n", done.stdout)
    assert "modules, by difference" in done.stdout


def test_the_command_tables_an_onnx_file_and_writes_its_page(onnx_file: Path, tmp_path: Path) -> None:
    page, chrome = tmp_path / "page.html", tmp_path / "trace.json"
    done = mixbench(onnx_file, "--batch", "2", "-o", page, "--trace", chrome)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert "/act/Softmax" in page.read_text(encoding="utf-8")
    assert any(event["name"] == "/fc/MatMul_kernel_time" for event in json.loads(chrome.read_text()))


@pytest.mark.parametrize(
    ("words", "what", "hint"),
    [
        (["ghostnet", "--steps", "0"], "--steps", "--help"),
        (["ghostnet", "--trace", "x.txt"], "no Chrome trace", ".json.gz"),
        (["ghostnet", "--trace", "no/such/x.json"], "no folder", "make it"),
        (["ghostnet", "--tensorboard-dir", "README.md"], "is a file", "folder"),
        (["ghostnet", "--against", "none.onnx"], "no file 'none.onnx'", "path"),
        (["ghostnet", "--against", "none.json"], "cannot read 'none.json'", "-o FILE.json"),
        (["none.onnx"], "no file 'none.onnx'", "path"),
        (["run.json"], "is a saved trace", "--against"),
        (["SMALL", "--train"], "--train is for PyTorch models", "leave it out"),
        (["SMALL", "--tensorboard"], "PyTorch models only", "--trace"),
        (["ghostnet", "--against", "ghostnetv2", "--weights", "x.pth"], "two are named", "-o FILE.json"),
        (["ghostnet", "-o", "x.pdf"], "does not say its format", ".json"),
        (["ghostnat"], "no model named", "ghostnet"),
    ],
)
def test_bad_input_is_explained_in_two_lines(onnx_file: Path, words: list[str], what: str, hint: str) -> None:
    plain = {name: value for name, value in os.environ.items() if name != "MIXBENCH_DEBUG"}
    words = [str(onnx_file) if word == "SMALL" else word for word in words]
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run([SCRIPT, "trace", *words], capture_output=True, text=True, env=plain, cwd=root, timeout=60)
    error, advice = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (2, "")
    assert what in error
    assert hint in advice


def fetch(address: str) -> Any:
    with urllib.request.urlopen(address, timeout=30) as reply:
        assert reply.status == 200
        return json.loads(reply.read())


def plugin(address: str, path: str, patience: float = 60.0) -> Any:
    """What the profiler plugin answers; it loads its runs in the background."""
    deadline = time.monotonic() + patience
    while True:
        found = fetch(f"{address}/data/plugin/pytorch_profiler/{path}")
        if path != "runs" or (found["runs"] and not found["loading"]):
            return found
        assert time.monotonic() < deadline, "the plugin loads no run"
        time.sleep(0.2)


def test_tensorboard_shows_the_trace_over_http(saved: Path) -> None:
    with tensorboard.serving(saved / "board") as (shown, process):
        assert shown.startswith("http://127.0.0.1:")
        address = shown.partition("/#")[0]
        (run,) = plugin(address, "runs")["runs"]
        assert {"Overview", "Operator", "Trace", "Memory", "Module"} <= set(plugin(address, f"views?run={run}"))
        (worker,) = plugin(address, f"workers?run={run}&view=Operator")
        (span,) = plugin(address, f"spans?run={run}&worker={worker}")
        where = f"run={run}&worker={worker}&span={span}"
        table = plugin(address, f"operation/table?{where}&group_by=Operation")["data"]
        assert {item["name"]: item["calls"] for item in table}["aten::addmm"] == 2 * 4
        with pytest.raises(BadInput, match="is taken"), tensorboard.serving(saved / "board", int(address.rpartition(":")[2])):
            pass
    assert process.poll() is not None


def test_a_tensorboard_that_does_not_start_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(SCRIPT))  # which knows no -m
    with pytest.raises(CannotMeasure, match="TensorBoard ended with code 2"), tensorboard.serving(tmp_path):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("word", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_ctrl_c_ends_tensorboard_cleanly_and_leaves_no_process(net: Path, word: int) -> None:
    import psutil

    process = subprocess.Popen(
        [SCRIPT, "trace", f"{net}:Net", "--threads", "1", "--steps", "1", "--tensorboard"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts its background jobs deaf to Ctrl-C, and the tests may be one.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - no threads here
    )
    assert process.stderr is not None
    said = process.stderr.readline()
    address = re.search(r"http://127\.0\.0\.1:\d+", said)
    assert address, said
    with urllib.request.urlopen(address[0], timeout=30) as reply:
        assert reply.status == 200
    started = psutil.Process(process.pid).children(recursive=True)
    assert started
    process.send_signal(word)
    rest = process.communicate(timeout=30)[1]
    assert (process.returncode, rest) == (0, "")
    _, alive = psutil.wait_procs(started, timeout=10)
    assert not alive


@pytest.mark.slow
def test_a_compiled_model_shows_the_compilers_kernels(net: Path) -> None:
    case = build(f"{net}:Net", device="cpu")
    trace = tracing.trace_torch(torch_subject(case, compiled=True), find("cpu"), build(f"{net}:Net"), 3).trace
    found = operators(trace)
    assert any("fused" in name for name in found)
    assert found["aten::addmm"].work == Work()
    assert trace.modules[0].work.macs == 8 * (2 * 64 * 64 + 64 * 32 + 32 * 4)
    check_sums(trace)


@pytest.mark.slow
def test_a_real_network_is_traced_in_both_modes_with_all_its_work_known() -> None:
    for mode, macs in (("eval", 167048288), ("train", 3 * 167048288 - 5419008)):
        workload = Workload(mode=mode)  # type: ignore[arg-type]
        case = build("ghostnetv2", workload)
        trace = tracing.trace_torch(torch_subject(case.on("cpu")), find("cpu"), case, 3).trace
        check_sums(trace)
        assert sum(item.work.macs or 0 for item in trace.operators if not item.within) == macs
        assert trace.modules[0].work.macs == macs
