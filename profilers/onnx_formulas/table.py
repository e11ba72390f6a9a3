"""The table of rules: from an ONNX operator to what one call of it costs. The families are those of PyTorch's operators.

A rule is given the call (`onnx_graph.Call`): shapes, types and attributes, no weights. It raises `ShapeUnknownError` where the
file doesn't tell what it needs; the call is uncounted then.
"""

from collections.abc import Callable
from dataclasses import dataclass

from ..cost import FREE, Cost
from ..onnx_graph import MICROSOFT, Call, Value

Formula = Callable[[Call], Cost]


@dataclass(frozen=True, slots=True)
class Rule:
    """A formula, and the family (the file) that it stands in."""

    family: str
    formula: Formula


_rules: dict[str, Rule] = {}


def rule(operators: str, fused: str = "") -> Callable[[Formula], Formula]:
    """Register a rule for operators of ONNX's own domain, and for ``fused`` ones of ONNX Runtime's, names with spaces between.

    Raises:
        ValueError: when one of them has a rule already.
    """

    def register(function: Formula) -> Formula:
        _enter(operators, fused, Rule(function.__module__.rpartition(".")[2], function))
        return function

    return register


def free(operators: str, family: str, fused: str = "") -> None:
    """Register operators that do no arithmetic on floating point numbers, whatever their inputs."""
    _enter(operators, fused, Rule(family, lambda call: FREE))


def _enter(operators: str, fused: str, entry: Rule) -> None:
    for name in (*operators.split(), *(f"{MICROSOFT}::{name}" for name in fused.split())):
        if name in _rules:
            raise ValueError(f"{name} has a rule already, in {_rules[name].family}")
        _rules[name] = entry


def rule_for(name: str) -> Rule | None:
    """The rule of an operator by its full name: ``Conv``, ``com.microsoft::FusedConv``."""
    return _rules.get(name)


def name_of(domain: str, operator: str) -> str:
    """An operator's full name; ONNX's own domain goes without saying."""
    return f"{domain}::{operator}" if domain else operator


def per_result(count: int, call: Call) -> Cost:
    """``count`` FLOPs for each element of the first result, if anything floating takes part."""
    floating = call.out.floating or any(value is not None and value.floating for value in call.inputs)
    return Cost(elementwise_flops=count * call.out.size) if floating and count else FREE


def per_element(count: int, value: Value) -> Cost:
    """``count`` FLOPs for each element, none for integers."""
    return Cost(elementwise_flops=count * value.size) if value.floating and count else FREE


def contraction(out: Value, inner: int, added: bool = False) -> Cost:
    """A contraction over ``inner`` terms for each element of ``out``, and a tensor added to the result."""
    return Cost(out.size * inner, elementwise_flops=out.size if added and out.floating else 0, activations=out.size)
