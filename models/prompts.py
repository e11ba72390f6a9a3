"""Graphs written into a sequence of tokens: trees of mentions in a prompt, any graph with token spans, and perturbed trees.

Source: Guan et al., "Attention Mechanisms Perspective: Exploring LLM Processing of Graph-Structured Data", ICML 2025 (arXiv
2505.02130), and the authors' code (github.com/millioniron/LLM_exploration). No torch here.

A prompt is text, the centre, text, each neighbour followed by the list of its own neighbours, text, the centre again, text.
Every mention of a node is one token. A node that is met twice is two mentions, which nothing links.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random

from .errors import BadInput

ROUNDS = 11
"""Rounds of the perturbations that repeat (the authors' code)."""


@dataclass(frozen=True, slots=True)
class TokenGraph:
    """An undirected graph whose nodes are ranges of tokens.

    Attributes:
        length: tokens of the sequence, padding included.
        spans: for each node its half-open range of tokens; tokens outside all ranges are text.
        edges: pairs of node numbers; direction and repetition don't matter.
        padding: tokens at the left that nothing attends to and that attend to nothing.
        holes: more such tokens, anywhere outside the ranges.

    Raises:
        BadInput: when ranges overlap, are empty or leave the sequence, an edge names no node, or a hole is no text.
    """

    length: int
    spans: tuple[tuple[int, int], ...]
    edges: tuple[tuple[int, int], ...] = ()
    padding: int = 0
    holes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.padding <= self.length:
            raise BadInput(f"{self.padding} tokens of padding don't fit into {self.length}", "padding lies in the sequence")
        for start, end in self.spans:
            if not self.padding <= start < end <= self.length:
                what = f"the span {start}:{end} is empty or outside the tokens {self.padding}:{self.length}"
                raise BadInput(what, "spans are half-open ranges of tokens that are not padding")
        for (_, end), (start, _) in pairwise(sorted(self.spans)):
            if start < end:
                raise BadInput(f"two spans share the token {start}", "a token belongs to one node at most")
        for edge in self.edges:
            if len(edge) != 2 or not all(0 <= node < len(self.spans) for node in edge):
                raise BadInput(f"the edge {edge} names no two of the {len(self.spans)} nodes", "nodes are numbered from 0")
        owners = self.node_of if self.holes else []
        for hole in self.holes:
            if not 0 <= hole < self.length or owners[hole] >= 0:
                raise BadInput(f"the hole {hole} is no text of the {self.length} tokens", "holes are tokens outside all spans")

    @property
    def node_of(self) -> list[int]:
        """For each token its node, or -1 where it is text or padding."""
        owners = [-1] * self.length
        for node, (start, end) in enumerate(self.spans):
            owners[start:end] = [node] * (end - start)
        return owners

    @property
    def unseen(self) -> list[int]:
        """Tokens that nothing attends to: padding and holes."""
        return [*range(self.padding), *self.holes]

    @classmethod
    def of_nodes(cls, nodes: int, size: int, edges: Iterable[tuple[int, int]]) -> "TokenGraph":
        """``nodes`` spans of ``size`` tokens each, one after the other, with no text."""
        spans = tuple((node * size, (node + 1) * size) for node in range(nodes))
        return cls(nodes * size, spans, tuple(edges))


@dataclass(frozen=True, slots=True)
class PromptTree:
    """The sampled subgraph of a prompt: a centre and its neighbours, each with a list of children. Labels are any integers."""

    centre: int
    neighbours: tuple[tuple[int, tuple[int, ...]], ...]

    @classmethod
    def of_sizes(cls, children: Sequence[int]) -> "PromptTree":
        """A tree whose neighbour number i has ``children[i]`` children; labels are the order of mention, from 0."""
        neighbours, label = [], 1
        for size in children:
            neighbours.append((label, tuple(range(label + 1, label + 1 + size))))
            label += 1 + size
        return cls(0, tuple(neighbours))

    @property
    def mentions(self) -> tuple[int, ...]:
        """Labels in the order of the prompt: centre, then each neighbour and its children. The re-mention is left out."""
        return (self.centre, *(label for neighbour, children in self.neighbours for label in (neighbour, *children)))

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many children each neighbour has."""
        return tuple(len(children) for _, children in self.neighbours)

    @property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """Links between mentions, by their number in `mentions`: centre to neighbour, neighbour to child."""
        edges, mention = [], 1
        for size in self.sizes:
            edges.append((0, mention))
            edges.extend((mention, mention + 1 + child) for child in range(size))
            mention += 1 + size
        return tuple(edges)

    def graph(self, padding: int = 0, positions: Sequence[int] | None = None, length: int | None = None) -> TokenGraph:
        """Where the mentions stand in the prompt.

        Args:
            padding: tokens at the left that are no part of the prompt.
            positions: tokens of all mentions in the order of the prompt, padding included, the last one that of the centre's
                re-mention: it is text to the window. By default those of a short template (177 tokens for 8 times 8).
            length: tokens in all, padding included; needed with ``positions``.

        Raises:
            BadInput: when there is not a position for each mention and one for the re-mention.
        """
        if positions is None:
            positions, length = _template(self.sizes, padding)
        if len(positions) != len(self.mentions) + 1 or length is None:
            what = f"{len(positions)} positions for {len(self.mentions)} mentions and the centre's re-mention"
            raise BadInput(what, "give one for each, and the length of the sequence")
        spans = tuple((position, position + 1) for position in positions[:-1])
        return TokenGraph(length, spans, self.edges, padding)

    def slots(self, neighbours: int = 8, children: int = 8) -> tuple[int, ...]:
        """For each mention its slot: the centre 0, then every neighbour ``children + 1`` slots on, its children behind it.

        Raises:
            BadInput: when the tree has more neighbours or children than that.
        """
        if len(self.sizes) > neighbours or max(self.sizes, default=0) > children:
            what = f"a tree of {len(self.sizes)} neighbours with up to {max(self.sizes, default=0)} children"
            raise BadInput(f"{what} overflows {neighbours} x {children} slots", "give more slots")
        return (0, *(1 + (children + 1) * i + j for i, size in enumerate(self.sizes) for j in range(size + 1)))

    def slotted(self, neighbours: int = 8, children: int = 8, padding: int = 0) -> TokenGraph:
        """The prompt padded to fixed slots: each is the same token in all prompts, and one without a mention is a hole.

        The words of the template stay, so that prompts differ in nothing but their nodes.

        Raises:
            BadInput: when the tree has more neighbours or children than that.
        """
        positions, length = _template([children] * neighbours, padding)
        taken = self.slots(neighbours, children)
        spans = tuple((positions[slot], positions[slot] + 1) for slot in taken)
        holes = tuple(positions[slot] for slot in range(len(positions) - 1) if slot not in set(taken))
        return TokenGraph(length, spans, self.edges, padding, holes)


def shuffle_order(tree: PromptTree, random: Random) -> PromptTree:
    """The same tree told in another order: neighbours, and the children of each, are shuffled; no link changes."""
    told = [(neighbour, tuple(random.sample(children, len(children)))) for neighbour, children in tree.neighbours]
    random.shuffle(told)
    return PromptTree(tree.centre, tuple(told))


def _template(sizes: Sequence[int], padding: int) -> tuple[list[int], int]:
    """Positions of all mentions in a template of few words, and the length in all.

    Two words, the centre, two words; each neighbour with two words ("is connected ["), its children with a comma between, and
    three words ("], " and the like) after the list, four after the last one; the centre again, two words.
    """
    positions = [padding + 2]
    token = padding + 5
    for size in sizes:
        positions.append(token)
        positions.extend(token + 3 + 2 * child for child in range(size))
        token += 3 + max(0, 2 * size - 1) + 3
    positions.append(token + 1)
    return positions, token + 4


# Structure perturbations (the authors' code, I to IV): what accuracy is left when the links are wrong? -----------------


def swap_child_lists(tree: PromptTree, random: Random) -> PromptTree:
    """Perturbation I: two random neighbours exchange their lists of children. Fewer than two neighbours stay as they are."""
    neighbours = list(tree.neighbours)
    if len(neighbours) >= 2:
        a, b = random.sample(range(len(neighbours)), 2)
        (first, of_first), (second, of_second) = neighbours[a], neighbours[b]
        neighbours[a], neighbours[b] = (first, of_second), (second, of_first)
    return PromptTree(tree.centre, tuple(neighbours))


def swap_children(tree: PromptTree, random: Random, rounds: int = ROUNDS) -> PromptTree:
    """Perturbation II: in each round a random child of one random neighbour and one of another change places."""
    lists = [list(children) for _, children in tree.neighbours]
    having = [place for place, children in enumerate(lists) if children]
    if len(having) >= 2:
        for _ in range(rounds):
            a, b = random.sample(having, 2)
            i, j = random.randrange(len(lists[a])), random.randrange(len(lists[b]))
            lists[a][i], lists[b][j] = lists[b][j], lists[a][i]
    pairs = zip(tree.neighbours, lists, strict=True)
    return PromptTree(tree.centre, tuple((neighbour, tuple(children)) for (neighbour, _), children in pairs))


def redistribute(tree: PromptTree, random: Random) -> PromptTree:
    """Perturbation III: all neighbours and children are shuffled together and dealt out again; the tree keeps its shape."""
    labels = list(tree.mentions[1:])
    random.shuffle(labels)
    deck = iter(labels)
    return PromptTree(tree.centre, tuple((next(deck), tuple(next(deck) for _ in range(size))) for size in tree.sizes))


def replace_by_strangers(tree: PromptTree, others: Sequence[PromptTree], random: Random, rounds: int = ROUNDS) -> PromptTree:
    """Perturbation IV: in each round a random neighbour or child becomes a random node of another prompt, where it stands.

    Raises:
        BadInput: when the other prompts hold no node.
    """
    strangers = [label for other in others for label in other.mentions]
    if not strangers:
        raise BadInput("there is no other prompt to take nodes from", "give the batch's other trees")
    labels = list(tree.mentions[1:])
    for _ in range(rounds if labels else 0):
        labels[random.randrange(len(labels))] = random.choice(strangers)
    deck = iter(labels)
    return PromptTree(tree.centre, tuple((next(deck), tuple(next(deck) for _ in range(size))) for size in tree.sizes))
