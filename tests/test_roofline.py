"""The roofline model against figures by hand, peaks on a scripted clock, and what is kept or published of them."""

import json
from dataclasses import asdict, replace
from xml.etree import ElementTree

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mixbench.cli.views import document, roofline_chart, roofline_picture, roofline_view
from mixbench.cli.views.roofline_lines import charts
from mixbench.cli.views.roofline_plot import plot
from mixbench.models.errors import BadInput
from mixbench.models.spec import TensorSpec, Workload
from mixbench.profilers.cost import Cost, CostTree, OperatorCost
from mixbench.profilers.counter import count_call
from mixbench.profilers.roofline import Floor, Level, Peaks, Roof, floor, levels_of
from mixbench.profilers.runs.metrics import metrics_of
from mixbench.profilers.runs.roofline_run import (
    ModelPoint,
    Place,
    RooflineRun,
    Work,
    measured_place,
    model_point,
)
from mixbench.profilers.stats import Estimate

PEAKS = Peaks({"float32": 1e3}, (Level(2e3, 100), Level(1e3)), "a script", {"float16": "no kernel"})
HERE = measured_place("a machine", PEAKS, 10**6, 1)


def place_with(peak: float, *levels: Level) -> Place:
    return replace(HERE, flops_per_s={"float32": peak}, levels=levels)


def work_of(module: nn.Module, *shape: int) -> Work:
    counted = count_call(module.eval().to("meta"), torch.zeros(shape, device="meta"))
    return Work("net", Workload((TensorSpec(shape),)), counted.tree, needed_bytes=5000)


# The model


def test_a_cacheful_moves_at_the_caches_rate_and_the_rest_at_memorys() -> None:
    roof = PEAKS.roof("float32")
    assert roof.move_s(100, 0) == 100 / 2e3
    assert roof.move_s(250, 0) == 100 / 2e3 + 150 / 1e3
    assert roof.move_s(250, 100) == roof.move_s(250, 0) + 100 / 2e3  # each direction has the cache
    assert roof.move_s(0, 0) == 0
    assert (roof.fastest_bytes_per_s, roof.memory_bytes_per_s) == (2e3, 1e3)


def test_reading_alone_is_held_to_its_own_rate() -> None:
    roof = Roof(1.0, (Level(40.0, 10, 25.0), Level(4.0, None, 3.0)), "")
    assert roof.move_s(30, 0) == 10 / 25 + 20 / 3  # not the 10 / 40 + 20 / 4 of both directions
    assert roof.move_s(30, 30) == 2 * (10 / 40 + 20 / 4)


def test_levels_err_on_the_fast_side_and_join_where_they_are_alike() -> None:
    # At 2 the disturbance is less than what 4 reached; 4 and 8 are one level; what holds at 8 holds until 16.
    measured = [(1, 10.0, 5.0), (2, 8.0, 4.0), (4, 9.0, 4.5), (8, 8.9, 4.49), (16, 3.0, 2.0)]
    assert levels_of(measured) == (Level(10.0, 2, 5.0), Level(9.0, 16, 4.5), Level(3.0, None, 2.0))
    assert levels_of([(1, 5.0, 5.0), (2, 5.0, 1.0)]) == (Level(5.0, 2, 5.0), Level(5.0, None, 1.0))
    assert levels_of([]) == ()


def test_a_floor_takes_the_longer_of_arithmetic_and_bytes_for_each_call() -> None:
    roof = Roof(10.0, (Level(4.0),), "")
    assert floor(roof, 99, 20, 20, calls=2) == Floor(memory_s=10.0)
    assert floor(roof, 101, 20, 20, calls=2) == Floor(compute_s=10.1)
    assert (floor(roof, 0, 0, 0).bound, Floor(1.0, 0.9).bound, Floor(0.9, 1.0).bound) == ("none", "compute", "memory")


def test_calls_use_a_cache_each_for_itself() -> None:
    roof = Roof(1.0, (Level(10.0, 10), Level(1.0)), "")
    assert floor(roof, 0, 20, 0, calls=2).seconds == pytest.approx(2.0)
    assert floor(roof, 0, 20, 0, calls=1).seconds == pytest.approx(1.0 + 10.0)


SIZES = st.integers(0, 10**12)


