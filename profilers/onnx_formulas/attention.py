"""Attention in one operator: counted like PyTorch's in its mathematical form, on the dense score matrix, per query head."""

from math import prod

from ..cost import Cost
from ..onnx_graph import Call, ShapeUnknownError, Value
from .table import contraction, rule

_SOFTMAX, _SOFTCAP = 5, 3


def attention(batch: int, heads: int, rows: int, keys: int, size: int, value_size: int, extra: int) -> Cost:
    """Q K^T and times V; both factors are scaled first. ``extra`` are the steps a score beside the softmax: a mask, a cap."""
    scores = batch * heads * rows * keys
    scaled = batch * heads * (rows + keys) * size
    return Cost(
        scores * (size + value_size),
        elementwise_flops=scaled + scores * (_SOFTMAX + extra),
        activations=scores + batch * heads * rows * value_size,
    )


@rule("Attention")
def standard(call: Call) -> Cost:
    """q (B, H, L, E) or (B, L, H E), k and v with perhaps fewer heads; keys of the past come before the others."""
    q, k, v = call.input(0), call.input(1), call.input(2)
    batch, heads, rows, size = _split(q, int(call.attributes.get("q_num_heads", 0)))
    _, _, keys, _ = _split(k, int(call.attributes.get("kv_num_heads", 0)))
    _, _, _, value_size = _split(v, int(call.attributes.get("kv_num_heads", 0)))
    past = call.optional(4)
    keys += past.shape[2] if past is not None else 0
    masked = call.optional(3) is not None or bool(call.attributes.get("is_causal"))
    capped = _SOFTCAP if call.attributes.get("softcap") else 0
    return attention(batch, heads, rows, keys, size, value_size, masked + capped)


def _split(x: Value, heads: int) -> tuple[int, int, int, int]:
    """Batch, heads, length and size of a head."""
    if len(x.shape) == 4:
        batch, heads, length, size = x.shape
        return batch, heads, length, size
    if len(x.shape) != 3 or not heads:
        raise ShapeUnknownError
    batch, length, width = x.shape
    return batch, heads, length, width // heads


@rule("", fused="Attention")
def projected(call: Call) -> Cost:
    """ONNX Runtime's: x (B, S, I) with the three projections inside; the one behind it is a node of its own."""
    x, weight = call.input(0), call.input(1)
    batch, rows, inner = x.shape
    heads = int(call.attributes["num_heads"])
    sizes = [int(size) for size in call.attributes.get("qkv_hidden_sizes") or [weight.shape[-1] // 3] * 3]
    made = Value(x.kind, (batch, rows, sum(sizes)))
    past = call.optional(4)
    keys = rows + (past.shape[3] if past is not None else 0)
    masked = call.optional(3) is not None or bool(call.attributes.get("unidirectional"))
    biased = (call.optional(5) is not None) + masked
    inside = attention(batch, heads, rows, keys, sizes[0] // heads, sizes[2] // heads, biased)
    return contraction(made, inner, added=call.optional(2) is not None) + inside


@rule("", fused="MultiHeadAttention")
def multi_head(call: Call) -> Cost:
    """ONNX Runtime's on projected q (B, L, H E), k (B, S, H E), v (B, S, H D); packed and cached forms are not looked into."""
    q, k, v = call.input(0), call.input(1), call.input(2)
    if not all(len(item.shape) == 3 for item in (q, k, v)) or any(call.inputs[6:]):
        raise ShapeUnknownError
    heads = int(call.attributes["num_heads"])
    sizes = (q.shape[-1] // heads, v.shape[-1] // heads)
    masked = sum(call.optional(index) is not None for index in (4, 5)) + bool(call.attributes.get("unidirectional"))
    biases = prod(q.shape) + prod(k.shape) + prod(v.shape) if call.optional(3) is not None else 0
    return attention(q.shape[0], heads, q.shape[1], k.shape[1], *sizes, masked) + Cost(elementwise_flops=biases)
