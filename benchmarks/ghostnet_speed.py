"""The time of our GhostNetV2 1.0x against the plain formulation of the original, side by side in one process.

`PlainGhostNetV2` is the network as the authors' code spells it: every ghost module cuts its concatenation, every gate is a
sigmoid and an interpolation, the hard sigmoid is relu6(x + 3) / 6, the shortcut is added in place. Both get the same weights
and have to give the same outputs, bit for bit, before anything is timed. Rows are

  ours / plain            the ratio of the two formulations, a pair at a time and in random order within the pair
  channels_last / NCHW    the ratio of the two memory formats, ours against ours

for inference (eval, inference_mode) and for a training step (forward and backward) in eager mode, float32. The interval is
that of the median of the paired ratios at 99 % confidence, from order statistics: it assumes no distribution.

Run: ./dev bench, or python benchmarks/ghostnet_speed.py [--quick] [--threads N].
"""

import argparse
import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixbench.models import GhostNetV2
from mixbench.profilers.stats import median, ratio
from side_by_side import interval, times

# Kernel, expanded channels, output channels, whether squeeze and excite, stride; the index of its stage.
ROWS = (
    (0, 3, 16, 16, False, 1),
    (1, 3, 48, 24, False, 2),
    (2, 3, 72, 24, False, 1),
    (3, 5, 72, 40, True, 2),
    (4, 5, 120, 40, True, 1),
    (5, 3, 240, 80, False, 2),
    (6, 3, 200, 80, False, 1),
    (6, 3, 184, 80, False, 1),
    (6, 3, 184, 80, False, 1),
    (6, 3, 480, 112, True, 1),
    (6, 3, 672, 112, True, 1),
    (7, 5, 672, 160, True, 2),
    (8, 5, 960, 160, False, 1),
    (8, 5, 960, 160, True, 1),
    (8, 5, 960, 160, False, 1),
    (8, 5, 960, 160, True, 1),
)


class PlainGhostModule(nn.Module):
    """Primary and cheap convolution, concatenated and cut; gated where ``attention``."""

    def __init__(self, inputs: int, outputs: int, relu: bool, attention: bool) -> None:
        super().__init__()
        self.oup, self.attention = outputs, attention
        primary = math.ceil(outputs / 2)
        self.primary_conv = nn.Sequential(
            nn.Conv2d(inputs, primary, 1, bias=False),
            nn.BatchNorm2d(primary),
            nn.ReLU(inplace=True) if relu else nn.Sequential(),
        )
        self.cheap_operation = nn.Sequential(
            nn.Conv2d(primary, primary, 3, 1, 1, groups=primary, bias=False),
            nn.BatchNorm2d(primary),
            nn.ReLU(inplace=True) if relu else nn.Sequential(),
        )
        if attention:
            self.short_conv = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.Conv2d(outputs, outputs, (1, 5), 1, (0, 2), groups=outputs, bias=False),
                nn.BatchNorm2d(outputs),
                nn.Conv2d(outputs, outputs, (5, 1), 1, (2, 0), groups=outputs, bias=False),
                nn.BatchNorm2d(outputs),
            )

    def forward(self, x: Tensor) -> Tensor:
        x1 = self.primary_conv(x)
        x2 = self.cheap_operation(x1)
        out = torch.cat([x1, x2], dim=1)
        if not self.attention:
            return out[:, : self.oup, :, :]
        gate = torch.sigmoid(self.short_conv(F.avg_pool2d(x, kernel_size=2, stride=2)))
        return out[:, : self.oup, :, :] * F.interpolate(gate, size=(out.shape[-2], out.shape[-1]), mode="nearest")


class PlainSqueezeExcite(nn.Module):
    """Squeeze and excite with modules for pooling and activation."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.avg_pool = nn.AdaptiveAvgPool2d(1)
        self.conv_reduce = nn.Conv2d(channels, squeezed, 1)
        self.act1 = nn.ReLU(inplace=True)
        self.conv_expand = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.conv_expand(self.act1(self.conv_reduce(self.avg_pool(x))))
        return x * (F.relu6(gate + 3.0) / 6.0)


class PlainBottleneck(nn.Module):
    """Ghost, strided depthwise convolution, squeeze and excite, ghost, shortcut."""

    def __init__(self, inputs: int, hidden: int, outputs: int, kernel: int, stride: int, se: bool, attention: bool) -> None:
        super().__init__()
        self.stride = stride
        padding = (kernel - 1) // 2
        self.ghost1 = PlainGhostModule(inputs, hidden, True, attention)
        if stride > 1:
            self.conv_dw = nn.Conv2d(hidden, hidden, kernel, stride, padding, groups=hidden, bias=False)
            self.bn_dw = nn.BatchNorm2d(hidden)
        self.se = PlainSqueezeExcite(hidden, (hidden // 4 + 2) // 4 * 4) if se else None
        self.ghost2 = PlainGhostModule(hidden, outputs, False, False)
        self.shortcut = nn.Sequential()
        if inputs != outputs or stride > 1:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, inputs, kernel, stride, padding, groups=inputs, bias=False),
                nn.BatchNorm2d(inputs),
                nn.Conv2d(inputs, outputs, 1, bias=False),
                nn.BatchNorm2d(outputs),
            )

    def forward(self, x: Tensor) -> Tensor:
        residual = x
        x = self.ghost1(x)
        if self.stride > 1:
            x = self.bn_dw(self.conv_dw(x))
        if self.se is not None:
            x = self.se(x)
        x = self.ghost2(x)
        x += self.shortcut(residual)
        return x


class PlainConvBnAct(nn.Module):
    """1x1 convolution, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.act1 = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act1(self.bn1(self.conv(x)))


