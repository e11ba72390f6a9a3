"""Analyses of attention against figures by hand, closed forms, and maps that are made to show one thing."""

import math
import statistics
import subprocess
import sys
from itertools import product
from pathlib import Path
from random import Random
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import mixbench
from mixbench.models import GraphWindowDecoder, PromptTree, TokenGraph
from mixbench.models.errors import BadInput
from mixbench.models.prompts import shuffle_order
from mixbench.models.windows import hop_distance, window_mask
from mixbench.profilers.attention_maps import (
    attention_by_place,
    attention_by_slot,
    column_means,
    difference,
    histogram,
    hop_shares,
    js_divergence,
    ks_p_value,
    ks_statistic,
    node_and_text_means,
    node_map,
    node_tokens,
    rank_correlation,
    row_entropy,
    sink_score,
    skewed_line,
    t_p_value,
    t_statistic,
)
from mixbench.profilers.attention_plots import distribution_svg, node_map_svg, slots_svg

samples = st.lists(st.integers(-20, 20), min_size=2, max_size=20).map(lambda values: torch.tensor(values).double() / 4)


def even(allowed: Tensor) -> Tensor:
    """Every row spreads its attention evenly over what it may see."""
    return (allowed.double() / allowed.sum(1, keepdim=True)).nan_to_num(0.0)


# Column means ----------------------------------------------------------------------------------------------------------


def test_column_means_leave_out_the_rows_that_cannot_see_the_column_but_keep_real_zeros() -> None:
    allowed = torch.tensor([[1, 0, 0], [1, 1, 0], [0, 1, 0]]).bool()
    attention = torch.tensor([[1.0, 9, 9], [0.0, 1, 9], [9, 1, 9]])  # nines are behind the mask
    means = column_means(attention, allowed)
    assert means[:2].tolist() == [0.5, 1.0]  # the zero in row 1 counts: it is underflow, not the mask
    assert means[2].isnan()
    assert column_means(attention, allowed, torch.tensor([True, False, False]))[0] == 1.0


def test_node_and_text_are_pooled_over_layers_and_padding_is_neither() -> None:
    graph = PromptTree.of_sizes([2, 1]).graph(padding=3)
    allowed = window_mask(graph, 1)
    node, text = node_and_text_means(even(allowed).expand(4, -1, -1), allowed, graph)
    assert (len(node), len(text)) == (4 * 6, 4 * (graph.length - 3 - 6))
    means = column_means(even(allowed), allowed)
    assert torch.equal(node[:6], means[node_tokens(graph)].log10())
    assert int(node_tokens(graph).sum()) == 6


# Two samples -----------------------------------------------------------------------------------------------------------


@given(samples, samples)
@settings(max_examples=80, deadline=None)
def test_ks_is_the_largest_gap_at_any_point_and_symmetric(a: Tensor, b: Tensor) -> None:
    def share(sample: Tensor, point: float) -> float:
        return sum(value <= point for value in sample.tolist()) / len(sample)

    expected = max(abs(share(a, point) - share(b, point)) for point in (*a.tolist(), *b.tolist()))
    assert ks_statistic(a, b) == pytest.approx(expected, abs=1e-12)
    assert ks_statistic(a, b) == ks_statistic(b, a)
    assert ks_statistic(a, a) == 0


def test_ks_of_samples_apart_is_one() -> None:
    assert ks_statistic(torch.tensor([1.0, 2]), torch.tensor([3.0, 4, 5])) == 1


@pytest.mark.parametrize(("scaled", "p"), [(1.2238, 0.10), (1.3581, 0.05), (1.6276, 0.01), (1.9495, 0.001)])
def test_ks_p_values_are_those_of_smirnovs_table(scaled: float, p: float) -> None:
    assert ks_p_value(scaled / math.sqrt(5000), 10000, 10000) == pytest.approx(p, rel=2e-3)


