"""What `mixbench compare` compares: models counted one by one, and the differences of two, part by part."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..models.onnx_files import files_of
from ..models.spec import ModelSpec, Workload
from .cost import Cost, CostTree, Count, OperatorCost
from .runs.compare_run import NOTHING, Accuracy, Compared, Difference, Differences, FoundIn, Part
from .runs.roofline_run import Work
from .runs.run import plain_result, result_of
from .runs.timing_run import TimeRun


@dataclass(frozen=True, slots=True)
class Counted:
    """A model's figures, and what they are from: the workload as it was resolved, the count, and how the model was changed."""

    compared: Compared
    workload: Workload
    count: Count
    how: str = ""


def count_one(model: ModelSpec | Path, workload: Workload, reparameterised: bool = False) -> Counted:
    """Count a PyTorch model, or an ONNX file, for which torch stays unloaded.

    Raises:
        BadInput: when it can't be built, opened or run on the workload.
    """
    if isinstance(model, Path):
        from .onnx_counter import count_onnx

        found = count_onnx(model, workload)
        result = plain_result(str(model), found.workload, found.count)
        size = sum(path.stat().st_size for path in files_of(model))
        return Counted(Compared(str(model), result, size, None, "none is published for a file"), found.workload, found.count)
    from ..models.case import build
    from .counter import count

    case = build(model, workload, reparameterised=reparameterised)
    counted = count(case)
    accuracy = _accuracy(model, case.workload)
    reason, found_accuracy = (accuracy, None) if isinstance(accuracy, str) else ("", accuracy)
    compared = Compared(model.name, result_of(case, counted), None, found_accuracy, reason)
    return Counted(compared, case.workload, counted, "reparameterised" if case.reparameterised else "")


def _accuracy(spec: ModelSpec, workload: Workload) -> Accuracy | str:
    """The published top-1 accuracy, or why it says nothing of this model."""
    published = spec.variant.published if spec.variant else ()
    found = next((item for item in published if item.metric == "top1_percent"), None)
    if found is None:
        return "none is published" if spec.variant else "none is known of a model of your own"
    if spec.changed:
        return "settings were changed"
    if [item.shape[1:] for item in workload.inputs] != [item.shape[1:] for item in spec.example_inputs]:
        return f"it is published for {', '.join(map(str, spec.example_inputs))}"
    return Accuracy(found.value, found.source)


@dataclass(slots=True)
class _Module:
    """A module by itself: without the modules inside it."""

    kind: str
    parent: str | None
    calls: int = 0
    params: int = 0
    operators: list[OperatorCost] = field(default_factory=list)

    @property
    def part(self) -> Part:
        return sum((_part(item, calls=False) for item in self.operators), Part(self.calls, self.params, 0, 0, 0, 0, 0))


def by_module(first: Counted, second: Counted, depth: int | None = None) -> Differences:
    """Two models module by module, matched by their full names.

    Modules are compared without what is inside them, so that all differences together are the models' difference. A module
    that only one of them has is one line, with everything below it. The nodes of an ONNX file belong to their modules.

    Args:
        depth: what lies deeper belongs to the module at this depth.
    """
    sides = [_modules(side.count, depth) for side in (first, second)]
    family = _unlike(first, second)
    items: list[Difference] = []
    same = 0
    for name in dict.fromkeys([*sides[0], *sides[1]]):
        here = [side.get(name) for side in sides]
        a, b = here
        if a and b:
            kind = a.kind if a.kind == b.kind or family else f"{a.kind} -> {b.kind}"
            inner, _ = _operators(a.operators, b.operators, family)
            found = Difference(name, kind, "both", a.part, b.part, inner)
            if any(found.more) or (inner and not family):
                items.append(found)
            else:
                same += 1
        else:
            place = 0 if a else 1
            own = a or b
            assert own is not None, "the name is of one of them"
            if own.parent is not None and own.parent not in sides[1 - place]:
                continue  # part of what stands for it already
            inside = [module for key, module in sides[place].items() if key == name or key.startswith(f"{name}.")]
            whole = replace(sum((module.part for module in inside), NOTHING), calls=own.calls)
            where: FoundIn = "second" if place else "first"
            items.append(Difference(name, own.kind, where, *((NOTHING, whole) if place else (whole, NOTHING))))
    return Differences("module", "full name", _sorted(items), same)


