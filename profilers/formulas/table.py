"""The table of rules: from an operator's name to what one call of it costs.

A rule is a function of the call: it is given the result and then the operator's own arguments, reads shapes and dtypes
only, and returns a `Cost`. One line gives any operator a rule, also a user's own::

    @mixbench.formula("mylib::fused_mlp")
    def fused_mlp(out, x, weight):
        return mixbench.Cost(macs=x.numel() * weight.shape[0], activations=out.numel())
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ..cost import FREE, Cost

Formula = Callable[..., Cost]


@dataclass(frozen=True, slots=True)
class Rule:
    """A formula, and the family (the file) that it stands in."""

    family: str
    formula: Formula


_rules: dict[str, Rule] = {}
_found: dict[Any, Rule | None] = {}


def formula(*operators: str) -> Callable[[Formula], Formula]:
    """Register a rule for operators by their full names, such as ``aten::mm``; it serves all overloads of each.

    An in-place operator (``aten::add_``) takes the rule of the one without the underscore unless it has its own.

    Raises:
        ValueError: when one of the operators has a rule already.
    """

    def register(function: Formula) -> Formula:
        for operator in operators:
            if "::" not in operator:
                raise ValueError(f"{operator!r} is no operator's full name; write namespace::name, such as aten::mm")
            if operator in _rules:
                raise ValueError(f"{operator} has a rule already, in {_rules[operator].family}")
            _rules[operator] = Rule(function.__module__.rpartition(".")[2], function)
        _found.clear()
        return function

    return register


def free(*operators: str, family: str) -> None:
    """Register operators that do no arithmetic on floating point numbers, whatever their arguments."""
    for operator in operators:
        if operator in _rules:
            raise ValueError(f"{operator} has a rule already, in {_rules[operator].family}")
        _rules[operator] = Rule(family, _nothing)


def _nothing(out: Any, *args: Any, **kwargs: Any) -> Cost:
    return FREE


def rule_for(operator: Any) -> Rule | None:
    """The rule of an operator (``torch._ops.OpOverload`` or a higher-order one), or None when it has none.

    After the table come two facts that torch itself states: a view moves no data, and an ATen operator tagged pointwise does
    one operation an element, unless it is made of others. Nothing else is guessed.
    """
    if operator not in _found:
        _found[operator] = _search(operator)
    return _found[operator]


def rule_of_name(name: str) -> Rule | None:
    """The rule that the table has for a full name such as ``aten::add_``, itself or as an in-place variant."""
    return _rules.get(name) or _rules.get(name.removesuffix("_"))


def _search(operator: Any) -> Rule | None:
    rule = rule_of_name(name_of(operator))
    if not isinstance(operator, torch._ops.OpOverload):
        return rule
    if rule is None:
        if operator.is_view or torch.Tag.inplace_view in operator.tags:
            return Rule("movement", _nothing)
        own = operator.namespace in ("aten", "prims")
        if own and torch.Tag.pointwise in operator.tags and not _is_composite(operator):
            from .pointwise import one_per_element

            rule = Rule("pointwise", one_per_element)
    targets = frozenset(argument.name for argument in operator._schema.arguments if argument.is_out)
    return Rule(rule.family, _without(targets, rule.formula)) if rule and targets else rule


def _is_composite(operator: torch._ops.OpOverload) -> bool:
    """Whether torch defines it by others, by which it arrives on some devices: so it has to be counted by them everywhere."""
    return torch._C._dispatch_has_kernel_for_dispatch_key(operator.name(), "CompositeImplicitAutograd")


def _without(targets: frozenset[str], function: Formula) -> Formula:
    """A formula for an overload that writes into given tensors, as ``out=`` does: they are its result already."""

    def call(out: Any, /, *args: Any, **kwargs: Any) -> Cost:
        return function(out, *args, **{name: value for name, value in kwargs.items() if name not in targets})

    return call


def name_of(operator: Any) -> str:
    """An operator's full name without its overload, such as ``aten::add``."""
    if isinstance(operator, torch._ops.OpOverload):
        return operator._schema.name
    return f"{getattr(operator, 'namespace', None) or 'higher_order'}::{operator.name()}"
