"""MemoryFormer: a transformer whose fully connected layers are replaced by hashed look-up tables.

Source: Ding et al., "MemoryFormer: Minimize Transformer Computation by Removing Fully-Connected Layers", NeurIPS 2024
(arXiv 2411.12992), and the authors' code (github.com/C0-Design/MemoryFormer, on top of GPT-NeoX). Where paper and code
disagree, `MemoryForm` names the point and has both.

This file has the model and its form; the Memory Layer itself is in ``_memoryformer_layer.py``.

Letters: B batch, S tokens, D width (paper: d), H outputs (h), K tables, tau bits of a table, e extra bits, t temperature.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import BadInput
from ..spec import Family, Published, TensorSpec, Variant
from ._memoryformer_layer import PAPER_TOKENS, STD, Address, BitOrder, MemoryLayer, Occupancy, Path, Weight, check_choices

FAMILY = Family(
    title="MemoryFormer",
    summary=(
        "A causal language model without dense layers but its head. A Memory Layer cuts its input into chunks; the signs of "
        "a chunk are the number of a row in the chunk's own table, and the rows are added up, weighted by how sure the signs "
        "are. Few multiplications, twenty times the parameters: it trades arithmetic for memory traffic."
    ),
    task="language modelling",
    paper='Ding et al., "MemoryFormer: Minimize Transformer Computation by Removing Fully-Connected Layers", NeurIPS 2024',
    paper_url="https://arxiv.org/abs/2411.12992",
    repository="https://github.com/C0-Design/MemoryFormer",
    inputs=(TensorSpec((1, 2048), "int64", below="vocabulary"),),
    default="tiny",
    variants={
        "tiny": Variant(
            {"depth": 6, "width": 512, "heads": 8, "tables": 64},
            (
                Published("block_lookup_macs", "0.4G", "arXiv 2411.12992, Table 1 (as FLOPs)"),
                Published("block_macs", "4.7G", "arXiv 2411.12992, Table 1 (as FLOPs)", "5.25 K s d rounded up to 6: 4.70G"),
                Published("zero_shot_average", "0.404", "arXiv 2411.12992, Table 1"),
            ),
        ),
        "small": Variant(
            {"depth": 12, "width": 768, "heads": 12, "tables": 96},
            (
                Published("block_lookup_macs", "1.0G", "arXiv 2411.12992, Table 1 (as FLOPs)", "its own 6 K s d are 0.906G"),
                Published("block_macs", "7.4G", "arXiv 2411.12992, Table 1 (as FLOPs)", "its own 6 K s d make 7.348G"),
                Published("zero_shot_average", "0.423", "arXiv 2411.12992, Table 1"),
            ),
        ),
        "base": Variant(
            {"depth": 24, "width": 1024, "heads": 16, "tables": 128},
            (
                Published(
                    "block_lookup_macs", "1.6G", "arXiv 2411.12992, Table 1 (as FLOPs)", "5.25 K s d rounded up to 6: 1.61G"
                ),
                Published("block_macs", "10.2G", "arXiv 2411.12992, Table 1 (as FLOPs)", "5.25 K s d rounded up to 6: 10.20G"),
                Published("zero_shot_average", "0.458", "arXiv 2411.12992, Table 1"),
            ),
        ),
        "layer": Variant(
            {"part": "layer", "width": 512, "tables": 64},
            (
                Published("layer_lookup_macs", "0.07G", "arXiv 2411.12992, Table 3 (as FLOPs)"),
                Published("table_bytes_fp16", "16.8M", "arXiv 2411.12992, Table 3"),
                Published("perplexity_8000_steps", "18.82", "arXiv 2411.12992, Table 3"),
            ),
            inputs=(TensorSpec((1, 256, 512)),),
        ),
    },
    supports=(
        "the paper's form and the public code's, point by point",
        "a path for speed (embedding_bag) and one for export (gather)",
        "a block or a layer alone",
    ),
    notes=(
        "Weighting and adding up rows is no contraction: 2 elementwise FLOPs an element, in none of our MACs. The paper counts "
        "it, one FLOP a multiply-add, for one block on 2,048 tokens; that count of ours stands beside the published one.",
        "Exact are 5.25 K s d look-ups, the paper writes 6 K s d; small's published 1.0G and 7.4G round neither.",
        "The paper never prints parameters: the tables hold 22 times as many as the dense layers that they replace.",
        "A sign that flips makes the output jump: compare implementations layer by layer, on the same inputs.",
        "Weighted by p, as in the paper, the signal starts some 20 times smaller than a dense layer's; in the code 3 times.",
        "The paper names no position code, so its form has none; the code's rotates a quarter of each head.",
        "base holds 27 GB of float32 weights; it is counted on the meta device, which needs none of them.",
    ),
)

__all__ = ["Address", "MemoryBlock", "MemoryForm", "MemoryFormer", "MemoryLayer", "Occupancy"]


@dataclass(frozen=True, slots=True)
class MemoryForm:
    """The points in which paper and public code disagree, or of which the paper says nothing. The defaults are the paper's.

    Attributes:
        weight, bit_order, temperature, bias, path: as in `MemoryLayer`.
        norm: ``layer_norm``, which centres as the paper asks, so that signs are balanced, or the code's ``rms_norm``, which
            does not; before attention, before the Memory Block and before the head. Between the block's two layers both
            have a layer norm.
        affine: whether the norms have a learned scale (and, layer norms, a shift).
        rotary: share of a head's dimensions that are rotated by position, 0 to 1.
        small_init: whether the tables of Q, K and V start with a standard deviation of sqrt(2 / (5 D)).
    """

    weight: Weight = "softmax"
    bit_order: BitOrder = "lsb"
    temperature: float = 1.0
    bias: bool = False
    norm: Literal["layer_norm", "rms_norm"] = "layer_norm"
    affine: bool = True
    rotary: float = 0.0
    small_init: bool = False
    path: Path = "bag"

    @classmethod
    def named(cls, name: Literal["paper", "code"], **changes: Any) -> "MemoryForm":
        """The paper's or the public code's form, with changes; a change to None leaves the point as it is.

        Raises:
            BadInput: on an unknown name.
        """
        check_choices(form=name)
        form = cls()
        if name == "code":
            form = cls("scaled", "msb", bias=True, norm="rms_norm", rotary=0.25, small_init=True)
        return replace(form, **{key: value for key, value in changes.items() if value is not None})

    def layer(self, inputs: int, outputs: int, tables: int, std: float = STD) -> MemoryLayer:
        """A Memory Layer of this form."""
        form = self.weight, self.bit_order, self.temperature, self.bias, self.path
        return MemoryLayer(inputs, outputs, tables, *form, std)

    def norm_of(self, width: int) -> nn.Module:
        """A norm of this form, with an epsilon of 1e-5."""
        check_choices(norm=self.norm)
        kind = nn.LayerNorm if self.norm == "layer_norm" else nn.RMSNorm
        return kind(width, eps=1e-5, elementwise_affine=self.affine)


def rotate(x: Tensor, share: float) -> Tensor:
    """Rotary positions on the first ``share`` of a head's dimensions, paired with those half of that share away.

    x: (B, heads, S, size) to the same. The angle of pair i at position s is s / 10000^(2 i / rotated).
    """
    rotated = int(x.shape[-1] * share) // 2 * 2
    if not rotated:
        return x
    kind = torch.promote_types(x.dtype, torch.float32)
    position = torch.arange(x.shape[-2], device=x.device, dtype=kind)
    pair = torch.arange(0, rotated, 2, device=x.device, dtype=kind)
    angle = position[:, None] * torch.exp(pair * (-math.log(10000) / rotated))
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    first, second = x[..., :rotated].chunk(2, -1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin, x[..., rotated:]), -1)


class MemoryBlock(nn.Module):
    """A transformer block without dense layers: z = x + MHA(norm(x)), y = z + M_2(norm(M_1(norm(z)))).

    Read literally, the paper's Equation 13 lets the residual carry the normalised x; this is the usual pre-norm form, which
    the code has. Attention has no output projection, and M_1 and M_2 no activation between them: the hash is the
    nonlinearity. M_1 gives (tau + e) K outputs, so M_2 has tables of 2^(tau + e) rows.

    Shapes: (B, S, D) to the same.

    Args:
        heads: divides ``width``.
        tables: K, the same in all five layers; it divides ``width``.
        extra_bits: e, 2 in the paper.

    Raises:
        BadInput: where ``heads`` or ``tables`` don't divide the width, or a setting is out of its range.
    """

    def __init__(self, width: int, heads: int, tables: int, extra_bits: int = 2, form: MemoryForm | None = None) -> None:
        super().__init__()
        if heads < 1 or width % heads:
            raise BadInput(f"a width of {width} cannot be shared by {heads} heads", "the number of heads has to divide")
        form = form or MemoryForm()
        if extra_bits < 0 or not 0 <= form.rotary <= 1:
            raise BadInput(
                f"{extra_bits} extra bits, {form.rotary} of a head rotated", "extra bits from 0 up, a share of 0 to 1"
            )
        self.width, self.heads, self.rotary = width, heads, form.rotary
        hidden = width + extra_bits * tables
        std = math.sqrt(2 / (5 * width)) if form.small_init else STD
        self.norm_attention = form.norm_of(width)
        self.query, self.key, self.value = (form.layer(width, width, tables, std) for _ in range(3))
        self.norm_memory = form.norm_of(width)
        self.expand = form.layer(width, hidden, tables)
        self.norm_hidden = replace(form, norm="layer_norm").norm_of(hidden)
        self.contract = form.layer(hidden, width, tables)

    def forward(self, x: Tensor) -> Tensor:
        a = self.norm_attention(x)
        address = self.query.address(a)  # one hash for all three, as in the code
        heads = (layer(a, address).unflatten(-1, (self.heads, -1)) for layer in (self.query, self.key, self.value))
        q, k, v = (head.transpose(-2, -3) for head in heads)
        y = F.scaled_dot_product_attention(rotate(q, self.rotary), rotate(k, self.rotary), v, is_causal=True)
        z = x + y.transpose(-2, -3).flatten(-2)
        return z + self.contract(self.norm_hidden(self.expand(self.norm_memory(z))))

    def memory_layers(self) -> tuple[MemoryLayer, ...]:
        """Q, K, V, M_1 and M_2."""
        return self.query, self.key, self.value, self.expand, self.contract

    def gather_macs(self, tokens: int) -> int:
        """Multiply-adds of the look-ups: K (4 D + (tau + e) K) a token, which is 5.25 K D at tau 8 and e 2."""
        return sum(layer.gather_macs(tokens) for layer in self.memory_layers())

    def gather_macs_as_published(self, tokens: int) -> int:
        """The same, rounded up to 6 K D a token as in the paper's Table 1."""
        return 6 * len(self.query.tables) * tokens * self.width

    def attention_macs(self, tokens: int) -> int:
        """Q K^T and times V of one sequence, on the full square: 2 S^2 D."""
        return 2 * tokens**2 * self.width

    def hashed_elements(self, tokens: int) -> int:
        """Elements that are hashed; Q, K and V share theirs."""
        return sum(layer.hashed_elements(tokens) for layer in (self.query, self.expand, self.contract))

    def table_bytes(self, tokens: int) -> int:
        """Bytes of table rows that are read without a cache, in the tables' dtype."""
        return sum(layer.table_bytes(tokens) for layer in self.memory_layers())

    def published_figures(self) -> dict[str, int]:
        """Ours for the figures of the paper's Table 1: one block's MACs on 2,048 tokens, the exact ones."""
        memory = self.gather_macs(PAPER_TOKENS)
        return {"block_lookup_macs": memory, "block_macs": memory + self.attention_macs(PAPER_TOKENS)}


