"""Bytes that operators and modules move, by hand."""

import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import mixbench


class Steps(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Tensor) -> Tensor:
        return self.function(*args)


def moved(function: Callable[..., Tensor], *shapes: tuple[int, ...], dtype: torch.dtype = torch.float32) -> tuple[int, int]:
    """Bytes that a function on meta tensors reads and writes, its operators unfused."""
    total = mixbench.count_call(Steps(function), *(torch.empty(shape, dtype=dtype, device="meta") for shape in shapes)).totals
    return total.read_bytes, total.written_bytes


def test_an_operator_reads_its_operands_and_writes_its_result() -> None:
    assert moved(lambda x, w: x @ w, (3, 4), (4, 5)) == (4 * (12 + 20), 4 * 15)
    assert moved(lambda x, w: x @ w, (3, 4), (4, 5), dtype=torch.bfloat16) == (2 * (12 + 20), 2 * 15)
    assert moved(F.conv2d, (1, 3, 8, 8), (6, 3, 3, 3)) == (4 * (192 + 162), 4 * 6 * 36)
    assert moved(torch.relu, (7,)) == (28, 28)


def test_views_and_allocations_move_nothing() -> None:
    assert moved(lambda x: x.view(12).unsqueeze(0).transpose(0, 1)[2:5], (3, 4)) == (0, 0)
    assert moved(torch.empty_like, (3, 4)) == (0, 0)
    assert moved(torch.zeros_like, (3, 4)) == (0, 48)


def test_a_copy_moves_twice_and_a_contiguous_tensor_is_not_copied() -> None:
    assert moved(lambda x: x.t().contiguous(), (3, 4)) == (48, 48)
    assert moved(lambda x: x.contiguous(), (3, 4)) == (0, 0)


def test_working_in_place_reads_and_writes_the_same_place() -> None:
    assert moved(lambda x: x.relu_(), (5,)) == (20, 20)
    assert moved(lambda x: x.zero_(), (5,)) == (0, 20)
    assert moved(lambda x, y: x.copy_(y), (5,), (5,)) == (20, 20)
    assert moved(lambda x, y: x.add_(y), (5,), (5,)) == (40, 20)


def test_an_expanded_tensor_has_the_bytes_that_are_there() -> None:
    assert moved(lambda x: x.expand(100, 4) + 1, (1, 4)) == (16, 1600)


def test_a_look_up_reads_the_rows_that_it_picks() -> None:
    ids = torch.zeros(2, 3, dtype=torch.int64, device="meta")
    table = nn.Embedding(1000, 8, device="meta")
    total = mixbench.count_call(table, ids).totals
    assert (total.read_bytes, total.written_bytes) == (6 * 8 * 4 + 6 * 8, 6 * 8 * 4)
    bag = nn.EmbeddingBag(1000, 8, mode="sum", device="meta")
    total = mixbench.count_call(bag, ids).totals
    assert total.written_bytes >= 2 * 8 * 4
    assert total.read_bytes - 6 * 8 * 4 < 200, "the table's rows, the indices and the bags' beginnings"


def test_a_scatter_touches_what_it_changes() -> None:
    def add(x: Tensor, y: Tensor) -> Tensor:
        return x.index_add_(0, torch.zeros(2, dtype=torch.int64, device="meta"), y)

    assert moved(add, (100, 8), (2, 8)) == (64 + 64 + 16, 64 + 16), "the zeros are written too"


def test_fused_attention_reads_queries_keys_and_values_and_writes_its_result() -> None:
    def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v)

    one = 2 * 4 * 64 * 8 * 4
    assert moved(attention, *[(2, 4, 64, 8)] * 3) == (3 * one, one), "not the 64 x 64 scores"
    three = [(4, 64, 8)] * 3
    assert moved(attention, *three)[1] > 4 * 64 * 64 * 4, "of three dimensions torch has no kernel, and writes them"


def test_attention_within_torchs_layers_is_fused_too() -> None:
    layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True, device="meta").eval()
    found = mixbench.count_call(layer, torch.empty(2, 100, 32, device="meta"))
    scores = 2 * 4 * 100 * 100 * 4
    assert found.footprint.peak_activation_bytes < scores


def test_compulsory_bytes_are_each_weight_input_and_output_once() -> None:
    net = nn.Sequential(nn.Linear(8, 16, bias=False), nn.ReLU(), nn.Linear(16, 4, bias=False)).to("meta")
    tree = mixbench.count_call(net, torch.empty(5, 8, device="meta")).tree
    assert tree.compulsory_read_bytes == 4 * (8 * 16 + 16 * 4 + 5 * 8)
    assert tree.compulsory_written_bytes == 4 * 5 * 4
    first = tree.children[0]
    assert (first.compulsory_read_bytes, first.compulsory_written_bytes) == (4 * (8 * 16 + 5 * 8), 4 * 5 * 16)


def test_what_a_module_reads_twice_it_needs_once() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 8, bias=False, device="meta")

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(self.layer(x)) + x

    tree = mixbench.count_call(Twice(), torch.empty(3, 8, device="meta")).tree
    assert tree.total.read_bytes == 2 * (256 + 96) + 2 * 96
    assert (tree.compulsory_read_bytes, tree.compulsory_written_bytes) == (256 + 96, 96)
    # Its two calls are one module: the first call's result stays within, the second's leaves.
    assert (tree.children[0].compulsory_read_bytes, tree.children[0].compulsory_written_bytes) == (256 + 96, 96)


@settings(max_examples=40, deadline=None)
@given(sizes=st.lists(st.integers(1, 9), min_size=2, max_size=5), rows=st.integers(1, 5), train=st.booleans())
def test_the_least_never_exceeds_the_most(sizes: list[int], rows: int, train: bool) -> None:
    net = nn.Sequential(*(nn.Linear(a, b) for a, b in pairwise(sizes)))
    found = mixbench.count_call(net, torch.ones(rows, sizes[0]), train=train)
    for module in found.tree.walk():
        assert module.compulsory_read_bytes <= module.total.read_bytes
        assert module.compulsory_written_bytes <= module.total.written_bytes


def test_a_users_rule_may_say_what_a_kernel_moves() -> None:
    program = """
import mixbench, torch
from torch import nn
@torch.library.custom_op("bytes_test::half", mutates_args=())
def half(x: torch.Tensor) -> torch.Tensor:
    return x / 2
half.register_fake(lambda x: torch.empty_like(x))
mixbench.formula("bytes_test::half")(lambda out, x: mixbench.Cost(read_bytes=3, written_bytes=5))
class Net(nn.Module):
    def forward(self, x):
        return half(x)
total = mixbench.count_call(Net(), torch.empty(10, device="meta")).totals
assert (total.read_bytes, total.written_bytes) == (3, 5), total
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_attention_is_back_in_its_place_after_a_failure() -> None:
    before = F.scaled_dot_product_attention
    with pytest.raises(ZeroDivisionError):
        mixbench.count_call(Steps(lambda x: x / (1 // 0)), torch.empty(1, device="meta"))
    assert F.scaled_dot_product_attention is before
