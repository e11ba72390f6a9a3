"""Which nodes to leave in float32 so that a budget is met by the smallest file.

The harm of converting is nearly additive: errors of different layers are independent, so their powers add up. Each layer's own
is measured once, with nothing but that layer converted. Layers then stay float32 in order of harm, and in order of harm for each
byte that converting them saves; how many of them are needed is found by bisection, each time on a whole file. From the smaller
of the two results, layers go back one by one where the budget allows it. What is returned has been measured as it is.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

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
    return 1 + count + 2 * (max(count, 1).bit_length() + 1) + min(_RETURNS, count)


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
        self.most_float_bytes = float_share * float_weight_bytes(model)
        self.made: dict[frozenset[str], _Trial] = {}
        self.most = most_evaluations(len(self.groups))

    def run(self) -> Found:
        best = self.trial(self.always, "all layers")
        found: tuple[Layer, ...] = ()
        if not self.meets(best):
            harm = self.harms()
            found = self.report(harm)
            order = range(len(self.groups))
            by_harm = sorted(order, key=lambda place: (-harm[place], place))
            by_byte = sorted(order, key=lambda place: (-harm[place] / max(1, self.bytes[place]), place))
            ends = [self.bisect(by_harm), self.bisect(by_byte)]
            good = [end for end in ends if self.meets(end)]
            best = self.give_back(min(good, key=lambda end: end.cost), harm) if good else self.nearest([best, *ends])
        model = self.prepared.convert(best.kept)  # the same bytes as when it was measured
        return Found(model, best.kept, best.exact, self.meets(best), len(self.made), found)

    def trial(self, kept: frozenset[str], what: str) -> _Trial:
        if kept not in self.made:
            self.progress(what, min(1.0, len(self.made) / self.most))
            model = self.prepared.convert(kept)
            self.made[kept] = _Trial(kept, self.judge.measure(model), (file_bytes(model), qdq_count(model)))
        return self.made[kept]

    def meets(self, trial: _Trial) -> bool:
        return level(trial.exact) >= self.budget

    def harms(self) -> list[float]:
        """The noise of each layer as a part of the signal, with nothing but that layer converted."""
        everything = frozenset(self.prepared.candidates)
        found = []
        for number, group in enumerate(self.groups):
            trial = self.trial(everything - group, f"layer {number + 1} of {len(self.groups)} alone")
            found.append(10 ** (-level(trial.exact) / 10))
        return found

    def report(self, harm: Sequence[float]) -> tuple[Layer, ...]:
        snr = [None if value == 0 else -10 * math.log10(value) if math.isfinite(value) else -math.inf for value in harm]
        worst_first = sorted(range(len(harm)), key=lambda place: (-harm[place], place))
        names = [tuple(sorted(group, key=self.order.__getitem__)) for group in self.groups]
        return tuple(Layer(names[place], self.bytes[place], snr[place]) for place in worst_first)

    def keeping(self, places: Sequence[int]) -> frozenset[str]:
        return self.always.union(*(self.groups[place] for place in places))

    def bisect(self, order: Sequence[int]) -> _Trial:
        """The fewest first ones in float32 that meet the budget, or else as many as may stay float32."""
        high, size = 0, 0
        for place in order:
            if size + self.bytes[place] > self.most_float_bytes:
                break
            size += self.bytes[place]
            high += 1
        low = 0  # does not meet it: the search would not have begun
        best = self.trial(self.keeping(order[:high]), f"{high} layers in float32")
        if not self.meets(best):
            return best
        while high - low > 1:
            middle = (low + high) // 2
            trial = self.trial(self.keeping(order[:middle]), f"{middle} layers in float32")
            if self.meets(trial):
                high, best = middle, trial
            else:
                low = middle
        return best

    def give_back(self, best: _Trial, harm: Sequence[float]) -> _Trial:
        """Convert kept layers after all, those first that save much and harm little, as long as the budget is met."""
        kept = [place for place, group in enumerate(self.groups) if group <= best.kept and self.bytes[place]]
        kept.sort(key=lambda place: (harm[place] / self.bytes[place], place))
        for place in kept[:_RETURNS]:
            trial = self.trial(best.kept - self.groups[place], "fewer layers in float32")
            if self.meets(trial) and trial.cost < best.cost:
                best = trial
        return best

    def nearest(self, trials: Sequence[_Trial]) -> _Trial:
        return max(trials, key=lambda trial: (level(trial.exact), -trial.cost[0]))
