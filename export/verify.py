"""The proof that a file is the model: its outputs beside torch's on drawn inputs, within what torch itself is exact to.

No fixed tolerance fits all networks: some pass rounding on as it is, some amplify it a thousand times. What the model itself
does with rounding is measured, by running it in float32 and in float64 on the same inputs. A file passes if it differs from
torch's float32 result by at most `FACTOR` times that difference, plus `FLOOR` of the output's largest value, since a float32
result that happens to be exact says nothing of the next one.

A graph that compares or rounds floats (a hash by signs, an argmax) jumps where a last bit decides, in torch as in the file.
Then more inputs are drawn, the tolerance follows the median of torch's own errors, which a jump in torch does not move, and
fewer than half of the inputs may be beyond it: a wrong graph is wrong on all of them.
"""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

import numpy as np
import torch
from torch import Tensor, nn

from ..models.errors import CheckFailed, first_line
from .artifact import Check, Verification
from .samples import draw
from .signature import run
from .source import Source
from .targets.base import Runner

FACTOR, FLOOR, FALLBACK = 10.0, 2.0**-20, 1e-4
"""``FALLBACK`` of the largest value is the tolerance of a model that does not run in float64."""
SEEDS, SEEDS_OF_DECISIONS = 3, 7
DEPENDENCE = 0.01
"""Share by which two inputs' outputs have to differ; a network whose signal has died stays below a thousandth."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Inputs, what torch makes of them in float32, and how far that is from its result in float64 (None: it has none)."""

    seed: int
    sizes: dict[str, int]
    inputs: dict[str, np.ndarray]
    expected: tuple[np.ndarray, ...]
    own_error: tuple[float, ...] | None


@dataclass(frozen=True, slots=True)
class Expectation:
    """What a file is compared with, made once for all targets.

    Attributes:
        dependence: the share by which outputs of two inputs differ, None if no input varies.
        decides: whether rounding can make the outputs jump.
        refused: sizes of open dimensions at which torch itself fails.
    """

    samples: tuple[Sample, ...]
    dependence: float | None
    decides: bool
    refused: tuple[str, ...] = ()


def expect(source: Source, decides: bool = False) -> Expectation:
    """Run the reference on drawn inputs: some seeds at the example's sizes, and other sizes of open dimensions.

    Raises:
        CheckFailed: when the outputs hardly depend on the inputs, or are not finite anywhere.
    """
    double = _double(source.reference)
    samples, refused = [], []
    for seed in range(SEEDS_OF_DECISIONS if decides else SEEDS):
        samples.append(_sample(source, double, seed, {}, draw(source, seed)))
    for sizes in _other_sizes(source.sizes):
        try:
            samples.append(_sample(source, double, len(samples), sizes, draw(source, len(samples), sizes)))
        except Exception as error:  # noqa: BLE001 - what the model refuses the file need not take either
            refused.append(f"{_described(sizes)}: {first_line(error)}")
    if not any(np.isfinite(array).any() for array in samples[0].expected if array.size):
        raise CheckFailed("torch's own results are not finite, so there is nothing to compare", "check weights and inputs")
    return Expectation(tuple(samples), _dependence(samples), decides, tuple(refused))


def on_runs(source: Source, expectation: Expectation, runs: Sequence[Mapping[str, np.ndarray]]) -> Expectation:
    """The same with runs of the user's in the place of those that are drawn at the example's sizes; other sizes stay drawn."""
    double = _double(source.reference)
    samples = []
    for seed, feeds in enumerate(runs):
        inputs = {name: torch.from_numpy(feeds[name].copy()) for name in source.inputs}
        sizes = {word: inputs[name].shape[place] for name, places in source.dynamic.items() for place, word in places.items()}
        others = {word: size for word, size in sizes.items() if size != source.sizes[word]}
        samples.append(_sample(source, double, seed, others, inputs))
    return replace(expectation, samples=(*samples, *(sample for sample in expectation.samples if sample.sizes)))