def by_operator(first: Counted, second: Counted) -> Differences:
    """Two models operator by operator; of a file and a PyTorch model by the families of their rules, which they share."""
    family = _unlike(first, second)
    items, same = _operators(first.count.operators, second.count.operators, family)
    return Differences("operator", "family of the rule" if family else "name", items, same)


def _unlike(first: Counted, second: Counted) -> bool:
    """Whether one is a file and the other not, so that operators have other names."""
    return (first.count.device == "onnx") != (second.count.device == "onnx")


def _modules(count: Count, depth: int | None) -> dict[str, _Module]:
    """Modules by their full names, parents first."""
    found: dict[str, _Module] = {}
    named = count.device != "onnx" or any(child.children for child in count.tree.children)

    def add(tree: CostTree, level: int, parent: str | None) -> None:
        node = count.device == "onnx" and named and bool(tree.operators)
        if parent is not None and (node or (depth is not None and level > depth)):
            module, name = found[parent], parent
        else:
            module, name = found.setdefault(tree.name, _Module(tree.kind, parent)), tree.name
            module.calls += tree.calls
        module.params += tree.params
        module.operators += tree.operators
        for child in tree.children:
            add(child, level + 1, name)

    add(count.tree, 0, None)
    return found


def _operators(
    first: Iterable[OperatorCost], second: Iterable[OperatorCost], family: bool
) -> tuple[tuple[Difference, ...], int]:
    """Operators that differ, and how many don't."""
    sides = [_merged(side, family) for side in (first, second)]
    items, same = [], 0
    for name in dict.fromkeys([*sides[0], *sides[1]]):
        a, b = (side.get(name) for side in sides)
        where: FoundIn = "both" if a and b else "first" if a else "second"
        kind = (a or b or ("", NOTHING))[0]
        found = Difference(name, kind, where, a[1] if a else NOTHING, b[1] if b else NOTHING)
        if any(found.more) or (where != "both" and not family) or (not family and found.first.calls != found.second.calls):
            items.append(found)
        else:
            same += 1
    return _sorted(items), same


def _merged(operators: Iterable[OperatorCost], family: bool) -> Mapping[str, tuple[str, Part]]:
    found: dict[str, tuple[str, Part]] = {}
    for item in operators:
        name = (item.family or "no rule") if family else item.operator
        kind, part = found.get(name, (item.family, NOTHING))
        found[name] = (kind, part + _part(item))
    return found


def _part(item: OperatorCost, calls: bool = True) -> Part:
    cost: Cost = item.cost
    return Part(
        item.calls if calls else 0, 0, cost.macs, cost.fft_flops, cost.elementwise_flops, cost.activations, cost.moved_bytes
    )


def _sorted(items: Iterable[Difference]) -> tuple[Difference, ...]:
    return tuple(sorted(items, key=lambda item: (*(-abs(gap) for gap in item.more), item.name)))


def told_apart(models: Sequence[Counted]) -> Iterator[Counted]:
    """Copies of one model get numbers, as in `mixbench time`."""
    names = [item.compared.model for item in models]
    for place, (name, item) in enumerate(zip(names, models, strict=True)):
        number = names[: place + 1].count(name)
        named = f"{name} #{number}" if names.count(name) > 1 else name
        yield replace(item, compared=replace(item.compared, model=named))


def works(models: Iterable[Counted]) -> list[Work]:
    """What the models do, to be placed under roofs; what was noted while counting stays with the counts."""
    from .roofline_session import file_work, work_of

    done = []
    for item in models:
        name, bare = item.compared.model, replace(item.count, notes=())
        if bare.device == "onnx":
            done.append(file_work(name, item.workload, bare))
        else:
            done.append(work_of(name, item.workload, bare, how=item.how))
    return done


def with_latencies(models: Sequence[Compared], time: TimeRun | None) -> Iterator[Compared]:
    """The models with their times, which were taken in the same order."""
    if time is None:
        yield from models
        return
    for item, timed in zip(models, time.models, strict=True):
        yield replace(item, latency_ns=timed.latency_ns)
