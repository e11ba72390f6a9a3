"""Attention of some queries to some keys, with what it takes to merge it with the rest, and its gradients.

Shapes: q (B, H, L, D), k and v (B, G, S, D) with G dividing H; outputs (B, H, L, D) in the inputs' dtype; the log of the sum
of exponentials, lse, (B, H, L) *wide*, that is in float32, or float64 for float64: in 16 bits a merge loses its accuracy.

Fused operators that give lse are private in torch. They are used behind a trial on the device at hand, which compares them
with the plain formulas here, and the plain formulas answer where they fail it. Traps of the CPU one (torch 2.13): an empty
tensor ends the process, a last dimension with gaps gives wrong numbers in silence.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .layout import Tile

Block = tuple[Tensor, Tensor]
Gradients = tuple[Tensor, Tensor, Tensor]


class Fused(NamedTuple):
    """A fused operator, forward (q, k, v, causal) and backward (do, q, k, v, out, lse, causal)."""

    forward: Callable[[Tensor, Tensor, Tensor, bool], Block]
    backward: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, bool], Gradients]


def wide(dtype: torch.dtype) -> torch.dtype:
    """What sums are kept in: float32 at least."""
    return torch.promote_types(dtype, torch.float32)


def partial_attention(q: Tensor, k: Tensor, v: Tensor, blocked: Tensor | None = None) -> Block:
    """A block by the plain formulas, and the definition of what the fused operators have to give.

    Args:
        q: (B, H, L, D).
        k, v: (B, G, S, D); each key and value head serves H / G query heads.
        blocked: (L, S) bool, True where a query must not see a key.

    Returns:
        The normalised output (B, H, L, D) in q's dtype, and the lse (B, H, L), wide. A query that sees nothing has output 0
        and -inf.
    """
    k, v = (_repeated(t, q.shape[1] // k.shape[1]) for t in (k, v))
    scores = _scores(q, k, blocked)
    lse = scores.logsumexp(dim=-1)
    return _weights(scores, lse).to(q.dtype) @ v, lse


def partial_gradients(
    do: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, blocked: Tensor | None = None
) -> Gradients:
    """The gradients of a block by the plain formulas, for an output and lse over all keys, not only these.

    With P = exp(scores - lse) and delta = sum over D of dO O: dV = P' dO, dS = P (dO V' - delta), dQ = dS K, dK = dS' Q. Of
    ``out`` only its product with ``do`` matters.
    """
    groups = q.shape[1] // k.shape[1]
    keys, values = _repeated(k, groups), _repeated(v, groups)
    weights = _weights(_scores(q, keys, blocked), lse)
    delta = (do.to(lse.dtype) * out.to(lse.dtype)).sum(-1, keepdim=True)
    ds = (weights * ((do @ values.mT).to(lse.dtype) - delta) * q.shape[-1] ** -0.5).to(q.dtype)
    dk, dv = ds.mT @ q, weights.to(q.dtype).mT @ do
    return ds @ keys, _summed(dk, groups), _summed(dv, groups)


def _repeated(x: Tensor, groups: int) -> Tensor:
    return x if groups == 1 else x.repeat_interleave(groups, dim=1)


def _summed(x: Tensor, groups: int) -> Tensor:
    return x if groups == 1 else x.unflatten(1, (-1, groups)).sum(2)


def _scores(q: Tensor, k: Tensor, blocked: Tensor | None) -> Tensor:
    scores = (q @ k.mT).to(wide(q.dtype)) * q.shape[-1] ** -0.5
    return scores if blocked is None else scores.masked_fill(blocked, -torch.inf)


def _weights(scores: Tensor, lse: Tensor) -> Tensor:
    # exp(-inf - -inf) would be NaN for a query that sees nothing.
    return (scores - lse.masked_fill(lse == -torch.inf, 0).unsqueeze(-1)).exp()


# Merging.


def _share(lse: Tensor, other_lse: Tensor) -> Block:
    """The joint lse of two disjoint sets of keys, and the weight (…, 1) of the second set's output."""
    joint = torch.logaddexp(lse, other_lse)
    return joint, (other_lse - joint.masked_fill(joint == -torch.inf, 0)).exp().unsqueeze(-1)