class MemoryFormer(nn.Module):
    """MemoryFormer: embedding, blocks, a last norm, and a head that is the only dense layer and shares no weights.

    Shapes: token ids (B, S) int to logits (B, S, vocabulary).

    Args:
        depth: number of blocks.
        vocabulary: 50,304 is Pythia's, padded.
        Others as in `MemoryBlock`.
    """

    def __init__(
        self,
        depth: int,
        width: int,
        heads: int,
        tables: int,
        extra_bits: int = 2,
        vocabulary: int = 50304,
        form: MemoryForm | None = None,
    ) -> None:
        super().__init__()
        form = form or MemoryForm()
        self.embedding = nn.Embedding(vocabulary, width)
        self.blocks = nn.Sequential(*(MemoryBlock(width, heads, tables, extra_bits, form) for _ in range(depth)))
        self.norm = form.norm_of(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        nn.init.normal_(self.embedding.weight, std=STD)
        nn.init.normal_(self.head.weight, std=STD)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.embedding(ids))))

    def use_path(self, path: Path) -> "MemoryFormer":
        """Let every Memory Layer take this path, ``bag`` or ``gather``, and return the model itself."""
        check_choices(path=path)
        for _, layer in self._layers():
            layer.path = path
        return self

    def gather_macs(self, tokens: int) -> int:
        """Multiply-adds of all blocks' look-ups, see `MemoryBlock.gather_macs`; the head is not among them."""
        return sum(layer.gather_macs(tokens) for _, layer in self._layers())

    def published_figures(self) -> dict[str, int]:
        """Those of the first block: the paper's tables are for one."""
        return next((block.published_figures() for block in self.blocks if isinstance(block, MemoryBlock)), {})

    @torch.no_grad()
    def occupancy(self, ids: Tensor) -> dict[str, Occupancy]:
        """How evenly these tokens use the tables of each layer, by the layers' names (paper, Figure 4).

        Q, K and V of a block look up the same rows, so they have the same figures.
        """
        found: dict[str, Occupancy] = {}

        def watch(name: str, layer: MemoryLayer) -> Any:
            return layer.register_forward_pre_hook(lambda _, given: found.update({name: layer.occupancy(given[0])}))

        handles = [watch(name, layer) for name, layer in self._layers()]
        try:
            self(ids)
        finally:
            for handle in handles:
                handle.remove()
        return found

    def _layers(self) -> Iterator[tuple[str, MemoryLayer]]:
        return ((name, module) for name, module in self.named_modules() if isinstance(module, MemoryLayer))


