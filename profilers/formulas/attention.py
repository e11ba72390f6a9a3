"""Fused attention: counted in its mathematical form, Q K^T, softmax, times V, on the dense score matrix.

The counter asks torch for the decomposed form, so these rules meet only models that insist on a fused operator. They keep
the contractions exact all the same. Work is counted per query head, so grouped key and value heads save none; a causal mask
saves none either, as in every counter; and the backward pass has no recomputation: twice the forward's MACs.
"""

from math import prod
from typing import Any

from torch import Tensor

from ..cost import FREE, Cost
from .matmul import contraction
from .table import formula

_SOFTMAX, _SOFTMAX_BACKWARD = 5, 4


def attention(q: Tensor, k: Tensor, v: Tensor, mask: bool = False) -> Cost:
    """One attention of q (..., H, L, E), k (..., G, S, E), v (..., G, S, D). Scaling, softmax and mask are elementwise."""
    rows = prod(q.shape[:-1])
    keys, size, value_size = k.shape[-2], q.shape[-1], v.shape[-1]
    scores = rows * keys
    return Cost(
        macs=scores * (size + value_size),
        elementwise_flops=q.numel() + prod(q.shape[:-2]) * keys * size + scores * (_SOFTMAX + mask),
        activations=scores + rows * value_size,
    )


# Where each operator has its mask and ``is_causal`` after query, key and value; None where it has no positional mask.
_MASK_AND_CAUSAL: dict[str, tuple[int | None, int]] = {
    "flash_attention_for_cpu": (None, 1),
    "flash_attention": (None, 1),
    "efficient_attention": (0, 3),
    "cudnn_attention": (0, 3),
    "fused_attention_overrideable": (0, 2),
    "attention_math_for_mps": (0, 2),
}


def _fused(name: str, mask_at: int | None, causal_at: int) -> None:
    @formula(f"aten::_scaled_dot_product_{name}")
    def fused(out: Any, q: Tensor, k: Tensor, v: Tensor, *args: Any, **kwargs: Any) -> Cost:
        """Forward."""
        if mask_at is None and args and not isinstance(args[0], float):
            args = args[3:]  # the scales of quantised inputs
        mask = kwargs.get("attn_mask") if mask_at is None else next(iter(args[mask_at:]), None)
        causal = any(args[causal_at : causal_at + 1]) or kwargs.get("is_causal", False)
        return attention(q, k, v, mask is not None or causal)


for _name, _places in _MASK_AND_CAUSAL.items():
    _fused(_name, *_places)


@formula(
    "aten::_scaled_dot_product_flash_attention_for_cpu_backward",
    "aten::_scaled_dot_product_flash_attention_backward",
    "aten::_scaled_dot_product_efficient_attention_backward",
    "aten::_scaled_dot_product_cudnn_attention_backward",
    "aten::_scaled_dot_product_fused_attention_overrideable_backward",
)
def fused_backward(out: Any, grad: Tensor, q: Tensor, k: Tensor, v: Tensor, *args: Any, **kwargs: Any) -> Cost:
    """Backward: each of the two products has two gradients."""
    forward = attention(q, k, v)
    scores = prod(q.shape[:-1]) * k.shape[-2]
    return Cost(macs=2 * forward.macs, elementwise_flops=scores * _SOFTMAX_BACKWARD)


@formula("aten::_native_multi_head_attention")
def multi_head(
    out: Any, q: Tensor, k: Tensor, v: Tensor, embed: int, heads: int, in_weight: Tensor, in_bias: Any,
    out_weight: Tensor, *args: Any, **kwargs: Any
) -> Cost:  # fmt: skip
    """torch's fast path of nn.MultiheadAttention: three projections, attention over the heads, one projection."""
    batch, length = q.shape[:2]
    keys = k.shape[1]
    projections = contraction(q, embed, q, added=q) + contraction(k, embed, k, added=k) + contraction(v, embed, v, added=v)
    shapes = ((batch, heads, n, embed // heads) for n in (length, keys, keys))
    split_q, split_k, split_v = (q.new_empty(shape, device="meta") for shape in shapes)
    return projections + attention(split_q, split_k, split_v) + contraction(q, embed, q, added=q)


@formula("aten::_transformer_encoder_layer_fwd")
def encoder_layer(
    out: Tensor, x: Tensor, embed: int, heads: int, in_weight: Tensor, in_bias: Any, out_weight: Tensor, out_bias: Any,
    use_gelu: bool, norm_first: bool, eps: float, w1: Any, b1: Any, w2: Any, b2: Any, ffn_in: Tensor, *args: Any,
    **kwargs: Any
) -> Cost:  # fmt: skip
    """torch's fast path of nn.TransformerEncoderLayer: attention, two linear layers, two layer norms, two sums."""
    tokens, hidden = x.numel() // embed, ffn_in.shape[0]
    attended = multi_head(out, x, x, x, embed, heads, in_weight, in_bias, out_weight)
    macs = 2 * tokens * hidden * embed
    elementwise = tokens * (2 * hidden + embed) + 2 * (8 + 1) * x.numel()
    return attended + Cost(macs, elementwise_flops=elementwise, activations=tokens * (hidden + embed))


@formula("higher_order::flex_attention")
def flex(out: Any, q: Tensor, k: Tensor, v: Tensor, *args: Any, **kwargs: Any) -> Cost:
    """flex_attention as a dense attention: what its block mask skips and its score function adds is not looked into."""
    return attention(q, k, v) if out is not None else FREE
