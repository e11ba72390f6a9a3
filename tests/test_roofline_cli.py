"""`mixbench roofline` as a user meets it: the installed script, its output, its exit codes."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from mixbench.cli import options

pytestmark = pytest.mark.alone

SCRIPT = Path(sys.executable).with_name("mixbench")
SCHEMA = json.loads((Path(__file__).parent.parent / "profilers" / "runs" / "roofline-1.schema.json").read_text())
FLOPS = 2 * (16 * 3 * 9 * 30 * 30 + 16 * 16 * 9 * 28 * 28)
COMPULSORY = 4 * (16 * 3 * 9 + 16 + 16 * 16 * 9 + 16 + 3 * 32 * 32), 4 * 16 * 28 * 28


def mixbench(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([SCRIPT, "roofline", *words], capture_output=True, text=True, timeout=300, encoding="utf-8")


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("user") / "net.py"
    path.write_text(
        """
import torch
from torch import nn

def small():
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3)), torch.zeros(1, 3, 32, 32)

def vector():
    return nn.Linear(64, 64), torch.zeros(1, 64)
"""
    )
    return str(path)


def read(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    run = json.loads(done.stdout)
    jsonschema.validate(run, SCHEMA)
    return run


def test_a_model_stands_under_the_measured_roof_with_its_time(
    net: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    run = read(mixbench(f"{net}:small", "--threads", "1", "--seconds", "0.1", "--trace", "--json"))
    (place,), (point,) = run["places"], run["models"]
    assert (place["kind"], place["threads"], run["machine"]["threads"]) == ("measured", 1, 1)
    assert place["flops_per_s"]["float32"] > 1e8
    assert set(place["flops_per_s"]) | set(place["missing"]) == {"float32", "bfloat16", "float16", "float64", "int8"}
    rates = [level["bytes_per_s"] for level in place["levels"]]
    assert rates == sorted(rates, reverse=True) and place["levels"][-1]["up_to_bytes"] is None
    assert point["flops"] == FLOPS
    assert (point["compulsory_read_bytes"], point["compulsory_written_bytes"]) == COMPULSORY
    # Both floors from the record itself.
    compute = FLOPS / place["flops_per_s"]["float32"]
    assert point["compulsory_floor_ns"] >= 1e9 * compute * (1 - 1e-9)
    assert point["unfused_floor_ns"] >= point["compulsory_floor_ns"]
    assert sum(item["floor_ns"] for item in point["operators"]) <= point["unfused_floor_ns"] * (1 + 1e-9)
    reached = point["measured"]
    assert reached["unfused_share"] == pytest.approx(point["unfused_floor_ns"] / reached["latency_ns"]["value"])
    for share in ("unfused_share", "compulsory_share"):
        assert reached[share] <= 1 or point["notes"], "a share beyond 1 is explained"
    assert next(item["traced_ns"] for item in point["operators"] if item["operator"] == "aten::convolution") > 0

    # What was measured is kept for `mixbench time` too, and of use until it is damaged.
    (kept,) = (tmp_path / "mixbench" / "peaks").iterdir()
    before = kept.read_bytes()
    assert json.loads(before)["peaks"]["flops_per_s"] == place["flops_per_s"]
    document = json.loads(before)
    document["peaks"]["flops_per_s"]["float32"] = -1
    kept.write_text(json.dumps(document))
    timed = subprocess.run(
        [SCRIPT, "time", f"{net}:small", "--threads", "1", "--seconds", "0.1", "--json"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert "are damaged, measuring them again" in timed.stderr
    achieved = json.loads(timed.stdout)["models"][0]["achieved"]
    mended = json.loads(kept.read_text())["peaks"]
    assert achieved["roof_flops_per_s"] == mended["flops_per_s"]["float32"], "time and roofline know one roof"
    assert (achieved["flops"], achieved["moved_bytes"]) == (FLOPS, sum(COMPULSORY))


def test_tables_plots_pages_and_pictures_come_of_one_run(net: str, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done = mixbench(f"{net}:small", f"{net}:vector", "--hardware", "t4", "--hardware", "h100-pcie", "-o", str(page))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    text = page.read_text()
    assert "http:" not in text and text.count('<svg viewBox="0 0 640') == 2 and "modelled floor, unfused" in text
    done = mixbench(f"{net}:small", "--hardware", "t4", "--by-op", "-o", str(tmp_path / "one.svg"))
    assert done.returncode == 0 and (tmp_path / "one.svg").read_bytes().startswith(b"<?xml")
    assert "aten::convolution" in done.stdout and "modelled floor, compulsory" in done.stdout
    assert "measured" not in done.stdout.replace("modelled, not measured", "")
    assert "  fits" in done.stdout


def test_a_modelled_floor_is_that_by_hand_and_grows_with_a_batch_and_a_training_step(net: str, tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text(
        """
[tiny]
title = "Tiny"
flops_per_s = { float32 = 1e9 }
memory_bytes_per_s = 1e9
memory_bytes = 20_000
source = "me"
"""
    )
    words = (f"{net}:vector", "--hardware", "tiny", "--hardware-file", str(own), "--json")
    run = read(mixbench(*words))
    once = run["models"][0]
    moved = 4 * (64 + 64 * 64 + 64 + 64)
    assert run["machine"] is None and once["measured"] is None and run["places"][0]["kind"] == "modelled"
    assert once["unfused_floor_ns"] == pytest.approx(moved) == once["compulsory_floor_ns"], "a byte a nanosecond"
    assert (once["unfused_bound"], once["needed_bytes"]) == ("memory", moved)
    more = read(mixbench(*words, "--batch", "8", "--train"))["models"][0]
    assert (once["mode"], more["mode"]) == ("eval", "train")
    # Forward and the weight's gradient; the input's is not asked for. Eight samples of each.
    assert (once["flops"], more["flops"]) == (2 * 64 * 64, 2 * 8 * 2 * 64 * 64)
    assert more["unfused_floor_ns"] > once["unfused_floor_ns"]
    assert (once["fits"], more["fits"]) == (True, False)


def test_listed_devices_come_with_their_source() -> None:
    places = {place["name"]: place for place in read(mixbench("--hardware", "list", "--json"))["places"]}
    assert {"a100-sxm-80gb", "raspberry-pi-5"} <= set(places) and all(place["source"] for place in places.values())
    assert "PJDOC-466751330-7215" in mixbench("--hardware", "list").stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--hardware", "t5"), "no hardware named 't5'"),
        (("--hardware", "t4", "--dtype", "bfloat16"), "has no peak for bfloat16: not published"),
        (("--hardware", "t4", "--threads", "1"), "--threads is for the machine at hand"),
        (("--hardware", "list"), "--hardware list only lists devices"),
        (("--hardware-file", "x.toml"), "--hardware-file says of what, but not which"),
        (("--hardware", "t4", "--hardware-file", "missing.toml"), "'missing.toml' can't be read"),
        (("--trace", "--compile"), "--trace is for models of PyTorch that are not compiled"),
        (("--json", "--csv"), "two formats"),
        (("--device", "nowhere"), "no device named 'nowhere'"),
    ],
)
def test_what_can_not_be_is_refused_with_a_hint(net: str, words: tuple[str, ...], said: str) -> None:
    done = mixbench(f"{net}:vector", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr and "hint: " in done.stderr and "Traceback" not in done.stderr


def test_devices_are_completed_with_what_they_are() -> None:
    assert options.complete_hardware("h100-p") == [("h100-pcie", "NVIDIA H100 PCIe, 80 GB")]
