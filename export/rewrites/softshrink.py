"""Softshrink as x - clip(x, -lambda, lambda).

Why: the exporter spells it as Abs, Greater, Sign and Where, five nodes of which NNAPI lists one and CoreML's MLProgram one;
ONNX's own Shrink is in neither table. Clip and Sub are in all (ONNX Runtime 1.32, `tools/mobile_helpers/*.md`).

Proof: the same to the last bit, also for infinities and NaN: outside the threshold both take it off once, and inside
x - x is 0 (`tests/test_rewrites.py`).
"""

from torch import Tensor, nn

from .base import Rewrite


class ClippedShrink(nn.Module):
    """Softshrink by a clip; any shape to the same."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = threshold

    def forward(self, x: Tensor) -> Tensor:
        return x - x.clamp(-self.threshold, self.threshold)


def _clip(module: nn.Module) -> nn.Module | None:
    return ClippedShrink(module.lambd) if type(module) is nn.Softshrink else None


REWRITE = Rewrite("Softshrink as Clip and Sub", module=_clip)
