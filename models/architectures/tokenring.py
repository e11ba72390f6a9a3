"""TokenRing: attention over a sequence that is spread over ranks; queries go one way round, results come back the other.

Source: Wang et al., "TokenRing: An Efficient Parallelism Framework for Infinite-Context LLMs via Bidirectional
Communication", 2024 (arXiv 2412.20501), and the authors' code (github.com/ACA-Lab-SJTU/token-ring). Each rank keeps its keys
and values; the queries travel round the ring, and each partial result is sent straight back to the queries' owner, who
merges it. Ring attention (arXiv 2310.01889) moves keys and values instead. What is computed is exact attention either way.

This file holds the mathematics, in one process: the partial attention, the merge, the schedule played through rank by rank,
and a LLaMA-shaped decoder whose attention can use it. At degree 1 it is torch's ordinary attention.

Letters: B batch, S tokens, H query heads, G key and value heads (G divides H), D head size, N ranks (the degree).
"""

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..spec import Family, Published, TensorSpec, Variant
from ..strategies.block import merge_partial_attention, partial_attention

FAMILY = Family(
    title="TokenRing",
    summary=(
        "A LLaMA-shaped decoder with sequence-parallel attention. Every rank keeps the keys and values of its part of the "
        "sequence; queries travel round the ring, and partial results return to their owner in the other direction, so that "
        "both directions of every link are used. The result is exact attention, whatever the number of ranks."
    ),
    task="language modelling",
    paper=(
        'Wang et al., "TokenRing: An Efficient Parallelism Framework for Infinite-Context LLMs via Bidirectional '
        'Communication", 2024'
    ),
    paper_url="https://arxiv.org/abs/2412.20501",
    repository="https://github.com/ACA-Lab-SJTU/token-ring",
    inputs=(TensorSpec((1, 256), "int64", below="vocabulary"),),
    default="small",
    variants={
        "small": Variant({"layers": 4, "width": 256, "heads": 8, "kv_heads": 8, "hidden": 688, "vocabulary": 32000}),
        "llama2-7b": Variant(
            {"layers": 32, "width": 4096, "heads": 32, "kv_heads": 32, "hidden": 11008, "vocabulary": 32000},
            (Published("params", "7G", "arXiv 2307.09288, the model's name (7B)"),),
        ),
        "llama3-8b": Variant(
            {"layers": 32, "width": 4096, "heads": 32, "kv_heads": 8, "hidden": 14336, "vocabulary": 128256},
            (Published("params", "8G", "arXiv 2407.21783, the model's name (8B)"),),
        ),
    },
    supports=("any number of tokens", "grouped key and value heads", "any degree, played through in one process"),
    notes=(
        "The published experiment: LLaMA2-7B's attention, 24,000 tokens on 4 x A10, one step 3.5 to 4.6 ms against ring "
        "attention's 7.6 (README of the repository, read off a profiler picture).",
        "With few key and value heads (GQA) ring attention moves less than TokenRing: queries and results have all heads.",
        "Here the ranks are played through one after the other in one process: the result is exact, the speed says nothing.",
    ),
)

__all__ = [
    "TokenRingAttention",
    "TokenRingBlock",
    "TokenRingDecoder",
    "merge_partial_attention",
    "partial_attention",
    "token_ring_attention",
]


def token_ring_attention(q: Tensor, k: Tensor, v: Tensor, degree: int, causal: bool = False) -> Tensor:
    """TokenRing's schedule over ``degree`` ranks, played through in one process; equal to ordinary attention.

    The sequence is cut into contiguous parts, whose lengths may differ by one. At step s rank r holds the queries of rank
    r - s, attends with its own keys and values, and the result goes home, where it is merged. A rank whose keys all lie
    after the queries has nothing to add and computes nothing.

    Shapes: q (B, H, S, D), k and v (B, G, S, D) to (B, H, S, D).

    Raises:
        ValueError: for a degree below 1 or above S.
    """
    length = q.shape[2]
    if not 1 <= degree <= length:
        raise ValueError(f"a sequence of {length} tokens can't be spread over {degree} ranks")
    parts = [t.tensor_split(degree, dim=2) for t in (q, k, v)]
    positions = torch.arange(length, device=q.device).tensor_split(degree)
    return torch.cat([_collect(owner, parts, positions, causal) for owner in range(degree)], dim=2)


