"""Where attention goes in a prompt that holds a graph: node against text tokens, sinks, slanted lines, hops, positions.

Source: Guan et al., ICML 2025 (arXiv 2505.02130), sections on attention distributions, and the notebooks of the authors' code
(github.com/millioniron/LLM_exploration); functions that say "derived" are ours, after phenomena that the paper describes.

Every function takes attention weights (..., S, S), rows are queries, usually averaged over heads as the decoder's
``attention_maps`` gives them, and the mask (S, S) that they were made under. The notebooks take exact zeros for masked cells
instead, which loses real weights that underflow in half precision.

Letters: S tokens, N nodes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import erfc, exp, inf, lgamma, log, log1p, nan, sqrt

import torch
from torch import Tensor

from ..models.errors import BadInput
from ..models.prompts import PromptTree, TokenGraph

BINS = 100
HISTOGRAM_RANGE = (-4.0, -1.0)
"""Of the notebooks' pictures, in log10 of a column mean."""
DIVERGENCE_RANGE = (-3.0, -1.0)
"""Of the notebooks' divergences."""


def column_means(attention: Tensor, allowed: Tensor, rows: Tensor | None = None) -> Tensor:
    """What a token receives on average from the tokens that may see it, (..., S); NaN for a token that none may see.

    Args:
        rows: (S,) bool, only these queries count, such as the node tokens for node-to-node attention.
    """
    counted = allowed if rows is None else allowed & rows[:, None]
    received = attention.masked_fill(~counted, 0.0).sum(-2)
    return received / counted.sum(0)


def node_tokens(graph: TokenGraph) -> Tensor:
    """Which tokens belong to a node, (S,) bool; padding doesn't."""
    return torch.tensor(graph.node_of) >= 0


def node_and_text_means(attention: Tensor, allowed: Tensor, graph: TokenGraph) -> tuple[Tensor, Tensor]:
    """log10 of the column means of all node tokens and of all text tokens, pooled over leading dimensions such as layers.

    Concatenate the results of several prompts. Columns that nobody may see, and means of exactly zero, are left out.
    """
    means = column_means(attention, allowed)
    inside = node_tokens(graph)
    pooled = (means[..., inside].flatten(), means[..., ~inside].flatten())
    node, text = (values[values > 0].log10() for values in pooled)
    return node, text


# Two samples ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Difference:
    """How two samples differ.

    Attributes:
        ks: two-sample Kolmogorov-Smirnov statistic, the largest gap between the two distribution functions, 0 to 1.
        ks_p: its p-value from the limiting distribution (Smirnov, 1948); for dozens of values and more.
        t: Welch's t, positive when the first mean is larger.
        degrees: its degrees of freedom (Welch-Satterthwaite).
        t_p: its two-sided p-value.
        js: Jensen-Shannon divergence of their histograms in nats, 0 to log 2.
    """

    ks: float
    ks_p: float
    t: float
    degrees: float
    t_p: float
    js: float


def difference(a: Tensor, b: Tensor, bounds: tuple[float, float] = DIVERGENCE_RANGE) -> Difference:
    """Compare two samples of log10 column means as the notebooks do; ``bounds`` are those of the histograms.

    Raises:
        BadInput: when a sample has fewer than two values, or none within the bounds.
    """
    if min(len(a), len(b)) < 2:
        raise BadInput(f"samples of {len(a)} and {len(b)} values say nothing", "give two values or more of each")
    ks = ks_statistic(a, b)
    t, degrees = t_statistic(a, b)
    js = js_divergence(histogram(a, *bounds), histogram(b, *bounds))
    return Difference(ks, ks_p_value(ks, len(a), len(b)), t, degrees, t_p_value(t, degrees), js)


def ks_statistic(a: Tensor, b: Tensor) -> float:
    """The largest distance between two empirical distribution functions; exact, ties included."""
    a, b = (sample.flatten().double().sort().values for sample in (a, b))
    points = torch.cat((a, b))
    first, second = (torch.searchsorted(sample, points, right=True).double() / len(sample) for sample in (a, b))
    return float((first - second).abs().max())


