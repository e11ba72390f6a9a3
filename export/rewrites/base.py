"""A `Rewrite`: another form of the same function that more runtimes take, for modules before capture or for the ONNX graph."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from ...models.errors import BadInput

if TYPE_CHECKING:
    import onnx_ir as ir
    from onnx import ModelProto
    from torch import nn


_LARGEST_SHARED = 2**20
"""Numbers in a constant up to which its equal is looked for."""


@dataclass(frozen=True, slots=True)
class Rewrite:
    """What a rewrite's file assigns to ``REWRITE``; its reason and its proof stand in the file's docstring.

    Attributes:
        title: what it does, in a line for the user.
        module: given a submodule, its equal for export, or None to leave it; asked for every submodule, innermost first.
        graph: changes an ONNX graph in place and returns how many nodes it replaced. What it leaves unread is removed for it,
            and equal small constants become one.
        mends: ONNX operators that runtimes don't take and that are gone afterwards, such as ``HardSigmoid``.
    """

    title: str
    module: "Callable[[nn.Module], nn.Module | None] | None" = None
    graph: "Callable[[ir.Model], int] | None" = None
    mends: tuple[str, ...] = ()


def names() -> list[str]:
    """All rewrites, in the order in which they are made."""
    return sorted({path.stem for path in Path(__file__).parent.glob("[!_]*.py")} - {"base"})


def mending() -> dict[str, str]:
    """The name of the rewrite that does away with an ONNX operator, by the operator."""
    return {operator: name for name, rewrite in _chosen(()) for operator in rewrite.mends}


def rewrite_module(module: "nn.Module", keep: Collection[str] = ()) -> "tuple[nn.Module, tuple[str, ...]]":
    """Rewrite a module, which has to be a copy of the user's, in place where it can.

    Returns:
        The rewritten module, and the names of the rewrites that changed something.

    Raises:
        BadInput: when ``keep`` names no rewrite.
    """
    changed = set()
    for name, rewrite in _chosen(keep):
        if rewrite.module is not None:
            module, count = _replace(module, rewrite.module, {})
            if count:
                changed.add(name)
    return module, tuple(sorted(changed))


def rewrite_graph(model: "ModelProto", keep: Collection[str] = ()) -> tuple[str, ...]:
    """Rewrite an ONNX graph in place.

    Returns:
        The names of the rewrites that changed something.

    Raises:
        BadInput: when ``keep`` names no rewrite.
    """
    import onnx_ir as ir
    from onnx_ir.passes import common

    graph = ir.from_proto(model)
    changed = []
    for name, rewrite in _chosen(keep):
        if rewrite.graph is not None and rewrite.graph(graph):
            changed.append(name)
            common.RemoveUnusedNodesPass()(graph)
    if changed:
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(graph)
        common.DeduplicateInitializersPass(size_limit=_LARGEST_SHARED)(graph)
        model.CopyFrom(ir.to_proto(graph))
    return tuple(changed)


def check_known(keep: Collection[str]) -> None:
    """Refuse names that are no rewrite's.

    Raises:
        BadInput: on the first of them.
    """
    if unknown := sorted(set(keep) - set(names())):
        known = f"--keep takes {', '.join(names())}" if names() else "there are no rewrites"
        raise BadInput(f"no rewrite named {unknown[0]!r}", known)


def _chosen(keep: Collection[str]) -> list[tuple[str, Rewrite]]:
    check_known(keep)
    return [(name, import_module(f".{name}", __package__).REWRITE) for name in names() if name not in keep]


def _replace(
    module: "nn.Module", rewrite: "Callable[[nn.Module], nn.Module | None]", seen: "dict[nn.Module, nn.Module]"
) -> "tuple[nn.Module, int]":
    """A module's equal, and how many submodules have a new form. One that stands in two places stays one."""
    if module in seen:
        return seen[module], 0
    count = 0
    # Not named_children(): that leaves out the second place of a shared module.
    for name, child in list(module._modules.items()):
        if child is not None:
            replaced, below = _replace(child, rewrite, seen)
            count += below
            if replaced is not child:
                setattr(module, name, replaced)
    other = rewrite(module)
    seen[module] = module if other is None else other
    return seen[module], count + (other is not None)
