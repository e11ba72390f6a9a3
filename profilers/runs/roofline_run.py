"""The record of one `mixbench roofline`: what the table shows and what ``--json`` prints. No torch here.

Times are nanoseconds, rates per second. A floor is the least time that some work can take under the roofs of a place
(`roofline`); the places say which peaks these are and whether they were measured here or are a maker's, which is called
modelled and has no measured time beside it. The schema beside this file (``roofline-1.schema.json``) is generated from these
types; a change that a reader could notice raises ``SCHEMA``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from ...models.spec import Workload
from ...models.versions import versions
from ..cost import CostTree, OperatorCost
from ..machine import Machine
from ..roofline import Bound, Floor, Level, Peaks, Roof, floor, floor_of
from ..stats import Estimate

if TYPE_CHECKING:
    from ..peaks_published import Published

SCHEMA = 1
HERE = "here"
"""The name of the place that the command runs on."""
Kind = Literal["measured", "modelled"]
_TOO_LOW = (
    "measured while something else ran (--measure-again), or kernels multiply less than is counted (Winograd) "
    "or less exactly (TF32)"
)


@dataclass(frozen=True, slots=True)
class Place:
    """A device and its peaks.

    Attributes:
        flops_per_s: of contractions by dtype; of int8 operations on integers.
        levels: bandwidths, from the fastest cache to memory (the last, without an end); only memory where it is modelled.
        memory_bytes: of the device.
        threads: of torch, None where it is modelled.
        missing: dtypes without a peak, and why.
        verified: whether somebody has read the figures where ``source`` says; True for measured ones.
    """

    name: str
    title: str
    kind: Kind
    flops_per_s: dict[str, float]
    levels: tuple[Level, ...]
    memory_bytes: int
    threads: int | None
    source: str
    missing: dict[str, str]
    verified: bool

    def roof(self, dtype: str) -> Roof:
        """What bounds work of this dtype here.

        Raises:
            BadInput: when there is no peak for it.
        """
        return Peaks(self.flops_per_s, self.levels, self.source, self.missing).roof(dtype, self.title)


@dataclass(frozen=True, slots=True)
class OperatorPoint:
    """All calls of an operator under the roof.

    Attributes:
        flops: of contractions, which the peak bounds; ``other_flops`` are elementwise work and Fourier transforms, which it
            does not.
        read_bytes, written_bytes: what its kernels move if nothing is fused.
        intensity: FLOPs of all buckets by bytes; None without bytes.
        floor_ns: the least time of all calls, each on its own: the sum of the two parts after it.
        bound: what the larger part is bound by.
        traced_ns: what the calls took under torch's profiler, which lengthens them; None where nothing was traced, or the trace
            saw other calls than the count.
    """

    operator: str
    family: str
    calls: int
    flops: int
    other_flops: int
    read_bytes: int
    written_bytes: int
    intensity: float | None
    floor_ns: float
    compute_bound_ns: float
    memory_bound_ns: float
    bound: Bound
    traced_ns: float | None


@dataclass(frozen=True, slots=True)
class Reached:
    """A measured time beside the floors. A share above 1 has its reason among the model's notes.

    Attributes:
        unfused_share, compulsory_share: the floor over the time.
        flops_per_s: FLOPs of all buckets by the time.
    """

    latency_ns: Estimate
    unfused_share: float
    compulsory_share: float
    flops_per_s: float


@dataclass(frozen=True, slots=True)
class ModelPoint:
    """One model on one workload under the roof of one place.

    Attributes:
        dtype: whose peak bounds the contractions: that of weights and inputs, or int8 for an ONNX file of integers.
        place: the name of a `Place`.
        read_bytes, written_bytes: by all operators, each on its own: an upper bound, which fusing lowers.
        compulsory_read_bytes, compulsory_written_bytes: weights, inputs and outputs once: a lower bound.
        unfused_floor_ns: the sum of the operators' floors, and no less than the compulsory floor.
        compulsory_floor_ns: all FLOPs at the peak, or the compulsory bytes, whichever takes longer.
        needed_bytes: weights, inputs and the results that are alive at once; None where that is not known.
        fits: whether the place's memory holds them.
        uncounted_calls: calls of operators without a rule; they are in no floor.
        measured: None where the place is modelled, or nothing was timed.
    """

    model: str
    workload: str
    inputs: tuple[str, ...]
    dtype: str
    mode: str
    runtime: str
    how: str
    place: str
    kind: Kind
    flops: int
    fft_flops: int
    elementwise_flops: int
    read_bytes: int
    written_bytes: int
    compulsory_read_bytes: int
    compulsory_written_bytes: int
    intensity: float | None
    compulsory_intensity: float | None
    unfused_floor_ns: float
    unfused_bound: Bound
    compulsory_floor_ns: float
    compulsory_bound: Bound
    needed_bytes: int | None
    fits: bool | None
    uncounted_calls: int
    operators: tuple[OperatorPoint, ...]
    measured: Reached | None
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RooflineRun:
    """One call of the command. ``machine`` is None where everything is modelled."""

    places: tuple[Place, ...]
    models: tuple[ModelPoint, ...]
    machine: Machine | None
    warnings: tuple[str, ...]
    partial: bool = False
    command: str = "roofline"
    schema: int = SCHEMA
    versions: dict[str, str] = field(default_factory=lambda: versions("mixbench", "torch", "onnxruntime"))

    def place(self, point: ModelPoint) -> Place:
        """Where a model was placed."""
        return next(place for place in self.places if place.name == point.place)


@dataclass(frozen=True, slots=True)
class Work:
    """What a model does: what `model_point` places under a roof.

    Attributes:
        peak_dtype: whose peak bounds its contractions; empty for that of the workload.
        needed_bytes: as in `ModelPoint`.
    """

    name: str
    workload: Workload
    tree: CostTree
    needed_bytes: int | None = None
    runtime: str = "torch"
    how: str = ""
    notes: tuple[str, ...] = ()
    peak_dtype: str = ""

    @property
    def dtype(self) -> str:
        """Of the peak."""
        return self.peak_dtype or self.workload.dtype


def measured_place(title: str, peaks: Peaks, memory_bytes: int, threads: int) -> Place:
    """The machine at hand, by its measured peaks."""
    rates, missing = dict(peaks.flops_per_s), dict(peaks.missing)
    return Place(HERE, title, "measured", rates, peaks.levels, memory_bytes, threads, peaks.source, missing, True)


def modelled_place(device: "Published") -> Place:
    """A device by its maker's peaks; memory is the only level that is known of it."""
    levels = (Level(device.memory_bytes_per_s),)
    rates, size = dict(device.flops_per_s), device.memory_bytes
    return Place(device.name, device.title, "modelled", rates, levels, size, None, device.source, {}, device.verified)


