"""GhostNetV2: cheap convolutions with decoupled fully connected (DFC) attention, and GhostNet, its first version.

Source: Tang et al., "GhostNetV2: Enhance Cheap Operation with Long-Range Attention", NeurIPS 2022 (arXiv 2211.12905), and
the authors' code (github.com/huawei-noah/Efficient-AI-Backbones, ghostnetv2_pytorch). The state dict has the keys, the
order and the shapes of the released checkpoints and of timm's ports, so both load as they are.

Letters: B batch, C channels, H and W height and width in pixels, w the width multiplier.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..spec import Family, Preprocessing, Published, TensorSpec, Variant

FAMILY = Family(
    title="GhostNetV2",
    summary=(
        "A mobile convolutional network. A ghost module computes half of its channels by a 1x1 convolution and derives "
        "the other half from them by cheap depthwise convolutions. DFC attention, a fully connected layer decoupled "
        "into a horizontal and a vertical depthwise convolution at half resolution, gates the expanded features so "
        "that distant pixels see each other."
    ),
    task="image classification",
    paper='Tang et al., "GhostNetV2: Enhance Cheap Operation with Long-Range Attention", NeurIPS 2022',
    paper_url="https://arxiv.org/abs/2211.12905",
    repository="https://github.com/huawei-noah/Efficient-AI-Backbones/tree/master/ghostnetv2_pytorch",
    inputs=(TensorSpec((1, 3, 224, 224)),),
    default="1.0x",
    variants={
        "0.5x": Variant({"width": 0.5}),
        "1.0x": Variant(
            {"width": 1.0},
            (
                Published("params_bn_folded", "6.1M", "arXiv 2211.12905, ImageNet table"),
                Published("macs", "167M", "arXiv 2211.12905, abstract (as FLOPs)"),
                Published("top1_percent", "75.3", "arXiv 2211.12905, abstract"),
            ),
        ),
        "1.3x": Variant(
            {"width": 1.3},
            (
                Published("params_bn_folded", "8.9M", "arXiv 2211.12905, ImageNet table"),
                Published("macs", "269M", "arXiv 2211.12905, ImageNet table (as FLOPs)"),
                Published("top1_percent", "76.9", "arXiv 2211.12905, ImageNet table"),
            ),
        ),
        "1.6x": Variant(
            {"width": 1.6},
            (
                Published("params_bn_folded", "12.3M", "arXiv 2211.12905, ImageNet table"),
                Published("macs", "399M", "arXiv 2211.12905, ImageNet table (as FLOPs)"),
                Published("top1_percent", "77.8", "arXiv 2211.12905, ImageNet table"),
            ),
        ),
    },
    supports=("any width and number of classes", "any size from 33 x 33 pixels", "official and timm checkpoints"),
    notes=(
        "The paper calls multiply-accumulates FLOPs; ours are MACs, and FLOPs are twice as many.",
        "The published parameter counts fit the network after batch norms are folded into the convolutions (inferred).",
        "0.5x has no published figures and no released weights.",
    ),
    preprocessing=Preprocessing(
        layout="NCHW, RGB",
        range=(0.0, 1.0),
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        resize=256,
        crop=224,
        interpolation="bicubic",
        source="evaluation of timm's ports of the released weights",
    ),
)

__all__ = ["DFCAttention", "GhostBottleneck", "GhostModule", "GhostNetV2", "SqueezeExcite"]

_SMALLEST_SIDE = 33
"""Below it a stage's map is one pixel high or wide, and DFC attention has nothing to pool."""

# Kernel, expanded channels, output channels, squeeze-and-excite ratio, stride; one row a bottleneck, one tuple a stage
# (paper, Table 1; the original's `cfgs`).
_STAGES: tuple[tuple[tuple[int, int, int, float, int], ...], ...] = (
    ((3, 16, 16, 0, 1),),
    ((3, 48, 24, 0, 2),),
    ((3, 72, 24, 0, 1),),
    ((5, 72, 40, 0.25, 2),),
    ((5, 120, 40, 0.25, 1),),
    ((3, 240, 80, 0, 2),),
    ((3, 200, 80, 0, 1), (3, 184, 80, 0, 1), (3, 184, 80, 0, 1), (3, 480, 112, 0.25, 1), (3, 672, 112, 0.25, 1)),
    ((5, 672, 160, 0.25, 2),),
    ((5, 960, 160, 0, 1), (5, 960, 160, 0.25, 1), (5, 960, 160, 0, 1), (5, 960, 160, 0.25, 1)),
)
_FIRST_DFC = 2
"""The first two bottlenecks, at the largest maps, have no attention; the index runs over bottlenecks, not stages."""