@st.composite
def roofs(draw: st.DrawFn) -> Roof:
    """Any peak over one to four levels whose rates fall, reading no faster than both directions."""
    number = draw(st.integers(1, 4))
    rates = sorted(draw(st.lists(st.floats(1e3, 1e13), min_size=number, max_size=number)), reverse=True)
    ends = sorted(draw(st.lists(st.integers(1, 10**10), min_size=number - 1, max_size=number - 1)))
    share = draw(st.none() | st.floats(0.4, 1))
    levels = zip(rates, [*ends, None], strict=True)
    return Roof(draw(st.floats(1e3, 1e15)), tuple(Level(r, end, share and share * r) for r, end in levels), "drawn")


@given(roofs(), SIZES, SIZES, SIZES, st.integers(1, 9))
def test_a_floor_is_at_least_each_of_its_parts_and_grows_with_them(
    roof: Roof, flops: int, read: int, written: int, calls: int
) -> None:
    found = floor(roof, flops, read, written, calls).seconds
    slack = 1 + 1e-9
    assert found * slack >= flops / roof.flops_per_s
    assert found * slack >= (read + written) / roof.fastest_bytes_per_s
    reading = roof.levels[-1].read_bytes_per_s or roof.memory_bytes_per_s
    moving = max((read + written) / roof.memory_bytes_per_s, read / reading)
    assert found <= max(flops / roof.flops_per_s, moving) * slack
    for more in ((2 * flops, read, written), (flops, 2 * read, written), (flops, read, 2 * written)):
        assert floor(roof, *more, calls).seconds * slack >= found
    # Many calls of a share each never take longer than one call of it all, since each has the cache for itself.
    assert floor(roof, flops, read, written, calls + 1).seconds <= found * slack


# Models under a roof


def test_floors_of_a_small_net_are_those_by_hand() -> None:
    work = work_of(nn.Sequential(nn.Linear(8, 16), nn.ReLU()), 4, 8)
    point = model_point(work, place_with(1e3, Level(1e3)))
    linear, relu = (item for item in point.operators if item.floor_ns)
    # Linear: 4 x 8 x 16 MACs; input, weight and bias read, output written. ReLU: 64 numbers in, 64 out.
    assert (linear.flops, linear.read_bytes, linear.written_bytes) == (2 * 512, 4 * (32 + 128 + 16), 4 * 64)
    assert (relu.flops, relu.other_flops, relu.read_bytes, relu.written_bytes) == (0, 64, 256, 256)
    assert (linear.bound, linear.floor_ns) == ("compute", pytest.approx(1024 / 1e3 * 1e9))
    assert (relu.bound, relu.floor_ns) == ("memory", pytest.approx(512 / 1e3 * 1e9))
    assert linear.intensity == pytest.approx((1024 + linear.other_flops) / 960)
    assert point.unfused_floor_ns == pytest.approx(1.536e9)
    # Compulsory: 32 + 128 + 16 numbers in, 64 out, which takes 0.96 s; the arithmetic 1.024 s.
    assert (point.compulsory_read_bytes, point.compulsory_written_bytes) == (704, 256)
    assert (point.compulsory_floor_ns, point.compulsory_bound) == (pytest.approx(1.024e9), "compute")
    slow = model_point(work, place_with(1e3, Level(500.0)))
    assert (slow.compulsory_floor_ns, slow.compulsory_bound) == (pytest.approx(1.92e9), "memory")
    assert [item.bound for item in slow.operators[:2]] == ["memory", "memory"]


def test_elementwise_flops_are_never_held_to_the_peak() -> None:
    work = work_of(nn.Sequential(nn.Sigmoid(), nn.Tanh()), 4, 8)
    point = model_point(work, place_with(1e-3, Level(1e3)))
    assert point.flops == 0 < point.elementwise_flops
    assert point.unfused_floor_ns == pytest.approx(2 * 256 / 1e3 * 1e9)


def test_an_operators_floor_is_made_module_by_module() -> None:
    # One call is bound by arithmetic and one by bytes; together they would look bound by either alone.
    dense = OperatorCost("mm", "matrix", 1, Cost(macs=50, read_bytes=1, written_bytes=1))
    thin = OperatorCost("mm", "matrix", 1, Cost(macs=1, read_bytes=60, written_bytes=20))
    tree = CostTree("", "Net", children=(CostTree("a", "A", operators=(dense,)), CostTree("b", "B", operators=(thin,))))
    point = model_point(Work("net", Workload(), tree), place_with(1.0, Level(1.0)))
    (found,) = point.operators
    assert (found.compute_bound_ns, found.memory_bound_ns, found.floor_ns) == (100e9, 80e9, 180e9)
    assert (found.calls, found.bound) == (2, "compute")


