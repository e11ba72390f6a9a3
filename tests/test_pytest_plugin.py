"""Budgets in a project's own tests, through pytest as its user runs it, and as a plain call."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import mixbench as package
from mixbench.cli.cost_assertion import assert_cost
from mixbench.models.errors import BadInput

ROOT = Path(__file__).resolve().parent.parent

# 3 -> 4 channels, 3 x 3, on 8 x 8: 3 * 4 * 9 * 64 MACs; then 4 -> 2 by 1 x 1: 4 * 2 * 64.
FIRST, SECOND = 3 * 4 * 9 * 64, 4 * 2 * 64


def small(width: int = 4) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, width, 3, padding=1, bias=False), nn.Conv2d(width, 2, 1, bias=False))


def run(folder: Path, source: str, *words: str) -> "subprocess.CompletedProcess[str]":
    """A user's test file under pytest, with the plug-in that pytest finds by itself, and warnings as errors."""
    (folder / "test_user.py").write_text(source)
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "COV"))}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", "--strict-markers", *words]
    return subprocess.run(command, cwd=folder, env=plain, capture_output=True, text=True, timeout=120, encoding="utf-8")


@pytest.mark.parametrize(
    ("model", "inputs"),
    [
        (small(), torch.zeros(1, 3, 8, 8)),
        (small(), (torch.zeros(1, 3, 8, 8),)),
        (small(), {"input": torch.zeros(1, 3, 8, 8)}),
        (small(), "1x3x8x8"),
        (small(), ["1x3x8x8"]),
        (small, "1x3x8x8"),
        (small, torch.zeros(1, 3, 8, 8)),
        (lambda: (small(), torch.zeros(1, 3, 8, 8)), None),
        (lambda: (small(), torch.zeros(1, 3, 99, 99)), torch.zeros(1, 3, 8, 8)),
    ],
)
def test_an_instance_a_factory_and_a_pair_cost_the_same(model: Any, inputs: Any) -> None:
    assert_cost(model, inputs, macs=f"== {FIRST + SECOND}", params="== 116", uncounted="== 0")
    with pytest.raises(AssertionError):
        assert_cost(model, inputs, macs=f"< {FIRST + SECOND}")


def test_a_name_is_a_model_too_and_has_settings() -> None:
    assert_cost("ghostnetv2", macs="<= 167.5M")
    with pytest.raises(AssertionError, match=r"macs <= 100M: it has 167,048,288 MACs"):
        assert_cost("ghostnetv2", macs="<= 100M")
    assert_cost("ghostnetv2", macs="<= 100M", settings={"width": 0.5})


def test_a_failure_names_metric_limit_figure_and_the_heaviest_modules_first() -> None:
    with pytest.raises(AssertionError) as caught:
        assert_cost(small(), "1x3x8x8", macs="<= 1k", params="<= 200")
    first, second, *modules = str(caught.value).splitlines()
    assert first == "Sequential on 1x3x8x8-float32-eval is not within its budget"
    assert second == f"macs <= 1k: it has {FIRST + SECOND:,} MACs"
    assert [line.split() for line in modules] == [
        ["93.1", "%", f"{FIRST:,}", "0", "aten::convolution"],
        ["6.9", "%", f"{SECOND:,}", "1", "aten::convolution"],
    ]


def test_an_instance_is_left_as_it_is() -> None:
    model = small().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert_cost(model, torch.zeros(1, 3, 8, 8), macs="<= 1M", batch=7)
    assert model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_batch_and_training_are_counted_as_asked() -> None:
    assert_cost(small(), "1x3x8x8", batch=3, macs=f"== {3 * (FIRST + SECOND)}")
    # Backward: both weights' gradients, and the second convolution's input's.
    assert_cost(small(), "1x3x8x8", train=True, macs=f"== {2 * FIRST + 3 * SECOND}")


torch.library.define("plugin_test::opaque", "(Tensor x) -> Tensor")
torch.library.impl("plugin_test::opaque", "CompositeExplicitAutograd")(lambda x: x.clone())


