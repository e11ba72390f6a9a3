"""AFFNet: adaptive frequency filters as token mixers, a mask computed from the spectrum that multiplies the spectrum.

Source: Huang et al., "Adaptive Frequency Filters As Efficient Global Token Mixers", ICCV 2023 (arXiv 2307.14008), and the
authors' code (github.com/microsoft/TokenMixers, "Adaptive Frequency Filters", built on Apple's cvnets). The state dict has
that code's keys, order and shapes, so what it saved loads as it is.

Letters: B batch, C channels, H and W height and width in pixels, R = W // 2 + 1 the columns that a real transform keeps,
K groups of channels, g = C / K channels in a group.
"""

from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import BadInput
from ..spec import Family, Preprocessing, Published, TensorSpec, Variant
from .ghostnetv2 import round_channels

FAMILY = Family(
    title="AFFNet",
    summary=(
        "A mobile network of inverted residuals whose later stages mix tokens in the frequency domain. The spectrum of "
        "each channel is multiplied by a mask that a small complex network computes from that same spectrum, which is a "
        "circular convolution with a kernel as large as the map and different for every image."
    ),
    task="image classification",
    paper='Huang et al., "Adaptive Frequency Filters As Efficient Global Token Mixers", ICCV 2023',
    paper_url="https://arxiv.org/abs/2307.14008",
    repository="https://github.com/microsoft/TokenMixers",
    inputs=(TensorSpec((1, 3, 256, 256)),),
    default="small",
    variants={
        "et": Variant(
            {"widths": (32, 48, 64, 104, 144), "depths": (1, 3, 2, 4, 3), "expansion": 2},
            (
                Published("params", "1.4M", "arXiv 2307.14008, ImageNet table, AFFNet-ET"),
                Published("macs", "0.4G", "arXiv 2307.14008, ImageNet table (as FLOPs)"),
                Published("top1_percent", "73.0", "arXiv 2307.14008, ImageNet table"),
                Published("ade20k_miou_percent", "33.0", "arXiv 2307.14008, with DeepLabv3, 2.2M parameters"),
                Published("voc_miou_percent", "76.1", "arXiv 2307.14008, with DeepLabv3"),
            ),
        ),
        "t": Variant(
            {"widths": (32, 48, 96, 160, 192), "depths": (1, 3, 2, 4, 3), "expansion": 4},
            (
                Published(
                    "params",
                    "2.6M",
                    "arXiv 2307.14008, ImageNet table, AFFNet-T",
                    "the authors' own count, 2.643M, leaves out the two norms of each block and the mixers' biases",
                ),
                Published("macs", "0.8G", "arXiv 2307.14008, ImageNet table (as FLOPs)"),
                Published("top1_percent", "77.0", "arXiv 2307.14008, ImageNet table"),
                Published("ade20k_miou_percent", "36.9", "arXiv 2307.14008, with DeepLabv3, 3.5M parameters"),
                Published("voc_miou_percent", "77.8", "arXiv 2307.14008, with DeepLabv3"),
            ),
        ),
        "small": Variant(
            {"widths": (32, 64, 128, 256, 320), "depths": (1, 3, 2, 4, 3), "expansion": 4},
            (
                Published(
                    "params",
                    "5.5M",
                    "arXiv 2307.14008, ImageNet table, AFFNet",
                    "the authors' own count, 5.551M, leaves out the two norms of each block and the mixers' biases",
                ),
                Published("macs", "1.5G", "arXiv 2307.14008, ImageNet table (as FLOPs)"),
                Published("top1_percent", "79.8", "arXiv 2307.14008, ImageNet table"),
                Published("ade20k_miou_percent", "38.4", "arXiv 2307.14008, with DeepLabv3, 6.9M parameters"),
                Published("voc_miou_percent", "80.5", "arXiv 2307.14008, with DeepLabv3"),
            ),
        ),
        "base": Variant(
            {
                "widths": (64, 128, 256, 512, 640),
                "depths": (1, 3, 2, 4, 3),
                "expansion": 4,
                "fusion": (True, False, False),
            }
        ),
        "large": Variant(
            {
                "widths": (64, 128, 256, 512, 768),
                "depths": (2, 6, 4, 18, 6),
                "expansion": 4,
                "fusion": (True, False, False),
            }
        ),
    },
    supports=(
        "any number of classes, and widths and depths of your own",
        "any image size: one set of weights serves all",
        "checkpoints of the authors' code",
        "float32 transforms inside a half-precision network, as in the original; float64 stays float64",
    ),
    notes=(
        "et, t and small are the paper's AFFNet-ET, AFFNet-T and AFFNet; base and large are in the code only.",
        "The paper calls multiply-accumulates FLOPs; ours are MACs, and FLOPs are twice as many.",
        "Transforms have a bucket of their own (FFT FLOPs) and are in no published figure.",
        "activation=relu is the code's default; the released ET checkpoint was trained with silu, ours.",
        "torch.compile for training needs torch._inductor.config.layout_optimization = False (torch 2.13); eval needs nothing.",
        "norm=layer_norm normalises each pixel alone; it takes the same checkpoint without a word and gives other outputs.",
    ),
    preprocessing=Preprocessing(
        layout="NCHW, RGB",
        range=(0.0, 1.0),
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        resize=288,
        crop=256,
        interpolation="bilinear",
        source="evaluation settings of the authors' code for AFFNet-ET",
    ),
)

