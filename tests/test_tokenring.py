"""TokenRing's mathematics in one process: partial attention, merge, schedule, and the decoder around it."""

import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import mixbench
from mixbench.models import TokenRingAttention, TokenRingDecoder
from mixbench.models.architectures.tokenring import merge_partial_attention, partial_attention, rotate, token_ring_attention


def heads(
    length: int, query_heads: int = 4, kv_heads: int = 4, dtype: torch.dtype = torch.float64, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def draw(count: int) -> Tensor:
        return torch.randn(2, count, length, 8, generator=generator, dtype=torch.float64).to(dtype)

    return draw(query_heads), draw(kv_heads), draw(kv_heads)


@settings(max_examples=40, deadline=None)
@given(
    length=st.integers(1, 23),
    degree=st.integers(1, 8),
    kv_heads=st.sampled_from([1, 2, 4]),
    causal=st.booleans(),
    seed=st.integers(0, 99),
)
def test_the_schedule_equals_ordinary_attention_for_any_degree_and_length(
    length: int, degree: int, kv_heads: int, causal: bool, seed: int
) -> None:
    q, k, v = heads(length, kv_heads=kv_heads, seed=seed)
    expected = F.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=True)
    ours = token_ring_attention(q, k, v, min(degree, length), causal)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-13)


def test_more_ranks_than_tokens_are_refused() -> None:
    with pytest.raises(ValueError, match="3 tokens can't be spread over 4 ranks"):
        token_ring_attention(*heads(3), degree=4)
    with pytest.raises(ValueError, match="0 ranks"):
        token_ring_attention(*heads(3), degree=0)


def test_merging_in_any_order_gives_attention_over_the_union() -> None:
    q, k, v = heads(12)
    expected = F.scaled_dot_product_attention(q, k, v)
    pieces = [partial_attention(q, k[:, :, part], v[:, :, part]) for part in (slice(0, 3), slice(3, 4), slice(4, 12))]
    for order in itertools.permutations(pieces):
        out, lse = order[0]
        for piece in order[1:]:
            out, lse = merge_partial_attention(out, lse, *piece)
        torch.testing.assert_close(out, expected, rtol=0, atol=1e-13)
        torch.testing.assert_close(lse, (q @ k.mT * 8**-0.5).logsumexp(-1), rtol=0, atol=1e-13)


def test_a_query_that_sees_nothing_is_zero_and_leaves_a_merge_alone() -> None:
    q, k, v = heads(5)
    nothing = partial_attention(q, k, v, torch.ones(5, 5, dtype=torch.bool))
    assert nothing[0].abs().max() == 0
    assert (nothing[1] == -torch.inf).all()
    block = partial_attention(q, k, v)
    for merged in (merge_partial_attention(*block, *nothing), merge_partial_attention(*nothing, *block)):
        torch.testing.assert_close(merged, block)
    assert not merge_partial_attention(*nothing, *nothing)[0].isnan().any()


def test_gradients_equal_those_of_ordinary_attention() -> None:
    ours, plain = heads(11, kv_heads=2), heads(11, kv_heads=2)
    for tensor in (*ours, *plain):
        tensor.requires_grad_()
    weight = torch.randn(2, 4, 11, 8, dtype=torch.float64)
    q, k, v = plain
    (token_ring_attention(*ours, degree=3, causal=True) * weight).sum().backward()
    (F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True) * weight).sum().backward()
    for a, b in zip(ours, plain, strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=0, atol=1e-12)


def test_the_log_of_sums_stays_in_float32_for_half_inputs() -> None:
    q, k, v = heads(6, dtype=torch.bfloat16)
    out, lse = partial_attention(q, k, v)
    assert (out.dtype, lse.dtype) == (torch.bfloat16, torch.float32)
    assert token_ring_attention(q, k, v, 2).dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_decoder_gives_the_same_at_every_degree(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"layers": 2, "width": 32, "heads": 4, "kv_heads": 2, "hidden": 48, "vocabulary": 50}
    one, three = TokenRingDecoder(**sizes).to(dtype), TokenRingDecoder(**sizes, degree=3).to(dtype)
    three.load_state_dict(one.state_dict())
    ids = torch.randint(50, (2, 10))
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 0.05}[dtype]
    torch.testing.assert_close(three(ids), one(ids), rtol=tolerance, atol=tolerance)
    three(ids).float().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in three.parameters())


def test_attention_is_causal() -> None:
    torch.manual_seed(0)
    attention = TokenRingAttention(32, 4, 2, degree=2).double()
    x = torch.randn(1, 8, 32, dtype=torch.float64)
    changed = x.clone()
    changed[:, 5:] += 1
    torch.testing.assert_close(attention(x)[:, :5], attention(changed)[:, :5], rtol=0, atol=1e-14)


def test_rotation_keeps_lengths_and_depends_on_distance_only() -> None:
    x = torch.randn(1, 1, 1, 8, dtype=torch.float64).expand(1, 1, 6, 8)
    turned = rotate(x)
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1), rtol=1e-6, atol=1e-6)
    products = (turned @ turned.mT)[0, 0]
    for offset in range(6):
        diagonal = products.diagonal(offset)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), rtol=1e-5, atol=1e-5)


def test_sizes_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="don't divide"):
        TokenRingAttention(32, 5)
    with pytest.raises(ValueError, match="don't divide"):
        TokenRingAttention(32, 4, 3)


@pytest.mark.parametrize(
    ("name", "params", "layers", "width", "kv_width", "hidden", "vocabulary"),
    [
        ("tokenring-llama2-7b", 6_738_415_616, 32, 4096, 4096, 11008, 32000),
        ("tokenring-llama3-8b", 8_030_261_248, 32, 4096, 1024, 14336, 128256),
        ("tokenring", None, 4, 256, 256, 688, 32000),
    ],
)
def test_macs_and_parameters_follow_the_formula(
    name: str, params: int | None, layers: int, width: int, kv_width: int, hidden: int, vocabulary: int
) -> None:
    tokens = 256
    counted = mixbench.count(mixbench.build(name))
    layer = tokens * (2 * width * width + 2 * width * kv_width + 3 * width * hidden) + 2 * tokens * tokens * width
    assert counted.totals.macs == layers * layer + tokens * width * vocabulary
    assert counted.uncounted == ()
    assert params is None or counted.params == params


def test_causal_blocks_that_see_nothing_are_not_computed() -> None:
    def macs(degree: int) -> int:
        return mixbench.count(mixbench.build("tokenring", degree=degree)).totals.macs

    attention = 4 * 2 * 256 * 256 * 256  # four layers, two products, the dense score matrix
    # Of 4 x 4 blocks of scores the 6 above the diagonal are left out.
    assert macs(1) - macs(4) == attention * 6 // 16


def test_it_compiles_and_exports() -> None:
    torch.manual_seed(0)
    model = TokenRingDecoder(layers=1, width=16, heads=2, kv_heads=1, hidden=24, vocabulary=20, degree=2).eval()
    ids = torch.randint(20, (1, 6))
    expected = model(ids)
    torch.testing.assert_close(torch.compile(model, backend="eager")(ids), expected)
    torch.testing.assert_close(torch.export.export(model, (ids,)).module()(ids), expected)
