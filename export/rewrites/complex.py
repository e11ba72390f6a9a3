"""AFFNet's mask in real numbers: the complex group-linear layers as grouped 1x1 convolutions on real and imaginary planes.

Why: the exporter has no translation for the complex `repeat` and `baddbmm` by which the model computes its mask (torch 2.13:
"No decompositions registered for the complex-valued input"), and no phone's runtime has complex numbers. A complex product is
a real one of twice the width, [[re, -im], [im, re]]; with a channel's two planes next to one another the group of a channel
stays the group of its planes, so that no transposition is needed on either side.

The transform itself stays torch.fft here, between two permutations; `fft` swaps it. The authors' code spells out the same four
real products, one by one; the model has the complex form, since torch is faster at that.

Proof: equal to the model within 1e-12 in float64 for drawn sizes, odd ones too, and within 1e-5 of the largest output in
float32 (`tests/test_rewrites_fft.py`).
"""

import torch
from torch import Tensor, nn

from ...models.architectures.affnet import AFFTokenMixer
from .base import Rewrite


class Spectrum(nn.Module):
    """The orthonormal real Fourier transform over a map, with real and imaginary parts as planes.

    Shapes: (B, C, H, W) to planes (B C, 2 H, 1, R), R = W // 2 + 1: for each channel the real parts of all frequencies, then
    the imaginary ones, rows as channels, which is how a convolution transforms rows.
    """

    def forward(self, x: Tensor) -> Tensor:
        pairs = torch.view_as_real(torch.fft.rfft2(x, norm="ortho"))
        return pairs.movedim(-1, 2).reshape(-1, 2 * x.shape[2], 1, x.shape[3] // 2 + 1)

    def inverse(self, planes: Tensor, channels: int, size: tuple[int, int]) -> Tensor:
        """Planes (B C, 2 H, 1, R) back to (B, C, H, W)."""
        height, width = size
        pairs = planes.reshape(-1, channels, 2, height, width // 2 + 1).movedim(2, -1)
        return torch.fft.irfft2(torch.view_as_complex(pairs.contiguous()), s=size, norm="ortho")


class RealMixer(nn.Module):
    """An `AFFTokenMixer` without complex numbers outside its transform; (B, C, H, W) to the same."""

    def __init__(self, mixer: AFFTokenMixer) -> None:
        super().__init__()
        self.spectrum = Spectrum()
        self.first = _on_planes(mixer.w1, mixer.b1)
        self.act = mixer.act
        self.second = _on_planes(mixer.w2, mixer.b2)
        self.shrink = nn.Softshrink(mixer.softshrink)
        self.train(mixer.training)

    def forward(self, x: Tensor) -> Tensor:
        channels, height, width = x.shape[1:]
        signal = x if x.dtype == torch.float64 else x.float()
        planes = self.spectrum(signal)
        mask = self.second(self.act(self.first(planes.reshape(-1, 2 * channels, height, width // 2 + 1))))
        mask = self.shrink(mask).reshape(-1, 2 * height, 1, width // 2 + 1)
        (re, im), (mask_re, mask_im) = planes.chunk(2, 1), mask.chunk(2, 1)
        product = torch.cat((re * mask_re - im * mask_im, re * mask_im + im * mask_re), 1)
        return (signal + self.spectrum.inverse(product, channels, (height, width))).to(x.dtype)


@torch.no_grad()
def _on_planes(weight: Tensor, bias: Tensor) -> nn.Conv2d:
    """A complex group-linear layer, (2, K, g in, g out) and (2, K, g), as a convolution of K groups of 2 g planes."""
    weight, bias = (x if x.dtype == torch.float64 else x.float() for x in (weight, bias))
    re, im = weight.transpose(2, 3)
    groups, size, _ = re.shape
    rows = torch.stack((torch.stack((re, -im), -1), torch.stack((im, re), -1)), 2)  # (K, out, plane out, in, plane in)
    planes = 2 * groups * size
    conv = nn.Conv2d(planes, planes, 1, groups=groups, device=rows.device, dtype=rows.dtype)
    conv.weight.copy_(rows.reshape(planes, 2 * size, 1, 1))
    assert conv.bias is not None
    conv.bias.copy_(bias.permute(1, 2, 0).flatten())
    return conv


def _real(module: nn.Module) -> nn.Module | None:
    return RealMixer(module) if type(module) is AFFTokenMixer else None


REWRITE = Rewrite("AFFNet's complex layers as real ones on planes", module=_real)