__all__ = ["AFFBlock", "AFFNet", "AFFStage", "AFFTokenMixer", "InvertedResidual", "PixelLayerNorm"]

_ACTIVATIONS: dict[str, type[nn.Module]] = {"silu": nn.SiLU, "relu": nn.ReLU, "hardswish": nn.Hardswish}


def _choice(what: str, name: str, among: dict[str, type[nn.Module]]) -> type[nn.Module]:
    if name not in among:
        raise BadInput(f"AFFNet has no {what} {name!r}", f"one of {', '.join(among)}")
    return among[name]


class _ConvBNAct(nn.Module):
    """A convolution without bias that keeps the map's size at stride 1, batch norm, and an activation unless it is empty."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1, activation: str = ""
    ) -> None:
        super().__init__()
        conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.block = nn.Sequential(OrderedDict[str, nn.Module](conv=conv, norm=nn.BatchNorm2d(outputs)))
        if activation:
            # What it overwrites is the batch norm's output, which nothing else reads.
            self.block.add_module("act", _choice("activation", activation, _ACTIVATIONS)(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


class InvertedResidual(nn.Module):
    """MBConv (Sandler et al., MobileNetV2, CVPR 2018): widen by a 1x1 convolution, 3x3 depthwise, narrow by a 1x1.

    Each has a batch norm, the first two an activation. The input is added where the block keeps size and channels.

    Shapes: (B, inputs, H, W) to (B, outputs, ceil(H / stride), ceil(W / stride)).

    Args:
        expansion: hidden channels are ``inputs * expansion``, rounded to a multiple of 8; at 1 there is no first convolution.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1, expansion: float = 2, activation: str = "silu") -> None:
        super().__init__()
        hidden = round_channels(round(inputs * expansion), 8)
        self.block = nn.Sequential()
        if expansion != 1:
            self.block.add_module("exp_1x1", _ConvBNAct(inputs, hidden, activation=activation))
        depthwise = _ConvBNAct(hidden, hidden, 3, stride, groups=hidden, activation=activation)
        self.block.add_module("conv_3x3", depthwise)
        self.block.add_module("red_1x1", _ConvBNAct(hidden, outputs))
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.block(x)
        return x + y if self.residual else y


class PixelLayerNorm(nn.Module):
    """A layer norm of each pixel over its channels, as cvnets has it: eps is added to the deviation, not to the variance.

    Shapes: (B, C, H, W) to the same.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        deviation, mean = torch.std_mean(x, dim=1, correction=0, keepdim=True)
        normed = (x - mean) / (deviation + self.eps)
        return normed * self.weight[:, None, None] + self.bias[:, None, None]


class _MapLayerNorm(nn.GroupNorm):
    """One mean and one variance over channels and pixels, a scale and a shift a channel: cvnets' ``layer_norm_2d``."""

    def __init__(self, channels: int) -> None:
        super().__init__(1, channels)


_NORMS: dict[str, type[nn.Module]] = {"layer_norm_2d": _MapLayerNorm, "layer_norm": PixelLayerNorm}


