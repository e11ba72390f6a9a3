"""Other counters beside ours: every difference is explained by operators, and the differences add up."""

from pathlib import Path

import pytest

import mixbench
from mixbench.models.errors import CannotMeasure
from mixbench.profilers.runs.run import Opinion
from mixbench.profilers.second_opinion import second_opinion

NET = """
import torch
from torch import nn

class Spectral(nn.Module):
    example_inputs = torch.randn(1, 2, 8, 8)
    def forward(self, x):
        spectrum = torch.fft.rfft2(x)
        return torch.fft.irfft2(spectrum * spectrum), spectrum @ spectrum.mT, torch.mv(x[0, 0], x[0, 0, 0])

def encoder():
    return nn.TransformerEncoderLayer(16, 4, batch_first=True), torch.ones(1, 5, 16)

class Keyword(nn.Module):
    example_inputs = {"x": torch.ones(1, 4)}
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)
    def forward(self, *, x):
        return self.linear(x)

class Branch(nn.Linear):
    example_inputs = torch.ones(1, 4)
    def __init__(self):
        super().__init__(4, 4)
    def forward(self, x):
        return super().forward(x) if x.sum() > 0 else x
"""


@pytest.fixture
def net(tmp_path: Path) -> Path:
    path = tmp_path / "net.py"
    path.write_text(NET)
    return path


def opinion(model: str, counter: str, train: bool = False) -> Opinion:
    case = mixbench.build(model, mixbench.Workload(mode="train" if train else "eval"))
    counted = mixbench.count(case)
    found = second_opinion(case, counted, counter)
    assert found.ours_macs == counted.totals.macs
    assert sum(item.ours_macs for item in found.differences) == found.ours_macs
    assert sum(item.theirs_macs for item in found.differences) == found.theirs_macs
    return found


def why(found: Opinion) -> dict[str, str]:
    return {item.operators: item.explanation for item in found.differences}


def test_torch_misses_complex_factors_and_matrix_vector_products(net: Path) -> None:
    reasons = why(opinion(f"{net}:Spectral", "torch"))
    assert "four real MACs" in reasons["aten::bmm"]
    assert reasons["aten::mv"] == "torch has no rule for it"


def test_torch_ignores_groups_in_the_weight_gradient() -> None:
    found = opinion("ghostnet", "torch", train=True)
    assert "ignores groups" in why(found)["aten::convolution_backward"]
    assert found.theirs_macs > 5 * found.ours_macs


def test_fvcore_skips_fused_attention_and_says_so(net: Path) -> None:
    found = opinion(f"{net}:encoder", "fvcore")
    assert "skips scaled_dot_product_attention, 1 calls" in why(found)["matmul"]
    assert found.device == "cpu"


def test_a_model_that_needs_real_values_gets_them_for_the_other_counter_too(net: Path) -> None:
    assert opinion(f"{net}:Branch", "torch").theirs_macs == 16


def test_a_counter_that_fails_is_reported_and_not_guessed(net: Path) -> None:
    with pytest.raises(CannotMeasure, match=r"fvcore's counter fails .* positional inputs only"):
        opinion(f"{net}:Keyword", "fvcore")