def ks_p_value(statistic: float, first: int, second: int) -> float:
    """Probability of a larger statistic between samples of one distribution, in the limit of many values."""
    scaled = statistic * sqrt(first * second / (first + second))
    if scaled < 0.2:  # the series converges slowly where its sum is 1 to twelve digits
        return 1.0
    terms = (2 * (-1) ** (i - 1) * exp(-2 * (i * scaled) ** 2) for i in range(1, 101))
    return min(1.0, max(0.0, sum(terms)))


def t_statistic(a: Tensor, b: Tensor, equal_variances: bool = False) -> tuple[float, float]:
    """t of the difference of two means and its degrees of freedom: Welch's, or Student's for equal variances."""
    a, b = a.flatten().double(), b.flatten().double()
    n, m = len(a), len(b)
    if equal_variances:
        pooled = ((n - 1) * a.var() + (m - 1) * b.var()) / (n + m - 2)
        first, second, degrees = pooled / n, pooled / m, float(n + m - 2)
    else:
        first, second = a.var() / n, b.var() / m
        degrees = float((first + second) ** 2 / (first**2 / (n - 1) + second**2 / (m - 1)))
    gap = float(a.mean() - b.mean())
    spread = sqrt(float(first + second))
    if spread == 0:
        return (inf if gap > 0 else -inf if gap < 0 else 0.0), float(n + m - 2)
    return gap / spread, degrees


def t_p_value(t: float, degrees: float) -> float:
    """Two-sided p-value of Student's t, by the incomplete beta function's continued fraction (DLMF 8.17.22)."""
    if t == 0 or abs(t) == inf:
        return 1.0 if t == 0 else 0.0
    if degrees > 1e6:
        return erfc(abs(t) / sqrt(2))
    x, a, b = degrees / (degrees + t * t), degrees / 2, 0.5
    front = exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log1p(-x)) if x < 1 else 0.0
    if x < (a + 1) / (a + b + 2):
        return front * _beta_fraction(x, a, b) / a
    return 1 - front * _beta_fraction(1 - x, b, a) / b


def _beta_fraction(x: float, a: float, b: float) -> float:
    """The continued fraction by Lentz's method; a few dozen steps where x is below (a + 1) / (a + b + 2)."""
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, 1000):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        before = value
        for step in (even, odd):
            d, c = 1 / (1 + step * d), 1 + step / c
            value *= c * d
        if abs(value - before) <= 1e-15 * abs(value):
            break
    return value


def histogram(values: Tensor, low: float, high: float, bins: int = BINS) -> Tensor:
    """Shares of the values within the bounds by equal bins, (bins,) float64; the last bin includes its upper bound.

    Raises:
        BadInput: when no value lies within the bounds.
    """
    inside = values.flatten().double()
    inside = inside[(inside >= low) & (inside <= high)]
    if not len(inside):
        raise BadInput(f"none of {values.numel()} values lies from {low} to {high}", "give other bounds")
    places = ((inside - low) / (high - low) * bins).long().clamp(max=bins - 1)
    return torch.bincount(places, minlength=bins).double() / len(inside)


def js_divergence(p: Tensor, q: Tensor) -> float:
    """Jensen-Shannon divergence of two histograms in nats: 0 for equal ones, log 2 for ones that share no bin."""
    middle = (p + q) / 2
    terms = [torch.where(share > 0, share * (share / middle).log(), 0.0).sum() for share in (p, q)]
    return float(sum(terms) / 2)


# Nodes ---------------------------------------------------------------------------------------------------------------


