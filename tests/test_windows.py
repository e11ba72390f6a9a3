"""Graph windows against the authors' masks and counts by hand; plans that skip blocked cells; perturbed prompts."""

import json
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mixbench.models import GraphWindow, GraphWindowAttention, PromptTree, TokenGraph
from mixbench.models.errors import BadInput
from mixbench.models.prompts import redistribute, replace_by_strangers, shuffle_order, swap_child_lists, swap_children
from mixbench.models.windows import (
    bandwidth_order,
    block_cells,
    hop_distance,
    plan_window,
    window_mask,
)

CASES = json.loads((Path(__file__).parent / "golden" / "graphwindow.json").read_text())["cases"]
FULL = PromptTree.of_sizes([8] * 8)


def rows_of(case: dict[str, Any]) -> list[str]:
    """The golden mask; where the file has only its counts, that of the same prompt without padding, moved to the right."""
    if "allowed_rows" in case:
        rows: list[str] = case["allowed_rows"]
        return rows
    same = next(c for c in CASES if (c["kids"], c["k"], c["bidi"], c["pad"]) == (case["kids"], case["k"], case["bidi"], 0))
    return ["0" * case["length"]] * case["pad"] + ["0" * case["pad"] + row for row in same["allowed_rows"]]


def edges_of(nodes: int, drawn: Any) -> list[tuple[int, int]]:
    node = st.integers(0, nodes - 1)
    return drawn(st.lists(st.tuples(node, node), max_size=2 * nodes))


@st.composite
def token_graphs(draw: Any) -> TokenGraph:
    """Spans of one to four tokens with text before, between and behind, padding, any edges, sometimes a hub."""
    padding = draw(st.integers(0, 3))
    token, spans = padding + draw(st.integers(0, 2)), []
    for _ in range(draw(st.integers(1, 7))):
        size = draw(st.integers(1, 4))
        spans.append((token, token + size))
        token += size + draw(st.integers(0, 2))
    edges = edges_of(len(spans), draw)
    if draw(st.booleans()):
        edges += [(0, node) for node in range(len(spans))]
    order = draw(st.permutations(range(len(spans))))  # spans needn't come in the order of the nodes
    text = [place for place in range(token) if all(not start <= place < end for start, end in spans)]
    holes = draw(st.lists(st.sampled_from(text), unique=True, max_size=2)) if text else []
    return TokenGraph(token, tuple(spans[place] for place in order), tuple(edges), padding, tuple(holes))


def mask_by_hand(graph: TokenGraph, k: int, direction: str) -> list[list[bool]]:
    """The rule of the paper, cell by cell, with hops from integer powers of a matrix."""
    nodes = len(graph.spans)
    matrix = [[int(a == b or (a, b) in graph.edges or (b, a) in graph.edges) for b in range(nodes)] for a in range(nodes)]
    power = [[int(a == b) for b in range(nodes)] for a in range(nodes)]
    for _ in range(k):
        power = [[sum(row[c] * matrix[c][b] for c in range(nodes)) for b in range(nodes)] for row in power]
    rows = []
    for i in range(graph.length):
        row = []
        for j in range(graph.length):
            a, b = graph.node_of[i], graph.node_of[j]
            cell = j <= i
            if a >= 0 and b >= 0:
                cell = power[a][b] > 0 and (direction == "bi" or j <= i)
            row.append(cell and j >= graph.padding and i not in graph.holes and j not in graph.holes)
        rows.append(row)
    return rows


# The window ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['name']}-pad{case['pad']}-k{case['k']}")
@pytest.mark.parametrize("given_positions", [False, True])
def test_masks_are_those_of_the_authors_code(case: dict[str, Any], given_positions: bool) -> None:
    tree = PromptTree.of_sizes(case["kids"])
    where = (case["node_positions"], case["length"]) if given_positions else (None, None)
    graph = tree.graph(case["pad"], *where)
    mask = window_mask(graph, case["k"], "bi" if case["bidi"] else "uni")
    assert ["".join(map(str, row)) for row in mask.int().tolist()] == rows_of(case)
    assert int(mask.sum()) == case["allowed_count"]
    assert [start for start, _ in graph.spans] == case["node_positions"][:-1]
    nodes = case["node_positions"][:-1]  # their code writes -6000 on both sides of the diagonal
    assert int((~mask[nodes][:, nodes]).sum()) == case["soft_blocked"]


