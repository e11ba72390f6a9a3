"""A chain of equal blocks, so that a slowdown can be planted exactly: 105 blocks for 100 are 5 % more work.

One block is run again and again, so that more blocks mean more work and neither more weights nor another place in the cache.
"""

import torch
from torch import Tensor, nn


class Chain(nn.Module):
    """So many times a 3 x 3 convolution, a rectifier, and the input added: (B, 16, 14, 14) to the same."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(16, 16, 3, padding=1)
        self.blocks = blocks

    def forward(self, x: Tensor) -> Tensor:
        """All blocks."""
        for _ in range(self.blocks):
            x = 0.5 * (x + torch.relu(self.convolution(x)))
        return x


def chain(blocks: int) -> tuple[nn.Module, Tensor]:
    """A chain, and an input."""
    return Chain(blocks), torch.randn(1, 16, 14, 14)


def base() -> tuple[nn.Module, Tensor]:
    """What others are compared with."""
    return chain(100)


def plus_3() -> tuple[nn.Module, Tensor]:
    """3 % more work."""
    return chain(103)


def plus_5() -> tuple[nn.Module, Tensor]:
    """5 % more work."""
    return chain(105)