def test_weights_that_no_cache_holds_are_in_the_unfused_floor_too() -> None:
    parts = [OperatorCost("mm", "matrix", 1, Cost(read_bytes=100)) for _ in range(3)]
    children = tuple(CostTree(str(i), "A", operators=(part,)) for i, part in enumerate(parts))
    tree = CostTree("", "Net", compulsory_read_bytes=300, children=children)
    point = model_point(Work("net", Workload(), tree), place_with(1.0, Level(100.0, 100), Level(1.0)))
    assert point.compulsory_floor_ns == pytest.approx((1 + 200) * 1e9)
    assert point.unfused_floor_ns == point.compulsory_floor_ns  # not the 3 s of calls that each fit into the cache


def test_a_share_beyond_one_says_why() -> None:
    work = work_of(nn.Sequential(nn.Linear(8, 16), nn.ReLU()), 4, 8)
    place = place_with(1e3, Level(1e3))

    def at(seconds: float) -> ModelPoint:
        return model_point(work, place, Estimate(1e9 * seconds, None, None, 0.99, 5))

    slow, fused, beyond = at(3.072), at(1.28), at(0.512)
    assert slow.measured is not None and beyond.measured is not None
    assert (slow.measured.unfused_share, slow.measured.compulsory_share) == (pytest.approx(0.5), pytest.approx(1 / 3))
    assert slow.notes == ()
    assert "kernels are fused" in fused.notes[0] and "compulsory floor holds" in fused.notes[0]
    assert beyond.measured.compulsory_share == pytest.approx(2)
    assert "--measure-again" in beyond.notes[0]
    shown = [cell for row in roofline_view.models(run_of(beyond)).rows for cell in row]
    assert "200.0 % (see note)" in shown


def test_operators_without_a_rule_are_told_and_dtypes_without_a_peak_refused() -> None:
    tree = CostTree("", "Net", operators=(OperatorCost("mine::op", "", 3, Cost()),))
    point = model_point(Work("net", Workload(), tree), HERE)
    assert point.uncounted_calls == 3 and "no rule" in point.notes[0]
    assert (point.unfused_bound, point.intensity, point.fits) == ("none", None, None)
    with pytest.raises(BadInput, match="a machine has no peak for float16: no kernel"):
        model_point(Work("net", Workload(dtype="float16"), tree), HERE)
    with pytest.raises(BadInput) as refusal:
        model_point(Work("net.onnx", Workload(), tree, peak_dtype="int8"), HERE)
    assert refusal.value.hint == "name a device that has one"


def test_a_traced_time_stands_only_beside_the_calls_that_were_counted() -> None:
    work = work_of(nn.Sequential(nn.Linear(8, 16), nn.ReLU()), 4, 8)
    seen = {"aten::addmm": (1.0, 2e9), "aten::relu": (2.0, 9e9)}
    by_name = {item.operator: item for item in model_point(work, place_with(1e3, Level(1e3)), None, seen).operators}
    assert (by_name["aten::addmm"].traced_ns, by_name["aten::relu"].traced_ns) == (2e9, None)
    fast = model_point(work, place_with(1e3, Level(1e3)), None, {"aten::addmm": (1.0, 1e9)})
    assert fast.notes[0].startswith("under the profiler aten::addmm took less than the floor")
    cells = [cell for row in roofline_view.operators(fast).rows for cell in row]
    assert "102.4 % (see note)" in cells and "?" in cells


@pytest.mark.parametrize(("needed", "fits"), [(None, None), (10**6, True), (10**6 + 1, False)])
def test_memory_is_compared_with_the_devices(needed: int | None, fits: bool | None) -> None:
    assert model_point(Work("net", Workload(), CostTree("", ""), needed), HERE).fits is fits


# Views


def run_of(*points: ModelPoint) -> RooflineRun:
    return RooflineRun((HERE,), points, None, ())


@pytest.fixture
def run() -> RooflineRun:
    work = work_of(nn.Sequential(nn.Linear(8, 16), nn.ReLU()), 4, 8)
    return run_of(model_point(work, HERE, Estimate(4e9, 3e9, 5e9, 0.99, 20)))


def test_dots_lie_on_or_below_the_roof_and_the_measured_one_below_its_floors(run: RooflineRun) -> None:
    (chart,) = charts(run)
    floors = {dot.name: dot for dot in chart.dots if dot.kind == "floor"}
    for dot in chart.dots:
        assert dot.flops_per_s <= chart.roof(dot.intensity, HERE.levels[0].bytes_per_s) * (1 + 1e-9)
        assert chart.intensities[0] <= dot.intensity <= chart.intensities[1]
        assert chart.rates[0] <= dot.flops_per_s <= chart.rates[1]
    (measured,) = [dot for dot in chart.dots if dot.kind == "measured"]
    assert measured.flops_per_s < floors["net"].flops_per_s
    assert measured.intensity == floors["net"].intensity