def test_ks_p_value_is_one_for_equal_samples_and_nothing_for_samples_apart() -> None:
    assert ks_p_value(0.0, 100, 100) == 1
    assert ks_p_value(0.21 / math.sqrt(50), 100, 100) == pytest.approx(1)
    assert ks_p_value(1.0, 1000, 1000) < 1e-300


@given(samples, samples)
@settings(max_examples=60, deadline=None)
def test_t_is_welchs_by_its_formula(a: Tensor, b: Tensor) -> None:
    n, m = len(a), len(b)
    first, second = statistics.variance(a.tolist()) / n, statistics.variance(b.tolist()) / m
    gap = statistics.mean(a.tolist()) - statistics.mean(b.tolist())
    t, degrees = t_statistic(a, b)
    if first + second:
        assert t == pytest.approx(gap / math.sqrt(first + second))
        assert degrees == pytest.approx((first + second) ** 2 / (first**2 / (n - 1) + second**2 / (m - 1)))
    else:
        assert t == (math.copysign(math.inf, gap) if gap else 0)


def test_students_t_pools_the_variances() -> None:
    t, degrees = t_statistic(torch.tensor([1.0, 2, 3]), torch.tensor([2.0, 4]), equal_variances=True)
    assert degrees == 3
    assert t == pytest.approx(-1 / math.sqrt((2 * 1 + 1 * 2) / 3 * (1 / 3 + 1 / 2)))


@pytest.mark.parametrize("t", [0.01, 0.3, 1.0, 2.5, 12.0, 300.0])
def test_t_p_values_have_their_closed_forms(t: float) -> None:
    assert t_p_value(t, 1) == pytest.approx(1 - 2 / math.pi * math.atan(t), rel=1e-9)
    assert t_p_value(t, 2) == pytest.approx(1 - t / math.sqrt(2 + t * t), rel=1e-9)
    angle = math.atan(t / math.sqrt(3))
    assert t_p_value(t, 3) == pytest.approx(1 - 2 / math.pi * (angle + math.sin(angle) * math.cos(angle)), rel=1e-8)
    assert t_p_value(-t, 2) == t_p_value(t, 2)
    assert t_p_value(t, 1e9) == pytest.approx(math.erfc(t / math.sqrt(2)))
    assert t_p_value(t, 9e5) == pytest.approx(math.erfc(t / math.sqrt(2)), rel=1e-2, abs=1e-300)


@pytest.mark.parametrize(("degrees", "t"), [(5, 2.5706), (10, 2.2281), (30, 2.0423), (120, 1.9799)])
def test_t_p_values_are_those_of_the_table(degrees: int, t: float) -> None:
    assert t_p_value(t, degrees) == pytest.approx(0.05, abs=2e-6 * t * 10)


def test_t_p_values_at_the_ends() -> None:
    assert (t_p_value(0, 5), t_p_value(math.inf, 5), t_p_value(-math.inf, 5)) == (1, 0, 0)


def test_js_is_nought_for_equal_and_log_two_for_disjoint_histograms() -> None:
    p, q = torch.tensor([0.5, 0.5, 0, 0]).double(), torch.tensor([0, 0, 0.25, 0.75]).double()
    assert js_divergence(p, p) == 0
    assert js_divergence(p, q) == pytest.approx(math.log(2))
    half = torch.tensor([0.5, 0, 0.5, 0]).double()
    # Middle (1/2, 1/4, 1/4, 0): each side gives 1/2 log 1 + 1/2 log 2.
    assert js_divergence(p, half) == pytest.approx(math.log(2) / 2)
    assert js_divergence(half, p) == js_divergence(p, half)


def test_histograms_count_shares_within_their_bounds() -> None:
    values = torch.tensor([-5.0, -4.0, -3.5, -1.0, -0.5])
    assert histogram(values, -4, -1, 3).tolist() == pytest.approx([2 / 3, 0, 1 / 3])
    with pytest.raises(BadInput, match="none of 5 values"):
        histogram(values, 1, 2)


