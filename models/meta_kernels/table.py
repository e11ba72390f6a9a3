"""The table of kernels: from an operator's name to the function that gives its result on plain meta tensors."""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

_Kernel = Callable[..., Any]
_kernels: dict[str, _Kernel] = {}


def run(operator: torch._ops.OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The operator's result on plain meta tensors, or None where torch's own kernel has to answer."""
    found = _kernel_of(operator)
    if found is None:
        return None
    tensors = (*args[0], *args[1:]) if args and isinstance(args[0], list | tuple) else args
    for item in tensors:
        if isinstance(item, Tensor) and (type(item) not in (Tensor, torch.nn.Parameter) or not item.is_meta):
            return None
    return found(*args, **kwargs)


@cache
def _kernel_of(operator: torch._ops.OpOverload) -> _Kernel | None:
    """None also for the overloads that write into given tensors, as ``out=`` does: those have to be resized and returned."""
    if any(argument.is_out for argument in operator._schema.arguments):
        return None
    return _kernels.get(operator._schema.name.removeprefix("aten::"))


def kernel(*names: str) -> Callable[[_Kernel], _Kernel]:
    """Register a function for ATen operators by their names, all overloads of each."""

    def register(function: _Kernel) -> _Kernel:
        _kernels.update(dict.fromkeys(names, function))
        return function

    return register
