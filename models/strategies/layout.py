"""How the tokens of a sequence are cut among ranks, and which queries see which keys. Arithmetic only, no torch.

Tokens are named by their place in the whole sequence. A rank's share is a tuple of ``range`` objects, in the order in which
its local tensors hold them, so that masks, rotary positions and the way back need nothing else. Three layouts:

- ``contiguous``: one stretch for each rank. Under a causal mask the last rank has nearly twice the mean work.
- ``zigzag``: 2 N chunks, rank r holds chunks r and 2 N - 1 - r: equal work under a causal mask (github.com/zhuzilin/
  ring-flash-attention, and the authors' code of arXiv 2412.20501).
- ``striped``: token t lies on rank t mod N (Brandon et al., arXiv 2311.09431): equal work too, to within a diagonal.
"""

from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

from ..errors import BadInput

LAYOUTS = ("contiguous", "zigzag", "striped")
Tokens = tuple[range, ...]


class Tile(NamedTuple):
    """Rows ``top`` to ``bottom`` of the queries against keys ``left`` to ``right``: all of them, or causal and square.

    A causal tile is square, row i seeing keys 0 … i: the one form that every fused operator takes in the same way.
    """

    top: int
    bottom: int
    left: int
    right: int
    causal: bool

    @property
    def pairs(self) -> int:
        """How many (query, key) pairs it holds; a forward costs 4 H D FLOPs for each, a backward 10 H D."""
        rows = self.bottom - self.top
        return rows * (rows + 1) // 2 if self.causal else rows * (self.right - self.left)


def even_lengths(total: int, degree: int) -> tuple[int, ...]:
    """Tokens of each rank, differing by at most one, the longer first."""
    short, longer = divmod(total, degree)
    return (short + 1,) * longer + (short,) * (degree - longer)


