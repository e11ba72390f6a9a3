"""The record of one `mixbench compare`: what the tables, plots and pages show and what ``--json`` prints. No torch here.

Costs are exact integers in the units of their names. The schema beside this file (``compare-1.schema.json``) is generated from
these types; a change that a reader could notice raises ``SCHEMA``.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from ...models.errors import BadInput
from ...models.versions import versions
from ..machine import Machine
from ..stats import Estimate
from .roofline_run import RooflineRun
from .run import ModelResult
from .timing_run import TimeRun

SCHEMA = 1

FoundIn = Literal["both", "first", "second"]
Better = Literal["lower", "higher"]


@dataclass(frozen=True, slots=True)
class Accuracy:
    """A published share of ImageNet's validation images whose first guess is right; nothing of it was measured here."""

    top1_percent: float
    source: str


@dataclass(frozen=True, slots=True)
class Compared:
    """A model and its figures.

    Attributes:
        model: its name, with a number where the same model is named twice.
        file_bytes: of an ONNX file, with the files beside it that hold its weights.
        accuracy: None where none is published for these settings and this size of image; ``no_accuracy`` says why.
        latency_ns: the median of one call; None unless it was asked for.
    """

    model: str
    counted: ModelResult
    file_bytes: int | None
    accuracy: Accuracy | None
    no_accuracy: str
    latency_ns: Estimate | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """What a module costs by itself, without the modules inside it, or all calls of an operator do; its bytes unfused."""

    calls: int
    params: int
    macs: int
    fft_flops: int
    elementwise_flops: int
    activations: int
    moved_bytes: int

    def __add__(self, other: "Part") -> "Part":
        return Part(*(a + b for a, b in zip(self.sizes(), other.sizes(), strict=True)))

    def sizes(self) -> tuple[int, ...]:
        """The figures, in the order of the fields."""
        return (self.calls, self.params, self.macs, self.fft_flops, self.elementwise_flops, self.activations, self.moved_bytes)

    @property
    def costs(self) -> tuple[int, ...]:
        """The figures by which parts differ, the weightiest first. Calls are not among them: a file's modules have none."""
        return (self.macs, self.params, self.fft_flops, self.elementwise_flops, self.activations, self.moved_bytes)


