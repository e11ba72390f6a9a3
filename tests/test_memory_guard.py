"""A model that memory cannot hold is refused before any of it is taken."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch

import mixbench
from mixbench.models.errors import CannotMeasure
from mixbench.models.spec import TensorSpec

SCRIPT = Path(sys.executable).with_name("mixbench")
MEGABYTE = 10**6

USERS_OWN = """
import torch

made = []

class Net(torch.nn.Module):
    def __init__(self, width=1000):
        super().__init__()
        self.layer = torch.nn.Linear(width, width, bias=False)
        made.append(self.layer.weight.device.type)

    def forward(self, x):
        return self.layer(x)

def stubborn():
    torch.zeros(3, device="meta").tolist() if torch.empty(0).is_meta else None
    return Net()

ready = Net(10)
"""


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Say how many bytes of memory are free."""

    def say(megabytes: float) -> None:
        answer = SimpleNamespace(available=int(megabytes * MEGABYTE))
        monkeypatch.setattr(psutil, "virtual_memory", lambda: answer)

    return say


@pytest.fixture
def never_allocate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where a real table would be made."""
    empty = torch.empty

    def watched(*args: Any, **kwargs: Any) -> torch.Tensor:
        made = empty(*args, **kwargs)
        assert made.is_meta or made.numel() < 1000, "real memory was taken"
        return made

    monkeypatch.setattr(torch, "empty", watched)


@pytest.mark.usefixtures("never_allocate")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])  # both are made in float32
def test_a_direct_build_is_refused_before_it_allocates(free: Any, dtype: str) -> None:
    free(40)
    with pytest.raises(CannotMeasure, match=r"memoryformer-layer holds 0.0 GB of weights, and 0.0 GB") as refused:
        mixbench.build("memoryformer-layer", mixbench.Workload(dtype=dtype), device="cpu")
    assert refused.value.exit_code == 3 and refused.value.hint


@pytest.mark.usefixtures("never_allocate")
def test_a_case_on_meta_is_refused_before_it_allocates(free: Any) -> None:
    case = mixbench.build("memoryformer-layer")
    assert case.weight_bytes == 4 * 64 * 256 * 512 + 4 * (8 + 64)  # the tables, and what the hash keeps
    free(40)
    with pytest.raises(CannotMeasure, match="memoryformer-layer holds"):
        case.on("cpu")
    assert case.on("meta").device == "meta"


def test_a_cast_to_a_wider_dtype_counts(free: Any) -> None:
    free(50)
    assert mixbench.build("memoryformer-layer", device="cpu").device == "cpu"  # 33.6 of 50 MB
    with pytest.raises(CannotMeasure):
        mixbench.build("memoryformer-layer", mixbench.Workload(dtype="float64"), device="cpu")
    assert mixbench.build("memoryformer-layer", mixbench.Workload(dtype="bfloat16")).weight_bytes > 33 * MEGABYTE


def test_models_that_fit_are_built_with_the_same_weights_as_ever() -> None:
    workload = mixbench.Workload((TensorSpec((1, 8)),))
    direct, moved = (
        mixbench.build("memoryformer-layer", workload, device, width=8, tables=2).on("cpu") for device in ("cpu", "meta")
    )
    torch.manual_seed(0)
    plain = torch.empty(2, 16, 8).normal_(std=0.02)
    assert torch.equal(direct.module.tables, plain) and torch.equal(moved.module.tables, plain)  # type: ignore[arg-type]


def test_a_users_model_is_refused_too_unless_it_lies_in_memory_already(free: Any, tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text(USERS_OWN)
    inputs = mixbench.Workload((TensorSpec((1, 1000)),))
    free(4)
    with pytest.raises(CannotMeasure, match=r"own\.py:Net holds"):
        mixbench.build(f"{file}:Net", inputs, device="cpu")
    assert mixbench.build(f"{file}:Net", inputs, device="cpu", width=100).device == "cpu"
    assert mixbench.build(f"{file}:stubborn", inputs, device="cpu").device == "cpu"  # its size cannot be told beforehand
    free(0.0001)
    assert mixbench.build(f"{file}:ready", mixbench.Workload((TensorSpec((1, 10)),)), device="cpu").device == "cpu"


def test_a_factory_that_fails_is_still_explained() -> None:
    with pytest.raises(mixbench.MixbenchError, match="no setting 'breadth'"):
        mixbench.build("memoryformer-layer", device="cpu", breadth=3)
    with pytest.raises(mixbench.MixbenchError, match="cannot be cut"):
        mixbench.build("memoryformer-layer", device="cpu", tables=7)


@pytest.mark.skipif(psutil.virtual_memory().available > 33e9, reason="this machine could hold it")
def test_the_command_says_so_and_ends_with_3() -> None:
    done = subprocess.run([SCRIPT, "flops", "memoryformer-base", "--verify", "fvcore"], capture_output=True, text=True)
    assert done.returncode == 3
    assert "memoryformer-base holds 27.0 GB of weights" in done.stderr and "hint:" in done.stderr