class Opaque(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = torch.ops.plugin_test.opaque(x)
        return made


def test_a_total_with_unknown_parts_is_no_pass() -> None:
    with pytest.raises(AssertionError, match="can't be told, since there is no rule for plugin_test::opaque"):
        assert_cost(Opaque(), "2x3", macs="<= 1M")
    assert_cost(Opaque(), "2x3", params="== 0", uncounted="<= 1")


@pytest.mark.parametrize(
    ("model", "more", "what", "hint"),
    [
        (small(), {}, "no budget is given", "macs="),
        (small(), {"mac": "<= 1M"}, "no metric named 'mac'", "did you mean macs?"),
        (small(), {"macs": "1M"}, "is no budget", "begin with"),
        (small(), {"latency_ratio": "<= 1"}, "no metric named 'latency_ratio'", ""),
        (small(), {"macs": "<= 1M", "settings": {"width": 1}}, "built already", "give its class"),
        (small, {"macs": "<= 1M", "settings": {"size": 1}}, "has no setting 'size'", "width"),
        (7, {"macs": "<= 1M"}, "int is no model", ""),
        ("ghostnet2", {"macs": "<= 1M"}, "no model named 'ghostnet2'", "ghostnetv2"),
    ],
)
def test_what_makes_no_sense_is_said_with_its_hint(model: Any, more: dict[str, Any], what: str, hint: str) -> None:
    with pytest.raises(BadInput, match=what) as caught:
        assert_cost(model, "1x3x8x8", **more)
    (note,) = caught.value.__notes__
    assert note.startswith("hint: ")
    assert hint in note


def test_the_assertion_is_public() -> None:
    assert package.assert_cost is assert_cost


def test_pytest_starts_without_torch_and_with_next_to_nothing_of_mixbench(tmp_path: Path) -> None:
    source = """
import sys

def test_user():
    assert not {"torch", "numpy", "onnx", "typer", "rich"} & sys.modules.keys()
    ours = {name for name in sys.modules if name.partition(".")[0] == "mixbench"}
    assert ours == {"mixbench", "mixbench.cli", "mixbench.cli.pytest_plugin"}
"""
    done = run(tmp_path, source)
    assert done.returncode == 0, done.stdout
    off = run(tmp_path, "def test_user(mixbench):\n    pass\n", "-p", "no:mixbench")
    assert "fixture 'mixbench' not found" in off.stdout, "it can be turned off by its name"


MARKED = """
import pytest, torch
from torch import nn

@pytest.mark.mixbench("ghostnet", macs="<= 142M")
def test_within():
    pass

@pytest.mark.mixbench("ghostnet", macs="<= 100M")
def test_beyond():
    raise RuntimeError("not reached")

@pytest.mark.mixbench(macs="<= 5")
def test_defaults(mixbench):
    mixbench.assert_cost(nn.Linear(2, 3), torch.zeros(1, 2), macs="<= 6")
    mixbench.assert_cost(nn.Linear(2, 3), torch.zeros(1, 2))

@pytest.mark.mixbench(macs="<= 5")
def test_nothing_checked():
    pass
"""


def test_the_marker_checks_the_model_it_names_or_sets_budgets_and_never_nothing(tmp_path: Path) -> None:
    done = run(tmp_path, MARKED, "-rA")
    assert done.returncode == 1
    assert "3 failed, 1 passed" in done.stdout
    assert "PASSED test_user.py::test_within" in done.stdout
    assert "macs <= 100M: it has 141,150,512 MACs" in done.stdout
    assert "macs <= 5: it has 6 MACs" in done.stdout
    assert "not reached" not in done.stdout
    assert "names no model, and the test doesn't take the mixbench fixture" in done.stdout
    assert "cost_assertion.py" not in done.stdout, "tracebacks end in the user's line"


def test_the_example_passes(tmp_path: Path) -> None:
    done = run(tmp_path, (ROOT / "examples" / "ci" / "test_cost.py").read_text(encoding="utf-8"))
    assert done.returncode == 0, done.stdout
    assert "5 passed" in done.stdout


def test_the_marker_explains_itself(tmp_path: Path) -> None:
    assert "@pytest.mark.mixbench(model, inputs=None, **budgets)" in run(tmp_path, "", "--markers").stdout
