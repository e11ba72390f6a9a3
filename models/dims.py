"""Sizes by name: what the dimensions of inputs are called, and the words for those that nothing gives. No torch here."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .errors import BadInput
from .spec import Workload


def usual_names(rank: int, floats: bool) -> tuple[str, ...]:
    """What dimensions are called where nobody says so, empty where that can't be told.

    The first is ``batch``; the last two of four are ``height`` and ``width`` (images, B x C x H x W); the second of two of
    integers (token ids, B x S), or of three of floats (B x S x width), is ``seq``.
    """
    if rank == 4:
        return ("batch", "", "height", "width")
    if rank == (3 if floats else 2):
        return ("batch", "seq", "")[:rank]
    return ("batch", *[""] * (rank - 1))[:rank]


def check_known(where: str, asked: Iterable[str], known: Iterable[str]) -> None:
    """Refuse a size for a dimension that is not there.

    Raises:
        BadInput: with the names that there are.
    """
    names = list(dict.fromkeys(name for name in known if name))
    if unknown := [name for name in asked if name not in names]:
        hint = f"its open dimensions: {', '.join(names)}" if names else "all its sizes are fixed: leave that out"
        raise BadInput(f"{where} has no open dimension {unknown[0]!r}", hint)


def still_open(where: str, sizes: Mapping[str, int | None]) -> BadInput:
    """The error for dimensions that nothing gives a size, by name, with a size to try where one is known."""
    *rest, last = sizes
    named = f"{', '.join(rest)} and {last}" if rest else last
    options = " ".join(f"--dim {name}={size or 'N'}" for name, size in sizes.items())
    return BadInput(f"{where} leaves {named} open", f"give {'their sizes' if rest else 'its size'}: {options}")


@dataclass(frozen=True, slots=True)
class Call:
    """Inputs of which some are positional and some are named."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class OpenInputs:
    """Example inputs, some of whose sizes have to be given by name.

    Attributes:
        sizes: those names, each with a size that is known to work.
        make: the inputs at the sizes given.
    """

    sizes: Mapping[str, int]
    make: Callable[[Mapping[str, int]], Call]

    def filled(self, where: str, workload: Workload) -> Call:
        """The inputs at the workload's sizes.

        Raises:
            BadInput: when a size is missing, or given for a dimension that is not open.
        """
        asked = dict(workload.dims) | ({} if workload.batch is None else {"batch": workload.batch})
        check_known(where, asked, self.sizes)
        if missing := {name: size for name, size in self.sizes.items() if name not in asked}:
            raise still_open(where, missing)
        return self.make(asked)
