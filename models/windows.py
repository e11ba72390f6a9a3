"""Graph windows: which token may attend to which, when some tokens are nodes of a graph; as masks, and as work to be done.

Source: Guan et al., ICML 2025 (arXiv 2505.02130), its "graph linkage horizon": a family (k, direction) between fixed links and
full attention. The rule is the paper's; the released code's slips (k = 0, neighbours without children) are not repeated.

Letters: S tokens, N nodes, G row blocks of a group, R rows of a block, K keys of a block.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf
from typing import Literal

import torch
from torch import Tensor

from .errors import BadInput
from .prompts import TokenGraph

Direction = Literal["uni", "bi"]
TEXT_ROWS = 64
"""Text tokens that share a row block: each sees nearly what the last one sees."""


def hop_distance(graph: TokenGraph, limit: int | None = None) -> Tensor:
    """Links on the shortest way between any two nodes, (N, N) int64; -1 where there is none, or none within ``limit``.

    Edges are taken both ways before anything else: powers of a one-way matrix are another window. A node is its own
    neighbour, so k hops include fewer. Booleans between the steps: counts of ways would overflow on hubs.
    """
    nodes = len(graph.spans)
    ends = torch.tensor([*graph.edges, *((b, a) for a, b in graph.edges)], dtype=torch.int64, device="cpu").reshape(-1, 2)
    near = torch.eye(nodes, dtype=torch.bool, device="cpu")
    distance = near.long() - 1
    for hop in range(1, 1 + (nodes if limit is None else limit)):
        ways = near.int().index_add_(0, ends[:, 0], near[ends[:, 1]].int())
        fresh = (ways > 0) & ~near
        if not fresh.any():
            break
        distance[fresh] = hop
        near |= fresh
    return distance


def window_mask(graph: TokenGraph, k: int, direction: Direction = "uni", length: int | None = None) -> Tensor:
    """Which key (column) each query (row) may attend to: (S, S) bool on the CPU, True where allowed.

    Two node tokens see each other if their nodes are at most ``k`` links apart; with ``uni`` only back in the sequence, with
    ``bi`` also ahead. All other pairs are causal. No row sees padding or holes, and their own rows see nothing.

    Args:
        k: 0 is only itself, 1 the links, and twice the depth of a tree everything.
        direction: ``uni`` is cut to the lower triangle after the hops were counted both ways.
        length: S, if it isn't the graph's: tokens past the graph, such as generated ones, are text.

    Raises:
        BadInput: when k is negative or the direction unknown.
    """
    if k < 0:
        raise BadInput(f"a window of {k} hops", "k counts hops, from 0 (only itself) up")
    if direction not in ("uni", "bi"):
        raise BadInput(f"no window direction {direction!r}", "uni looks back only, bi also ahead")
    size = graph.length if length is None else length
    node_of = torch.tensor([*graph.node_of, *[-1] * (size - graph.length)][:size], dtype=torch.int64, device="cpu")
    allowed = torch.ones(size, size, dtype=torch.bool, device="cpu").tril()
    tokens = torch.nonzero(node_of >= 0)[:, 0]
    near = hop_distance(graph, k) >= 0
    pairs = near[node_of[tokens]][:, node_of[tokens]]
    rows, columns = tokens[:, None], tokens[None, :]
    allowed[rows, columns] = pairs if direction == "bi" else pairs & allowed[rows, columns]
    unseen = [token for token in graph.unseen if token < size]
    allowed[unseen] = False
    allowed[:, unseen] = False
    return allowed


def additive_mask(allowed: Tensor, dtype: torch.dtype = torch.float32, blocked: float = -inf) -> Tensor:
    """The mask as numbers to be added to the scores: 0 where allowed, ``blocked`` elsewhere.

    The released code blocks by -6000, which gives the same weights. It differs on rows that see nothing, such as padding: they
    then spread over all keys, where minus infinity gives zeros.
    """
    return torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill(~allowed, blocked)


@dataclass(frozen=True, slots=True)
class Cells:
    """Cells of the score matrix, per head: those that the mask allows, and those that a kernel computes."""

    useful: int
    executed: int

    def __str__(self) -> str:
        return f"{self.useful:,} useful of {self.executed:,} executed cells"


def block_cells(allowed: Tensor, block: int) -> Cells:
    """What a block-sparse kernel executes: all cells of each ``block`` x ``block`` tile that has an allowed one.

    Tiles at the right and lower edge count in full. The order of the nodes decides; see `bandwidth_order`.
    """
    rows, columns = (-(-side // block) * block for side in allowed.shape)
    padded = torch.zeros(rows, columns, dtype=torch.bool, device=allowed.device)
    padded[: allowed.shape[0], : allowed.shape[1]] = allowed
    tiles = padded.unflatten(1, (-1, block)).unflatten(0, (-1, block)).any(3).any(1)
    return Cells(int(allowed.sum()), int(tiles.sum()) * block * block)


def bandwidth_order(graph: TokenGraph) -> list[int]:
    """Reverse Cuthill-McKee: the nodes in an order that puts linked ones close together (Cuthill & McKee, ACM 1969)."""
    links: list[set[int]] = [set() for _ in graph.spans]
    for a, b in graph.edges:
        links[a].add(b)
        links[b].add(a)
    seen: set[int] = set()
    order: list[int] = []
    for start in sorted(range(len(links)), key=lambda node: len(links[node])):
        queue = [] if start in seen else [start]
        seen.update(queue)
        for node in queue:  # grows while it is read
            fresh = sorted(links[node] - seen, key=lambda other: (len(links[other]), other))
            seen.update(fresh)
            queue.extend(fresh)
        order.extend(queue)
    return order[::-1]


# The work that a window leaves ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RowGroup:
    """Row blocks of one size that see equally many keys, so that one batched attention serves them all.

    Attributes:
        queries: (G, R) int64, the tokens of each block in ascending order, filled up with its first one. Blocks are in the
            order of their first tokens.
        keys: (G, K) int64, the tokens that some row of the block sees, in the same way.
        mask: (G, R, K) bool, or None when every row sees all keys.
    """

    queries: Tensor
    keys: Tensor
    mask: Tensor | None

    @property
    def starts(self) -> tuple[list[int], list[int], list[int]]:
        """The first token of each block, then the first that any block has as its row number r, and as its key number c.

        All ascend, so a sequence that is cut needs of blocks, rows and keys those that start before the cut.
        """
        return self.queries[:, 0].tolist(), _first_by_column(self.queries), _first_by_column(self.keys)


@dataclass(frozen=True, slots=True)
class WindowPlan:
    """A mask as batches of small dense attentions that leave out what no row of a block sees.

    Attributes:
        groups: each row that sees something is in exactly one block (or twice in it, as filling).
        rows: (S,) int64, where each token's result lies in the groups' rows laid end to end; a row that sees nothing points
            behind the last.
        cells: what the mask allows and what the groups compute.
    """

    groups: tuple[RowGroup, ...]
    rows: Tensor
    cells: Cells


def plan_window(allowed: Tensor, graph: TokenGraph) -> WindowPlan:
    """Plan the attention of a mask over a graph's tokens: a block for each node, one for each run of `TEXT_ROWS` text tokens.

    Nodes that see the same keys share a block, so a window that links everything becomes one dense attention. Lengths are
    rounded up by at most an eighth, so that few groups remain; nothing depends on the order of the nodes or on hubs.
    """
    size = len(allowed)
    batches: dict[tuple[int, int], list[tuple[list[int], list[int]]]] = {}
    for rows, keys in _blocks(allowed, graph):
        batches.setdefault((_rounded(len(rows)), _rounded(len(keys))), []).append((rows, keys))
    groups, places, end = [], torch.full((size,), -1, dtype=torch.int64, device="cpu"), 0
    for (row_count, key_count), blocks in sorted(batches.items()):
        blocks.sort()
        queries = _table([rows for rows, _ in blocks], row_count)
        seen = _table([keys for _, keys in blocks], key_count)
        filling = (
            torch.arange(key_count, device="cpu") >= torch.tensor([len(keys) for _, keys in blocks], device="cpu")[:, None]
        )
        mask = allowed[queries[:, :, None], seen[:, None, :]] & ~filling[:, None, :]
        groups.append(RowGroup(queries, seen, None if mask.all() else mask))
        places[queries.flatten()] = torch.arange(end, end + queries.numel(), device="cpu")
        end += queries.numel()
    places[places < 0] = end
    executed = sum(group.queries.numel() * group.keys.shape[1] for group in groups)
    return WindowPlan(tuple(groups), places, Cells(int(allowed.sum()), executed))


def _blocks(allowed: Tensor, graph: TokenGraph) -> Iterator[tuple[list[int], list[int]]]:
    """Row blocks as (rows, keys that some of the rows see); rows that see nothing are in none."""
    shared: dict[bytes, list[int]] = {}
    for start, end in graph.spans:
        pattern = allowed[start:end].any(0)
        shared.setdefault(pattern.numpy().tobytes(), []).extend(range(start, end))
    inside = graph.node_of
    text = [token for token in range(len(allowed)) if token >= len(inside) or inside[token] < 0]
    text = [token for token, sees in zip(text, allowed[text].any(1).tolist(), strict=True) if sees]
    runs = [text[start : start + TEXT_ROWS] for start in range(0, len(text), TEXT_ROWS)]
    for rows in (*map(sorted, shared.values()), *runs):
        yield rows, torch.nonzero(allowed[rows].any(0))[:, 0].tolist()


def _first_by_column(table: Tensor) -> list[int]:
    """The smallest entry of each column; what fills up a row doesn't count."""
    filling = table == table[:, :1]
    filling[:, 0] = False
    first: list[int] = table.masked_fill(filling, torch.iinfo(table.dtype).max).min(0).values.tolist()
    return first


def _rounded(count: int) -> int:
    """Up to four significant binary digits: at most an eighth more."""
    step = 1 << max(0, count.bit_length() - 4)
    return -(-count // step) * step


def _table(lists: Sequence[list[int]], width: int) -> Tensor:
    """Lists as the rows of a table, filled up with their own first entry."""
    rows = [[*items, *[items[0]] * (width - len(items))] for items in lists]
    return torch.tensor(rows, dtype=torch.int64, device="cpu")