def merge_partial_attention(out: Tensor, lse: Tensor, other: Tensor, other_lse: Tensor) -> Block:
    """Two partial results over disjoint keys become one over their union: the weights are a softmax of the two lse.

    Args and returns: outputs (B, H, L, D) and lse (B, H, L), as `partial_attention` gives them. Associative up to rounding.
    """
    joint, share = _share(lse, other_lse)
    dtype = torch.promote_types(out.dtype, lse.dtype)
    return torch.lerp(out.to(dtype), other.to(dtype), share.to(dtype)), joint


def merge_into(out: Tensor, lse: Tensor, other: Tensor, other_lse: Tensor) -> None:
    """The same in place: ``out`` and ``lse``, both wide, take the other result in."""
    joint, share = _share(lse, other_lse)
    out.lerp_(other.to(out.dtype), share)
    lse.copy_(joint)


# Blocks of tiles.


def attend_block(q: Tensor, k: Tensor, v: Tensor, tiles: Sequence[Tile]) -> Block:
    """Attention over the tiles of a block of scores (`layout.tiles`); rows in none of them get output 0 and lse -inf.

    Returns the output in q's dtype from a single tile over all rows, wide from several.
    """
    if len(tiles) == 1 and tiles[0].bottom - tiles[0].top == q.shape[2]:
        return _tile(q, k, v, tiles[0])
    lse = q.new_full(q.shape[:3], -torch.inf, dtype=wide(q.dtype))
    out = torch.zeros_like(q, dtype=lse.dtype)
    for tile in tiles:
        rows = slice(tile.top, tile.bottom)
        merge_into(out[:, :, rows], lse[:, :, rows], *_tile(q[:, :, rows], k, v, tile))
    return out, lse


def _tile(q: Tensor, k: Tensor, v: Tensor, tile: Tile) -> Block:
    k, v = (t[:, :, tile.left : tile.right] for t in (k, v))
    if q.numel() == 0:
        return torch.empty_like(q), q.new_empty(q.shape[:3], dtype=wide(q.dtype))
    fused = _fused_for(q, k)
    if fused is None:
        return partial_attention(q, k, v, _mask(q, tile))
    return fused.forward(_dense(q), _dense(k), _dense(v), tile.causal)


def block_gradients(
    do: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    tiles: Sequence[Tile],
    into: tuple[Tensor, Tensor, Tensor],
) -> None:
    """Add the gradients of a block to ``into`` (dq, dk, dv, all wide), given the output and lse over *all* keys.

    ``out`` may be anything whose product with ``do`` has the right sums: `stand_in` where the output itself is elsewhere.
    """
    if q.numel() == 0:
        return
    for tile in tiles:
        rows, columns = slice(tile.top, tile.bottom), slice(tile.left, tile.right)
        queries = [t[:, :, rows] for t in (do, q, out, lse)]
        keys, values = k[:, :, columns], v[:, :, columns]
        fused = _fused_for(q, keys)
        if fused is None:
            do_, q_, out_, lse_ = queries
            found = partial_gradients(do_, q_, keys, values, out_, lse_, _mask(q_, tile))
        else:
            do_, q_, out_ = map(_dense, queries[:3])
            found = fused.backward(do_, q_, _dense(keys), _dense(values), out_, queries[3].contiguous(), tile.causal)
        for total, part, where in zip(into, found, (rows, columns, columns), strict=True):
            total[:, :, where].add_(part)


def stand_in(do: Tensor, delta: Tensor) -> Tensor:
    """An output that has the given delta: (B, H, L, D) such that the sum over D of do times it is delta.

    Fused backward operators take the output, but use it for delta alone; a number per row is D times less to send. It stands
    in the place of the largest |do|, hence is no larger than the sum of the output's magnitudes; what rounding takes from it
    goes to the second largest, which matters in 16 bits.
    """
    exact = do.to(delta.dtype)
    result = torch.zeros_like(do)
    rest = delta.unsqueeze(-1)
    for place in exact.abs().topk(min(2, do.shape[-1]), dim=-1).indices.split(1, dim=-1):
        factor = exact.gather(-1, place)
        value = torch.where(factor == 0, 0, rest / factor).to(do.dtype)
        result.scatter_(-1, place, value)
        rest = rest - factor * value.to(delta.dtype)
    return result