def model_point(
    work: Work, place: Place, latency_ns: Estimate | None = None, traced: Mapping[str, tuple[float, float]] | None = None
) -> ModelPoint:
    """A model under the roof of a place.

    Args:
        traced: calls and ns of operators by name, from a trace of one call of the model.

    Raises:
        BadInput: when the place has no peak for the model's dtype.
    """
    roof = place.roof(work.dtype)
    total = work.tree.total
    operators = _operators(work.tree, roof, traced or {})
    compulsory = floor(roof, total.flops, work.tree.compulsory_read_bytes, work.tree.compulsory_written_bytes)
    unfused = Floor(
        sum(item.compute_bound_ns for item in operators) / 1e9, sum(item.memory_bound_ns for item in operators) / 1e9
    )
    if unfused.seconds < compulsory.seconds:  # weights that no cache holds, read by calls that are small each
        unfused = compulsory
    every = total.all_flops
    reached = None
    if latency_ns is not None:
        seconds = latency_ns.value / 1e9
        reached = Reached(latency_ns, unfused.seconds / seconds, compulsory.seconds / seconds, every / seconds)
    uncounted = sum(item.calls for item in work.tree.by_operator() if not item.family)
    return ModelPoint(
        model=work.name,
        workload=work.workload.key,
        inputs=tuple(map(str, work.workload.inputs)),
        dtype=work.dtype,
        mode=work.workload.mode,
        runtime=work.runtime,
        how=work.how,
        place=place.name,
        kind=place.kind,
        flops=total.flops,
        fft_flops=total.fft_flops,
        elementwise_flops=total.elementwise_flops,
        read_bytes=total.read_bytes,
        written_bytes=total.written_bytes,
        compulsory_read_bytes=work.tree.compulsory_read_bytes,
        compulsory_written_bytes=work.tree.compulsory_written_bytes,
        intensity=_ratio(every, total.moved_bytes),
        compulsory_intensity=_ratio(every, work.tree.compulsory_read_bytes + work.tree.compulsory_written_bytes),
        unfused_floor_ns=1e9 * unfused.seconds,
        unfused_bound=unfused.bound,
        compulsory_floor_ns=1e9 * compulsory.seconds,
        compulsory_bound=compulsory.bound,
        needed_bytes=work.needed_bytes,
        fits=None if work.needed_bytes is None else work.needed_bytes <= place.memory_bytes,
        uncounted_calls=uncounted,
        operators=operators,
        measured=reached,
        notes=(*work.notes, *_explained(work.name, uncounted, reached, operators)),
    )


