"""GhostNet, the first version: GhostNetV2's baseline, made of the same blocks without attention.

Source: Han et al., "GhostNet: More Features from Cheap Operations", CVPR 2020 (arXiv 1911.11907), and the authors' code
(github.com/huawei-noah/Efficient-AI-Backbones, ghostnet_pytorch). Layers and network are in ``ghostnetv2.py``.
"""

from ..spec import Family, Preprocessing, Published, TensorSpec, Variant
from .ghostnetv2 import GhostNet

FAMILY = Family(
    title="GhostNet",
    summary=(
        "The first GhostNet, baseline of GhostNetV2: half of each layer's channels come from a 1x1 convolution, the "
        "other half from cheap depthwise convolutions on them."
    ),
    task="image classification",
    paper='Han et al., "GhostNet: More Features from Cheap Operations", CVPR 2020',
    paper_url="https://arxiv.org/abs/1911.11907",
    repository="https://github.com/huawei-noah/Efficient-AI-Backbones/tree/master/ghostnet_pytorch",
    inputs=(TensorSpec((1, 3, 224, 224)),),
    default="1.0x",
    variants={
        "0.5x": Variant(
            {"width": 0.5},
            (
                Published("params_bn_folded", "2.6M", "arXiv 1911.11907, ImageNet table"),
                Published("macs", "42M", "arXiv 1911.11907, ImageNet table (as FLOPs)"),
                Published("top1_percent", "66.2", "arXiv 1911.11907, ImageNet table"),
            ),
        ),
        "1.0x": Variant(
            {"width": 1.0},
            (
                Published("params_bn_folded", "5.2M", "arXiv 1911.11907, ImageNet table"),
                Published("macs", "141M", "arXiv 1911.11907, ImageNet table (as FLOPs)"),
                Published("top1_percent", "73.9", "arXiv 1911.11907, ImageNet table"),
            ),
        ),
        "1.1x": Variant(
            {"width": 1.1},
            (Published("top1_percent", "74.5", "arXiv 2211.12905, abstract (GhostNetV1 at a similar cost)"),),
        ),
        "1.3x": Variant(
            {"width": 1.3},
            (
                Published("params_bn_folded", "7.3M", "arXiv 1911.11907, ImageNet table"),
                Published(
                    "macs",
                    "226M",
                    "arXiv 1911.11907, ImageNet table (as FLOPs)",
                    "the authors' own code builds to our figure; they don't say what they counted less",
                ),
                Published("top1_percent", "75.7", "arXiv 1911.11907, ImageNet table"),
            ),
        ),
        "1.4x": Variant({"width": 1.4}, (Published("top1_percent", "76.1", "arXiv 2211.12905, read from a plot"),)),
        "1.7x": Variant({"width": 1.7}, (Published("top1_percent", "77.2", "arXiv 2211.12905, read from a plot"),)),
    },
    supports=("any width and number of classes", "any image size", "official and timm checkpoints"),
    notes=(
        "The paper calls multiply-accumulates FLOPs; ours are MACs, and FLOPs are twice as many.",
        "The published parameter counts fit the network after batch norms are folded into the convolutions (inferred).",
        "The repository's readme prints 142M for 1.0x, the paper 141M.",
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

__all__ = ["GhostNet"]


def build(width: float = 1.0, num_classes: int = 1000, dropout: float = 0.2, in_channels: int = 3) -> GhostNet:
    """GhostNet with PyTorch's default initialisation, as the authors' code leaves it."""
    return GhostNet(width, num_classes, dropout, in_channels)