def cut(layout: str, lengths: Sequence[int]) -> tuple[Tokens, ...]:
    """Each rank's tokens, for the number of tokens that each has.

    Empty stretches are left out: a rank without tokens has the empty tuple. In a zigzag a rank's first chunk is the longer.

    Raises:
        BadInput: for an unknown layout, or lengths that ``striped`` cannot have.
    """
    degree = len(lengths)
    if layout == "contiguous":
        shares: Iterable[Tokens] = ((part,) for part in _stretches(lengths))
    elif layout == "zigzag":
        early = [length - length // 2 for length in lengths]
        parts = _stretches([*early, *(length // 2 for length in reversed(lengths))])
        shares = ((parts[rank], parts[2 * degree - 1 - rank]) for rank in range(degree))
    elif layout == "striped":
        total = sum(lengths)
        stripes = [range(rank, total, degree) for rank in range(degree)]
        if [len(stripe) for stripe in stripes] != list(lengths):
            what = f"{total} tokens in stripes over {degree} ranks can't have the lengths {tuple(lengths)}"
            raise BadInput(what, f"the layout striped gives {tuple(map(len, stripes))}; contiguous and zigzag take any lengths")
        shares = ((stripe,) for stripe in stripes)
    else:
        raise BadInput(f"no layout named {layout!r}", f"one of {', '.join(LAYOUTS)}")
    return tuple(tuple(part for part in share if part) for share in shares)


def _stretches(lengths: Sequence[int]) -> list[range]:
    return [range(start, stop) for start, stop in pairwise(accumulate(lengths, initial=0))]


def count(tokens: Tokens) -> int:
    """How many tokens these are."""
    return sum(map(len, tokens))


def halves(tokens: Tokens, parts: int) -> tuple[Tokens, ...]:
    """Every stretch cut into ``parts``, each a piece of its own, empty ones left out."""
    pieces = []
    for stretch in tokens:
        edges = accumulate(even_lengths(len(stretch), parts), initial=0)
        pieces += [(stretch[start:stop],) for start, stop in pairwise(edges) if stop > start]
    return tuple(pieces)


def joined(shares: Iterable[Tokens], weave: bool = True) -> Tokens:
    """The union of several shares in the order of the sequence, neighbouring stretches made one.

    A complete set of stripes becomes one stretch if ``weave``; other stripes stay as they are, one after the other.
    """
    parts = sorted((part for share in shares for part in share if part), key=lambda part: part.start)
    if not parts:
        return ()
    stop = max(part[-1] for part in parts) + 1
    if weave and any(part.step > 1 for part in parts) and sum(map(len, parts)) == stop:
        return (range(stop),)
    result = parts[:1]
    for part in parts[1:]:
        last = result[-1]
        if last.step == part.step == 1 and last.stop == part.start:
            result[-1] = range(last.start, part.stop)
        else:
            result.append(part)
    return tuple(result)


def places(store: Tokens, tokens: Tokens) -> tuple[slice, ...] | None:
    """Where tokens lie in a tensor that holds ``store``: slices along its token dimension, or None if it lacks some."""
    found: list[slice] = []
    for part in tokens:
        offset = 0
        for stretch in store:
            if part.start in stretch and part[-1] in stretch and (len(part) == 1 or part.step % stretch.step == 0):
                start, step = offset + stretch.index(part.start), part.step // stretch.step if len(part) > 1 else 1
                new = slice(start, start + (len(part) - 1) * step + 1, step)
                if found and found[-1].step == new.step == 1 and found[-1].stop == new.start:
                    new = slice(found.pop().start, new.stop, 1)
                found.append(new)
                break
            offset += len(stretch)
        else:
            return None
    return tuple(found)


def tiles(queries: Tokens, keys: Tokens, causal: bool) -> tuple[Tile, ...]:
    """The parts of a block of scores that have to be computed: none, one, or a few around the diagonal.

    Rows that see nothing and keys that nobody sees lie in no tile. Positions are rows and columns of the block, that is,
    of the concatenated stretches.
    """
    if not causal:
        return (Tile(0, count(queries), 0, count(keys), False),) if count(queries) and count(keys) else ()
    found: list[Tile] = []
    top = 0
    for rows in queries:
        left = 0
        for columns in keys:
            found += (Tile(top + t, top + b, left + a, left + z, diagonal) for t, b, a, z, diagonal in _pair(rows, columns))
            left += len(columns)
        top += len(rows)
    return _fused(found)


def _pair(rows: range, columns: range) -> list[tuple[int, int, int, int, bool]]:
    """Tiles of one stretch of queries against one of keys under the causal mask: row i sees column j iff j <= i + offset."""
    if not rows or not columns:
        return []
    if len(rows) > 1 and len(columns) > 1 and rows.step != columns.step:
        raise ValueError(f"stretches of steps {rows.step} and {columns.step} have no regular diagonal")
    step = columns.step if len(columns) > 1 else rows.step
    offset = (rows.start - columns.start) // step
    top, bottom, right = max(0, -offset), len(rows), len(columns)
    offset += top
    if top >= bottom:
        return []
    if offset >= right - 1:
        return [(top, bottom, 0, right, False)]
    right = min(right, offset + bottom - top)
    middle = top + right - offset
    result = [(top, middle, offset, right, True)]
    if offset:
        result.insert(0, (top, bottom, 0, offset, False))
    if middle < bottom:
        result.append((middle, bottom, offset, right, False))
    return result


def _fused(found: list[Tile]) -> tuple[Tile, ...]:
    """Full tiles that touch along a whole side made one: fewer and larger calls."""
    for side in ("keys", "rows"):
        result: list[Tile] = []
        for tile in found:
            for index, other in enumerate(result):
                if tile.causal or other.causal:
                    continue
                if side == "keys" and other[:2] == tile[:2] and other.right == tile.left:
                    result[index] = other._replace(right=tile.right)
                    break
                if side == "rows" and other[2:4] == tile[2:4] and other.bottom == tile.top:
                    result[index] = other._replace(bottom=tile.bottom)
                    break
            else:
                result.append(tile)
        found = result
    return tuple(found)


def pairs(queries: Tokens, keys: Tokens, causal: bool) -> int:
    """How many (query, key) pairs a block holds."""
    return sum(tile.pairs for tile in tiles(queries, keys, causal))


def positions(tokens: Tokens) -> list[int]:
    """The place in the sequence of every token of a share, in local order: what rotary embeddings have to turn by."""
    return [place for part in tokens for place in part]
