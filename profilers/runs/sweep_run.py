"""The record of one `mixbench sweep`: what the table shows and what ``--json`` prints. No torch here.

Costs are exact integers in the units of their names. The schema beside this file (``sweep-1.schema.json``) is generated from
these types; a change that a reader could notice raises ``SCHEMA``.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ...models.versions import versions
from ..axes import LETTERS, Axis
from ..growth import Points, Polynomial, PowerLaw, polynomial, power_law, slopes
from .run import ModelResult, Totals

SCHEMA = 1

METRICS: Mapping[str, tuple[str, str]] = {
    "params": ("parameters", ""),
    "macs": ("MACs", ""),
    "flops": ("FLOPs", ""),
    "fft_flops": ("FFT FLOPs", ""),
    "elementwise_flops": ("elementwise FLOPs", ""),
    "activations": ("activations", ""),
    "bytes": ("bytes, unfused", "bytes"),
    "compulsory_bytes": ("bytes, compulsory", "bytes"),
    "peak_memory": ("peak of activations, bytes", "bytes"),
    "intensity": ("FLOPs a byte", ""),
}
"""What is swept: label and unit by the metric's name."""


@dataclass(frozen=True, slots=True)
class SweepPoint:
    """What the model costs at one size of one axis.

    Attributes:
        peak_activation_bytes: the most that is alive at once, without weights and inputs.
        device: where it was counted; anything else but ``meta`` has its reason among the run's notes.
    """

    axis: Axis
    size: int
    inputs: tuple[str, ...]
    totals: Totals
    peak_activation_bytes: int
    uncounted_calls: int
    device: str


@dataclass(frozen=True, slots=True)
class Refused:
    """A size that the model does not take, in the words of its error."""

    axis: Axis
    size: int
    why: str


@dataclass(frozen=True, slots=True)
class Term:
    """A term of a polynomial: numerator / denominator x size ^ power."""

    power: int
    numerator: int
    denominator: int


@dataclass(frozen=True, slots=True)
class Slope:
    """The exponent between two neighbouring sizes: how steep the cost rises there in logarithms."""

    start: int
    stop: int
    exponent: float


@dataclass(frozen=True, slots=True)
class Growth:
    """How a metric grows along an axis.

    Attributes:
        start, stop: the sizes between which ``exponent`` holds: the least-squares power law over all points with a cost.
        worst_percent: the power law's largest miss. None, like the exponent, for fewer than two points.
        slopes: between neighbours; the last one is the slope at the end.
        terms: of the polynomial that passes through all points from ``exact_from`` up, the highest power first; empty where
            there is none. Its highest power is what the growth comes to.
    """

    axis: Axis
    metric: str
    start: int
    stop: int
    exponent: float | None
    worst_percent: float | None
    slopes: tuple[Slope, ...]
    terms: tuple[Term, ...]
    exact_from: int | None
    exact_points: int
    sentence: str


@dataclass(frozen=True, slots=True)
class SweepRun:
    """One call of the command.

    Attributes:
        inputs: with letters for the sides that are swept: B, R and S.
        held: sizes of the axes while another is swept.
        rebuilt: whether settings followed the sizes.
    """

    model: str
    inputs: tuple[str, ...]
    dtype: str
    mode: str
    held: dict[Axis, int]
    rebuilt: bool
    points: tuple[SweepPoint, ...]
    growth: tuple[Growth, ...]
    refused: tuple[Refused, ...]
    notes: tuple[str, ...]
    command: str = "sweep"
    schema: int = SCHEMA
    versions: dict[str, str] = field(default_factory=lambda: versions("mixbench", "torch"))

    @property
    def axes(self) -> tuple[Axis, ...]:
        """The axes that were swept, in order."""
        return tuple(dict.fromkeys(point.axis for point in self.points))

    def along(self, axis: Axis) -> tuple[SweepPoint, ...]:
        """The points of an axis, by size."""
        return tuple(point for point in self.points if point.axis == axis)


def point_of(axis: Axis, size: int, result: ModelResult) -> SweepPoint:
    """The record of a count."""
    missed = sum(item.calls for item in result.uncounted)
    return SweepPoint(axis, size, result.inputs, result.totals, result.memory.peak_activation_bytes, missed, result.device)