def verify(runner: Runner, expectation: Expectation, min_snr_db: float | None = None, slack: float = 1.0) -> Verification:
    """Run a file on the same inputs and compare.

    Args:
        runner: from a target's ``open``.
        min_snr_db: for a file of reduced precision: the signal-to-noise ratio that every check has to reach, instead of the
            tolerance.
        slack: times the tolerance, see `Target`.
    """
    tolerances = [slack * tolerance for tolerance in _tolerances(expectation)]
    checks = tuple(_check(runner, sample, tolerances, min_snr_db) for sample in expectation.samples)
    failed = [check for check in checks if not check.passed]
    forgiven = expectation.decides and min_snr_db is None and 2 * len(failed) < len(checks)
    counted = [check for check in checks if check.passed or not forgiven]
    return Verification(
        passed=depends(expectation.dependence) and (forgiven or not failed),
        max_abs_error=max(check.max_abs_error for check in counted),
        snr_db=_least(check.snr_db for check in counted),
        tolerance=max(tolerances),
        min_snr_db=min_snr_db,
        own_error=max((max(sample.own_error) for sample in expectation.samples if sample.own_error), default=None),
        dependence=expectation.dependence,
        checks=checks,
        notes=tuple(_notes(expectation, failed if forgiven else (), len(checks))),
    )


def depends(dependence: float | None) -> bool:
    """Whether outputs differ as much as those of two inputs should; where no input varies nobody can tell."""
    return dependence is None or dependence >= DEPENDENCE


def why(verification: Verification) -> str:
    """A sentence on a failed verification."""
    if verification.dependence is not None and not depends(verification.dependence):
        share = f"{100 * verification.dependence:.2g} %"
        return f"two different inputs give outputs that differ by {share} only, so any wrong file would pass"
    worst = max((check for check in verification.checks if not check.passed), key=lambda check: check.max_abs_error)
    at = f" at {_described(worst.sizes)}" if worst.sizes else ""
    if verification.min_snr_db is not None:
        return f"its outputs reach {_db(worst.snr_db)}{at}, and {verification.min_snr_db:g} dB are asked for"
    allowed = f"{worst.tolerance:.2g} is what rounding explains"
    return f"its outputs differ from torch's by {worst.max_abs_error:.2g} ({_db(worst.snr_db)}){at}, and {allowed}"


def compare(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float | None]:
    """Largest absolute difference, and the signal-to-noise ratio in dB; None for equal arrays, whose ratio is endless.

    The same infinity in both, or not-a-number in both, is no difference.
    """
    if ours.shape != theirs.shape:
        return math.inf, -math.inf
    a, b = ours.astype(np.float64), theirs.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore", over="ignore"):
        difference = np.where(same, 0.0, a - b)
    if not np.isfinite(difference).all():
        return math.inf, -math.inf
    noise, signal = float((difference**2).sum()), float((a[np.isfinite(a)] ** 2).sum())
    snr = None if not noise else 10 * math.log10(signal / noise) if signal else -math.inf
    return float(np.abs(difference).max(initial=0.0)), snr


def _sample(source: Source, double: nn.Module | None, seed: int, sizes: dict[str, int], inputs: Mapping[str, Tensor]) -> Sample:
    expected = tuple(_numpy(tensor) for tensor in run(source.reference, _cloned(inputs)))
    own = None
    if double is not None:
        try:
            exact = run(double, {name: t.double() if t.is_floating_point() else t.clone() for name, t in inputs.items()})
            own = tuple(compare(_numpy(right), left)[0] for left, right in zip(expected, exact, strict=True))
        except Exception:  # noqa: BLE001 - a model that makes float32 tensors of its own can't be run in float64
            own = None
    return Sample(seed, sizes, {name: _numpy(tensor) for name, tensor in inputs.items()}, expected, own)


def _double(module: nn.Module) -> nn.Module | None:
    return copy.deepcopy(module).double()


