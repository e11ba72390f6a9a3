"""A plot made of characters: signs in a plane, linear or logarithmic, with the ends of both axes written out."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from .table import has_unicode

_WIDTH, _HEIGHT = 64, 16
Words = Callable[[float], str]


@dataclass(frozen=True, slots=True)
class Mark:
    """A sign at a point; where two fall on one place, the later stands beside the earlier."""

    x: float
    y: float
    sign: str


@dataclass(frozen=True, slots=True)
class Scale:
    """An axis: its name, how its values are written, and whether it is a logarithm."""

    name: str
    words: Words
    log: bool = False

    def share(self, values: Sequence[float]) -> list[float]:
        """Where the values lie between the least and the most of them, 0 to 1; all in the middle if they are one."""
        placed = [math.log(value) if self.log else value for value in values]
        low, high = min(placed), max(placed)
        return [(value - low) / (high - low) if high > low else 0.5 for value in placed]


def wide(values: Sequence[float]) -> bool:
    """Whether a logarithm shows values better: they are positive and span more than a factor of eight."""
    return min(values) > 0 and max(values) > 8 * min(values)


def sketch(marks: Sequence[Mark], x: Scale, y: Scale) -> Iterator[str]:
    """The lines of the plot; nothing without marks. Values of a logarithmic axis are positive."""
    if not marks:
        return
    across, up = [mark.x for mark in marks], [mark.y for mark in marks]
    cells = [[" "] * _WIDTH for _ in range(_HEIGHT)]
    for mark, right, high in zip(marks, x.share(across), y.share(up), strict=True):
        row = cells[_HEIGHT - 1 - round(high * (_HEIGHT - 1))]
        place = round(right * (_WIDTH - 1))
        free = (spot for step in range(_WIDTH) for spot in (place + step, place - step) if 0 <= spot < _WIDTH)
        row[next((spot for spot in free if row[spot] == " "), place)] = mark.sign
    top, bottom = y.words(max(up)), y.words(min(up))
    room = max(len(top), len(bottom))
    side, floor, corner = ("│", "─", "└") if has_unicode() else ("|", "-", "+")
    yield f"{y.name}{', logarithmic' if y.log else ''}"
    for index, row in enumerate(cells):
        label = top if index == 0 else bottom if index == _HEIGHT - 1 else ""
        yield f"{label:>{room}} {side}{''.join(row)}".rstrip()
    yield f"{'':>{room}} {corner}{floor * _WIDTH}"
    least, most = x.words(min(across)), x.words(max(across))
    name = f"{x.name}{', logarithmic' if x.log else ''}"
    gap = _WIDTH - len(least) - len(most)
    yield f"{'':>{room}}  {least}{name:^{gap}}{most}".rstrip()
