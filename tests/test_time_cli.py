"""`mixbench time` as a user meets it: the installed script, its output, its exit codes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest
import torch

pytestmark = pytest.mark.alone

SCRIPT = Path(sys.executable).with_name("mixbench")
SCHEMA = Path(__file__).parent.parent / "profilers" / "runs" / "time-1.schema.json"
QUICK = ("--seconds", "0.1", "--threads", "1")


def mixbench(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([SCRIPT, "time", *words], capture_output=True, text=True, timeout=120, encoding="utf-8")


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file of a user's models; `counts` leaves a file once it was called often."""
    path = tmp_path_factory.mktemp("user") / "net.py"
    path.write_text(
        """
import os
from pathlib import Path
import torch
from torch import nn

def small():
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3)), torch.zeros(1, 3, 32, 32)

class Counts(nn.Module):
    calls = 0
    def forward(self, x):
        Counts.calls += 1
        if Counts.calls == 20_000:
            Path(os.environ["READY"]).touch()
        return x + 1

def counts():
    return Counts(), torch.zeros(1, 8)

def breaks():
    return nn.Linear(3, 3), torch.zeros(1, 4)
"""
    )
    return str(path)


def test_two_copies_are_the_same_and_every_figure_is_in_the_record(net: str) -> None:
    done = mixbench(f"{net}:small", f"{net}:small", "--seconds", "1", "--threads", "1", "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    run: dict[str, Any] = json.loads(done.stdout)
    jsonschema.validate(run, json.loads(SCHEMA.read_text()))
    first, second = run["models"]
    assert [first["model"][-2:], second["model"][-2:]] == ["#1", "#2"]
    assert len(first["samples_ns"]) == len(second["samples_ns"]) == first["latency_ns"]["samples"]
    ordered = sorted(first["samples_ns"])
    assert ordered[0] <= first["latency_ns"]["low"] <= first["latency_ns"]["value"] <= first["latency_ns"]["high"]
    weights = 4 * (16 * 3 * 9 + 16 + 16 * 16 * 9 + 16)
    assert first["memory"]["peak_bytes"] - first["memory"]["working_bytes"] == weights + 4 * 3 * 32 * 32
    assert first["achieved"]["flops"] == 2 * (16 * 3 * 9 * 30 * 30 + 16 * 16 * 9 * 28 * 28)
    assert first["achieved"]["moved_bytes"] == weights + 4 * (3 * 32 * 32 + 16 * 28 * 28)
    assert first["cold_ns"] > first["latency_ns"]["value"]
    assert first["energy_mj_per_call"] is None
    (found,) = run["comparisons"]
    ratios = sorted(b / a for a, b in zip(first["samples_ns"], second["samples_ns"], strict=True))
    assert ratios[0] <= found["ratio"]["low"] <= found["ratio"]["value"] <= found["ratio"]["high"] <= ratios[-1]
    machine = run["machine"]
    assert machine["threads"] == 1
    assert len(machine["affinity"]) == 1 or not hasattr(os, "sched_setaffinity")
    assert machine["versions"]["torch"] == torch.__version__
    assert not run["partial"]


def test_batches_are_rows_and_a_picture_lies_beside_the_table(net: str, tmp_path: Path) -> None:
    picture = tmp_path / "latency.svg"
    done = mixbench(f"{net}:small", "--batch", "1,4", "--channels-last", *QUICK, "--no-roofline", "-o", str(picture))
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if "channels last" in line]
    assert [row.split("channels last)")[1].split()[0] for row in rows] == ["1", "4"]
    assert "distribution of calls" in done.stdout
    assert ElementTree.parse(picture).getroot().tag.endswith("svg")
    assert "batch 4" in picture.read_text(encoding="utf-8")


def test_one_model_is_told_in_full(net: str) -> None:
    done = mixbench(f"{net}:small", "--train", "--samples", "40", "--threads", "1")
    assert done.returncode == 0, done.stderr
    for words in ("latency, median", "99 % interval", "fewer than ten calls beyond", "first call, cold", "peak memory"):
        assert words in done.stdout
    assert "40 calls" in done.stdout
    assert "no counter" in done.stdout


def test_ctrl_c_prints_what_there_is_and_marks_it(net: str, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    words = [str(SCRIPT), "time", f"{net}:counts", "--samples", "100000000", "--threads", "1", "--json"]
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "READY": str(ready)}
    )
    deadline = time.monotonic() + 60
    while not ready.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(1.0)  # warm-up takes a third of one
    process.send_signal(signal.SIGINT)
    try:
        out, error = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, error
    assert "Traceback" not in error
    run = json.loads(out)
    assert run["partial"]
    assert run["models"][0]["samples_ns"]
    assert run["models"][0]["memory"] is None


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("ghostnetv2", "--batch", "0"), 2, "no list of sizes"),
        (("ghostnetv2", "--batch", "1,,2"), 2, "no list of sizes"),
        (("ghostnetv3",), 2, "no model named"),
        (("ghostnetv2", "-o", "nowhere/x.png"), 2, "no folder"),
        (("ghostnetv2", "-o", "x.gif"), 2, "does not say its format"),
        (("ghostnetv2", "ghostnet", "--weights", "w.pth"), 2, "--weights fits one model"),
        (("ghostnetv2", "--device", "gpu"), 2, "no device named 'gpu'"),
        (("ghostnetv2", "--device", "xpu"), 3, "no device 'xpu'"),
        (("ghostnetv2", "--cuda-graph"), 3, "no CUDA graphs"),
        (("{net}:breaks", "--threads", "1"), 3, "fails while it is timed"),
    ],
)
def test_bad_input_is_told_in_two_lines(net: str, words: tuple[str, ...], code: int, said: str) -> None:
    done = mixbench(*(word.format(net=net) for word in words))
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    error, hint = done.stderr.splitlines()
    assert error.startswith("error: ")
    assert said in error
    assert hint.startswith("hint: ")