def _other_sizes(example: Mapping[str, int]) -> Iterator[dict[str, int]]:
    """Each open dimension alone, larger and smaller, then all together: a batch of 1 and of 3, other sizes a quarter less."""
    if "batch" in example:
        yield from ({"batch": size} for size in (1, 3) if size != example["batch"])
    smaller = {name: max(1, size - size // 4) for name, size in example.items() if name != "batch" and size > 1}
    yield from ({name: size} for name, size in smaller.items())
    if smaller and ("batch" in example or len(smaller) > 1):
        yield {**({"batch": 2} if "batch" in example else {}), **smaller}


def _check(runner: Runner, sample: Sample, tolerances: Sequence[float], min_snr_db: float | None) -> Check:
    found = [np.asarray(array) for array in runner(sample.inputs)]
    assert len(found) == len(sample.expected), f"the file gives {len(found)} results, the model {len(sample.expected)}"
    compared = [compare(ours, theirs) for ours, theirs in zip(sample.expected, found, strict=True)]
    exceeded = [error > tolerance for (error, _), tolerance in zip(compared, tolerances, strict=True)]
    worst = max(range(len(compared)), key=lambda place: (exceeded[place], compared[place][0]))
    snr = _least(ratio for _, ratio in compared)
    passed = not any(exceeded) if min_snr_db is None else snr is None or snr >= min_snr_db
    return Check(sample.seed, sample.sizes, compared[worst][0], snr, tolerances[worst], passed)


def _tolerances(expectation: Expectation) -> list[float]:
    """One for each output, over all samples: rounding that shows on one input may show on any."""
    found = []
    for place in range(len(expectation.samples[0].expected)):
        arrays = [sample.expected[place] for sample in expectation.samples]
        if not np.issubdtype(arrays[0].dtype, np.floating):
            own = [sample.own_error[place] for sample in expectation.samples if sample.own_error]
            found.append(FACTOR * max(own, default=0.0))
            continue
        largest = max(float(np.abs(array[np.isfinite(array)]).max(initial=0.0)) for array in arrays)
        own = [sample.own_error[place] for sample in expectation.samples if sample.own_error]
        known = [error for error in own if math.isfinite(error)]
        # Where torch itself has jumped its error says nothing of rounding, and would excuse any file.
        typical = median if expectation.decides else max
        found.append(FACTOR * typical(known) + FLOOR * largest if known else FALLBACK * largest)
    return found


def _dependence(samples: Sequence[Sample]) -> float | None:
    """The largest share by which outputs of the first two samples differ, None if their inputs don't."""
    first, second = samples[0], samples[1]
    if all(np.array_equal(first.inputs[name], second.inputs[name]) for name in first.inputs):
        return None
    shares = []
    for one, other in zip(first.expected, second.expected, strict=True):
        a, b = one.astype(np.float64), other.astype(np.float64)
        if a.shape != b.shape:
            return 1.0
        finite = np.isfinite(a) & np.isfinite(b)
        scale, difference = (math.sqrt(float((array**2).sum())) for array in (a[finite], a[finite] - b[finite]))
        shares.append(difference / scale if scale else float(difference > 0))
    return max(shares)


def _notes(expectation: Expectation, forgiven: Sequence[Check], total: int) -> Iterator[str]:
    if expectation.dependence is None:
        yield "no input varies, so nothing shows that the outputs depend on them"
    if any(sample.own_error is None for sample in expectation.samples):
        yield f"the model does not run in float64, so the tolerance is {FALLBACK:g} of the largest value"
    if expectation.decides:
        yield "the graph compares or rounds floats: where a last bit decides, outputs jump, in torch as in the file"
    if forgiven:
        worst = max(check.max_abs_error for check in forgiven)
        yield f"that happened on {len(forgiven)} of {total} inputs, by up to {worst:.2g}; the largest error is of the others"
    yield from (f"not verified, since torch itself refuses it, at {words}" for words in expectation.refused)


def _least(ratios: "Iterator[float | None]") -> float | None:
    return min((ratio for ratio in ratios if ratio is not None), default=None)


def _db(ratio: float | None) -> str:
    return "no difference" if ratio is None else f"{ratio:.0f} dB"


def _described(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {size}" for name, size in sizes.items())


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().clone().numpy()


def _cloned(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in inputs.items()}
