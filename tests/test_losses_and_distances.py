"""Losses, distances and grids that arrive as one operator, against the same written out in torch's simple operators."""

from collections.abc import Callable
from itertools import product
from math import inf
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import mixbench
from mixbench import Cost


class Call(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Tensor) -> Any:
        return self.function(*args)


def counted(function: Callable[..., Any], *args: Tensor, train: bool = False) -> Cost:
    """What it costs on meta, which has to be what it costs on the CPU; nothing may be left uncounted."""
    counts = []
    for device in ("meta", "cpu"):
        moved = [x.detach().to(device).requires_grad_(train and x.is_floating_point()) for x in args]
        with torch.device(device):
            counts.append(mixbench.count_call(Call(function), *moved, train=train))
    assert not any(count.uncounted for count in counts)
    assert counts[0].totals.arithmetic == counts[1].totals.arithmetic
    return counts[0].totals.arithmetic


@pytest.mark.parametrize("pad", [0, 1, 2])
def test_a_convolution_with_time_first_costs_what_the_usual_one_does(pad: int) -> None:
    x, weight, bias = torch.randn(9, 2, 3), torch.randn(3, 3, 4), torch.randn(4)
    usual = counted(lambda x, w, b: F.conv1d(x, w, b, padding=pad), x.permute(1, 2, 0), weight.permute(2, 1, 0), bias)
    assert counted(lambda x, w, b: torch.conv_tbc(x, w, b, pad), x, weight, bias) == usual
    assert usual.macs == (9 + 2 * pad - 2) * 2 * 4 * 3 * 3
    # Both gradients, each a product for every tap and output that the tap does not find in the padding.
    met = sum(0 <= out + tap - pad < 9 for out in range(9 + 2 * pad - 2) for tap in range(3)) * 2 * 3 * 4
    trained = counted(lambda x, w, b: torch.conv_tbc(x, w, b, pad), x, weight, bias, train=True)
    assert trained.macs == usual.macs + 2 * met


@pytest.mark.parametrize(
    ("weighted", "positive", "reduction"), list(product([False, True], [False, True], ["none", "sum", "mean"]))
)
def test_cross_entropy_of_logits_costs_its_simple_steps(weighted: bool, positive: bool, reduction: str) -> None:
    x, target = torch.randn(4, 5), torch.rand(4, 5)
    weight, pos_weight = torch.rand(4, 5), torch.rand(5)

    def whole(x: Tensor, t: Tensor, w: Tensor, p: Tensor) -> Tensor:
        given = w if weighted else None, p if positive else None
        return F.binary_cross_entropy_with_logits(x, t, given[0], reduction=reduction, pos_weight=given[1])

    def steps(x: Tensor, t: Tensor, w: Tensor, p: Tensor) -> Tensor:
        surprise = F.logsigmoid(x)
        if positive:
            surprise = surprise * ((p - 1) * t + 1)
        loss = (1 - t) * x - surprise
        loss = loss * w if weighted else loss
        return loss if reduction == "none" else loss.sum() if reduction == "sum" else loss.mean()

    args = x, target, weight, pos_weight
    torch.testing.assert_close(whole(*args), steps(*args))
    assert counted(whole, *args) == counted(steps, *args)


@pytest.mark.parametrize("p", [0.0, 1.0, 2.0, 3.0, 0.5, inf])
def test_distances_of_pairs_cost_their_simple_steps(p: float) -> None:
    def steps(a: Tensor, b: Tensor) -> Tensor:
        gap = a[:, :, None] - b[:, None]
        if p == 0:
            return (gap != 0).to(gap.dtype).sum(-1)
        if p == 2:
            return gap.square().sum(-1).sqrt()
        gap = gap.abs()
        return gap.amax(-1) if p == inf else gap.sum(-1) if p == 1 else gap.pow(p).sum(-1).pow(1 / p)

    a, b = torch.randn(2, 7, 3), torch.randn(2, 5, 3)
    torch.testing.assert_close(torch.cdist(a, b, p=p), steps(a, b))
    assert counted(lambda a, b: torch.cdist(a, b, p=p), a, b) == counted(steps, a, b)
    apart = counted(lambda x: F.pdist(x, p), torch.randn(7, 3)).elementwise_flops
    assert apart * 70 == counted(lambda a, b: torch.cdist(a, b, p=p), a, b).elementwise_flops * 21, "as much a pair"


