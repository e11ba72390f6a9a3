"""The time of our AFFNet-ET and of its token mixer against the plain formulation of the original, side by side in one process.

`PlainMixer` and `PlainAFFNet` are the layers as the authors' code spells them: four real group-linear products a layer, each an
einsum on the real or the imaginary half of the spectrum, the halves stacked again afterwards, and activations that are not in
place. Both get the same weights and have to give the same outputs and gradients within rounding before anything is timed. Rows:

  ours / plain            the ratio of the two formulations, a pair at a time and in random order within the pair
  channels_last / NCHW    the ratio of the two memory formats, ours against ours

for inference (eval, inference_mode) and for a training step (forward and backward) in eager mode, float32. The interval is
that of the median of the paired ratios at 99 % confidence, from order statistics: it assumes no distribution.

Run: ./dev bench, or python benchmarks/affnet_speed.py [--quick] [--threads N].
"""

import argparse
import copy
import math
from collections import OrderedDict
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixbench.models import AFFNet, AFFTokenMixer
from mixbench.profilers.stats import median, ratio
from side_by_side import interval, times

WIDTHS, DEPTHS, GROUPS = (32, 48, 64, 104, 144), (1, 3, 2, 4, 3), 8


class PlainMixer(nn.Module):
    """The token mixer with real and imaginary halves apart; (B, C, H, W) to the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        size = channels // GROUPS
        self.w1 = nn.Parameter(0.02 * torch.randn(2, GROUPS, size, size))
        self.b1 = nn.Parameter(0.02 * torch.randn(2, GROUPS, size))
        self.w2 = nn.Parameter(0.02 * torch.randn(2, GROUPS, size, size))
        self.b2 = nn.Parameter(0.02 * torch.randn(2, GROUPS, size))
        self.act, self.act2 = nn.SiLU(), nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        full = torch.fft.rfft2(x, dim=(2, 3), norm="ortho")
        spectrum = full.reshape(batch, GROUPS, channels // GROUPS, *full.shape[2:])

        def linear(part: Tensor, weight: Tensor) -> Tensor:
            return torch.einsum("bkihw,kio->bkohw", part, weight)

        def shift(bias: Tensor) -> Tensor:
            return bias[:, :, None, None]

        (r1, i1), (r2, i2) = self.w1, self.w2
        re = self.act(linear(spectrum.real, r1) - linear(spectrum.imag, i1) + shift(self.b1[0]))
        im = self.act2(linear(spectrum.imag, r1) + linear(spectrum.real, i1) + shift(self.b1[1]))
        mask_re = linear(re, r2) - linear(im, i2) + shift(self.b2[0])
        mask_im = linear(im, r2) + linear(re, i2) + shift(self.b2[1])
        mask = torch.view_as_complex(F.softshrink(torch.stack([mask_re, mask_im], dim=-1), lambd=0.01))
        y = torch.fft.irfft2(mask.reshape(full.shape) * full, s=(height, width), dim=(2, 3), norm="ortho")
        return y + x


class PlainConv(nn.Module):
    """Convolution, batch norm, activation."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1, act: bool = True) -> None:
        super().__init__()
        conv = nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False)
        self.block = nn.Sequential(OrderedDict[str, nn.Module](conv=conv, norm=nn.BatchNorm2d(outputs)))
        if act:
            self.block.add_module("act", nn.SiLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


class PlainInvertedResidual(nn.Module):
    """MBConv with expansion 2."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.block = nn.Sequential(
            OrderedDict[str, nn.Module](
                exp_1x1=PlainConv(inputs, 2 * inputs),
                conv_3x3=PlainConv(2 * inputs, 2 * inputs, 3, stride, 2 * inputs),
                red_1x1=PlainConv(2 * inputs, outputs, act=False),
            )
        )
        self.use_res_connect = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x) if self.use_res_connect else self.block(x)


class PlainBlock(nn.Module):
    """Norm, MBConv, norm, mixer, skip."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(1, channels)
        self.filter = PlainMixer(channels)
        self.norm2 = nn.GroupNorm(1, channels)
        self.mlp = PlainInvertedResidual(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        residual = x
        x = self.mlp(self.norm1(x))
        x = self.filter(self.norm2(x))
        return x + residual


class PlainStage(nn.Module):
    """Blocks, norm, projection, fusion with the input."""

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__()
        self.global_rep = nn.Sequential(*(PlainBlock(channels) for _ in range(blocks)), nn.GroupNorm(1, channels))
        self.conv_proj = PlainConv(channels, channels, act=False)
        self.fusion = PlainConv(2 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.fusion(torch.cat((x, self.conv_proj(self.global_rep(x))), dim=1))


class PlainAFFNet(nn.Module):
    """AFFNet-ET; (B, 3, H, W) to logits (B, 1000)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_1 = PlainConv(3, 16, 3, 2)
        channels = 16
        for index, (width, depth) in enumerate(zip(WIDTHS, DEPTHS, strict=True)):
            first = PlainInvertedResidual(channels, width, 1 if index == 0 else 2)
            rest = [PlainStage(width, depth)] if index > 1 else [PlainInvertedResidual(width, width) for _ in range(depth - 1)]
            self.add_module(f"layer_{index + 1}", nn.Sequential(first, *rest))
            channels = width
        self.conv_1x1_exp = PlainConv(channels, 4 * channels)
        self.classifier = nn.Sequential(OrderedDict[str, nn.Module](dropout=nn.Dropout(0.1), fc=nn.Linear(4 * channels, 1000)))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_1(x)
        for index in range(5):
            x = self.get_submodule(f"layer_{index + 1}")(x)
        return self.classifier(torch.mean(self.conv_1x1_exp(x), dim=[-2, -1]))


def infer(model: nn.Module, x: Tensor) -> Tensor:
    """The output in eval mode."""
    with torch.inference_mode():
        return model.eval()(x)


def step(model: nn.Module, x: Tensor) -> Tensor:
    """The output of a training step, after its backward pass."""
    model.train().zero_grad(set_to_none=True)
    y: Tensor = model(x)
    y.square().mean().backward()
    return y.detach()


def enliven(model: nn.Module) -> None:
    """Masks of a trained size: untrained ones are hardly above the softshrink's threshold."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.rpartition(".")[2] in ("w1", "w2"):
                parameter.normal_(std=math.sqrt(1 / (2 * parameter.shape[-1])))


def assert_equal(ours: nn.Module, plain: nn.Module, x: Tensor) -> float:
    """Both give the same outputs in both modes, and the same gradients, in float64; the largest difference, relative."""
    ours, plain = ours.double(), plain.double()
    plain.load_state_dict(ours.state_dict())
    worst = 0.0
    for run in (infer, step):
        outputs = []
        for model in (ours, plain):
            torch.manual_seed(1)  # the same features are dropped
            outputs.append(run(model, x.double()))
        worst = max(worst, ((outputs[0] - outputs[1]).abs().max() / outputs[1].abs().max()).item())
    # Together: the bias of a stage's last norm has no gradient of its own, since the next batch norm takes it off again.
    mine, theirs = (torch.cat([p.grad.flatten() for p in m.parameters() if p.grad is not None]) for m in (ours, plain))
    worst = max(worst, ((mine - theirs).norm() / theirs.norm()).item())
    assert worst < 1e-9, f"the two formulations differ by {worst}"
    ours.float()
    plain.float()
    return worst


def report(name: str, first: list[float], second: list[float]) -> None:
    """Medians in milliseconds, and the median ratio with its interval."""
    found = ratio(second, first)
    print(
        f"{name:<42} {1000 * median(first):8.2f} ms {1000 * median(second):8.2f} ms   "
        f"ratio {found.value:.3f} ({interval(found, 3)})",
        flush=True,
    )


def compare(what: str, ours: nn.Module, plain: nn.Module, shape: tuple[int, ...], counts: tuple[int, int], calls: int) -> None:
    """Three rows for each mode."""
    enliven(ours)
    x = torch.randn(shape)
    print(f"{what}, batch {shape[0]}: outputs and gradients differ by {assert_equal(ours, plain, x):.0e} in float64")
    x_last = x.to(memory_format=torch.channels_last)
    ours_last, plain_last = copy.deepcopy(ours), copy.deepcopy(plain)
    for model in (ours_last, plain_last):
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub leaves it out
    for (mode, run), count in zip((("eval", infer), ("training step", step)), counts, strict=True):
        rows = (
            ("ours / plain, NCHW", (ours, x), (plain, x)),
            ("ours / plain, channels_last", (ours_last, x_last), (plain_last, x_last)),
            ("channels_last / NCHW", (ours_last, x_last), (ours, x)),
        )
        for title, first, second in rows:
            report(f"{mode}: {title}", *times(count, partial(run, *first), partial(run, *second), calls=calls))


def main() -> None:
    """Print one row for each comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer pairs, for a first impression")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)

    print(f"torch {torch.__version__}, {torch.get_num_threads()} thread(s), float32")
    for channels, side in zip(WIDTHS[2:], (32, 16, 8), strict=True):
        for batch in (1, 8):
            counts = (15, 15) if options.quick else (80, 80)
            title = f"mixer of {channels} channels at {side}x{side}"
            calls = 10 if batch == 1 else 3  # a call of less than a millisecond drowns in what was before it
            compare(title, AFFTokenMixer(channels), PlainMixer(channels), (batch, channels, side, side), counts, calls)
    for batch, full in ((1, (150, 60)), (8, (40, 30))):
        ours = AFFNet(widths=WIDTHS, depths=DEPTHS, expansion=2)
        counts = (9, 9) if options.quick else full
        compare("AFFNet-ET at 256x256", ours, PlainAFFNet(), (batch, 3, 256, 256), counts, 1)


if __name__ == "__main__":
    main()