@pytest.mark.parametrize("case", [c for c in CASES if "allowed_rows" not in c], ids=lambda case: f"k{case['k']}")
def test_the_padded_prompts_of_which_the_file_has_only_figures_have_these_figures_and_the_rules_cells(
    case: dict[str, Any],
) -> None:
    assert set(case) == {
        "name", "kids", "pad", "k", "bidi", "length", "node_positions", "soft_blocked", "allowed_count", "rule_agrees"
    }  # fmt: skip
    graph = PromptTree.of_sizes(case["kids"]).graph(case["pad"])
    *nodes, last = case["node_positions"]
    mask = window_mask(graph, case["k"], "bi" if case["bidi"] else "uni")
    assert (graph.length, mask.shape, graph.padding) == (case["length"], (case["length"],) * 2, case["pad"])
    assert [start for start, _ in graph.spans] == nodes
    assert graph.node_of[last] == -1 and int(mask[last].sum()) == last + 1 - case["pad"]  # the re-mention is text
    assert last == case["length"] - 3  # and stands before the last two words
    assert int(mask.sum()) == case["allowed_count"]
    assert len(nodes) ** 2 - int(mask[nodes][:, nodes].sum()) == case["soft_blocked"]
    assert case["rule_agrees"] and mask.tolist() == mask_by_hand(graph, case["k"], "uni")


@pytest.mark.parametrize(
    ("k", "bidirectional", "unidirectional"), [(0, 73, 73), (1, 217, 145), (2, 849, 461), (3, 1745, 909), (4, 5329, 2701)]
)
def test_linked_pairs_of_the_full_tree_are_those_counted_by_hand(k: int, bidirectional: int, unidirectional: int) -> None:
    nodes = TokenGraph.of_nodes(73, 1, FULL.edges)
    found = [int(window_mask(nodes, k, direction).sum()) for direction in ("bi", "uni")]
    assert found == [bidirectional, unidirectional]
    # One centre, 8 neighbours, 64 children; pairs at each distance: 73, then links both ways, then ...
    at = {0: 73, 1: 2 * (8 + 64), 2: 8 * 7 + 2 * 64 + 64 * 7, 3: 2 * 64 * 7, 4: 64 * 56}
    assert bidirectional == sum(pairs for distance, pairs in at.items() if distance <= k)
    assert unidirectional == (bidirectional + 73) // 2


@pytest.mark.parametrize(
    ("k", "direction", "percent"),
    [
        (1, "uni", 84),
        (1, "bi", 84),
        (2, "uni", 86),
        (2, "bi", 88),
        (3, "uni", 89),
        (3, "bi", 94),
        (4, "uni", 100),
        (4, "bi", 117),
    ],
)
def test_shares_of_the_causal_cells_in_the_177_token_prompt(k: int, direction: Any, percent: int) -> None:
    graph = FULL.graph()
    assert (graph.length, len(FULL.mentions)) == (177, 73)
    causal = 177 * 178 // 2
    assert round(100 * int(window_mask(graph, k, direction).sum()) / causal) == percent


@given(token_graphs(), st.integers(0, 5), st.sampled_from(["uni", "bi"]))
@settings(max_examples=60, deadline=None)
def test_the_window_is_the_papers_rule_on_any_graph_of_token_spans(graph: TokenGraph, k: int, direction: Any) -> None:
    assert window_mask(graph, k, direction).tolist() == mask_by_hand(graph, k, direction)


@given(token_graphs(), st.integers(0, 4))
@settings(max_examples=40, deadline=None)
def test_windows_grow_with_k_and_the_unidirectional_one_is_the_lower_half(graph: TokenGraph, k: int) -> None:
    uni, bi = (window_mask(graph, k, direction) for direction in ("uni", "bi"))
    assert torch.equal(uni, bi.tril())
    assert (window_mask(graph, k + 1, "bi") | ~bi).all()


@given(token_graphs(), st.integers(0, 4), st.sampled_from(["uni", "bi"]))
@settings(max_examples=40, deadline=None)
def test_useful_cells_are_the_causal_ones_without_padding_and_blocked_pairs_and_with_opened_ones(
    graph: TokenGraph, k: int, direction: Any
) -> None:
    mask, node_of = window_mask(graph, k, direction), graph.node_of
    pairs = [(i, j) for i in range(graph.length) for j in range(graph.length) if node_of[i] >= 0 and node_of[j] >= 0]
    blocked = sum(j <= i and not mask[i, j] for i, j in pairs)
    opened = sum(j > i and bool(mask[i, j]) for i, j in pairs)
    size, padding = graph.length, graph.padding
    unseen = {*range(padding), *graph.holes}
    lost = sum(j in unseen or i in unseen for i in range(size) for j in range(i + 1))
    assert int(mask.sum()) == size * (size + 1) // 2 - lost - blocked + opened


