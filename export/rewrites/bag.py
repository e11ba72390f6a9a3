"""Look-ups by gather: a bag of rows becomes the rows, weighted and added up.

Why: the exporter turns an embedding bag into a Loop over sequences, which no accelerator takes and ONNX Runtime runs slower
than a gather. MemoryFormer's layers have a gather path of their own; an nn.EmbeddingBag whose bags are the rows
of a matrix is read the same way. What makes a bag fast, that the rows are never laid out, is lost: K rows a token are.

Proof: equal to float64 rounding for any shape (`tests/test_rewrites.py`), no Loop or Sequence in the exported file, and
ONNX Runtime's output equal to torch's.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from ...models.architectures.memoryformer import MemoryLayer
from .base import Rewrite


class GatheredBag(nn.EmbeddingBag):
    """An nn.EmbeddingBag that adds up gathered rows where each row of its input is a bag.

    A padding row, which a bag leaves out, and an input of bags laid end to end (with offsets) are left to torch.
    """

    def forward(self, input: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None) -> Tensor:
        if input.ndim != 2 or offsets is not None:
            return super().forward(input, offsets, per_sample_weights)
        rows = F.embedding(input, self.weight)
        if per_sample_weights is not None:
            rows = rows * per_sample_weights.unsqueeze(-1)
        return rows.mean(1) if self.mode == "mean" else rows.sum(1)


def _gather(module: nn.Module) -> nn.Module | None:
    if isinstance(module, MemoryLayer) and module.path != "gather":
        module.path = "gather"
        return module
    if type(module) is nn.EmbeddingBag and module.mode != "max" and module.padding_idx is None and module.max_norm is None:
        module.__class__ = GatheredBag
        return module
    return None


REWRITE = Rewrite("look-ups by gather instead of a loop over bags", module=_gather)
