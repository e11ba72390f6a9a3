"""The record of one `mixbench flops`: what the table shows and what ``--json`` prints. No torch here.

Every field is plain data with its unit in its name or its docstring, so the JSON is this record and nothing else. The schema
beside this file (``flops-2.schema.json``) is generated from these types; a change that a reader could notice raises ``SCHEMA``.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ...models.spec import Published, Workload
from ...models.versions import versions
from ..cost import Cost, CostTree, Count, OperatorCost
from .memory import Memory, memory_of

if TYPE_CHECKING:
    from ...models.case import Case

SCHEMA = 2

_LABELS = {
    "params": "parameters",
    "params_bn_folded": "parameters, folded",
    "macs": "MACs",
    "top1_percent": "ImageNet top-1, %",
}


def label_of(metric: str) -> str:
    """What a figure is called on the screen; one without a name of its own goes by its metric's words."""
    words, percent, _ = metric.partition("_percent")
    return _LABELS.get(metric) or words.replace("_", " ").replace("macs", "MACs") + (", %" if percent else "")


@dataclass(frozen=True, slots=True)
class Totals:
    """Exact integers; ``flops`` is twice ``macs``, the other two FLOP buckets are in neither.

    Bytes read and written are of operators that share nothing: an upper bound. Compulsory ones, of everything fused into one,
    are a lower bound: each weight, input and output once.
    """

    params: int
    macs: int
    flops: int
    fft_flops: int
    elementwise_flops: int
    activations: int
    read_bytes: int
    written_bytes: int
    compulsory_read_bytes: int
    compulsory_written_bytes: int

    @property
    def all_flops(self) -> int:
        """FLOPs of all three buckets."""
        return self.flops + self.fft_flops + self.elementwise_flops

    @property
    def moved_bytes(self) -> int:
        """Bytes of unfused operators."""
        return self.read_bytes + self.written_bytes

    @property
    def compulsory_bytes(self) -> int:
        """Bytes that no fusion avoids."""
        return self.compulsory_read_bytes + self.compulsory_written_bytes


@dataclass(frozen=True, slots=True)
class Operator:
    """All calls of an operator; ``family`` names the file of its rule, and is empty when it has none."""

    operator: str
    family: str
    calls: int
    macs: int
    fft_flops: int
    elementwise_flops: int
    activations: int
    read_bytes: int
    written_bytes: int


@dataclass(frozen=True, slots=True)
class Module:
    """A module by its full name, with everything below it. ``shared_params`` are counted where they come first, not here."""

    name: str
    kind: str
    depth: int
    calls: int
    params: int
    shared_params: int
    macs: int
    fft_flops: int
    elementwise_flops: int
    activations: int
    read_bytes: int
    written_bytes: int
    compulsory_read_bytes: int
    compulsory_written_bytes: int


@dataclass(frozen=True, slots=True)
class Uncounted:
    """An operator without a rule. Its cost is unknown and in no total."""

    operator: str
    calls: int


@dataclass(frozen=True, slots=True)
class Coverage:
    """How many of the operator calls have a rule."""

    calls: int
    covered_calls: int


@dataclass(frozen=True, slots=True)
class Pass:
    """What one direction costs."""

    macs: int
    fft_flops: int
    elementwise_flops: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """A published figure beside ours."""

    metric: str
    published: str
    source: str
    ours: int
    difference_percent: float
    agrees: bool
    explanation: str


@dataclass(frozen=True, slots=True)
class Difference:
    """MACs of one operator or family by ours and by another counter, and why they part; ``skipped_calls`` by the other."""

    operators: str
    ours_macs: int
    theirs_macs: int
    explanation: str
    skipped_calls: int = 0


@dataclass(frozen=True, slots=True)
class Opinion:
    """Another counter's word on the same case, in its MACs; the differences add up to theirs minus ours."""

    counter: str
    device: str
    theirs_macs: int
    ours_macs: int
    differences: tuple[Difference, ...]


