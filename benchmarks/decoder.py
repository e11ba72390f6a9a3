"""A LLaMA-shaped decoder of 7 billion parameters, to see how the counter copes with a model that memory can't hold.

Shapes from Touvron et al., "Llama 2" (arXiv 2307.09288): 32 layers, width 4096, 32 heads, hidden 11008, vocabulary 32000.
Also an example of a user's own model: ``mixbench flops benchmarks/decoder.py:seven_billion``.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    """Causal self-attention with rotary positions; (B, L, width) to the same."""

    frequency: Tensor

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.size = heads, width // heads
        self.q, self.k, self.v, self.o = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.register_buffer("frequency", 10000.0 ** -(torch.arange(0, self.size, 2) / self.size), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = (p(x).view(batch, length, self.heads, self.size).transpose(1, 2) for p in (self.q, self.k, self.v))
        angle = torch.outer(torch.arange(length, device=x.device, dtype=x.dtype), self.frequency).repeat(1, 2)
        q, k = (t * angle.cos() + self.rotated(t) * angle.sin() for t in (q, k))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o(y.transpose(1, 2).reshape(batch, length, width))

    @staticmethod
    def rotated(x: Tensor) -> Tensor:
        first, second = x.chunk(2, -1)
        return torch.cat((-second, first), -1)


class Block(nn.Module):
    """Pre-norm attention and SwiGLU."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.RMSNorm(width), nn.RMSNorm(width)
        self.attention = Attention(width, heads)
        self.gate, self.up = nn.Linear(width, hidden, bias=False), nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        y = self.norm2(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class Decoder(nn.Module):
    """Token ids (B, L) to logits (B, L, vocabulary)."""

    def __init__(self, layers: int, width: int, heads: int, hidden: int, vocabulary: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.blocks = nn.Sequential(*(Block(width, heads, hidden) for _ in range(layers)))
        self.norm = nn.RMSNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.embedding(ids))))


def seven_billion() -> Decoder:
    """The 7B shape."""
    return Decoder(layers=32, width=4096, heads=32, hidden=11008, vocabulary=32000)


def seven_billion_inputs() -> Tensor:
    """2,048 tokens."""
    return torch.zeros(1, 2048, dtype=torch.int64)


def macs_by_hand(layers: int = 32, width: int = 4096, hidden: int = 11008, vocabulary: int = 32000, tokens: int = 2048) -> int:
    """Projections, attention on the dense score matrix, SwiGLU, and the head; embedding and rotation are no contractions.

    The angles are an outer product, which torch runs as an elementwise product.
    """
    layer = tokens * (4 * width * width + 3 * width * hidden) + 2 * tokens * tokens * width
    return layers * layer + tokens * width * vocabulary
