"""Hopfield updates that stop by themselves leave as a Loop and stop where the model stops."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mixbench.export.rewrites.base import rewrite_module
from mixbench.export.rewrites.loop import MOST_UNROLLED, LoopingHopfield
from mixbench.models import Hopfield


class Memory(nn.Module):
    """States ask stored patterns, which some are hidden from."""

    def __init__(self, hopfield: Hopfield, hidden: bool = False) -> None:
        super().__init__()
        self.hopfield, self.hidden = hopfield, hidden

    def forward(self, stored: Tensor, state: Tensor) -> Tensor:
        mask = torch.eye(state.shape[1], stored.shape[1], dtype=torch.bool) if self.hidden else None
        return self.hopfield((stored, state, stored), association_mask=mask)


def patterns(batch: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 5, 8, generator=generator), torch.randn(batch, 3, 8, generator=generator)


@pytest.mark.parametrize(
    ("options", "hidden"),
    [
        ({"scaling": 1.0}, False),
        ({"scaling": [0.7, 1.5], "num_heads": 2, "update_steps_max": [60, -1], "update_steps_eps": [1e-5, 1e-4]}, True),
    ],
)
def test_the_loop_stops_where_the_model_stops(options: dict[str, Any], hidden: bool, exporter: Any) -> None:
    memory = Memory(Hopfield.retrieval(**options), hidden)
    proto = exporter(memory, patterns(2), dynamic=({0: "batch"}, {0: "batch"}))
    assert exporter.operators(proto)["Loop"] == 1
    for batch, seed in ((2, 0), (3, 1)):
        given = patterns(batch, seed)
        wanted = memory(*given)
        assert memory.hopfield.executed_steps is not None
        assert max(memory.hopfield.executed_steps) > 2  # else a loop that ran once would do
        torch.testing.assert_close(torch.from_numpy(exporter.run(proto, *given)[0]), wanted, rtol=0, atol=1e-6)


def test_eagerly_the_rewritten_layer_is_the_ordinary_one() -> None:
    memory = Hopfield.retrieval(scaling=2.0)
    rewritten, names = rewrite_module(copy.deepcopy(memory))
    assert names == ("loop",)
    assert type(rewritten) is LoopingHopfield
    assert type(memory) is Hopfield
    stored, state = patterns(2)
    assert torch.equal(rewritten((stored, state, stored)), memory((stored, state, stored)))


@pytest.mark.parametrize("limit", [0, 1, 3, MOST_UNROLLED])
def test_few_updates_stay_unrolled(limit: int) -> None:
    memory = Hopfield.retrieval(update_steps_max=limit)
    assert rewrite_module(memory) == (memory, ())


def test_a_fixed_number_of_updates_needs_no_loop() -> None:
    memory = Hopfield.retrieval(update_steps_max=100, update_steps_eps=0)
    assert rewrite_module(memory) == (memory, ())


def test_updates_unrolled_at_export_stop_by_the_same_rule(exporter: Any) -> None:
    memory = Memory(Hopfield.retrieval(scaling=1.0, update_steps_max=9, update_steps_eps=0.2))
    given = patterns(2)
    proto = exporter(memory, given)
    wanted = memory(*given)
    assert memory.hopfield.executed_steps is not None
    assert 1 < memory.hopfield.executed_steps[0] < 9  # the threshold, not the limit, ended it
    assert "Loop" not in exporter.operators(proto)
    torch.testing.assert_close(torch.from_numpy(exporter.run(proto, *given)[0]), wanted, rtol=0, atol=1e-6)