@dataclass(frozen=True, slots=True)
class ModelResult:
    """What one model costs on one workload."""

    model: str
    workload: str
    inputs: tuple[str, ...]
    dtype: str
    mode: str
    device: str
    totals: Totals
    memory: Memory
    params_bn_folded: int
    forward: Pass
    backward: Pass
    coverage: Coverage
    uncounted: tuple[Uncounted, ...]
    published: tuple[Comparison, ...]
    opinions: tuple[Opinion, ...]
    operators: tuple[Operator, ...]
    modules: tuple[Module, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Run:
    """One call of the command."""

    models: tuple[ModelResult, ...]
    command: str = "flops"
    schema: int = SCHEMA
    versions: dict[str, str] = field(default_factory=lambda: versions("mixbench", "torch", "onnx"))


def result_of(case: "Case", count: Count, opinions: tuple[Opinion, ...] = ()) -> ModelResult:
    """The record of a count."""
    return plain_result(case.spec.name, case.workload, count, _published(case, count), opinions)


def plain_result(
    name: str,
    workload: Workload,
    count: Count,
    published: tuple[Comparison, ...] = (),
    opinions: tuple[Opinion, ...] = (),
) -> ModelResult:
    """The record of a count of anything that has a name and inputs."""
    operators = count.operators
    calls = sum(item.calls for item in operators)
    uncounted = tuple(Uncounted(item.operator, item.calls) for item in count.uncounted)
    return ModelResult(
        model=name,
        workload=workload.key,
        inputs=tuple(map(str, workload.inputs)),
        dtype=workload.dtype,
        mode=workload.mode,
        device=count.device,
        totals=_totals(count),
        memory=memory_of(count.footprint, train=workload.mode == "train"),
        params_bn_folded=count.params_bn_folded,
        forward=_pass(count.forward),
        backward=_pass(count.backward),
        coverage=Coverage(calls, calls - sum(item.calls for item in uncounted)),
        uncounted=uncounted,
        published=published,
        opinions=opinions,
        operators=tuple(map(_operator, operators)),
        modules=_modules(count.tree),
        notes=count.notes,
    )


def _totals(count: Count) -> Totals:
    cost, root = count.totals, count.tree
    return Totals(
        params=count.params,
        macs=cost.macs,
        flops=cost.flops,
        fft_flops=cost.fft_flops,
        elementwise_flops=cost.elementwise_flops,
        activations=cost.activations,
        read_bytes=cost.read_bytes,
        written_bytes=cost.written_bytes,
        compulsory_read_bytes=root.compulsory_read_bytes,
        compulsory_written_bytes=root.compulsory_written_bytes,
    )


def _pass(cost: Cost) -> Pass:
    return Pass(cost.macs, cost.fft_flops, cost.elementwise_flops)


def _operator(item: OperatorCost) -> Operator:
    return Operator(item.operator, item.family, item.calls, *_sizes(item.cost))


def _sizes(cost: Cost) -> tuple[int, ...]:
    own = (cost.macs, cost.fft_flops, cost.elementwise_flops, cost.activations)
    return (*own, cost.read_bytes, cost.written_bytes)


def _modules(tree: CostTree) -> tuple[Module, ...]:
    """All modules, parents first, each with everything below it."""

    def rows(tree: CostTree, depth: int) -> tuple[list[Module], Cost, int, int]:
        below: list[Module] = []
        total, params, shared = tree.own, tree.params, tree.shared_params
        for child in tree.children:
            more, cost, own, twice = rows(child, depth + 1)
            below += more
            total, params, shared = total + cost, params + own, shared + twice
        sizes = (*_sizes(total), tree.compulsory_read_bytes, tree.compulsory_written_bytes)
        row = Module(tree.name, tree.kind, depth, tree.calls, params, shared, *sizes)
        return [row, *below], total, params, shared

    return tuple(rows(tree, 0)[0])


def _published(case: "Case", count: Count) -> tuple[Comparison, ...]:
    """The figures that apply: parameters always, MACs on the published input size, neither once a setting was changed.

    What a source counts in a way of its own (one block, say, or look-ups as MACs) a module may work out itself: a method
    ``published_figures()`` that returns our integers by the metrics of the published ones, for the source's own workload.
    """
    spec, workload = case.spec, case.workload
    if spec.variant is None or spec.family is None or spec.changed:
        return ()
    ours = {"params": count.params, "params_bn_folded": count.params_bn_folded}
    if workload.mode == "eval" and _sample(workload) == _sample(Workload(spec.example_inputs)):
        ours["macs"] = count.totals.macs // workload.inputs[0].shape[0]
    if figures := getattr(case.module, "published_figures", None):
        ours |= figures()
    return tuple(_compare(item, ours[item.metric], count.params) for item in spec.variant.published if item.metric in ours)


def _sample(workload: Workload) -> list[tuple[int, ...]]:
    """The shapes of one sample."""
    return [item.shape[1:] for item in workload.inputs]


def _compare(item: Published, ours: int, params: int) -> Comparison:
    agrees = item.agrees(ours)
    words = [item.note or ("rounds to it" if agrees else "not explained by rounding")]
    if item.metric == "params_bn_folded" and params != ours:
        words.append(f"batch norms folded into convolutions, {params:,} as built")
    difference = 100 * (ours - item.value) / item.value
    return Comparison(item.metric, item.figure, item.source, ours, round(difference, 3), agrees, "; ".join(words))