@pytest.mark.parametrize(("p", "each"), [(0.0, 0), (1.0, 4), (2.0, 4), (inf, 4), (3.0, 7)])
def test_gradients_of_distances_cost_their_steps_for_each_side(p: float, each: int) -> None:
    a, b = torch.randn(2, 7, 3), torch.randn(2, 5, 3)
    gradients = [
        counted(function, *args, train=True).elementwise_flops - counted(function, *args).elementwise_flops
        for function, args in ((lambda a, b: torch.cdist(a, b, p=p), (a, b)), (lambda x: F.pdist(x, p), (torch.randn(7, 3),)))
    ]
    assert gradients == [2 * each * 2 * 7 * 5 * 3, (each + (each > 0)) * 21 * 3]


def test_many_rows_at_two_are_one_product_with_the_norms_as_two_more_terms() -> None:
    def steps(a: Tensor, b: Tensor) -> Tensor:
        left = torch.cat((a * -2, a.pow(2).sum(-1, keepdim=True), torch.ones_like(a[..., :1])), -1)
        right = torch.cat((b, torch.ones_like(b[..., :1]), b.pow(2).sum(-1, keepdim=True)), -1)
        return (left @ right.mT).clamp_min(0).sqrt()

    a, b = torch.randn(2, 26, 3), torch.randn(2, 5, 3)
    torch.testing.assert_close(torch.cdist(a, b), steps(a, b), atol=1e-3, rtol=1e-3)
    assert counted(torch.cdist, a, b) == counted(steps, a, b)
    assert counted(torch.cdist, a, b).macs == 2 * 26 * 5 * (3 + 2)
    few = counted(lambda a, b: torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist"), a, b)
    assert (few.macs, few.elementwise_flops) == (0, 2 * 26 * 5 * (3 * 3 + 1))


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("size", [(2, 3, 4, 5), (2, 3, 4, 5, 6)])
def test_an_affine_grid_is_a_product_of_matrices(size: tuple[int, ...], aligned: bool) -> None:
    sides = size[2:]
    rank, points = len(sides), torch.Size(sides).numel()

    def grid(theta: Tensor) -> Tensor:
        return F.affine_grid(theta, list(size), align_corners=aligned)

    theta = torch.randn(2, rank, rank + 1)
    forward = Cost(2 * points * rank * (rank + 1), 0, 0 if aligned else 2 * sum(sides), 2 * points * rank)
    assert counted(grid, theta) == forward
    trained = counted(grid, theta, train=True)
    assert (trained.macs, trained.elementwise_flops) == (2 * forward.macs, 2 * forward.elementwise_flops), (
        "the grid is made anew"
    )


def test_ctc_costs_a_log_sum_exp_and_a_sum_for_each_state_of_the_padded_trellis() -> None:
    x = torch.randn(6, 2, 5).log_softmax(-1)
    targets, lengths, ends = torch.ones(2, 3, dtype=torch.int64), torch.tensor([6, 4]), torch.tensor([3, 2])
    loss = Call(lambda x: F.ctc_loss(x, targets, lengths, ends, reduction="none"))
    states = 2 * 6 * (2 * 3 + 1)
    three = torch.randn(states, 3)
    a_state = counted(lambda s: s.logsumexp(1) + s[:, 0], three).elementwise_flops
    count = mixbench.count_call(loss, x)
    assert (count.totals.arithmetic, count.uncounted) == (Cost(elementwise_flops=a_state), ())
    trained = mixbench.count_call(loss, x.requires_grad_(), train=True)
    # Backward: such a recursion again, its product with the other in logs, a log-sum-exp over the states of a class (1 + 4).
    assert trained.totals.elementwise_flops == 2 * a_state + (1 + 4) * states + 6 * x.numel()
    assert trained.uncounted == ()