def round_channels(channels: float, divisor: int = 4) -> int:
    """Round to a multiple of ``divisor``, at least one of them and never below 90 % of ``channels``."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


def _conv_bn(inputs: int, outputs: int, kernel: int | tuple[int, int], stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """A convolution without bias that keeps the map's size at stride 1, and its batch norm."""
    height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
    padding = (height // 2, width // 2)
    conv = nn.Conv2d(inputs, outputs, (height, width), stride, padding, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(outputs)]


class DFCAttention(nn.Sequential):
    """Decoupled fully connected attention (paper, section 4.1), as the released code realises it.

    The input is pooled to half its size; a 1x1 convolution and two depthwise ones of 1x5 and 5x1 taps, each with a batch
    norm and none with an activation, stand for the decoupled fully connected layers; a sigmoid makes the gate, which is
    brought to the gated map's size by nearest neighbours. The sigmoid comes before the enlargement: same values, a quarter
    of the work.

    Shapes: (B, inputs, H, W) and a target size (H', W') to (B, outputs, H', W').

    Raises:
        RuntimeError: on a map less than two pixels high or wide.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            *_conv_bn(inputs, outputs, 1),
            *_conv_bn(outputs, outputs, (1, 5), groups=outputs),
            *_conv_bn(outputs, outputs, (5, 1), groups=outputs),
        )

    def forward(self, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        height, width = x.shape[-2:]
        if height < 2 or width < 2:
            raise RuntimeError(f"DFC attention pools 2x2 pixels, so it needs a map of at least 2x2, not {height}x{width}")
        gate = super().forward(F.avg_pool2d(x, kernel_size=2, stride=2)).sigmoid()
        return F.interpolate(gate, size=size or (height, width), mode="nearest")


class GhostModule(nn.Module):
    """Ghost module (GhostNet, section 3.1), with DFC attention on its output if asked (GhostNetV2, section 4.2).

    A primary convolution makes ``ceil(outputs / ratio)`` channels; a depthwise one derives ``ratio - 1`` ghosts of each.
    Both are concatenated and cut to ``outputs``.

    Shapes: (B, inputs, H, W) to (B, outputs, H / stride, W / stride).

    Args:
        relu: whether both convolutions end in a ReLU.
        kernel, cheap_kernel: side of the primary and of the cheap convolution, in pixels.
        attention: whether a `DFCAttention` branch on the module's input gates the output.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        relu: bool = True,
        ratio: int = 2,
        kernel: int = 1,
        cheap_kernel: int = 3,
        stride: int = 1,
        attention: bool = False,
    ) -> None:
        super().__init__()
        self.outputs = outputs
        primary = math.ceil(outputs / ratio)
        ghosts = primary * (ratio - 1)
        self.primary_conv = nn.Sequential(*_conv_bn(inputs, primary, kernel, stride))
        self.cheap_operation = nn.Sequential(*_conv_bn(primary, ghosts, cheap_kernel, groups=primary))
        if relu:
            self.primary_conv.append(nn.ReLU(inplace=True))
            self.cheap_operation.append(nn.ReLU(inplace=True))
        self.short_conv = DFCAttention(inputs, outputs) if attention else None

    def forward(self, x: Tensor) -> Tensor:
        primary = self.primary_conv(x)
        y = torch.cat((primary, self.cheap_operation(primary)), dim=1)
        if y.shape[1] != self.outputs:
            y = y[:, : self.outputs]
        if self.short_conv is not None:
            y = y * self.short_conv(x, (y.shape[2], y.shape[3]))
        return y


class SqueezeExcite(nn.Module):
    """Squeeze and excite with the hard sigmoid relu6(x + 3) / 6, written out: on-device runtimes know all three steps.

    Shapes: (B, C, H, W) to the same; the squeezed width is C * ratio, rounded to a multiple of 4.
    """

    def __init__(self, channels: int, ratio: float = 0.25) -> None:
        super().__init__()
        squeezed = round_channels(channels * ratio)
        self.conv_reduce = nn.Conv2d(channels, squeezed, 1)
        self.conv_expand = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        squeezed = F.relu(self.conv_reduce(F.adaptive_avg_pool2d(x, 1)), inplace=True)
        return x * (F.relu6(self.conv_expand(squeezed) + 3, inplace=True) / 6)