def test_difference_has_all_figures() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(4000) * 0.2 - 2.2, torch.randn(3000) * 0.2 - 2.0
    found = difference(a, b)
    assert found.ks == ks_statistic(a, b) == pytest.approx(math.erf(0.5 / math.sqrt(2)), abs=0.03)  # one deviation apart
    assert found.t < -30 and found.t_p < 1e-30 and found.ks_p < 1e-30
    # Of two normal densities a deviation apart, integrated by hand below.
    grid = [-8 + i * 0.001 for i in range(17001)]
    p, q = ([math.exp(-((x - c) ** 2) / 2) / math.sqrt(2 * math.pi) for x in grid] for c in (0, 1))
    exact = (
        sum(0.5 * (x * math.log(2 * x / (x + y)) + y * math.log(2 * y / (x + y))) for x, y in zip(p, q, strict=True)) * 0.001
    )
    assert found.js == pytest.approx(exact, abs=0.02)
    with pytest.raises(BadInput, match="say nothing"):
        difference(a[:1], b)


# Nodes -----------------------------------------------------------------------------------------------------------------


def test_node_maps_add_up_keys_and_average_queries() -> None:
    graph = TokenGraph(5, ((0, 2), (3, 5)))
    attention = torch.arange(25.0).reshape(5, 5)
    expected = [[(0 + 1 + 5 + 6) / 2, (3 + 4 + 8 + 9) / 2], [(15 + 16 + 20 + 21) / 2, (18 + 19 + 23 + 24) / 2]]
    assert node_map(attention, graph).tolist() == expected
    assert node_map(attention.expand(3, 5, 5), graph).shape == (3, 2, 2)


def test_sink_score_is_the_largest_over_the_median() -> None:
    means = torch.tensor([[0.1, 0.8, math.nan, 0.2, 0.1], [1.0, 1, math.nan, 1, 1]])
    assert sink_score(means).tolist() == pytest.approx([8.0, 1.0])


@pytest.mark.parametrize("offset", [-9, -3, 2, 7])
def test_a_slanted_line_is_found_with_its_offset(offset: int) -> None:
    nodes = torch.full((20, 20), 0.01)
    nodes.diagonal().fill_(5.0)
    nodes.diagonal(1).fill_(5.0)
    nodes.diagonal(offset).fill_(0.5)
    score, found = skewed_line(nodes)
    assert found == offset
    assert score == pytest.approx(0.5 / float(nodes.mean()), rel=1e-5)


def test_a_slanted_line_is_looked_for_where_the_window_is_open() -> None:
    nodes = torch.ones(8, 8)
    nodes[0, 7] = 100  # a corner is no line
    assert skewed_line(nodes)[0] < 1
    lower = torch.ones(8, 8).bool().tril()
    assert skewed_line(nodes, lower) == (1.0, -6)
    with pytest.raises(BadInput, match="map of 2 nodes"):
        skewed_line(torch.ones(2, 2))


def test_even_attention_has_the_shares_of_the_nodes_at_each_distance_and_full_entropy() -> None:
    tree = PromptTree.of_sizes([8] * 8)
    nodes = torch.full((3, 73, 73), 0.5)
    distance = hop_distance(TokenGraph.of_nodes(73, 1, tree.edges))
    pairs = {0: 73, 1: 144, 2: 632, 3: 896, 4: 3584}
    assert hop_shares(nodes, distance) == pytest.approx([count / 73**2 for count in pairs.values()])
    torch.testing.assert_close(row_entropy(nodes), torch.full((3, 73), math.log(73)))
    assert row_entropy(torch.eye(4)).tolist() == [0, 0, 0, 0]
    assert hop_shares(torch.eye(73), distance) == [1, 0, 0, 0, 0]


def test_hop_shares_of_parts_without_a_way_are_left_out() -> None:
    graph = TokenGraph.of_nodes(4, 1, [(0, 1)])
    assert hop_shares(torch.ones(4, 4), hop_distance(graph)) == pytest.approx([4 / 16, 2 / 16])