def _operators(tree: CostTree, roof: Roof, traced: Mapping[str, tuple[float, float]]) -> tuple[OperatorPoint, ...]:
    """The operators of the whole tree, the longest floor first.

    A floor is that of the calls within each module, added up: a depthwise convolution, bound by memory, is not hidden by a
    dense one elsewhere.
    """
    floors: dict[str, Floor] = {}
    for node in tree.walk():
        for item in node.operators:
            floors[item.operator] = floors.get(item.operator, Floor()) + floor_of(roof, item.cost, item.calls)
    points = [_operator(item, floors[item.operator], traced.get(item.operator)) for item in tree.by_operator()]
    return tuple(sorted(points, key=lambda point: -point.floor_ns))


def _operator(item: OperatorCost, least: Floor, seen: tuple[float, float] | None) -> OperatorPoint:
    cost = item.cost
    return OperatorPoint(
        operator=item.operator,
        family=item.family,
        calls=item.calls,
        flops=cost.flops,
        other_flops=cost.fft_flops + cost.elementwise_flops,
        read_bytes=cost.read_bytes,
        written_bytes=cost.written_bytes,
        intensity=_ratio(cost.all_flops, cost.moved_bytes),
        floor_ns=1e9 * least.seconds,
        compute_bound_ns=1e9 * least.compute_s,
        memory_bound_ns=1e9 * least.memory_s,
        bound=least.bound,
        traced_ns=seen[1] if seen and seen[0] == item.calls else None,
    )


def _ratio(flops: int, moved: int) -> float | None:
    return flops / moved if moved else None


def _explained(name: str, uncounted: int, reached: Reached | None, operators: Sequence[OperatorPoint]) -> list[str]:
    """What keeps the figures from being taken at their face value."""
    said = []
    if uncounted:
        said.append(f"{uncounted} calls of {name} have no rule and are in no floor: `mixbench flops {name}` names them")
    if reached is not None and reached.compulsory_share > 1:
        said.append(f"{name} is faster than its compulsory floor, so a peak is too low: {_TOO_LOW}")
    elif reached is not None and reached.unfused_share > 1:
        said.append(
            f"{name} is faster than its unfused floor: kernels are fused, or results stay in caches from one to the next; "
            "its compulsory floor holds"
        )
    if fast := [item.operator for item in operators if item.traced_ns is not None and item.floor_ns > item.traced_ns]:
        said.append(f"under the profiler {', '.join(fast)} took less than the floor, so a peak is too low: {_TOO_LOW}")
    return said
