"""Build and run on the meta device, where tensors have shapes and no storage, without loading torch's compiler.

Constructors fill their weights with random numbers, and torch's meta kernels are written in Python: both import the compiler on
first use, which takes a second. Here initialisation is skipped, and shapes come from ``meta_kernels``.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from . import meta_kernels


@contextmanager
def building() -> Iterator[None]:
    """Make everything on meta: new tensors, no random initialisation (there is nothing to fill), cheap shapes."""
    with torch.device("meta"), _SkipInitialisation(), _CheapShapes():
        yield


class CheapDispatchMode(TorchDispatchMode):
    """A dispatch mode whose handler is not wrapped in the decorator that imports the compiler on first use.

    The hook is private to torch; a test notices when it goes away, and nothing worse than a slow start would follow.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False


class _CheapShapes(CheapDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = meta_kernels.run(func, args, kwargs or {})
        return func(*args, **(kwargs or {})) if result is None else result


class _SkipInitialisation(TorchFunctionMode):
    """Leave meta tensors as they are where a constructor would fill them with random numbers."""

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _RANDOM_FILLS or getattr(func, "__module__", None) == "torch.nn.init":
            target = args[0] if args else kwargs.get("tensor")
            if isinstance(target, Tensor) and target.is_meta:
                return target
        elif func in _RANDOM_FACTORIES and _makes_meta(args, kwargs):
            kwargs.pop("generator", None)
            return _RANDOM_FACTORIES[func](*args, **kwargs)
        return func(*args, **kwargs)


def _makes_meta(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a factory of tensors makes one on meta: by its device, by the tensor it is to be like, or since all does here."""
    like = args[0] if args else kwargs.get("input")
    device = kwargs.get("device") or (like.device if isinstance(like, Tensor) else "meta")
    return "out" not in kwargs and torch.device(device).type == "meta"


_RANDOM_FILLS = {Tensor.uniform_, Tensor.normal_, Tensor.bernoulli_, Tensor.exponential_, Tensor.cauchy_}
_RANDOM_FACTORIES: dict[Any, Callable[..., Tensor]] = {
    torch.randn: torch.empty,
    torch.rand: torch.empty,
    torch.randn_like: torch.empty_like,
}