@given(samples, st.data())
@settings(max_examples=40, deadline=None)
def test_rank_correlation_goes_by_order_alone(a: Tensor, data: st.DataObject) -> None:
    b = torch.tensor(data.draw(st.lists(st.integers(0, 5), min_size=len(a), max_size=len(a)))).double()
    found = rank_correlation(a, b)
    if len(set(a.tolist())) == 1 or len(set(b.tolist())) == 1:
        assert math.isnan(found)
        return
    assert -1 - 1e-12 <= found <= 1 + 1e-12
    assert rank_correlation(a.exp(), b) == pytest.approx(found)
    assert rank_correlation(-a, b) == pytest.approx(-found)
    assert rank_correlation(a, a) == pytest.approx(1)


def test_rank_correlation_takes_mean_ranks_for_ties() -> None:
    # Ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4: 4.5 / sqrt(4.5 * 5).
    assert rank_correlation(torch.tensor([1.0, 2, 2, 3]), torch.tensor([1.0, 2, 3, 4])) == pytest.approx(4.5 / math.sqrt(22.5))


def test_attention_by_place_pools_children_by_their_place_in_the_list() -> None:
    trees = [PromptTree.of_sizes([2, 0, 3]), PromptTree.of_sizes([1])]
    maps = [torch.zeros(9, 9), torch.zeros(3, 3)]
    for child, neighbour, value in ((2, 1, 0.2), (3, 1, 0.1), (6, 5, 0.4), (7, 5, 0.3), (8, 5, 0.6)):
        maps[0][child, neighbour] = value
    maps[1][2, 1] = 0.6
    found = attention_by_place(maps, trees)
    assert [(item.place, item.count) for item in found] == [(1, 3), (2, 2), (3, 1)]
    assert [item.mean for item in found] == pytest.approx([0.4, 0.2, 0.6])
    assert found[0].std == pytest.approx(math.sqrt((0.04 + 0 + 0.04) / 3))
    assert attention_by_place([torch.stack((maps[0], maps[0]))], trees[:1])[0].count == 4


def test_a_model_can_be_looked_at_from_its_maps_to_its_figures() -> None:
    case = mixbench.build("graphwindow", device="cpu", k=2, layers=2, width=32, heads=2, hidden=32, vocabulary=50)
    assert isinstance(case.module, GraphWindowDecoder)
    graph = case.module.window.graph
    ids = torch.randint(1, 50, (1, 177), generator=torch.Generator().manual_seed(0))
    for number, (start, _) in enumerate(graph.spans):
        ids[0, start] = 50 + number
    maps = case.module.attention_maps(ids)[:, 0]
    node, text = node_and_text_means(maps, case.module.window.allowed, graph)
    assert (len(node), len(text)) == (2 * 73, 2 * 104)
    assert 0 <= difference(node, text, (-4, 0)).ks <= 1
    nodes = node_map(maps, graph)
    shares = hop_shares(nodes, hop_distance(graph))
    assert shares[3:] == [0, 0] and sum(shares) == pytest.approx(1, rel=1e-5)  # k = 2 blocks the rest
    assert [item.place for item in attention_by_place([nodes], [PromptTree.of_sizes([8] * 8)])] == list(range(1, 9))


# Positions -------------------------------------------------------------------------------------------------------------

SLOTS = {"neighbours": 3, "children": 2}


def prompts_in_slots(direction: Any = "bi") -> tuple[list[PromptTree], list[TokenGraph], list[Tensor]]:
    """Five trees of up to three neighbours with up to two children, told in random order, with their masks."""
    sizes: tuple[list[int], ...] = ([2, 0, 1], [1], [2, 2], [], [1, 1, 2])
    trees = [shuffle_order(PromptTree.of_sizes(size), Random(seed)) for seed, size in enumerate(sizes)]
    graphs = [tree.slotted(padding=seed % 2, **SLOTS) for seed, tree in enumerate(trees)]
    return trees, graphs, [window_mask(graph, 1, direction) for graph in graphs]