def node_map(attention: Tensor, graph: TokenGraph) -> Tensor:
    """Attention from node to node, (..., N, N): what a token of one gives to all tokens of another, averaged over the one's."""
    member = attention.new_zeros(len(graph.spans), graph.length)
    for node, (start, end) in enumerate(graph.spans):
        member[node, start:end] = 1
    return (member / member.sum(1, keepdim=True)) @ attention @ member.T


def sink_score(means: Tensor) -> Tensor:
    """Largest column mean over the median one, of means (..., S); about 1 without an attention sink. Derived."""
    return means.nan_to_num(-inf).amax(-1) / means.nanmedian(-1).values


def skewed_line(nodes: Tensor, allowed: Tensor | None = None) -> tuple[float, int]:
    """How much brighter the brightest parallel of the diagonal is than the map, and its offset (key minus query). Derived.

    The "skewed line sink" of the paper is such a line off the diagonal. The diagonal and its two neighbours don't count, nor
    do parallels with fewer than a quarter of N allowed cells, whose means are single cells.

    Args:
        nodes: a node map (N, N).
        allowed: which cells count, (N, N) bool; all, if None.

    Raises:
        BadInput: when no parallel is left.
    """
    size = len(nodes)
    counted = torch.ones_like(nodes, dtype=torch.bool) if allowed is None else allowed
    whole = nodes[counted].mean()
    lines = {}
    for offset in range(1 - size, size):
        cells = nodes.diagonal(offset)[counted.diagonal(offset)]
        if abs(offset) > 1 and len(cells) >= max(1, size / 4):
            lines[offset] = float(cells.mean() / whole)
    if not lines:
        raise BadInput(f"no parallel of the diagonal is left in a map of {size} nodes", "give a larger map or mask")
    best = max(lines, key=lambda offset: lines[offset])
    return lines[best], best


def hop_shares(nodes: Tensor, distance: Tensor) -> list[float]:
    """Share of the nodes' attention to nodes that goes to those at 0, 1, 2 ... hops; cells without a way are left out. Derived.

    Args:
        nodes: a node map (..., N, N).
        distance: hops (N, N) from `windows.hop_distance`.
    """
    rows = _over_nodes(nodes).flatten(0, -2).reshape(-1, *distance.shape)
    return [float(rows.masked_fill(distance != hop, 0.0).sum(-1).mean()) for hop in range(int(distance.max()) + 1)]


def row_entropy(nodes: Tensor) -> Tensor:
    """Entropy of each node's attention over the nodes in nats, (..., N): 0 on one node, log N evenly spread. Derived."""
    rows = _over_nodes(nodes)
    return -torch.where(rows > 0, rows * rows.log(), 0.0).sum(-1)


def _over_nodes(nodes: Tensor) -> Tensor:
    """Rows that sum up to 1 over the nodes."""
    return nodes / nodes.sum(-1, keepdim=True)


def rank_correlation(a: Tensor, b: Tensor) -> float:
    """Spearman's rank correlation, ties by their mean rank; NaN when one side is constant.

    With column means of the nodes against their hops from the centre: -1 when attention favours the centre, as a graph network
    would, about 0 when it goes by something else. Derived.
    """
    ranks = torch.stack([_ranks(sample) for sample in (a, b)])
    ranks = ranks - ranks.mean(1, keepdim=True)
    lengths = ranks.square().sum(1)
    return float((ranks[0] * ranks[1]).sum() / lengths.prod().sqrt()) if lengths.all() else nan


def _ranks(sample: Tensor) -> Tensor:
    """Mean ranks from 1."""
    sample = sample.flatten().double().contiguous()
    order = sample.sort().values
    below = torch.searchsorted(order, sample)
    up_to = torch.searchsorted(order, sample, right=True)
    return (below + up_to + 1).double() / 2


@dataclass(frozen=True, slots=True)
class Position:
    """Attention of the children in one place of their lists to their neighbour, over layers, neighbours and prompts."""

    place: int
    mean: float
    std: float
    count: int


