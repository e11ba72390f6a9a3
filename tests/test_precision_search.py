"""The search for the smallest file within a budget: what it finds, what it costs, and what it says when there is none."""

import math
from dataclasses import asdict
from itertools import combinations
from typing import Any

import numpy as np
import onnx
import pytest

from mixbench.export.precision import search as searching
from mixbench.export.precision.calibration import Samples, split
from mixbench.export.precision.graph import file_bytes, layers, ready
from mixbench.export.precision.judge import Judge, level
from mixbench.export.precision.kinds.base import Prepared, find
from mixbench.export.precision.reduce import reduce, unmet
from mixbench.export.precision.search import by_harm_within_size, most_evaluations, search

IMAGE = (1, 3, 8, 8)


def samples_of(feeds: list[dict[str, np.ndarray]]) -> Samples:
    return split(feeds, "arrays", "x.npz")


def quietly(text: str, share: float) -> None:
    """No progress."""


@pytest.fixture(scope="module")
def spectral(nets: Any) -> tuple[onnx.ModelProto, Samples]:
    return nets.spectral_net(), samples_of(nets.feeds(32, (1, 32), mean=60.0))


def test_the_spectral_branch_stays_float32_without_being_named(nets: Any, spectral: tuple[onnx.ModelProto, Samples]) -> None:
    net, samples = spectral
    _, plain = reduce(net, "int8", samples)
    assert level(plain.exact) < 20  # the bin of the mean leaves the others a step or two
    converted, record = reduce(net, "int8", samples, min_snr_db=25)
    assert record.met and level(record.exact) >= 25
    assert set(record.kept) & set(nets.SPECTRAL)
    assert not {"wide", "head"} & set(record.kept)
    assert record.layers[0].nodes[0] in nets.SPECTRAL  # found as the most harmful
    held = {item.name for item in converted.graph.initializer}
    assert {"w0_quantized", "w1_quantized"} <= held
    assert unmet(record) == ""


def test_a_budget_that_is_met_anyway_costs_one_evaluation(nets: Any) -> None:
    plain = reduce(nets.conv_net(), "int8", samples_of(nets.feeds(16, IMAGE)))[1]
    record = reduce(nets.conv_net(), "int8", samples_of(nets.feeds(16, IMAGE)), min_snr_db=10)[1]
    assert record.met and record.evaluations == 1 and record.kept == () and record.layers == ()
    assert record.bytes == pytest.approx(plain.bytes, abs=200)


@pytest.fixture(scope="module")
def all_choices(nets: Any) -> tuple[onnx.ModelProto, Prepared, Judge, list[tuple[float, int]]]:
    """A net of five layers, and the SNR and size of each of the 32 files that leave some of them in float32."""
    net = nets.conv_net(depth=4, width=6)
    samples = samples_of(nets.feeds(16, IMAGE))
    prepared, judge = find("int8").prepare(net, samples.calibration), Judge.of(net, samples.evaluation)
    runs = [frozenset(names) for names, _ in layers(ready(net), prepared.candidates, 100)]
    every = [frozenset().union(*chosen) for count in range(6) for chosen in combinations(runs, count)]
    assert len(every) == 32
    files = [prepared.convert(kept) for kept in every]
    return net, prepared, judge, [(level(judge.measure(file)), file_bytes(file)) for file in files]


@pytest.mark.parametrize("budget", [38.0, 40.0, 42.0, 46.0, 50.0])
def test_hardly_any_other_choice_of_layers_is_smaller(all_choices: Any, budget: float) -> None:
    net, prepared, judge, choices = all_choices
    found = search(net, prepared, judge, budget, 1.0, quietly)
    assert found.met and level(found.exact) >= budget
    smallest = min(size for snr, size in choices if snr >= budget)
    assert file_bytes(found.model) <= 1.03 * smallest  # converted at once, a file is not tried again for a few bytes


def test_what_is_returned_was_measured_and_within_the_bound(nets: Any) -> None:
    net = nets.conv_net(depth=4)
    samples = samples_of(nets.feeds(16, IMAGE))
    prepared, judge = find("int8").prepare(net, samples.calibration), Judge.of(net, samples.evaluation)
    told: list[float] = []
    found = search(net, prepared, judge, 45, 1.0, lambda text, share: told.append(share))
    assert found.exact == judge.measure(found.model)
    count = len(layers(ready(net), prepared.candidates, searching.MOST_LAYERS))
    assert found.evaluations <= most_evaluations(count)
    assert told == sorted(told) and len(told) == found.evaluations and max(told) <= 1


