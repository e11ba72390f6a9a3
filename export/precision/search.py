"""Which nodes to leave in float32 so that a budget is met by the smallest file.

The harm of converting is nearly additive: errors of different layers are independent, so their powers add up. Each layer's own
is measured once, with nothing but that layer converted. Two rows of ever larger choices follow from it: the most harmful
layers, and the most harm for each number of bytes. How far to go in each is found by bisection, every time on a whole file.
From the smaller of the two results, layers go back one by one where the budget allows it. What is returned has been measured as
it is.
"""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto

from .graph import file_bytes, float_weight_bytes, layers, qdq_count, ready
from .judge import Judge, level
from .kinds.base import Prepared
from .records import Fidelity, Layer

Progress = Callable[[str, float], None]
"""Takes what is being done, and the share that is done."""

MOST_LAYERS = 128
"""More of them are measured in joined neighbours."""
_RETURNS = 12
"""How many layers are tried back in fewer bits at the end."""
_UNITS = 2000
"""Into how many parts the bytes are cut that the choice of layers spends."""


@dataclass(frozen=True, slots=True)
class Found:
    """The best file of a search: its model, what it kept, how near it is, and whether that meets the budget."""

    model: ModelProto
    kept: frozenset[str]
    exact: Fidelity
    met: bool
    evaluations: int
    layers: tuple[Layer, ...]


def most_evaluations(count: int) -> int:
    """The most files that a search over so many layers makes and runs."""
    sets = _UNITS + 2 * count + 1  # that the choice within a size may have; by harm alone there are `count`
    return 1 + count + sets.bit_length() + count.bit_length() + 2 + min(_RETURNS, count)


def search(
    model: ModelProto, prepared: Prepared, judge: Judge, min_snr_db: float, float_share: float, progress: Progress
) -> Found:
    """Find the smallest file with at least so many dB in exact arithmetic.

    Args:
        model: the float32 file.
        float_share: the largest part of its weights that may stay float32.
        progress: told of every evaluation; at most `most_evaluations` of them.
    """
    return _Search(model, prepared, judge, min_snr_db, float_share, progress).run()


@dataclass(frozen=True, slots=True)
class _Trial:
    """A file that was made and measured; not the file itself, of which there would be more than memory holds.

    Attributes:
        cost: bytes, then nodes that only convert: the smaller is better.
    """

    kept: frozenset[str]
    exact: Fidelity
    cost: tuple[int, int]