def attention_by_place(maps: Sequence[Tensor], trees: Sequence[PromptTree]) -> list[Position]:
    """What child number 1, 2, ... of a neighbour gives to that neighbour: the published means fall with the distance in text.

    Args:
        maps: node maps (..., N, N), one for each prompt.
        trees: the prompts' trees, whose mentions are the maps' nodes.
    """
    found: dict[int, list[Tensor]] = {}
    for nodes, tree in zip(maps, trees, strict=True):
        neighbour = 1
        for size in tree.sizes:
            for place in range(1, size + 1):
                found.setdefault(place, []).append(nodes[..., neighbour + place, neighbour].flatten())
            neighbour += 1 + size
    pooled = {place: torch.cat(values).double() for place, values in sorted(found.items())}
    return [Position(place, float(v.mean()), float(v.std(correction=0)), len(v)) for place, v in pooled.items()]


# Positions -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SlotMeans:
    """Attention by the fixed slots of a padded prompt, over the prompts that fill a slot; NaN where none does.

    Slot 0 is the centre's; each neighbour's is followed by those of its children.

    Attributes:
        from_nodes: (..., slots), what the node in a slot receives on average from each node that may see it.
        from_text: (..., slots), the same from text tokens.
        heat: (..., 1 + neighbours, 1 + neighbours), attention among the centre and the neighbours, rows are queries.
        prompts: (slots,) int64, how many prompts fill the slot.
    """

    from_nodes: Tensor
    from_text: Tensor
    heat: Tensor
    prompts: Tensor


def attention_by_slot(
    maps: Sequence[Tensor],
    masks: Sequence[Tensor],
    trees: Sequence[PromptTree],
    graphs: Sequence[TokenGraph],
    neighbours: int = 8,
    children: int = 8,
) -> SlotMeans:
    """Position-controlled maps: what attention gives to a place in the prompt, whichever node stands in it.

    Make each prompt from a tree in random order, `prompts.shuffle_order`, padded to fixed slots, `PromptTree.slotted`: then
    over many prompts a slot holds all kinds of nodes, and what is left of the pattern is the position's.

    Args:
        maps: attention (..., S, S), one for each prompt, with the same leading dimensions, such as layers.
        masks: the mask (S, S) of each.
        trees: the tree of each, as it stands in its prompt.
        graphs: its tokens.
        neighbours, children: how many slots the prompts have.

    Raises:
        BadInput: without prompts, or when a tree doesn't fit into the slots.
    """
    if not maps:
        raise BadInput("there is no prompt to look at", "give the attention of one or more")
    slots, leading = 1 + neighbours * (children + 1), maps[0].shape[:-2]
    received = torch.zeros(2, 2, *leading, slots, dtype=torch.float64)  # sums and counts, from nodes and from text
    heat = torch.zeros(2, *leading, 1 + neighbours, 1 + neighbours, dtype=torch.float64)
    prompts = torch.zeros(slots, dtype=torch.int64)
    for attention, allowed, tree, graph in zip(maps, masks, trees, graphs, strict=True):
        places = torch.tensor(tree.slots(neighbours, children))
        prompts[places] += 1
        inside = node_tokens(graph)
        for side, rows in enumerate((inside, ~inside)):
            means = column_means(attention.double(), allowed, rows)
            values = torch.stack([means[..., start:end].nanmean(-1) for start, end in graph.spans], -1)
            received[0, side, ..., places] += values.nan_to_num(0.0)
            received[1, side, ..., places] += ~values.isnan()
        chosen = [0, *(number for number, place in enumerate(places.tolist()) if place and (place - 1) % (children + 1) == 0)]
        corner = node_map(attention.double(), graph)[..., chosen, :][..., chosen]
        heat[0, ..., : len(chosen), : len(chosen)] += corner
        heat[1, ..., : len(chosen), : len(chosen)] += 1
    return SlotMeans(received[0, 0] / received[1, 0], received[0, 1] / received[1, 1], heat[0] / heat[1], prompts)
