"""mixbench: what a neural network costs before you deploy it.

The public names below load torch only when they are first used, so that ``import mixbench`` stays free::

    import mixbench

    case = mixbench.build("ghostnetv2")
    print(mixbench.count(case).totals.macs)  # 167048288
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Cost": ".profilers.cost",
    "MixbenchError": ".models.errors",
    "Workload": ".models.spec",
    "assert_cost": ".cli.cost_assertion",
    "build": ".models.case",
    "count": ".profilers.counter",
    "count_call": ".profilers.counter",
    "formula": ".profilers.formulas.table",
    "load_weights": ".models.weights",
}
__all__ = ["Cost", "MixbenchError", "Workload", "assert_cost", "build", "count", "count_call", "formula", "load_weights"]

if TYPE_CHECKING:
    from .cli.cost_assertion import assert_cost
    from .models.case import build
    from .models.errors import MixbenchError
    from .models.spec import Workload
    from .models.weights import load_weights
    from .profilers.cost import Cost
    from .profilers.counter import count, count_call
    from .profilers.formulas.table import formula


def __getattr__(name: str) -> Any:
    """Load a public name from its home on first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name], __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