def test_attention_by_slot_is_the_mean_over_prompts_of_column_means_cell_by_cell() -> None:
    trees, graphs, masks = prompts_in_slots()
    torch.manual_seed(0)
    maps = [torch.rand(2, *mask.shape, dtype=torch.float64) * mask for mask in masks]
    found = attention_by_slot(maps, masks, trees, graphs, **SLOTS)
    # By hand: a node's slot from its token in the template, its column summed up over the rows that may see it.
    full = [start for start, _ in PromptTree.of_sizes([2] * 3).graph().spans]
    nodes: dict[tuple[int, int], list[float]] = {}
    text: dict[tuple[int, int], list[float]] = {}
    heat: dict[tuple[int, int, int], list[float]] = {}
    for layer, (weights, mask, graph) in product(range(2), zip(maps, masks, graphs, strict=True)):
        tokens = [start for start, _ in graph.spans]
        for token in tokens:
            slot = full.index(token - graph.padding)
            for into, wanted in ((nodes, True), (text, False)):
                rows = [i for i in range(graph.length) if mask[i, token] and (i in tokens) is wanted]
                into.setdefault((layer, slot), []).append(sum(float(weights[layer, i, token]) for i in rows) / len(rows))
            for other in tokens:
                if slot in (0, 1, 4, 7) and full.index(other - graph.padding) in (0, 1, 4, 7):
                    place = (layer, (slot + 2) // 3, (full.index(other - graph.padding) + 2) // 3)
                    heat.setdefault(place, []).append(float(weights[layer, token, other]))
    assert found.prompts.tolist() == [5] + [len(nodes.get((0, slot), [])) for slot in range(1, 10)]
    for layer, slot in product(range(2), range(10)):
        for side, by_hand in ((found.from_nodes, nodes), (found.from_text, text)):
            if (layer, slot) in by_hand:
                assert float(side[layer, slot]) == pytest.approx(statistics.mean(by_hand[layer, slot]))
            else:
                assert side[layer, slot].isnan()
    assert found.heat.shape == (2, 4, 4)
    for layer, i, j in product(range(2), range(4), range(4)):
        assert float(found.heat[layer, i, j]) == pytest.approx(statistics.mean(heat[layer, i, j]))


def test_attention_that_goes_by_position_alone_is_the_same_in_every_slot_whatever_the_trees() -> None:
    trees = [shuffle_order(PromptTree.of_sizes([2, 2, 2]), Random(seed)) for seed in range(4)]
    graph = trees[0].slotted(**SLOTS)
    mask = window_mask(graph, 4)
    falling = torch.linspace(0.9, 0.1, graph.length, dtype=torch.float64).expand(graph.length, -1) * mask  # by the key alone
    found = attention_by_slot([falling] * 4, [mask] * 4, trees, [tree.slotted(**SLOTS) for tree in trees], **SLOTS)
    expected = falling[-1][node_tokens(graph)]
    torch.testing.assert_close(found.from_nodes, expected)
    torch.testing.assert_close(found.from_text, expected)
    torch.testing.assert_close(found.heat, expected[[0, 1, 4, 7]].expand(4, -1).tril())
    assert found.prompts.tolist() == [4] * 10


def test_slots_need_a_prompt_that_fits() -> None:
    trees, graphs, masks = prompts_in_slots()
    with pytest.raises(BadInput, match="no prompt"):
        attention_by_slot([], [], [], [])
    with pytest.raises(BadInput, match="overflows 1 x 1"):
        attention_by_slot([even(mask) for mask in masks], masks, trees, graphs, 1, 1)


def test_the_program_of_the_documentation_draws_both_pictures(tmp_path: Path) -> None:
    page = (Path(__file__).parent.parent / "docs" / "graphwindow.md").read_text(encoding="utf-8")
    program = page.split("## Looking at attention")[1].split("```python\n")[1].split("```")[0]
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)
    pictures = {path.name: ElementTree.parse(path).getroot() for path in tmp_path.glob("*.svg")}
    assert sorted(pictures) == ["heat.svg", "slots.svg"]
    shown = [float(r.get("fill-opacity", 0)) for r in pictures["heat.svg"].iter(f"{SVG}rect") if r.get("fill-opacity")]
    assert len(shown) == 7 * 8 // 2  # the centre and six neighbours, looking back


