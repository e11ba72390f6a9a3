"""What the strategies stand on: cuts of a sequence, tiles of a block, fused operators against the plain formulas."""

from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mixbench.models.strategies import block
from mixbench.models.strategies.block import Fused, attend_block, block_gradients, stand_in, trial
from mixbench.models.strategies.layout import LAYOUTS, Tile, count, cut, even_lengths, joined, pairs, places, positions, tiles
from mixbench.models.strategies.shards import shard, unshard


@given(total=st.integers(0, 40), degree=st.integers(1, 7), layout=st.sampled_from(LAYOUTS))
def test_a_layout_deals_every_token_once_and_takes_it_back(total: int, degree: int, layout: str) -> None:
    lengths = even_lengths(total, degree)
    shares = cut(layout, lengths)
    assert [count(share) for share in shares] == list(lengths)
    assert sorted(place for share in shares for place in positions(share)) == list(range(total))
    x = torch.arange(total).reshape(1, 1, total, 1)
    parts = [shard(x, share) for share in shares]
    assert [part.flatten().tolist() for part in parts] == [positions(share) for share in shares]
    assert torch.equal(unshard(parts, shares), x)
    assert positions(joined(shares)) == list(range(total))


@given(total=st.integers(1, 24), degree=st.integers(1, 4), layout=st.sampled_from(LAYOUTS), causal=st.booleans())
def test_tiles_cover_just_the_pairs_that_see_one_another(total: int, degree: int, layout: str, causal: bool) -> None:
    shares = cut(layout, even_lengths(total, degree))
    for queries, keys in product(shares, shares):
        covered = torch.zeros(count(queries), count(keys), dtype=torch.int64)
        for tile in tiles(queries, keys, causal):
            part = covered[tile.top : tile.bottom, tile.left : tile.right]
            assert part.shape[0] == part.shape[1] or not tile.causal
            part += torch.ones_like(part).tril() if tile.causal else 1
        sees = [[not causal or key <= query for key in positions(keys)] for query in positions(queries)]
        assert covered.tolist() == [[int(cell) for cell in row] for row in sees]
        assert pairs(queries, keys, causal) == covered.sum()


def test_places_say_where_tokens_lie() -> None:
    store = (range(0, 4), range(10, 14))
    assert places(store, (range(1, 3),)) == (slice(1, 3, 1),)
    assert places(store, (range(2, 4), range(10, 12))) == (slice(2, 6, 1),)
    assert places((range(12),), (range(1, 12, 3),)) == (slice(1, 11, 3),)
    assert places(store, (range(3, 11),)) is None
    assert joined([(range(4, 6),), (range(0, 4), range(8, 9))]) == (range(0, 6), range(8, 9))


def draw(heads: int, length: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(2, heads, length, 8, dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("equal", [True, False])
def test_the_fused_operator_of_the_cpu_passes_its_trial(dtype: torch.dtype, equal: bool) -> None:
    assert trial(block.FUSED["cpu"], "cpu", dtype, 16, equal)


def test_a_wrong_or_missing_operator_fails_its_trial() -> None:
    forward, backward = block.FUSED["cpu"]

    def missing(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> tuple[Tensor, Tensor]:
        raise AttributeError("no such operator")

    def in_bits(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> tuple[Tensor, Tensor]:
        out, lse = forward(q, k, v, causal)
        return out, lse / 0.6931  # a right output beside a lse of base 2

    for broken in (missing, in_bits):
        assert not trial(Fused(broken, backward), "cpu", torch.float32, 16)


def both(q: Tensor, k: Tensor, v: Tensor, do: Tensor, parts: tuple[Tile, ...]) -> list[Tensor]:
    """A block's output and lse, and its gradients."""
    out, lse = attend_block(q, k, v, parts)
    totals = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
    block_gradients(do, q, k, v, out, lse, parts, totals)
    return [out, lse, *totals]


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_plain_formulas_answer_where_the_operator_fails(
    layout: str, kv_heads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares = cut(layout, (6, 5))
    for queries, keys in product(shares, shares):
        q, k, v, do = draw(4, count(queries)), *(draw(kv_heads, count(keys)) for _ in "kv"), draw(4, count(queries))
        parts = tiles(queries, keys, True)

        fused = both(q, k, v, do, parts)
        with monkeypatch.context() as patch:
            patch.setattr(block, "_fused_for", lambda q, k: None)
            plain = both(q, k, v, do, parts)
        torch.testing.assert_close(fused, plain, rtol=0, atol=1e-12)


def test_empty_blocks_and_gaps_in_the_last_dimension_are_safe() -> None:
    q, k, v = draw(4, 0), draw(4, 3), draw(4, 3)
    assert attend_block(q, k, v, ())[0].shape == q.shape
    nothing = attend_block(k, q, q, ())
    assert nothing[0].abs().max() == 0
    assert (nothing[1] == -torch.inf).all()
    gappy = torch.randn(2, 4, 3, 16, dtype=torch.float64)[..., ::2]
    whole = tiles((range(3),), (range(3),), False)
    torch.testing.assert_close(
        attend_block(k, gappy, gappy, whole), attend_block(k, gappy.contiguous(), gappy.contiguous(), whole)
    )


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-14), (torch.float32, 1e-6), (torch.bfloat16, 1e-4)])
def test_what_stands_in_for_an_output_has_its_delta(dtype: torch.dtype, tolerance: float) -> None:
    do, out = draw(4, 6, dtype), draw(4, 6, dtype)
    do[0, 0, 0] = 0
    wide = block.wide(dtype)
    delta = (do.to(wide) * out.to(wide)).sum(-1)
    result = stand_in(do, delta)
    assert result.dtype == dtype
    torch.testing.assert_close((do.to(wide) * result.to(wide)).sum(-1), delta, rtol=tolerance, atol=tolerance)
    assert (result.abs().amax(-1) <= out.to(wide).abs().sum(-1) * 1.01).all()