class GhostBottleneck(nn.Module):
    """Ghost bottleneck (GhostNetV2, Figure 4): expand, go down if strided, squeeze and excite, project, add the shortcut.

    Shapes: (B, inputs, H, W) to (B, outputs, ceil(H / stride), ceil(W / stride)).
    """

    folds = (("conv_dw", "bn_dw"),)

    def __init__(
        self, inputs: int, hidden: int, outputs: int, kernel: int, stride: int, se_ratio: float, attention: bool
    ) -> None:
        super().__init__()
        self.ghost1 = GhostModule(inputs, hidden, relu=True, attention=attention)
        if stride > 1:
            self.conv_dw, self.bn_dw = _conv_bn(hidden, hidden, kernel, stride, groups=hidden)
        self.strided = stride > 1
        self.se = SqueezeExcite(hidden, se_ratio) if se_ratio else None
        self.ghost2 = GhostModule(hidden, outputs, relu=False)
        self.shortcut = nn.Sequential()
        if inputs != outputs or stride > 1:
            self.shortcut.extend(_conv_bn(inputs, inputs, kernel, stride, groups=inputs))
            self.shortcut.extend(_conv_bn(inputs, outputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.ghost1(x)
        if self.strided:
            y = self.bn_dw(self.conv_dw(y))
        if self.se is not None:
            y = self.se(y)
        y = self.ghost2(y)
        y += self.shortcut(x)
        return y


class _ConvBnAct(nn.Module):
    """1x1 convolution, batch norm, ReLU, under the names that the released checkpoints use."""

    folds = (("conv", "bn1"),)

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv, self.bn1 = _conv_bn(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn1(self.conv(x)), inplace=True)


class GhostNet(nn.Module):
    """GhostNet (Han et al., CVPR 2020, arXiv 1911.11907): GhostNetV2's table without its attention.

    Shapes: (B, in_channels, H, W) float, ImageNet mean and standard deviation taken off, to logits (B, num_classes).

    Args:
        width: multiplies every channel count but the 1,280 of the head.
        dropout: rate on the 1,280 features while training.
        attention: whether the bottlenecks from the third on carry DFC attention, which makes it GhostNetV2.

    Raises:
        RuntimeError: with attention, on images with a side below 33 pixels.
    """

    folds = (("conv_stem", "bn1"),)

    def __init__(
        self,
        width: float = 1.0,
        num_classes: int = 1000,
        dropout: float = 0.2,
        in_channels: int = 3,
        attention: bool = False,
    ) -> None:
        super().__init__()
        self.attention = attention
        self.dropout = dropout
        channels = round_channels(16 * width)
        self.conv_stem, self.bn1 = _conv_bn(in_channels, channels, 3, stride=2)
        self.act1 = nn.ReLU(inplace=True)
        self.blocks = nn.Sequential()
        index = hidden = 0
        for rows in _STAGES:
            stage = nn.Sequential()
            for kernel, expanded, out, se_ratio, stride in rows:
                hidden, outputs = round_channels(expanded * width), round_channels(out * width)
                with_dfc = attention and index >= _FIRST_DFC
                stage.append(GhostBottleneck(channels, hidden, outputs, kernel, stride, se_ratio, with_dfc))
                channels, index = outputs, index + 1
            self.blocks.append(stage)
        # As wide as the last bottleneck's hidden layer, not as its output.
        self.blocks.append(nn.Sequential(_ConvBnAct(channels, hidden)))
        self.conv_head = nn.Conv2d(hidden, 1280, 1)
        self.classifier = nn.Linear(1280, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        if self.attention and min(x.shape[-2:]) < _SMALLEST_SIDE:
            size = "x".join(map(str, x.shape[-2:]))
            raise RuntimeError(f"GhostNetV2 needs images of at least {_SMALLEST_SIDE}x{_SMALLEST_SIDE} pixels, not {size}")
        x = self.blocks(self.act1(self.bn1(self.conv_stem(x))))
        x = F.relu(self.conv_head(F.adaptive_avg_pool2d(x, 1)), inplace=True).flatten(1)
        if self.dropout > 0:
            x = F.dropout(x, self.dropout, self.training)
        return self.classifier(x)


class GhostNetV2(GhostNet):
    """GhostNetV2, exactly as published: `GhostNet` with DFC attention from the third bottleneck on."""

    def __init__(self, width: float = 1.0, num_classes: int = 1000, dropout: float = 0.2, in_channels: int = 3) -> None:
        super().__init__(width, num_classes, dropout, in_channels, attention=True)


def build(width: float = 1.0, num_classes: int = 1000, dropout: float = 0.2, in_channels: int = 3) -> GhostNetV2:
    """GhostNetV2 with PyTorch's default initialisation, as the authors' code leaves it."""
    return GhostNetV2(width, num_classes, dropout, in_channels)