def _collect(owner: int, parts: Sequence[Sequence[Tensor]], positions: Sequence[Tensor], causal: bool) -> Tensor:
    """What one rank's queries gather on their way round: its own block first, then one from each holder that follows."""
    queries, keys, values = parts
    degree = len(queries)
    result: tuple[Tensor, Tensor] | None = None
    for step in range(degree):
        holder = (owner + step) % degree
        if causal and holder > owner:
            continue
        blocked = positions[owner].unsqueeze(1) < positions[holder] if causal and holder == owner else None
        block = partial_attention(queries[owner], keys[holder], values[holder], blocked)
        result = block if result is None else merge_partial_attention(*result, *block)
    assert result is not None, "a rank attends to itself"
    return result[0].to(queries[owner].dtype)


class TokenRingAttention(nn.Module):
    """Causal self-attention with rotary positions and grouped heads, by torch's own kernel or by TokenRing's schedule.

    Shapes: (B, S, width) to the same.

    Args:
        kv_heads: heads of keys and values; has to divide ``heads``.
        degree: ranks to spread the sequence over; 1 is ordinary attention.

    Raises:
        ValueError: when heads don't divide the width, or kv_heads the heads.
    """

    def __init__(self, width: int, heads: int, kv_heads: int | None = None, degree: int = 1) -> None:
        super().__init__()
        kv_heads = kv_heads or heads
        if width % heads or heads % kv_heads or (width // heads) % 2:
            raise ValueError(f"width {width}, {heads} heads and {kv_heads} key-value heads don't divide one another evenly")
        self.heads, self.kv_heads, self.size, self.degree = heads, kv_heads, width // heads, degree
        self.q = nn.Linear(width, heads * self.size, bias=False)
        self.k = nn.Linear(width, kv_heads * self.size, bias=False)
        self.v = nn.Linear(width, kv_heads * self.size, bias=False)
        self.o = nn.Linear(heads * self.size, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        q = self.q(x).view(batch, length, self.heads, self.size).transpose(1, 2)
        k, v = (layer(x).view(batch, length, self.kv_heads, self.size).transpose(1, 2) for layer in (self.k, self.v))
        q, k = rotate(q), rotate(k)
        attend = (
            partial(F.scaled_dot_product_attention, is_causal=True, enable_gqa=self.kv_heads != self.heads)
            if self.degree == 1
            else partial(token_ring_attention, degree=self.degree, causal=True)
        )
        return self.o(attend(q, k, v).transpose(1, 2).reshape(batch, length, -1))


def rotate(x: Tensor, base: float = 10000.0) -> Tensor:
    """Rotary positions (Su et al., arXiv 2104.09864) in LLaMA's halves, for tokens 0 … S - 1; x is (B, H, S, D), D even.

    Angles are made in float32: in 16 bits the positions themselves would be rounded.
    """
    size = x.shape[-1]
    frequency = base ** -(torch.arange(0, size, 2, device=x.device, dtype=torch.float32) / size)
    angle = torch.outer(torch.arange(x.shape[-2], device=x.device, dtype=torch.float32), frequency)
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


class TokenRingBlock(nn.Module):
    """LLaMA's decoder block: RMS norm and attention, RMS norm and SwiGLU, each added to its input.

    Shapes: (B, S, width) to the same.
    """

    def __init__(self, width: int, heads: int, kv_heads: int, hidden: int, degree: int = 1) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(width, eps=1e-5)
        self.attention = TokenRingAttention(width, heads, kv_heads, degree)
        self.ffn_norm = nn.RMSNorm(width, eps=1e-5)
        self.gate = nn.Linear(width, hidden, bias=False)
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x))
        y = self.ffn_norm(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class TokenRingDecoder(nn.Module):
    """A LLaMA-shaped language model: token ids (B, S) int64 to logits (B, S, vocabulary)."""

    def __init__(
        self, layers: int, width: int, heads: int, kv_heads: int, hidden: int, vocabulary: int, degree: int = 1
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.blocks = nn.Sequential(*(TokenRingBlock(width, heads, kv_heads, hidden, degree) for _ in range(layers)))
        self.norm = nn.RMSNorm(width, eps=1e-5)
        self.head = nn.Linear(width, vocabulary, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.embedding(ids))))


def build(
    layers: int = 4,
    width: int = 256,
    heads: int = 8,
    kv_heads: int = 8,
    hidden: int = 688,
    vocabulary: int = 32000,
    degree: int = 1,
) -> TokenRingDecoder:
    """A decoder with torch's default initialisation; ``degree`` plays TokenRing through over that many ranks."""
    return TokenRingDecoder(layers, width, heads, kv_heads, hidden, vocabulary, degree)