def build(
    part: Literal["model", "block", "layer"] = "model",
    depth: int = 6,
    width: int = 512,
    heads: int = 8,
    tables: int = 64,
    extra_bits: int = 2,
    vocabulary: int = 50304,
    form: Literal["paper", "code"] = "paper",
    weight: Weight | None = None,
    bit_order: BitOrder | None = None,
    temperature: float | None = None,
    bias: bool | None = None,
    norm: Literal["layer_norm", "rms_norm"] | None = None,
    affine: bool | None = None,
    rotary: float | None = None,
    small_init: bool | None = None,
    path: Path | None = None,
) -> nn.Module:
    """A MemoryFormer, one of its blocks, or one square layer, in the paper's or the public code's ``form``.

    A point of `MemoryForm` that is given wins over the form's own.
    """
    chosen = MemoryForm.named(
        form,
        weight=weight,
        bit_order=bit_order,
        temperature=temperature,
        bias=bias,
        norm=norm,
        affine=affine,
        rotary=rotary,
        small_init=small_init,
        path=path,
    )
    check_choices(part=part)
    if part == "layer":
        return chosen.layer(width, width, tables)
    if part == "block":
        return MemoryBlock(width, heads, tables, extra_bits, chosen)
    return MemoryFormer(depth, width, heads, tables, extra_bits, vocabulary, chosen)