def test_the_plot_stands_in_ascii_where_the_screen_has_no_more(run: RooflineRun, monkeypatch: pytest.MonkeyPatch) -> None:
    (chart,) = charts(run)
    monkeypatch.setattr("mixbench.cli.views.roofline_plot.has_unicode", lambda: False)
    lines = list(plot(chart))
    assert all(line.isascii() and len(line) < 80 for line in lines[1:])
    assert [any(sign in line for line in lines[1:-4]) for sign in "-/.aA*|+"] == [True] * 8
    monkeypatch.setattr("mixbench.cli.views.roofline_plot.has_unicode", lambda: True)
    assert any("╱" in line for line in plot(chart))


def test_the_plot_keeps_its_shape_in_markdown(run: RooflineRun) -> None:
    before, plotted, after = document.markdown(roofline_view.tables(run, by_op=True)).split("```")
    (chart,) = charts(run)
    assert [line for line in plotted.splitlines() if line] == [line for line in plot(chart) if line]
    assert "| aten::addmm | 1 | 1,024 |" in before
    assert "| a machine, measured | here | 1 kFLOP/s |" in after


def test_the_chart_is_one_self_contained_element(run: RooflineRun) -> None:
    text = roofline_chart.chart(run)
    figure = ElementTree.fromstring(text)
    classes = [item.get("class") for item in figure.iter() if item.get("class")]
    assert {"operator", "floor rs0", "rf0", "roof caches", "roof memory", "ceiling"} <= set(classes)
    assert "http" not in text and "script" not in text and "var(--r0)" in roofline_chart.STYLE
    assert roofline_chart.chart(replace(run, models=(), places=(HERE, HERE))) == ""
    named = replace(run.models[0], model="<b>&")
    assert "<b>" not in roofline_chart.chart(run_of(named)) and "&lt;b&gt;&amp;" in roofline_chart.chart(run_of(named))


def test_csv_has_a_line_for_each_model_and_place_or_operator(run: RooflineRun) -> None:
    (line,) = roofline_view.rows(run, by_op=False)
    assert (line["model"], line["place"], line["kind"], line["latency_ns"], line["low_ns"]) == (
        "net",
        "here",
        "measured",
        4e9,
        3e9,
    )
    lines = list(roofline_view.rows(run, by_op=True))
    assert sum(item["flops"] for item in lines) == line["flops"] == 1024
    assert len({tuple(item) for item in lines}) == 1, "all have the same columns"
    untimed = replace(run, models=(replace(run.models[0], measured=None),))
    assert next(iter(roofline_view.rows(untimed, by_op=False)))["unfused_share"] == ""


def test_a_history_follows_the_time_and_what_it_attains(run: RooflineRun) -> None:
    latency, attained = metrics_of(run)
    assert (latency.name, latency.value, latency.low, latency.better) == ("latency", 4e9, 3e9, "lower")
    assert run.models[0].measured is not None
    assert (attained.name, attained.value, attained.better) == ("attained", run.models[0].measured.unfused_share, "higher")
    assert metrics_of(replace(run, models=(replace(run.models[0], measured=None),))) == ()


def test_peaks_alone_are_drawn_with_all_their_ceilings() -> None:
    place = replace(HERE, flops_per_s={"float32": 1e3, "float16": 2e3, "float64": 5e2})
    (chart,) = charts(RooflineRun((place,), (), None, ()))
    assert (chart.peak, len(chart.ceilings), chart.dots) == (2e3, 3, ())
    assert len(list(plot(chart))) > 15
    assert {row["dtype"] for row in roofline_view.rows(RooflineRun((place,), (), None, ()), False)} == set(place.flops_per_s)


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_the_picture_is_of_its_kind(run: RooflineRun, kind: str) -> None:
    drawn = roofline_picture.draw(run, kind)
    assert drawn.startswith(b"\x89PNG" if kind == "png" else b"<?xml")
    with pytest.raises(BadInput, match="no picture"):
        roofline_picture.draw(replace(run, models=(), places=(HERE, HERE)), kind)


def test_the_record_is_plain_data(run: RooflineRun) -> None:
    assert json.loads(json.dumps(asdict(run)))["models"][0]["operators"][0]["operator"] == run.models[0].operators[0].operator
