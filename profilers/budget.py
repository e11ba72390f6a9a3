"""Budgets in words: ``<= 200M``, ``< 40 MiB``, ``>= 30 dB``, ``== 0``, or ``same``. No torch here.

``k``, ``M``, ``G`` and ``T`` are powers of 1000. Of bytes there are ``kB``, ``MB``, ``GB`` too, also powers of 1000, and
``KiB``, ``MiB``, ``GiB``, powers of 1024. Digits may be grouped, ``167_048_288``. Numbers are exact: ``0.2G`` is 200,000,000.
"""

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal

from ..models.errors import BadInput

SAME = "same"
_COMPARE: Mapping[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    "<": operator.lt,
    ">=": operator.ge,
    "==": operator.eq,
}
_DECIMAL = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_BYTES = {"kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_FORM = re.compile(r"\s*(<=|>=|==|<)?\s*([0-9](?:_?[0-9])*(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*")


@dataclass(frozen=True, slots=True)
class Budget:
    """What a metric has to keep.

    Attributes:
        sign: ``<=``, ``<``, ``>=``, ``==``; or ``same``, which sets no limit: the metric is only compared with the baseline.
        limit: in the metric's unit; an integer where it is whole.
        text: the budget as it was written.
        words: what it is asked of, where a metric takes words, such as the providers of ``onnx_portable``.
    """

    sign: str
    limit: float
    text: str
    words: tuple[str, ...] = ()

    def holds(self, value: float) -> bool:
        """Whether a value keeps it."""
        return self.sign == SAME or _COMPARE[self.sign](value, self.limit)


def parse(text: object, unit: str) -> Budget:
    """Read a budget.

    Args:
        unit: of the metric; it may be written behind the number, and ``bytes`` brings suffixes of its own.

    Raises:
        BadInput: when it is none; ``what`` begins with the text, so that the caller can say where it stands.
    """
    if isinstance(text, bool) or not isinstance(text, str):
        hint = f"as in '<= {text}'" if isinstance(text, int | float) and not isinstance(text, bool) else "as in '<= 200M'"
        raise BadInput(f"{text!r} is no budget", f"write it as text with <=, <, >= or ==, {hint}")
    if text.strip() == SAME:
        return Budget(SAME, 0, SAME)
    found = _FORM.fullmatch(text)
    if not found or not found[1]:
        wanted = "begin with <=, <, >= or ==" if found else "write a sign and a number, as in '<= 200M'"
        raise BadInput(f"{text!r} is no budget", f"{wanted}; or 'same' to compare with the baseline only")
    sizes = _DECIMAL | {unit: 1} | (_BYTES if unit == "bytes" else {})
    if found[3] not in sizes:
        raise BadInput(f"{text!r} has an unknown unit {found[3]!r}", f"one of {', '.join(size for size in sizes if size)}")
    value = Decimal(found[2]) * sizes[found[3]]
    return Budget(found[1], int(value) if value == value.to_integral_value() else float(value), text.strip())