NOTHING = Part(0, 0, 0, 0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Difference:
    """A module or operator of two models. All differences together are the difference of the models.

    Attributes:
        kind: the module's class, the operator's family; of both where they differ.
        found_in: a module that is in one model only stands for all below it.
        operators: of a module, those that differ.
    """

    name: str
    kind: str
    found_in: FoundIn
    first: Part
    second: Part
    operators: tuple["Difference", ...] = ()

    @property
    def more(self) -> tuple[int, ...]:
        """What the second has more (below 0: less), in the order of `Part.costs`."""
        return tuple(b - a for a, b in zip(self.first.costs, self.second.costs, strict=True))


@dataclass(frozen=True, slots=True)
class Differences:
    """Two models part by part, the largest difference first; ``same`` parts differ in nothing. ``matched`` says by what."""

    by: Literal["module", "operator"]
    matched: str
    items: tuple[Difference, ...]
    same: int


@dataclass(frozen=True, slots=True)
class Placed:
    """A model in the plane of two figures. On the front no other is better in one figure and as good in the other."""

    model: str
    x: float
    y: float
    on_front: bool
    behind: str
    """A model of the front that beats it; empty on the front."""


@dataclass(frozen=True, slots=True)
class Unplaced:
    """A model that has not both figures."""

    model: str
    why: str


@dataclass(frozen=True, slots=True)
class Front:
    """Models by two metrics, named as in `METRICS`, from the left."""

    x: str
    y: str
    placed: tuple[Placed, ...]
    unplaced: tuple[Unplaced, ...]


@dataclass(frozen=True, slots=True)
class CompareRun:
    """One call of the command. The first model is the reference.

    Attributes:
        time: the whole record of ``mixbench time``; None unless it was asked for.
        roofline: likewise that of ``mixbench roofline``, with the times of ``time``, if there are any.
    """

    models: tuple[Compared, ...]
    differences: tuple[Differences, ...]
    front: Front | None
    time: TimeRun | None
    roofline: RooflineRun | None = None
    command: str = "compare"
    schema: int = SCHEMA
    versions: dict[str, str] = field(default_factory=lambda: versions("mixbench", "torch", "onnx"))

    @property
    def partial(self) -> bool:
        """Whether the timing was stopped before its end."""
        return self.time is not None and self.time.partial

    @property
    def machine(self) -> Machine | None:
        """Where times and peaks were measured."""
        if self.time:
            return self.time.machine
        return self.roofline.machine if self.roofline else None


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure that models are compared by; ``take`` gives it, or why a model has none."""

    label: str
    unit: str
    take: Callable[[Compared], float | int | str]
    better: Better = "lower"


def _total(name: str) -> Callable[[Compared], int]:
    return lambda item: int(getattr(item.counted.totals, name))


METRICS: Mapping[str, Metric] = {
    "params": Metric("parameters", "", _total("params")),
    "macs": Metric("MACs", "", _total("macs")),
    "flops": Metric("FLOPs", "", _total("flops")),
    "fft_flops": Metric("FFT FLOPs", "", _total("fft_flops")),
    "elementwise_flops": Metric("elementwise FLOPs", "", _total("elementwise_flops")),
    "activations": Metric("activations", "", _total("activations")),
    "bytes": Metric("bytes, unfused", "bytes", _total("moved_bytes")),
    "compulsory_bytes": Metric("bytes, compulsory", "bytes", _total("compulsory_bytes")),
    "peak_memory": Metric("peak of activations, bytes", "bytes", lambda item: item.counted.memory.peak_activation_bytes),
    "file_bytes": Metric("file, bytes", "bytes", lambda item: item.file_bytes or "it is no file; `mixbench export` makes one"),
    "latency": Metric("latency, median", "ns", lambda item: item.latency_ns.value if item.latency_ns else "not measured"),
    "top1": Metric(
        "ImageNet top-1, published",
        "%",
        lambda item: item.accuracy.top1_percent if item.accuracy else item.no_accuracy,
        "higher",
    ),
}
"""By the names that ``--x`` and ``--y`` take, in the order of the table."""


def metric(name: str, option: str) -> Metric:
    """The metric that an option names.

    Raises:
        BadInput: when there is none, with the nearest names.
    """
    if name in METRICS:
        return METRICS[name]
    import difflib

    known = {word: name for name, item in METRICS.items() for word in (name, item.label.lower())}
    near = difflib.get_close_matches(name.lower(), list(known), n=2, cutoff=0.55)
    said = " or ".join(dict.fromkeys(known[word] for word in near))
    hint = f"did you mean {said}?" if near else f"one of {', '.join(METRICS)}"
    raise BadInput(f"no metric named {name!r} for {option}", hint)


def figure(item: Compared, name: str) -> float | int | None:
    """A model's figure by its metric's name; None where it has none."""
    found = METRICS[name].take(item)
    return None if isinstance(found, str) else found


def check_front(models: Sequence[Compared], x: str, y: str) -> None:
    """Say before anything is timed that a figure which was counted or looked up is of none of the models.

    Raises:
        BadInput: when no model has one of the two.
    """
    for name in (x, y):
        if name != "latency" and all(figure(item, name) is None for item in models):
            why = METRICS[name].take(models[0])
            raise BadInput(f"no model has {name}", f"{models[0].model} lacks {METRICS[name].label}: {why}")


def front_of(models: Sequence[Compared], x: str, y: str) -> Front:
    """Which of the models are worth their cost: those that no other beats in both figures.

    Raises:
        BadInput: when no model has both.
    """
    rows: list[tuple[str, float, float]] = []
    unplaced = []
    for item in models:
        across, up = METRICS[x].take(item), METRICS[y].take(item)
        if isinstance(across, str) or isinstance(up, str):
            lacking = (f"{METRICS[name].label}: {why}" for name, why in ((x, across), (y, up)) if isinstance(why, str))
            unplaced.append(Unplaced(item.model, "; ".join(lacking)))
        else:
            rows.append((item.model, float(across), float(up)))
    if not rows:
        raise BadInput(f"no model has {x} and {y} both", "; ".join(f"{item.model} lacks {item.why}" for item in unplaced[:2]))
    placed = []
    for model, own_x, own_y in rows:
        beaten = [name for name, *other in rows if _beats(other, (own_x, own_y), x, y)]
        placed.append((model, own_x, own_y, beaten))
    best = {model for model, _, _, beaten in placed if not beaten}
    made = (
        Placed(model, own_x, own_y, not beaten, next((name for name in beaten if name in best), ""))
        for model, own_x, own_y, beaten in placed
    )
    return Front(x, y, tuple(sorted(made, key=lambda item: (item.x, item.y, item.model))), tuple(unplaced))


def _beats(other: Sequence[float], own: Sequence[float], x: str, y: str) -> bool:
    """Whether the other is better in one figure and no worse in the other."""
    gains = [(a - b) if METRICS[name].better == "higher" else (b - a) for a, b, name in zip(other, own, (x, y), strict=True)]
    return min(gains) >= 0 and max(gains) > 0