@pytest.mark.parametrize("sizes", [[8] * 8, [2, 0, 1], [], [0]])
@pytest.mark.parametrize("padding", [0, 3])
def test_twice_the_depth_unidirectional_is_the_causal_mask_bit_for_bit(sizes: list[int], padding: int) -> None:
    graph = PromptTree.of_sizes(sizes).graph(padding)
    causal = torch.ones(graph.length, graph.length, dtype=torch.bool).tril()
    causal[:, :padding] = False
    assert torch.equal(window_mask(graph, 4), causal)


def test_hops_include_fewer_so_even_windows_keep_odd_distances() -> None:
    path = TokenGraph.of_nodes(4, 1, [(0, 1), (1, 2), (2, 3)])
    assert window_mask(path, 2, "bi")[0].tolist() == [True, True, True, False]
    assert hop_distance(path).tolist() == [[abs(a - b) for b in range(4)] for a in range(4)]
    assert hop_distance(path, 1)[0].tolist() == [0, 1, -1, -1]


def test_edges_are_symmetrised_before_the_hops_and_cut_after() -> None:
    graph = TokenGraph.of_nodes(3, 1, [(2, 0), (2, 1)])  # 0 and 1 meet only through the later 2
    assert window_mask(graph, 2, "uni")[1].tolist() == [True, True, False]
    lower = torch.eye(3).bool() | (hop_distance(graph) == 1).tril()
    wrong = (lower.int() @ lower.int() > 0).tril()  # cut first: the way through 2 is lost
    assert not wrong[1, 0]


def test_hubs_of_more_links_than_a_byte_or_half_precision_counts_stay_whole() -> None:
    star = TokenGraph.of_nodes(700, 1, [(0, leaf) for leaf in range(1, 700)])
    assert window_mask(star, 4, "bi").all()


def test_the_last_mention_of_the_centre_is_text() -> None:
    graph = PromptTree.of_sizes([2, 2]).graph()
    last = 24
    assert graph.node_of[last] == -1
    assert window_mask(graph, 0)[last, : last + 1].all()
    assert window_mask(graph, 0)[last + 1, last]


def test_neighbours_without_children_do_not_shift_the_others() -> None:
    tree = PromptTree(7, ((1, ()), (2, (3, 4))))
    assert (tree.mentions, tree.edges) == ((7, 1, 2, 3, 4), ((0, 1), (0, 2), (2, 3), (2, 4)))
    (one, two, child) = (tree.graph().spans[mention][0] for mention in (1, 2, 3))
    mask = window_mask(tree.graph(), 1)
    assert mask[child, two] and not mask[child, one] and not mask[two, one]


def test_nodes_met_twice_are_two_mentions_that_nothing_links() -> None:
    tree = PromptTree(0, ((1, (9,)), (2, (9,))))
    assert hop_distance(tree.graph())[2, 4] == 4


def test_k_zero_is_only_itself_and_both_directions_agree() -> None:
    graph = FULL.graph()
    tokens = [start for start, _ in graph.spans]
    assert torch.equal(window_mask(graph, 0, "uni")[tokens][:, tokens], torch.eye(73).bool())
    assert torch.equal(window_mask(graph, 0, "uni"), window_mask(graph, 0, "bi"))


