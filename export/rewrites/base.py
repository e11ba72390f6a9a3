"""A `Rewrite`: another form of the same function that more runtimes take, for modules before capture or for the ONNX graph."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from ...models.errors import BadInput

if TYPE_CHECKING:
    from onnx import ModelProto
    from torch import nn


@dataclass(frozen=True, slots=True)
class Rewrite:
    """What a rewrite's file assigns to ``REWRITE``; its reason and its proof stand in the file's docstring.

    Attributes:
        title: what it does, in a line for the user.
        module: given a submodule, its equal for export, or None to leave it; asked for every submodule, innermost first.
        graph: changes an ONNX graph in place and returns how many nodes it replaced.
    """

    title: str
    module: "Callable[[nn.Module], nn.Module | None] | None" = None
    graph: "Callable[[ModelProto], int] | None" = None


def names() -> list[str]:
    """All rewrites, in the order in which they are made."""
    return sorted({path.stem for path in Path(__file__).parent.glob("[!_]*.py")} - {"base"})


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
            module, count = _replace(module, rewrite.module)
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
    return tuple(name for name, rewrite in _chosen(keep) if rewrite.graph is not None and rewrite.graph(model))


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


def _replace(module: "nn.Module", rewrite: "Callable[[nn.Module], nn.Module | None]") -> "tuple[nn.Module, int]":
    count = 0
    for name, child in list(module.named_children()):
        replaced, below = _replace(child, rewrite)
        count += below
        if replaced is not child:
            setattr(module, name, replaced)
    other = rewrite(module)
    return (module, count) if other is None else (other, count + 1)