def _mask(q: Tensor, tile: Tile) -> Tensor | None:
    rows = tile.bottom - tile.top
    return torch.ones(rows, rows, dtype=torch.bool, device=q.device).triu(1) if tile.causal else None


def _dense(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


# Fused operators.


def _cpu_forward(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Block:
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, causal)


def _cpu_backward(do: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, causal: bool) -> Gradients:
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(do, q, k, v, out, lse, 0.0, causal)


def _cuda_forward(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Block:
    groups = q.shape[1] // k.shape[1]
    k, v = _repeated(k, groups), _repeated(v, groups)
    out, lse, *_ = torch.ops.aten._scaled_dot_product_flash_attention(q, k, v, 0.0, causal)
    return out, lse[:, :, : q.shape[2]]


def _cuda_backward(do: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, causal: bool) -> Gradients:
    groups, nothing = q.shape[1] // k.shape[1], torch.zeros((), dtype=torch.int64, device=q.device)
    keys, values = _repeated(k, groups), _repeated(v, groups)
    dq, dk, dv = torch.ops.aten._scaled_dot_product_flash_attention_backward(
        do, q, keys, values, out, lse, None, None, q.shape[2], k.shape[2], 0.0, causal, nothing, nothing
    )
    return dq, _summed(dk, groups), _summed(dv, groups)


FUSED = {"cpu": Fused(_cpu_forward, _cpu_backward), "cuda": Fused(_cuda_forward, _cuda_backward)}


def _fused_for(q: Tensor, k: Tensor) -> Fused | None:
    """The fused operator for these tensors, if there is one on their device that passes its trial."""
    return _tried(q.device.type, q.dtype, q.shape[-1], q.shape[1] == k.shape[1])


@cache
def _tried(device: str, dtype: torch.dtype, size: int, equal_heads: bool) -> Fused | None:
    fused = FUSED.get(device)
    return fused if fused and trial(fused, device, dtype, size, equal_heads) else None


def trial(fused: Fused, device: str, dtype: torch.dtype, size: int, equal_heads: bool = True) -> bool:
    """Does it give what the plain formulas give, lse and gradients included, whole blocks and causal ones?

    The gradients are asked for with an output and lse that the block alone would not have, as they are in a spread sequence.
    """
    generator = torch.Generator().manual_seed(0)

    def draw(heads: int, length: int) -> Tensor:
        return torch.randn(1, heads, length, size, generator=generator, dtype=torch.float64).to(device, dtype)

    tolerance: dict[torch.dtype, float] = {torch.float64: 1e-12, torch.float32: 1e-4, torch.float16: 2e-2}
    close: dict[str, Any] = dict.fromkeys(("rtol", "atol"), tolerance.get(dtype, 1e-1))
    rows = 5
    for causal, columns in ((False, 7), (True, rows)):
        q, do, k, v = draw(2, rows), draw(2, rows), *(draw(2 if equal_heads else 1, columns) for _ in range(2))
        tile = Tile(0, rows, 0, columns, causal)
        out, lse = partial_attention(q, k, v, _mask(q, tile))
        more, larger = out + draw(2, rows) / 4, lse + 0.5
        try:
            pairs = [*zip(fused.forward(q, k, v, causal), (out, lse), strict=True)]
            plain = partial_gradients(do, q, k, v, more, larger, _mask(q, tile))
            pairs += zip(fused.backward(do, q, k, v, more, larger, causal), plain, strict=True)
        except (RuntimeError, NotImplementedError, AttributeError, TypeError):  # it isn't in this torch, or takes other things
            return False
        if not all(a.shape == b.shape and a.dtype == b.dtype and torch.allclose(a, b, **close) for a, b in pairs):
            return False
    return True