# Pictures --------------------------------------------------------------------------------------------------------------

SVG = "{http://www.w3.org/2000/svg}"


def test_distributions_are_drawn_to_scale_with_a_line_for_each_sample() -> None:
    tree = ElementTree.fromstring(
        distribution_svg({"node <1>": torch.tensor([-3.9, -1.1]), "text": torch.tensor([-2.5])}, bins=3)
    )
    lines = [[tuple(map(float, c.split(","))) for c in line.get("points", "").split()] for line in tree.iter(f"{SVG}polyline")]
    assert len(lines) == 2
    floor = max(y for line in lines for _, y in line)
    first, second = ([floor - y for _, y in line[::2]] for line in lines)
    assert first == pytest.approx([second[1] / 2, 0, second[1] / 2])
    assert second == [0, second[1], 0]
    words = [text.text for text in tree.iter(f"{SVG}text")]
    assert "node <1> (2)" in words and "-4" in words and "-1" in words


def test_node_maps_are_drawn_cell_by_cell_and_zeros_stay_white() -> None:
    nodes = torch.tensor([[1.0, 0.0, math.nan], [0.001, 0.1, math.nan], [math.nan] * 3])
    tree = ElementTree.fromstring(node_map_svg(nodes, cell=10))
    cells = [r for r in tree.iter(f"{SVG}rect") if r.get("fill-opacity")]
    shades = {(int(r.get("x", 0)), int(r.get("y", 0))): float(r.get("fill-opacity", 0)) for r in cells}
    assert shades == {(24, 42): 1.0, (24, 52): 0.06, (34, 52): 0.67}
    assert ElementTree.fromstring(node_map_svg(torch.zeros(2, 2))) is not None


def test_slots_are_drawn_to_scale_with_gaps_where_no_prompt_fills_them() -> None:
    nan = math.nan
    picture = slots_svg({"nodes": torch.tensor([1.0, 0.5, nan, 0.25, nan, 0.5, 0.5])}, children=2)
    tree = ElementTree.fromstring(picture)
    lines = [[tuple(map(float, c.split(","))) for c in line.get("points", "").split()] for line in tree.iter(f"{SVG}polyline")]
    (dot,) = tree.iter(f"{SVG}circle")
    assert [len(line) for line in lines] == [2, 2]
    (left, top), (_, middle) = lines[0]
    right = lines[1][1][0]
    floor = top + 2 * (middle - top)
    assert (float(dot.get("cx", 0)), float(dot.get("cy", 0))) == pytest.approx(
        ((left + right) / 2, floor - (floor - top) / 4), abs=0.1
    )
    ticks = {t.text: float(t.get("x", 0)) for t in tree.iter(f"{SVG}text")}
    assert [ticks["1"], ticks["2"]] == pytest.approx([left + (right - left) / 6, left + (right - left) * 2 / 3], abs=0.2)
    for samples in ({}, {"a": torch.tensor([nan])}, {"a": torch.ones(3), "b": torch.ones(4)}):
        with pytest.raises(BadInput, match="largest mean"):
            slots_svg(samples)


def test_pictures_of_many_samples_differ_in_more_than_colour() -> None:
    tree = ElementTree.fromstring(distribution_svg({str(i): torch.tensor([-2.0]) for i in range(4)}))
    looks = [(line.get("stroke"), line.get("stroke-dasharray")) for line in tree.iter(f"{SVG}polyline")]
    assert all(a != b and c != d for ((a, c), (b, d)) in product(looks, looks) if (a, c) != (b, d))