class _Search:
    """The trials of one search, each of them made once."""

    def __init__(
        self,
        model: ModelProto,
        prepared: Prepared,
        judge: Judge,
        min_snr_db: float,
        float_share: float,
        progress: Progress,
    ) -> None:
        self.prepared, self.judge, self.budget, self.progress = prepared, judge, min_snr_db, progress
        runs = layers(ready(model), set(prepared.candidates) - set(prepared.must_keep), MOST_LAYERS)
        self.groups = [frozenset(names) for names, _ in runs]
        self.bytes = [size for _, size in runs]
        self.order = {name: place for place, name in enumerate(prepared.candidates)}
        self.always = frozenset(prepared.must_keep)
        self.float32_bytes = file_bytes(model)
        self.most_float_bytes = float_share * float_weight_bytes(model)
        self.made: dict[frozenset[str], _Trial] = {}
        self.most = most_evaluations(len(self.groups))

    def run(self) -> Found:
        best = self.trial(self.always, "all layers")
        found: tuple[Layer, ...] = ()
        if not self.meets(best):
            alone = self.alone()
            found = self.report(alone)
            harm = [10 ** (-level(trial.exact) / 10) for trial in alone]
            saved = [self.float32_bytes - trial.cost[0] for trial in alone]
            ends = [self.bisect(sets) for sets in (by_harm(harm), by_harm_within_size(harm, saved))]
            good = [end for end in ends if self.meets(end)]
            best = self.give_back(min(good, key=lambda end: end.cost), harm) if good else _nearest([best, *ends])
        model = self.prepared.convert(best.kept)  # the same bytes as when it was measured
        return Found(model, best.kept, best.exact, self.meets(best), len(self.made), found)

    def trial(self, kept: frozenset[str], what: str) -> _Trial:
        if kept not in self.made:
            self.progress(what, min(1.0, len(self.made) / self.most))
            model = self.prepared.convert(kept)
            exact = self.judge.measure(self.prepared.exact(model))
            self.made[kept] = _Trial(kept, exact, (file_bytes(model), qdq_count(model)))
        return self.made[kept]

    def meets(self, trial: _Trial) -> bool:
        return level(trial.exact) >= self.budget

    def alone(self) -> list[_Trial]:
        """A file for each layer with nothing but that layer converted."""
        everything = frozenset(self.prepared.candidates)
        return [
            self.trial(everything - group, f"layer {number + 1} of {len(self.groups)} alone")
            for number, group in enumerate(self.groups)
        ]

    def report(self, alone: Sequence[_Trial]) -> tuple[Layer, ...]:
        worst_first = sorted(range(len(alone)), key=lambda place: (level(alone[place].exact), place))
        names = [tuple(sorted(group, key=self.order.__getitem__)) for group in self.groups]
        return tuple(Layer(names[place], self.bytes[place], alone[place].exact) for place in worst_first)

    def bisect(self, sets: Sequence[frozenset[int]]) -> _Trial:
        """The first of ever larger sets of layers that meets the budget in float32, or else the last that may stay float32."""
        allowed = [places for places in sets if sum(self.bytes[place] for place in places) <= self.most_float_bytes]
        low, high = -1, len(allowed) - 1
        best = self.keeping(allowed[high] if allowed else frozenset())
        if not self.meets(best):
            return best
        while high - low > 1:
            middle = (low + high) // 2
            trial = self.keeping(allowed[middle])
            if self.meets(trial):
                high, best = middle, trial
            else:
                low = middle
        return best

    def keeping(self, places: Collection[int]) -> _Trial:
        kept = self.always.union(*(self.groups[place] for place in places))
        return self.trial(kept, f"{len(places)} of {len(self.groups)} layers in float32")

    def give_back(self, best: _Trial, harm: Sequence[float]) -> _Trial:
        """Convert kept layers after all, those first that save much and harm little, as long as the budget is met."""
        kept = [place for place, group in enumerate(self.groups) if group <= best.kept and self.bytes[place]]
        kept.sort(key=lambda place: (harm[place] / self.bytes[place], place))
        for place in kept[:_RETURNS]:
            trial = self.trial(best.kept - self.groups[place], "fewer layers in float32")
            if self.meets(trial) and trial.cost < best.cost:
                best = trial
        return best


def by_harm(harm: Sequence[float]) -> list[frozenset[int]]:
    """The most harmful layer, the two most harmful, and so on."""
    order = sorted(range(len(harm)), key=lambda place: (-harm[place], place))
    return [frozenset(order[:count]) for count in range(1, len(order) + 1)]


def by_harm_within_size(harm: Sequence[float], saved: Sequence[int]) -> list[frozenset[int]]:
    """For each number of bytes to spend, the layers whose harm together is the largest: a knapsack, by dynamic programming.

    Args:
        harm: of each layer, to be added up.
        saved: the bytes that converting it saves, so that keeping it costs; none or less is always kept.

    Returns:
        The different sets, in the order of what they cost.
    """
    free = frozenset(place for place, size in enumerate(saved) if size <= 0 or harm[place] == math.inf)
    items = [place for place in range(len(harm)) if place not in free]
    unit = max(1, -(-sum(saved[place] for place in items) // _UNITS))
    costs = {place: -(-saved[place] // unit) for place in items}
    most = sum(costs.values())
    best = np.zeros(most + 1)
    taken = np.zeros((len(items), most + 1), dtype=bool)
    for row, place in enumerate(items):
        cost = costs[place]
        with_it = best[: most + 1 - cost] + harm[place]
        taken[row, cost:] = with_it > best[cost:]
        best[cost:] = np.maximum(best[cost:], with_it)
    sets: list[frozenset[int]] = [free] if free else []
    for end in np.flatnonzero(np.diff(best, prepend=0.0)):
        left, chosen = int(end), set(free)
        for row in range(len(items) - 1, -1, -1):
            if taken[row, left]:
                chosen.add(items[row])
                left -= costs[items[row]]
        sets.append(frozenset(chosen))
    return sets


def _nearest(trials: Sequence[_Trial]) -> _Trial:
    return max(trials, key=lambda trial: (level(trial.exact), -trial.cost[0]))
