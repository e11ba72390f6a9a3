"""Figures as words, by their units: exact for a table, short for an axis."""

from .table import ns

_LARGE = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def exact(value: float | int | None, unit: str) -> str:
    """A figure in a table: whole numbers in full, times in the unit that suits them; n/a where there is none."""
    if value is None:
        return "n/a"
    if unit == "ns":
        return ns(value)
    if unit == "%":
        return f"{value:.1f} %"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def short(value: float, unit: str) -> str:
    """A figure in three digits, such as ``167 M``, ``4.4 MB``, ``8.41 ms`` or ``75.3 %``."""
    if unit == "ns":
        return ns(value)
    if unit == "%":
        return f"{value:.1f} %"
    letter = "B" if unit == "bytes" else ""
    for size, prefix in _LARGE:
        if abs(value) >= size:
            return f"{value / size:.3g} {prefix}{letter}"
    return f"{value:.3g} {letter}".rstrip()


def signed(value: int) -> str:
    """How much more or less, in full."""
    return f"{value:+,}" if value else "0"
