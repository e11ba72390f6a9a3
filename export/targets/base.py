"""A `Target`: how a model becomes a file of one format, and how that file is run again to be compared and timed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from ...models.errors import BadInput, CannotMeasure

if TYPE_CHECKING:
    import numpy as np
    from onnx import ModelProto

    from ..source import Source

Runner: TypeAlias = "Callable[[Mapping[str, np.ndarray]], Sequence[np.ndarray]]"
"""Takes inputs by name, returns the results in order."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a target's file assigns to ``TARGET``.

    Attributes:
        title: the format and its runtime in words.
        suffix: of the files, with its dot.
        needs: modules that have to be importable, and ``extra``, the extra of mixbench that installs them ("" for none).
        convert: writes the format into a folder of its own, from the source and its finished ONNX graph, whichever suits, and
            returns the main file (or folder, where the format is one) in it; what it can't convert it raises.
        open: opens what `convert` wrote, to run with so many threads; None where no runtime exists on this machine.
        runtime: who runs it here, such as ``ONNX Runtime 1.32, CPU``; "" if nobody.
        portable: where the format runs, in words.
        dynamic: whether the format keeps open dimensions.
        folder: whether what `convert` returns is a folder.
        slack: how many times the tolerance of the verification the runtime's kernels need, such as for an approximated sigmoid;
            say why beside it.
    """

    title: str
    suffix: str
    needs: tuple[str, ...]
    extra: str
    convert: "Callable[[Source, ModelProto, Path], Path]"
    open: Callable[[Path, int], Runner] | None
    runtime: Callable[[], str]
    portable: str
    dynamic: bool = False
    folder: bool = False
    slack: float = 1.0


def names() -> list[str]:
    """All targets, onnx first."""
    found = {path.stem for path in Path(__file__).parent.glob("[!_]*.py")} - {"base"}
    return sorted(found, key=lambda name: (name != "onnx", name))


def find(name: str) -> Target:
    """The target of that name, whatever is installed.

    Raises:
        BadInput: when there is none.
    """
    if name not in names():
        raise BadInput(f"no export target named {name!r}", f"one of {', '.join(names())}, or all")
    target: Target = import_module(f".{name}", __package__).TARGET
    return target


def check_installed(name: str, target: Target) -> None:
    """Say what to install for a target.

    Raises:
        CannotMeasure: when a package that it needs is missing.
    """
    if missing := [module for module in target.needs if find_spec(module) is None]:
        what = f"--to {name} needs the package{'s' if len(missing) > 1 else ''} {', '.join(missing)}"
        raise CannotMeasure(what, f"pip install 'mixbench[{target.extra}]'")