@pytest.mark.parametrize("count", [1, 2, 3, 5, 17, 64, 128])
def test_the_bound_holds_for_whatever_meets_the_budget(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A search over layers that are numbers: no graph, so that the bound is tried on many sizes and seeds."""
    generator = np.random.Generator(np.random.PCG64(count))
    for _ in range(5):
        noise, size = generator.exponential(1, count), generator.integers(1, 100, count)
        made = _numbers(noise, size, budget=float(np.quantile(noise, 0.5)), monkeypatch=monkeypatch)
        assert made.met and made.evaluations <= most_evaluations(count)


def _numbers(noise: np.ndarray, size: np.ndarray, budget: float, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Search where the noise of a file is exactly the sum of its converted layers'."""
    from mixbench.export.precision.records import Fidelity

    names = [f"n{place}" for place in range(len(noise))]
    held = list(zip(names, size, strict=True))

    class Numbers:
        def measure(self, kept: Any) -> Fidelity:
            total = sum(noise[place] for place, name in enumerate(names) if name not in kept)
            snr = None if total == 0 else -10 * float(np.log10(total))
            return Fidelity(snr, 1.0, float(total), None, 0)

    monkeypatch.setattr(searching, "ready", lambda model: model)
    monkeypatch.setattr(
        searching, "layers", lambda *_: [((name,), int(weight)) for name, weight in zip(names, size, strict=True)]
    )
    monkeypatch.setattr(searching, "float_weight_bytes", lambda model: int(size.sum()))
    monkeypatch.setattr(searching, "file_bytes", lambda kept: int(sum(3 * n if name in kept else n for name, n in held)))
    monkeypatch.setattr(searching, "qdq_count", lambda kept: 0)
    prepared = Prepared(frozenset, tuple(names))  # type: ignore[arg-type]
    return search(frozenset(names), prepared, Numbers(), -10 * float(np.log10(budget)), 1.0, quietly)  # type: ignore[arg-type]


def test_each_number_of_bytes_buys_the_most_harm_that_it_can() -> None:
    generator = np.random.Generator(np.random.PCG64(2))
    for _ in range(20):
        harm, saved = generator.exponential(1, 7), generator.integers(1, 60, 7)
        for places in by_harm_within_size(harm.tolist(), saved.tolist()):
            spent = sum(saved[place] for place in places)
            every = (chosen for count in range(8) for chosen in combinations(range(7), count))
            most = max(harm[list(chosen)].sum() for chosen in every if saved[list(chosen)].sum() <= spent)
            assert harm[sorted(places)].sum() == pytest.approx(most)


def test_what_saves_nothing_or_breaks_everything_is_always_kept() -> None:
    found = by_harm_within_size([1.0, math.inf, 2.0, 0.5], [10, 1000, -3, 5])
    assert found[0] == {1, 2} and all(places >= {1, 2} for places in found)
    assert found[-1] == {0, 1, 2, 3}


def test_a_budget_out_of_reach_is_said_and_not_met(nets: Any) -> None:
    _, record = reduce(nets.conv_net(), "int8", samples_of(nets.feeds(16, IMAGE)), min_snr_db=90)
    assert not record.met
    assert record.exact.snr_db is not None and 0 < record.exact.snr_db < 90
    said = unmet(record)
    assert said.startswith(f"int8 cannot reach 90 dB: best {record.exact.snr_db:.1f} dB, with ")
    assert f"{len(record.kept)} of {record.nodes} nodes in float32" in said
    assert asdict(record)["met"] is False


def test_at_most_a_third_of_the_weights_stays_float32(nets: Any) -> None:
    net = nets.conv_net(depth=4)
    converted, _ = reduce(net, "int8", samples_of(nets.feeds(16, IMAGE)), min_snr_db=90)
    weights = {item.name: item for item in net.graph.initializer if len(item.dims) > 1}
    kept = [item for item in converted.graph.initializer if item.name in weights]
    assert sum(len(item.raw_data) for item in kept) <= sum(len(item.raw_data) for item in weights.values()) / 3


def test_layers_begin_at_weights_and_are_joined_to_few(nets: Any) -> None:
    net = nets.conv_net(depth=3, width=8)
    nodes = [node.name for node in net.graph.node]
    runs = layers(net, nodes, 100)
    assert [names[0] for names, _ in runs] == ["conv0", "conv1", "conv2", "fc"]
    assert [name for names, _ in runs for name in names] == nodes
    assert [size for _, size in runs] == [4 * 8 * 3 * 9, 4 * 16 * 8 * 9, 4 * 24 * 16 * 9, 4 * 24 * 10]
    for most in (3, 2, 1):
        joined = layers(net, nodes, most)
        assert len(joined) == most
        assert [name for names, _ in joined for name in names] == nodes
        assert sum(size for _, size in joined) == sum(size for _, size in runs)


def test_shared_weights_count_once(nets: Any) -> None:
    runs = layers(nets.spectral_net(), ["spectrum", "filter", "back"], 100)
    assert sum(size for _, size in runs) == 4 * (32 * 32 + 32)


def test_infinite_damage_is_kept_first(nets: Any) -> None:
    net = nets.conv_net()
    samples = samples_of(nets.feeds(16, IMAGE))
    prepared, judge = find("int8").prepare(net, samples.calibration), Judge.of(net, samples.evaluation)

    def breaking(kept: Any) -> onnx.ModelProto:
        made = prepared.convert(kept)
        if "conv0" not in kept:
            scale = next(item for item in made.graph.initializer if item.name in ("c0_scale", "r0_scale"))
            scale.CopyFrom(onnx.numpy_helper.from_array(np.array(np.nan, np.float32), scale.name))
        return made

    found = search(net, Prepared(breaking, prepared.candidates), judge, 30, 1.0, quietly)
    assert found.met and "conv0" in found.kept
    assert found.layers[0].nodes[0] == "conv0" and found.layers[0].alone.broken