class AFFTokenMixer(nn.Module):
    """Adaptive frequency filter (paper, Figure 2): a mask computed from the spectrum multiplies it, plus the input.

    With F the orthonormal real Fourier transform over the map and S the softshrink, this is

        y = F^-1(F(x) * S(mask(F(x)))) + x

    which convolves x circularly, channel by channel, with the kernel ``irfft2(S(mask), s=(H, W))``. The mask depends on the
    phases too, so the whole does not commute with shifts. The input's sum and the softshrink are in the code, not in the paper.

    Shapes: (B, C, H, W) to the same, any H and W. Half-precision maps are transformed in float32, also under autocast, which
    leaves complex numbers alone; float64 stays float64.

    Args:
        channels: C, a multiple of ``groups``.
        groups: K, blocks of the block-diagonal weights.
        softshrink: threshold below which a real or imaginary part of the mask becomes zero (the code's lambda).

    Attributes:
        w1, w2: (2, K, g in, g out), real and imaginary part. b1, b2: (2, K, g).
    """

    def __init__(self, channels: int, groups: int = 8, activation: str = "silu", softshrink: float = 0.01) -> None:
        super().__init__()
        if channels % groups:
            raise BadInput(f"{channels} channels are not {groups} equal groups", f"take a multiple of {groups}")
        self.groups = groups
        self.softshrink = softshrink
        size = channels // groups
        self.w1 = nn.Parameter(0.02 * torch.randn(2, groups, size, size))
        self.b1 = nn.Parameter(0.02 * torch.randn(2, groups, size))
        self.w2 = nn.Parameter(0.02 * torch.randn(2, groups, size, size))
        self.b2 = nn.Parameter(0.02 * torch.randn(2, groups, size))
        self.act = _choice("activation", activation, _ACTIVATIONS)()

    def forward(self, x: Tensor) -> Tensor:
        size = (x.shape[2], x.shape[3])
        signal = x if x.dtype == torch.float64 else x.float()
        spectrum = torch.fft.rfft2(signal, norm="ortho")
        # The size has to be told: from R columns alone an odd width would come back as an even one.
        filtered = torch.fft.irfft2(spectrum * self.mask(spectrum), s=size, norm="ortho")
        return (signal + filtered).to(x.dtype)

    def mask(self, spectrum: Tensor) -> Tensor:
        """The mask of a spectrum, both (B, C, H, R) complex: two group-linear layers at each frequency, and softshrink.

        The four real products of the original are the one complex product that they spell out, which torch does at once and
        in place, without parting the spectrum into its real and its imaginary half. Activation and softshrink see the parts
        as real numbers.
        """
        batch, channels, height, columns = spectrum.shape
        x = spectrum.reshape(batch * self.groups, channels // self.groups, height * columns)
        hidden = self._group_linear(x, self.w1, self.b1)
        hidden = torch.view_as_complex(self.act(torch.view_as_real(hidden)))
        mask = torch.view_as_real(self._group_linear(hidden, self.w2, self.b2))
        return torch.view_as_complex(F.softshrink(mask, self.softshrink)).view(spectrum.shape)

    def _group_linear(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """x: (B K, g, frequencies) complex to the same; weight and bias in parts, as the state dict has them."""
        dtype, images = x.real.dtype, x.shape[0] // self.groups
        matrix = torch.complex(*weight.to(dtype)).transpose(1, 2).repeat(images, 1, 1)
        shift = torch.complex(*bias.to(dtype)).unsqueeze(2).repeat(images, 1, 1)
        return torch.baddbmm(shift, matrix, x)


class AFFBlock(nn.Module):
    """AFF block (paper, Figure 2): norm, MBConv with expansion 2, norm, token mixer, and one skip around all of it.

    The convolution comes before the mixer. With the inner skips of both there are three additive paths.

    Shapes: (B, C, H, W) to the same.
    """

    def __init__(self, channels: int, activation: str = "silu", norm: str = "layer_norm_2d", softshrink: float = 0.01) -> None:
        super().__init__()
        make_norm = _choice("norm", norm, _NORMS)
        self.norm1 = make_norm(channels)
        self.filter = AFFTokenMixer(channels, activation=activation, softshrink=softshrink)
        self.norm2 = make_norm(channels)
        self.mlp = InvertedResidual(channels, channels, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        return self.filter(self.norm2(self.mlp(self.norm1(x)))) + x


class AFFStage(nn.Module):
    """AFF blocks, a last norm and a 1x1 projection; its input and the result are fused by a 1x1 convolution.

    Shapes: (B, C, H, W) to the same.

    Args:
        fusion: whether the input is fused in; without it the projection is the stage's output.
    """

    def __init__(
        self,
        channels: int,
        blocks: int,
        fusion: bool = True,
        activation: str = "silu",
        norm: str = "layer_norm_2d",
        softshrink: float = 0.01,
    ) -> None:
        super().__init__()
        self.global_rep = nn.Sequential(*(AFFBlock(channels, activation, norm, softshrink) for _ in range(blocks)))
        self.global_rep.append(_choice("norm", norm, _NORMS)(channels))
        self.conv_proj = _ConvBNAct(channels, channels)
        self.fusion = _ConvBNAct(2 * channels, channels, activation=activation) if fusion else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv_proj(self.global_rep(x))
        return y if self.fusion is None else self.fusion(torch.cat((x, y), dim=1))


class AFFNet(nn.Module):
    """AFFNet, exactly as published: a stem, two stages of inverted residuals, three of AFF blocks, and a linear head.

    Shapes: (B, in_channels, H, W) float, RGB in 0 to 1 without any mean or deviation taken off, to logits (B, num_classes).

    Args:
        widths: channels of the five stages; the last three have to be multiples of 8.
        depths: inverted residuals in the first two stages, AFF blocks in the last three, each of which opens with one
            strided inverted residual more.
        expansion: of the inverted residuals outside the AFF blocks.
        fusion: for each of the last three stages, whether its input is fused with its result.
        activation: ``silu``, ``relu`` or ``hardswish``, the same one everywhere.
        norm: in the AFF blocks: ``layer_norm_2d`` over the whole map, or ``layer_norm`` over a pixel's channels.
        softshrink: threshold of the mixers' masks.
        dropout: rate on the pooled features while training.

    Raises:
        BadInput: for settings that don't exist or don't fit together.
    """

    def __init__(
        self,
        widths: Sequence[int] = (32, 64, 128, 256, 320),
        depths: Sequence[int] = (1, 3, 2, 4, 3),
        expansion: float = 4,
        fusion: Sequence[bool] = (True, True, True),
        activation: str = "silu",
        norm: str = "layer_norm_2d",
        softshrink: float = 0.01,
        num_classes: int = 1000,
        dropout: float = 0.1,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        if (len(widths), len(depths), len(fusion)) != (5, 5, 3):
            what = f"{len(widths)} widths, {len(depths)} depths and {len(fusion)} fusions do not make AFFNet's stages"
            raise BadInput(what, "give five widths, five depths, and a fusion for each of the last three stages")
        channels = 16
        self.conv_1 = _ConvBNAct(in_channels, channels, 3, 2, activation=activation)
        stages: list[nn.Sequential] = []
        for stride, width, depth in zip((1, 2), widths, depths, strict=False):
            stage = nn.Sequential()
            for index in range(depth):
                stage.append(InvertedResidual(channels, width, 1 if index else stride, expansion, activation))
                channels = width
            stages.append(stage)
        for width, depth, fused in zip(widths[2:], depths[2:], fusion, strict=True):
            down = InvertedResidual(channels, width, 2, expansion, activation)
            stages.append(nn.Sequential(down, AFFStage(width, depth, fused, activation, norm, softshrink)))
            channels = width
        self.layer_1, self.layer_2, self.layer_3, self.layer_4, self.layer_5 = stages
        features = min(4 * channels, 960)
        self.conv_1x1_exp = _ConvBNAct(channels, features, activation=activation)
        head = nn.Linear(features, num_classes)
        nn.init.xavier_uniform_(head.weight)
        nn.init.zeros_(head.bias)
        self.classifier = nn.Sequential(OrderedDict[str, nn.Module](dropout=nn.Dropout(dropout), fc=head))

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer_2(self.layer_1(self.conv_1(x)))
        x = self.layer_5(self.layer_4(self.layer_3(x)))
        return self.classifier(self.conv_1x1_exp(x).mean((2, 3)))


def build(
    widths: Sequence[int] = (32, 64, 128, 256, 320),
    depths: Sequence[int] = (1, 3, 2, 4, 3),
    expansion: float = 4,
    fusion: Sequence[bool] = (True, True, True),
    activation: str = "silu",
    norm: str = "layer_norm_2d",
    softshrink: float = 0.01,
    num_classes: int = 1000,
    dropout: float = 0.1,
    in_channels: int = 3,
) -> AFFNet:
    """AFFNet as the authors' code starts it: torch's defaults for convolutions, Xavier for the head, 0.02 in the mixers."""
    return AFFNet(widths, depths, expansion, fusion, activation, norm, softshrink, num_classes, dropout, in_channels)