def value(point: SweepPoint, metric: str) -> float | int | None:
    """A metric of a point by its name in `METRICS`; None for the intensity of what moves nothing.

    Intensity is the FLOPs of all kinds for each byte that unfused operators move.
    """
    totals = point.totals
    match metric:
        case "bytes":
            return totals.moved_bytes
        case "peak_memory":
            return point.peak_activation_bytes
        case "intensity":
            return totals.all_flops / totals.moved_bytes if totals.moved_bytes else None
    found: int = getattr(totals, metric)
    return found


def growth_of(axis: Axis, points: Iterable[SweepPoint]) -> tuple[Growth, ...]:
    """How each metric grows along an axis; one that is zero everywhere does not."""
    found = list(points)
    grown = []
    for metric in METRICS:
        known = [(point.size, cost) for point in found if (cost := value(point, metric)) is not None]
        if len(known) > 1 and any(cost for _, cost in known):
            grown.append(grow(axis, metric, known))
    return tuple(grown)


def grow(axis: Axis, metric: str, points: Points) -> Growth:
    """How a metric grows, from (size, cost) in the order of the sizes."""
    exact, law, steps = polynomial(points), power_law(points), slopes(points)
    above = [size for size, cost in points if cost > 0]
    return Growth(
        axis=axis,
        metric=metric,
        start=above[0],
        stop=above[-1],
        exponent=law.exponent if law else None,
        worst_percent=100 * law.worst if law else None,
        slopes=tuple(Slope(*step) for step in steps),
        terms=_terms(exact) if exact else (),
        exact_from=points[-exact.points][0] if exact else None,
        exact_points=exact.points if exact else 0,
        sentence=_sentence(axis, metric, points, exact, law, steps),
    )


def _terms(exact: Polynomial) -> tuple[Term, ...]:
    pairs = [(power, part) for power, part in enumerate(exact.coefficients) if part or not exact.degree]
    return tuple(Term(power, part.numerator, part.denominator) for power, part in reversed(pairs))


def formula(growth: Growth) -> str:
    """The polynomial in the axis's letter, such as ``262,144 S^2 + 6,607,077,376 S``; empty where there is none."""
    return _formula(growth.terms, LETTERS[growth.axis])


def _formula(terms: Iterable[Term], letter: str) -> str:
    words = ""
    for term in terms:
        size = f"{abs(term.numerator):,}" + (f"/{term.denominator:,}" if term.denominator > 1 else "")
        sign = (" - " if term.numerator < 0 else " + ") if words else ("-" if term.numerator < 0 else "")
        words += sign + size + {0: "", 1: f" {letter}"}.get(term.power, f" {letter}^{term.power}")
    return words


def _sentence(
    axis: Axis,
    metric: str,
    points: Points,
    exact: Polynomial | None,
    law: PowerLaw | None,
    steps: list[tuple[int, int, float]],
) -> str:
    """What can be said of the growth, read aloud: the exact form first, and what an exponent is good for."""
    label, letter = METRICS[metric][0], LETTERS[axis]
    if exact and not exact.degree and exact.points == len(points):
        return f"{label}: {points[0][1]:,} at every size"
    above = [size for size, cost in points if cost > 0]
    fit = f"{label} ~ {letter}^{law.exponent:.2f} between {above[0]:,} and {above[-1]:,}" if law else ""
    end = f"slope {steps[-1][2]:.2f} at the end" if len(steps) > 1 else ""
    if not exact:
        return ", ".join(filter(None, (fit, end)))
    said = f"{label} = {_formula(_terms(exact), letter)}"
    said += f", exactly at the {exact.points} sizes from {points[-exact.points][0]:,} up"
    if not _mixed(exact) and exact.points == len(points):
        return said
    comes = f"coming to {letter}^{exact.degree}" if exact.degree > 1 and _mixed(exact) else ""
    return f"{said}; " + ", ".join(filter(None, (fit.removeprefix(f"{label} ") if fit else "", end, comes)))


def _mixed(exact: Polynomial) -> bool:
    """Whether lower powers are in it, so that the exponent still moves."""
    return any(exact.coefficients[:-1])
