"""Whether an array fits an input of the model, and how many runs it holds."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from ....models.errors import BadInput

if TYPE_CHECKING:
    from ..calibration import Input


def runs(wanted: "Input", value: np.ndarray, where: str) -> Iterator[np.ndarray]:
    """Cut an array into runs: along its first dimension by the model's batch, or along a dimension in front of the model's own.

    Args:
        where: what the array is, for the message.

    Raises:
        BadInput: when type or shape don't fit, the batch doesn't divide, or values are not finite.
    """
    shape = "x".join("?" if side is None else str(side) for side in wanted.shape) or "scalar"
    form = f"{shape}:{wanted.dtype}"
    if value.dtype != wanted.dtype:
        raise BadInput(f"{where} is {value.dtype}, and input {wanted.name!r} takes {form}", f"convert it to {wanted.dtype}")
    if value.dtype.kind == "f" and not np.isfinite(value).all():
        raise BadInput(f"{where} holds values that are infinite or no number", "look at how it was made")
    if value.size == 0:
        raise BadInput(f"{where} is empty", f"input {wanted.name!r} takes {form}")
    if value.ndim == len(wanted.shape) + 1 and _fits(wanted.shape, value.shape[1:]):
        yield from value
        return
    given = "x".join(map(str, value.shape))
    if not wanted.shape or value.ndim != len(wanted.shape) or not _fits(wanted.shape[1:], value.shape[1:]):
        raise BadInput(
            f"{where} has shape {given}, and input {wanted.name!r} takes {form}", "its first dimension may be longer"
        )
    batch = wanted.shape[0] or 1
    if value.shape[0] % batch:
        what = f"{where} has {value.shape[0]} samples, which batches of {batch} don't divide"
        raise BadInput(what, f"give a multiple of {batch}")
    for start in range(0, value.shape[0], batch):
        yield value[start : start + batch]


def spread(count: int, most: int) -> list[int]:
    """At most so many places, evenly over all of them: what is sorted by class would else give the first class only."""
    return [place * count // most for place in range(most)] if count > most else list(range(count))


def _fits(wanted: tuple[int | None, ...], given: tuple[int, ...]) -> bool:
    return len(wanted) == len(given) and all(side in (None, size) for side, size in zip(wanted, given, strict=True))
