"""What each operator of an ONNX graph costs, one file per family; a file is loaded because it lies here."""

from importlib import import_module
from pkgutil import iter_modules

from .table import free, rule, rule_for

for _module in iter_modules(__path__):
    import_module(f".{_module.name}", __name__)

__all__ = ["free", "rule", "rule_for"]
