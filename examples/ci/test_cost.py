"""Budgets in a project's own tests: pytest finds mixbench's fixture and marker by itself."""

from typing import Any

import pytest
import torch
from torch import nn


class Small(nn.Module):
    """A user's model."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.second = nn.Conv2d(width, 8, 3, padding=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.second(torch.relu(self.first(image)))


def test_a_model_at_hand_stays_small(mixbench: Any) -> None:
    mixbench.assert_cost(Small(), torch.zeros(1, 3, 32, 32), macs="<= 2M", params="<= 2k")


def test_the_default_width_stays_small(mixbench: Any) -> None:
    mixbench.assert_cost(Small, "1x3x32x32", macs="<= 2M")


@pytest.mark.mixbench("ghostnetv2", macs="<= 167.5M", uncounted="== 0")
def test_ghostnetv2_is_what_the_paper_says() -> None:
    pass


@pytest.mark.mixbench(macs="<= 2M")
@pytest.mark.parametrize("width", [4, 16])
def test_every_width_stays_small(mixbench: Any, width: int) -> None:
    mixbench.assert_cost(Small(width), torch.zeros(1, 3, 32, 32))