class PlainGhostNetV2(nn.Module):
    """GhostNetV2 1.0x; (B, 3, H, W) to logits (B, 1000)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem = nn.Conv2d(3, 16, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.act1 = nn.ReLU(inplace=True)
        stages: list[list[nn.Module]] = [[] for _ in range(9)]
        channels = 16
        for index, (stage, kernel, hidden, outputs, se, stride) in enumerate(ROWS):
            stages[stage].append(PlainBottleneck(channels, hidden, outputs, kernel, stride, se, index >= 2))
            channels = outputs
        stages.append([PlainConvBnAct(160, 960)])
        self.blocks = nn.Sequential(*(nn.Sequential(*stage) for stage in stages))
        self.global_pool = nn.AdaptiveAvgPool2d((1, 1))
        self.conv_head = nn.Conv2d(960, 1280, 1)
        self.act2 = nn.ReLU(inplace=True)
        self.classifier = nn.Linear(1280, 1000)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act1(self.bn1(self.conv_stem(x)))
        x = self.blocks(x)
        x = self.act2(self.conv_head(self.global_pool(x)))
        x = x.view(x.size(0), -1)
        x = F.dropout(x, p=0.2, training=self.training)
        return self.classifier(x)


def infer(model: nn.Module, x: Tensor) -> Tensor:
    """Logits in eval mode."""
    with torch.inference_mode():
        return model.eval()(x)


def step(model: nn.Module, x: Tensor) -> Tensor:
    """Logits of a training step, after its backward pass."""
    model.train().zero_grad(set_to_none=True)
    logits: Tensor = model(x)
    F.cross_entropy(logits, torch.arange(len(x))).backward()
    return logits.detach()


def assert_identical(ours: nn.Module, plain: nn.Module) -> None:
    """Both give the same logits in both modes, and the same gradients, to the last bit."""
    plain.load_state_dict(ours.state_dict())
    x = torch.randn(2, 3, 224, 224)
    assert torch.equal(infer(ours, x), infer(plain, x)), "the two formulations differ in eval mode"
    logits = []
    for model in (ours, plain):
        torch.manual_seed(1)  # the same features are dropped
        logits.append(step(model, x))
    assert torch.equal(*logits), "the two formulations differ in training mode"
    gradients = zip(ours.parameters(), plain.parameters(), strict=True)
    assert all(a.grad is not None and b.grad is not None and torch.equal(a.grad, b.grad) for a, b in gradients)


def report(name: str, first: list[float], second: list[float]) -> None:
    """Medians in milliseconds, and the median ratio with its interval."""
    found = ratio(second, first)
    print(
        f"{name:<46} {1000 * median(first):8.1f} ms {1000 * median(second):8.1f} ms   "
        f"ratio {found.value:.3f} ({interval(found, 3)})",
        flush=True,
    )


def main() -> None:
    """Print one row for each comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer pairs, for a first impression")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)

    ours, plain = GhostNetV2(), PlainGhostNetV2()
    assert_identical(ours, plain)
    ours_last, plain_last = GhostNetV2(), PlainGhostNetV2()
    for model in (ours_last, plain_last):
        model.load_state_dict(ours.state_dict())
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub leaves it out
    print(f"torch {torch.__version__}, {torch.get_num_threads()} thread(s); the logits and gradients are identical")

    many, few = (15, 9) if options.quick else (200, 40)
    workloads = (("eval", infer, 1, many), ("eval", infer, 8, few), ("training step", step, 8, few if options.quick else 100))
    for mode, run, batch, count in workloads:
        x = torch.randn(batch, 3, 224, 224)
        x_last = x.to(memory_format=torch.channels_last)
        rows = (
            ("ours / plain, NCHW", (ours, x), (plain, x)),
            ("ours / plain, channels_last", (ours_last, x_last), (plain_last, x_last)),
            ("channels_last / NCHW", (ours_last, x_last), (ours, x)),
        )
        for title, first, second in rows:
            report(f"{mode}, batch {batch}: {title}", *times(count, partial(run, *first), partial(run, *second)))


if __name__ == "__main__":
    main()