def test_tokens_of_one_span_see_each_other() -> None:
    graph = TokenGraph(4, ((0, 3),))
    assert window_mask(graph, 0, "bi")[:3, :3].all()
    assert torch.equal(window_mask(graph, 0, "uni"), torch.ones(4, 4).tril().bool())


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda: TokenGraph(4, ((0, 2), (1, 3))), "share the token 1"),
        (lambda: TokenGraph(4, ((2, 2),)), "span 2:2 is empty"),
        (lambda: TokenGraph(4, ((0, 1),), padding=1), "outside the tokens 1:4"),
        (lambda: TokenGraph(4, ((0, 1),), ((0, 1),)), r"edge \(0, 1\)"),
        (lambda: TokenGraph(4, (), padding=5), "5 tokens of padding"),
        (lambda: TokenGraph(4, ((0, 2),), holes=(3, 1)), "hole 1 is no text"),
        (lambda: TokenGraph(4, ((0, 2),), holes=(-1,)), "hole -1 is no text"),
        (lambda: PromptTree.of_sizes([2, 3]).slotted(8, 2), "2 neighbours with up to 3 children overflows 8 x 2"),
        (lambda: PromptTree.of_sizes([0] * 3).slots(2, 2), "3 neighbours with up to 0 children"),
        (lambda: FULL.graph(positions=[1, 2], length=9), "2 positions for 73 mentions"),
        (lambda: window_mask(FULL.graph(), -1), "window of -1 hops"),
        (lambda: window_mask(FULL.graph(), 1, "both"), "direction 'both'"),  # type: ignore[arg-type]
        (lambda: GraphWindow(FULL.graph(), path="fast"), "no path 'fast'"),
        (lambda: GraphWindowAttention(6, 4, GraphWindow(FULL.graph())), "4 heads"),
    ],
)
def test_what_cannot_be_is_refused_with_its_reason(made: Any, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        made()


@given(token_graphs(), st.integers(0, 3), st.integers(0, 40))
@settings(max_examples=30, deadline=None)
def test_other_lengths_are_cut_or_continued_by_text(graph: TokenGraph, k: int, length: int) -> None:
    window = GraphWindow(graph, k, "bi")
    mask = window.mask(length)
    assert torch.equal(mask, window_mask(graph, k, "bi", length))
    known = min(length, graph.length)
    assert torch.equal(mask[:known, :known], window_mask(graph, k, "bi")[:known, :known])
    for token in range(graph.length, length):
        assert mask[token].tolist() == [graph.padding <= j <= token and j not in graph.holes for j in range(length)]


# Work ------------------------------------------------------------------------------------------------------------------


@given(token_graphs(), st.integers(0, 4), st.sampled_from(["uni", "bi"]))
@settings(max_examples=60, deadline=None)
def test_plans_hold_every_allowed_cell_and_nothing_else(graph: TokenGraph, k: int, direction: Any) -> None:
    mask = window_mask(graph, k, direction)
    plan = plan_window(mask, graph)
    found = torch.zeros_like(mask)
    rows: list[int] = []
    for group in plan.groups:
        for block, queries in enumerate(group.queries.tolist()):
            rows.extend(queries)
            for row, query in enumerate(queries):
                keys = group.keys[block] if group.mask is None else group.keys[block][group.mask[block, row]]
                assert len(set(keys.tolist())) == len(keys)  # no key twice: it would weigh twice
                assert torch.equal(torch.zeros(len(mask)).bool().index_fill(0, keys, True), mask[query])
                found[query, keys] = True
    assert torch.equal(found, mask)
    for token, place in enumerate(plan.rows.tolist()):
        assert place == len(rows) if not mask[token].any() else rows[place] == token
    assert plan.cells.useful == int(mask.sum())


def test_plans_of_equal_spans_execute_exactly_what_is_useful() -> None:
    ring = TokenGraph.of_nodes(32, 16, [(node, (node + step) % 32) for node in range(32) for step in (1, 2)])
    plan = plan_window(window_mask(ring, 1, "bi"), ring)
    assert plan.cells.useful == plan.cells.executed == 32 * 16 * 5 * 16
    assert [group.mask for group in plan.groups] == [None]


def test_a_window_that_links_everything_is_one_dense_attention() -> None:
    ring = TokenGraph.of_nodes(8, 16, [(node, (node + 1) % 8) for node in range(8)])
    plan = plan_window(window_mask(ring, 4, "bi"), ring)
    assert [(tuple(group.queries.shape), tuple(group.keys.shape)) for group in plan.groups] == [((1, 128), (1, 128))]


def test_hubs_cost_their_own_rows_only() -> None:
    star = TokenGraph.of_nodes(65, 16, [(0, leaf) for leaf in range(1, 65)])
    cells = plan_window(window_mask(star, 1, "bi"), star).cells
    assert cells.useful == 16 * 16 * (65 + 2 * 64)
    assert cells.executed <= cells.useful * 9 / 8


def test_block_cells_count_the_tiles_touched() -> None:
    mask = torch.zeros(5, 5).bool()
    mask[0, 0] = mask[4, 4] = mask[1, 1] = True
    assert block_cells(mask, 2) == block_cells(mask, 2).__class__(3, 8)
    assert block_cells(mask, 8).executed == 64
    assert block_cells(mask, 1).executed == 3


def test_ordering_the_nodes_saves_blocks() -> None:
    names = list(range(64))
    Random(1).shuffle(names)
    shuffled = [(a, b) for a, b in pairwise([*names, names[0]])]
    order = bandwidth_order(TokenGraph.of_nodes(64, 4, shuffled))
    assert sorted(order) == list(range(64))
    place = {node: index for index, node in enumerate(order)}
    ordered = [(place[a], place[b]) for a, b in shuffled]
    before, after = (block_cells(window_mask(TokenGraph.of_nodes(64, 4, e), 1, "bi"), 32) for e in (shuffled, ordered))
    assert after.useful == before.useful
    assert after.executed < before.executed / 2


# Slots -----------------------------------------------------------------------------------------------------------------


def test_slotted_prompts_have_every_slot_at_the_token_of_the_full_prompt_and_holes_for_the_rest() -> None:
    full, tree = PromptTree.of_sizes([8] * 8).graph(padding=1), PromptTree.of_sizes([8, 0, 3])
    graph = tree.slotted(padding=1)
    assert tree.slots() == (0, 1, *range(2, 10), 10, 19, 20, 21, 22)
    assert PromptTree.of_sizes([8] * 8).slots() == tuple(range(73))
    assert graph.length == full.length and graph.edges == tree.edges
    assert graph.spans == tuple(full.spans[slot] for slot in tree.slots())
    assert {*graph.holes} == {start for slot, (start, _) in enumerate(full.spans) if slot not in tree.slots()}
    mask = window_mask(graph, 1, "bi")
    for hole in (0, *graph.holes):
        assert not mask[hole].any() and not mask[:, hole].any()
    assert PromptTree.of_sizes([8] * 8).slotted() == PromptTree.of_sizes([8] * 8).graph()


# Perturbed prompts -----------------------------------------------------------------------------------------------------

trees = st.lists(st.integers(0, 4), max_size=5).map(PromptTree.of_sizes)


@given(trees, st.integers(0, 999))
@settings(max_examples=60, deadline=None)
def test_perturbations_keep_the_nodes_and_what_they_promise(tree: PromptTree, seed: int) -> None:
    first = swap_child_lists(tree, Random(seed))
    assert [label for label, _ in first.neighbours] == [label for label, _ in tree.neighbours]
    assert sorted(children for _, children in first.neighbours) == sorted(children for _, children in tree.neighbours)
    moved = sum(a != b for a, b in zip(first.neighbours, tree.neighbours, strict=True))
    assert moved in ((2, 0) if len(tree.neighbours) > 1 else (0,))  # 0 when both lists are empty

    second = swap_children(tree, Random(seed))
    assert second.sizes == tree.sizes
    assert [label for label, _ in second.neighbours] == [label for label, _ in tree.neighbours]
    third = redistribute(tree, Random(seed))
    assert third.sizes == tree.sizes
    for other in (first, second, third):
        assert other.centre == tree.centre
        assert sorted(other.mentions) == sorted(tree.mentions)

    strangers = PromptTree(1000, ((1001, (1002,)),))
    fourth = replace_by_strangers(tree, [strangers], Random(seed))
    assert (fourth.centre, fourth.sizes) == (tree.centre, tree.sizes)
    new = [label for label in fourth.mentions if label >= 1000]
    assert len(new) <= 11 and bool(new) == bool(tree.neighbours)
    kept = [(a, b) for a, b in zip(fourth.mentions, tree.mentions, strict=True) if a < 1000]
    assert all(a == b for a, b in kept)


@given(trees, st.integers(0, 999))
@settings(max_examples=40, deadline=None)
def test_shuffling_the_order_changes_no_link(tree: PromptTree, seed: int) -> None:
    def links(one: PromptTree) -> set[frozenset[int]]:
        return {frozenset((one.mentions[a], one.mentions[b])) for a, b in one.edges}

    told = shuffle_order(tree, Random(seed))
    assert told.centre == tree.centre and links(told) == links(tree)
    assert sorted(told.mentions) == sorted(tree.mentions)


def test_perturbations_follow_their_seed_and_move_something() -> None:
    perturbations = (shuffle_order, swap_child_lists, swap_children, redistribute)
    for perturb in perturbations:
        assert perturb(FULL, Random(3)) == perturb(FULL, Random(3)) != FULL
    with pytest.raises(BadInput, match="no other prompt"):
        replace_by_strangers(FULL, [], Random(0))
