"""Nets whose memory is predicted: a net of ResNet-50's shape, a 12-layer transformer, a 70-billion-parameter shape."""

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))
from decoder import Decoder


class Bottleneck(nn.Module):
    """He et al., "Deep Residual Learning for Image Recognition" (arXiv 1512.03385), figure 5, right."""

    def __init__(self, inputs: int, middle: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * middle
        self.conv1, self.norm1 = nn.Conv2d(inputs, middle, 1, bias=False), nn.BatchNorm2d(middle)
        self.conv2, self.norm2 = nn.Conv2d(middle, middle, 3, stride, 1, bias=False), nn.BatchNorm2d(middle)
        self.conv3, self.norm3 = nn.Conv2d(middle, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        changes = stride != 1 or inputs != outputs
        self.shortcut = (
            nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)) if changes else None
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.norm1(self.conv1(x)))
        y = self.relu(self.norm2(self.conv2(y)))
        y = self.norm3(self.conv3(y))
        y += x if self.shortcut is None else self.shortcut(x)
        return self.relu(y)


def resnet() -> nn.Sequential:
    """ResNet-50's shape."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True)]
    layers.append(nn.MaxPool2d(3, 2, 1))
    width = 64
    for middle, blocks, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for index in range(blocks):
            layers.append(Bottleneck(width, middle, stride if index == 0 else 1))
            width = 4 * middle
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000))


def resnet_inputs() -> Tensor:
    """An image."""
    return torch.zeros(1, 3, 224, 224)


def decoder() -> Decoder:
    """12 layers."""
    return Decoder(layers=12, width=256, heads=8, hidden=1024, vocabulary=1000)


def decoder_inputs() -> Tensor:
    """Two texts."""
    return torch.zeros(2, 256, dtype=torch.int64)


def wide() -> nn.Sequential:
    """Small weights, large activations."""
    return nn.Sequential(nn.Linear(64, 1024), nn.Linear(1024, 2048), nn.Linear(2048, 4))


class GroupedAttention(nn.Module):
    """What `benchmarks/decoder.py` has, with fewer heads of keys and values (Ainslie et al., arXiv 2305.13245)."""

    def __init__(self, width: int, heads: int, kv_heads: int) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.size = heads, kv_heads, width // heads
        self.q, self.o = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.k, self.v = (nn.Linear(width, kv_heads * self.size, bias=False) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = (
            part(x).view(batch, length, heads, self.size).transpose(1, 2)
            for part, heads in ((self.q, self.heads), (self.k, self.kv_heads), (self.v, self.kv_heads))
        )
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return self.o(y.transpose(1, 2).reshape(batch, length, width))


def seventy_billion() -> Decoder:
    """The shape of LLaMA 3 70B (Grattafiori et al., arXiv 2407.21783, table 3), without rotary positions."""
    net = Decoder(layers=80, width=8192, heads=64, hidden=28672, vocabulary=128256)
    for block in net.blocks:
        block.attention = GroupedAttention(8192, heads=64, kv_heads=8)
    return net


def seventy_billion_inputs() -> Tensor:
    """4,096 tokens."""
    return torch.zeros(1, 4096, dtype=torch.int64)
