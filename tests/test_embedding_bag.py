"""Embedding bags: what they cost, derived by hand, and their shapes on meta against torch's own."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import mixbench
from mixbench.models import meta_kernels
from mixbench.profilers.cost import Count

ROWS, WIDTH, BAGS, LENGTH = 11, 6, 4, 3
LOOKED_UP = BAGS * LENGTH * WIDTH
"""Elements of the rows that are looked up."""


class Bag(nn.Module):
    """Bags of three rows, with a learned weight for each row or none."""

    def __init__(self, mode: str = "sum", weighted: bool = False) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(ROWS, WIDTH))
        self.weights = nn.Parameter(torch.randn(BAGS, LENGTH)) if weighted else None
        self.mode = mode

    def forward(self, indices: Tensor) -> Tensor:
        return F.embedding_bag(indices, self.table, mode=self.mode, per_sample_weights=self.weights)


def counted(device: str, train: bool, **form: Any) -> Count:
    with torch.device(device):
        return mixbench.count_call(Bag(**form), torch.zeros(BAGS, LENGTH, dtype=torch.int64), train=train)


def by_operator(count: Count) -> dict[str, int]:
    assert not count.uncounted and count.totals.macs == 0
    return {item.operator: item.cost.elementwise_flops for item in count.operators if item.cost.elementwise_flops}


@pytest.mark.parametrize("device", ["meta", "cpu"])
@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize(
    ("mode", "weighted", "flops"), [("sum", False, 1), ("max", False, 1), ("mean", False, 1), ("sum", True, 2)]
)
def test_a_bag_adds_each_row_and_multiplies_it_first_where_it_is_weighted(
    device: str, train: bool, mode: str, weighted: bool, flops: int
) -> None:
    found = counted(device, train, mode=mode, weighted=weighted)
    assert by_operator(found)["aten::_embedding_bag"] == flops * LOOKED_UP
    assert found.forward.elementwise_flops == flops * LOOKED_UP


def test_a_table_without_gradient_costs_the_same() -> None:
    with torch.device("meta"):
        bag = Bag(weighted=True).requires_grad_(False)
        found = mixbench.count_call(bag, torch.zeros(BAGS, LENGTH, dtype=torch.int64))
    assert by_operator(found) == {"aten::_embedding_bag_forward_only": 2 * LOOKED_UP}


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_backward_adds_the_bags_gradient_to_every_row(device: str) -> None:
    assert counted(device, True).backward.elementwise_flops == LOOKED_UP


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_backward_of_weighted_rows_takes_a_product_and_a_sum_for_each_of_both_factors(device: str) -> None:
    found = by_operator(counted(device, True, weighted=True))
    assert found == {
        "aten::_embedding_bag": 2 * LOOKED_UP,
        "aten::_embedding_bag_backward": 2 * LOOKED_UP,
        "aten::_embedding_bag_per_sample_weights_backward": 2 * LOOKED_UP,
    }


def test_a_maximum_hands_its_gradient_to_one_row() -> None:
    assert counted("cpu", True, mode="max").backward.elementwise_flops == BAGS * WIDTH


def test_weights_alone_may_need_a_gradient() -> None:
    bag = Bag(weighted=True)
    bag.table.requires_grad_(False)
    found = mixbench.count_call(bag, torch.zeros(BAGS, LENGTH, dtype=torch.int64), train=True)
    assert found.backward.elementwise_flops == 2 * LOOKED_UP


@pytest.mark.parametrize("name", ["_embedding_bag", "_embedding_bag_forward_only"])
@pytest.mark.parametrize("kind", [torch.int32, torch.int64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("weighted", [False, True])
def test_bags_on_meta_have_torchs_shapes(name: str, kind: torch.dtype, dtype: torch.dtype, weighted: bool) -> None:
    operator = getattr(torch.ops.aten, name).default
    table = torch.empty(ROWS, WIDTH, dtype=dtype, device="meta")
    indices, offsets = torch.empty(12, dtype=kind, device="meta"), torch.empty(4, dtype=kind, device="meta")
    given = torch.empty(12, dtype=dtype, device="meta") if weighted else None
    args = (table, indices, offsets, False, 0, False, given)
    ours, theirs = meta_kernels.run(operator, args, {}), operator(*args)
    assert [(t.shape, t.dtype, t.stride()) for t in ours] == [(t.shape, t.dtype, t.stride()) for t in theirs]


@pytest.mark.parametrize("mode", [1, 2])
def test_other_bags_on_meta_are_left_to_torch(mode: int) -> None:
    table, indices = torch.empty(ROWS, WIDTH, device="meta"), torch.empty(12, dtype=torch.int64, device="meta")
    operator = torch.ops.aten._embedding_bag.default
    assert meta_kernels.run(operator, (table, indices, indices[:4], False, mode), {}) is None
    assert meta_kernels.run(operator, (table, indices, indices[:4], False, 0, False, None, True), {}) is None


INTEGERS = [torch.empty(3, 4, dtype=dtype, device="meta") for dtype in (torch.int32, torch.int64)]


@pytest.mark.parametrize("x", INTEGERS, ids=str)
@pytest.mark.parametrize("name", ["add", "sub", "mul"])
def test_arithmetic_of_equal_integers_keeps_them_on_meta(x: Tensor, name: str) -> None:
    operator = getattr(torch.ops.aten, name).Tensor
    row = x.new_empty(4)
    ours, theirs = meta_kernels.run(operator, (x, row), {}), operator(x, row)
    assert (ours.shape, ours.dtype, ours.stride()) == (theirs.shape, theirs.dtype, theirs.stride())
    assert meta_kernels.run(operator, (x, row.to(torch.int16)), {}) is None
    scalar = getattr(torch.ops.aten, name).Scalar
    assert meta_kernels.run(scalar, (x, 2.5), {}) is None  # becomes floating point: torch's to say


@pytest.mark.parametrize("x", INTEGERS, ids=str)
def test_sums_of_integers_keep_the_dtype_that_they_are_told_on_meta(x: Tensor) -> None:
    operator = torch.ops.aten.sum.dim_IntList
    for keep in (False, True):
        ours, theirs = (call(operator, x, keep) for call in (_by_meta, _by_torch))
        assert (ours.shape, ours.dtype, ours.stride()) == (theirs.shape, theirs.dtype, theirs.stride())
    assert meta_kernels.run(operator, (x, [-1]), {}) is None  # widens: torch's to say
    assert meta_kernels.run(operator, (x, [-1]), {"dtype": torch.float32}) is None


def _by_meta(operator: Any, x: Tensor, keep: bool) -> Tensor:
    result: Tensor = meta_kernels.run(operator, (x, [-1], keep), {"dtype": x.dtype})
    return result


def _by_torch(operator: Any, x: Tensor, keep: bool) -> Tensor:
    result: Tensor = operator(x, [-1], keep, dtype=x.dtype)
    return result
