"""A budget as an assertion: for tests of a project's models, through the pytest plug-in or without it."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..models.errors import BadInput, MixbenchError
from ..models.spec import ModelSpec, TensorSpec, Workload
from ..profilers.budget import Budget, parse
from .metrics import Entry, Figure, Specimen, entries
from .targets import Target

_HEAVIEST = 5
_WHOLE_WITHOUT_RULES = ("params", "uncounted")
"""Counts that an operator without a rule takes nothing from."""


def assert_cost(
    model: Any,
    inputs: Any = None,
    /,
    *,
    batch: int | None = None,
    train: bool = False,
    settings: Mapping[str, Any] | None = None,
    **budgets: str,
) -> None:
    """Fail unless the model keeps every budget. An instance is copied, and left as it is.

    Args:
        model: an instance of ``nn.Module``; a class or function that makes one; or a name, as `mixbench flops` takes it.
        inputs: a tensor, a tuple of them, a dict of keyword arguments; or shapes in words, ``"1x3x224x224"``. Not needed
            where the model has example inputs of its own.
        settings: keyword arguments of the class, function or named model.
        budgets: by the metrics of `mixbench check`: ``macs="<= 200M"``, ``params="< 5M"``, ``peak_memory="<= 40 MiB"``.

    Raises:
        AssertionError: when a budget is not kept, or can't be told since operators have no rule; with the heaviest modules.
        MixbenchError: when the model can't be built or run, or a metric or budget means nothing.
    """
    __tracebackhide__ = True
    try:
        parsed = _parsed(budgets)
        shapes = _shapes(inputs)
        workload = Workload(shapes, batch, mode="train" if train else "eval")
        spec = _spec(model, dict(settings or {}), None if shapes else inputs)
        specimen = Specimen(Target(spec.name, spec, workload, {entry.name: budget for entry, budget in parsed}))
        found = [(entry, budget, _taken(entry, specimen, budget)) for entry, budget in parsed]
    except MixbenchError as error:
        error.add_note(f"hint: {error.hint}")  # the command line shows it by itself, a traceback would not
        raise
    lines = [line for entry, budget, figure in found for line in _complaint(entry, budget, figure, specimen)]
    if lines:
        raise AssertionError("\n".join([f"{spec.name} on {specimen.case.workload.key} is not within its budget", *lines]))


def _parsed(budgets: Mapping[str, str]) -> list[tuple[Entry, Budget]]:
    if not budgets:
        raise BadInput("no budget is given, so nothing would be checked", 'as in assert_cost(model, macs="<= 200M")')
    found = []
    for name, text in budgets.items():
        entry = entries().get(name)
        if entry is None or entry.take is None:
            import difflib

            known = [entry.name for entry in entries().values() if entry.take is not None]
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            raise BadInput(f"no metric named {name!r}", f"did you mean {near[0]}?" if near else f"one of {', '.join(known)}")
        found.append((entry, parse(text, entry.unit)))
    return found


def _shapes(inputs: Any) -> tuple[TensorSpec, ...]:
    """Inputs in words; nothing for tensors."""
    words = (inputs,) if isinstance(inputs, str) else inputs
    if isinstance(words, tuple | list) and words and all(isinstance(word, str) for word in words):
        return tuple(TensorSpec.parse(word) for word in words)
    return ()


def _spec(model: Any, settings: dict[str, Any], inputs: Any) -> ModelSpec:
    """The spec of whatever is given; example inputs that are given go before all others."""
    from copy import deepcopy

    from torch import nn

    from ..models.lookup import resolve

    if isinstance(model, str):
        spec = resolve(model, settings)
    elif isinstance(model, nn.Module):
        if settings:
            raise BadInput("settings are given for a model that is built already", "give its class, or leave them out")
        spec = ModelSpec(type(model).__name__, lambda: lambda: deepcopy(model), {})
    elif callable(model):
        spec = ModelSpec(getattr(model, "__qualname__", type(model).__name__), lambda: model, settings, changed=bool(settings))
    else:
        raise BadInput(f"{type(model).__name__} is no model", "give a module, what makes one, or a name")
    return spec if inputs is None else replace(spec, factory=lambda: _with_inputs(spec, inputs))


def _with_inputs(spec: ModelSpec, inputs: Any) -> Any:
    """The spec's factory, with these inputs in place of its own."""
    from functools import wraps

    factory = spec.factory()

    @wraps(factory, updated=())  # so that its settings are checked by its own signature
    def build(**settings: Any) -> Any:
        made = factory(**settings)
        return (made[0] if isinstance(made, tuple) and len(made) == 2 else made), inputs

    return build


def _taken(entry: Entry, specimen: Specimen, budget: Budget) -> Figure:
    assert entry.take is not None, "_parsed() lets no other through"
    return entry.take(specimen, budget)


def _complaint(entry: Entry, budget: Budget, figure: Figure, specimen: Specimen) -> list[str]:
    """What is wrong with a figure, and what it is made of; nothing when its budget is kept."""
    ends = [end for end in (figure.value, figure.low, figure.high) if end is not None]
    if not all(map(budget.holds, ends)):
        interval = f" [{figure.low:,}, {figure.high:,}]" if figure.low is not None and figure.high != figure.low else ""
        lines = [f"{entry.name} {budget.text}: it has {figure.value:,}{interval} {entry.unit}".rstrip()]
        heaviest = sorted(figure.parts.items(), key=lambda part: -part[1])[:_HEAVIEST]
        share = sum(figure.parts.values()) or 1
        return lines + [
            f"  {100 * size / share:5.1f} %  {size:,}  {part.strip() or 'the model itself'}" for part, size in heaviest
        ]
    if entry.kind == "counted" and entry.name not in _WHOLE_WITHOUT_RULES and specimen.count.uncounted:
        unknown = ", ".join(item.operator for item in specimen.count.uncounted)
        return [f"{entry.name} {budget.text}: can't be told, since there is no rule for {unknown}"]
    return []
