"""A call and its result, flattened: files take tensors by name and in order, and know no dicts, tuples or defaults."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ..models.errors import BadInput


class Flat(nn.Module):
    """A model whose call takes tensors only, in order, and returns a tuple of tensors."""

    def __init__(self, model: nn.Module, arrange: Callable[[Sequence[Tensor]], Any], results: Sequence[int]) -> None:
        super().__init__()
        self.model = model
        self._arrange, self._results = arrange, results

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        args, kwargs = self._arrange(tensors)
        returned = pytree.tree_leaves(self.model(*args, **kwargs))
        return tuple(returned[index] for index in self._results)


def _arranger(leaves: Sequence[Any], tree: pytree.TreeSpec) -> Callable[[Sequence[Tensor]], Any]:
    """Puts tensors back into the places of a call; a function, since a copy of a model need not copy that."""
    kept = [None if isinstance(leaf, Tensor) else leaf for leaf in leaves]
    places = [place for place, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]

    def arrange(tensors: Sequence[Tensor]) -> Any:
        filled = list(kept)
        for place, tensor in zip(places, tensors, strict=True):
            filled[place] = tensor
        return pytree.tree_unflatten(filled, tree)

    return arrange


class Signature:
    """The names of a model's inputs and results, found by one call's arguments and what it returned.

    A dict, a named tuple or the parameters of ``forward`` give the names; a place in a tuple gives a number. What is no tensor
    becomes part of the file as it is, and so is what a result holds beside tensors left out; ``notes`` name them.

    Raises:
        BadInput: when no tensor goes in or comes out.
    """

    def __init__(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Any) -> None:
        pairs, tree = pytree.tree_flatten_with_path((args, dict(kwargs)))
        self._arrange = _arranger([leaf for _, leaf in pairs], tree)
        parameters = _positional(module, len(args))
        named = [(_argument(path, parameters), leaf) for path, leaf in pairs]
        self.inputs: dict[str, Tensor] = {name: leaf for name, leaf in named if isinstance(leaf, Tensor)}
        fixed = [f"{name}={leaf!r} is fixed in the file" for name, leaf in named if not isinstance(leaf, Tensor)]
        results = [(_joined(path), leaf) for path, leaf in pytree.tree_flatten_with_path(result)[0]]
        self._kept = [place for place, (_, leaf) in enumerate(results) if isinstance(leaf, Tensor)]
        lost = [name or "result" for name, leaf in results if not isinstance(leaf, Tensor) and leaf is not None]
        self.notes = tuple(fixed + [f"{name} is no tensor and left out of the results" for name in lost])
        self.outputs = self._output_names([name for name, leaf in results if isinstance(leaf, Tensor)])
        if not self.inputs or not self.outputs:
            side = "takes no tensor" if not self.inputs else "returns no tensor"
            raise BadInput(f"{type(module).__name__} {side}, so there is nothing to export", "give it an input and a result")
        # A model that is called plainly goes as it is, so that its modules keep their names.
        plain_call = not kwargs and all(isinstance(argument, Tensor) for argument in args)
        plain_result = isinstance(result, Tensor) or (type(result) is tuple and all(isinstance(t, Tensor) for t in result))
        self._plain = plain_call and plain_result

    def flat(self, module: nn.Module) -> nn.Module:
        """The model with that call made flat."""
        return module if self._plain else Flat(module, self._arrange, self._kept).eval()

    def _output_names(self, found: list[str]) -> tuple[str, ...]:
        names = [f"output_{name}" if name.isdecimal() else name or "output" for name in found]
        names = [f"{name}_out" if name in self.inputs else name for name in names]
        return tuple(name if names.count(name) == 1 else f"{name}_{place}" for place, name in enumerate(names))


def run(module: nn.Module, tensors: Mapping[str, Tensor]) -> list[Tensor]:
    """Call a flat module without recording gradients; a result that shares another's memory is a tensor of its own."""
    with torch.no_grad():
        returned = module(*tensors.values())
    return [returned] if isinstance(returned, Tensor) else list(returned)


def _positional(module: nn.Module, count: int) -> list[str]:
    """The names of forward's first parameters; those that a star takes are numbered."""
    names: list[str] = []
    for parameter in inspect.signature(module.forward).parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            names += [f"{parameter.name}_{place}" for place in range(count - len(names))]
        elif parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            names.append(parameter.name)
    return names


def _argument(path: tuple[Any, ...], parameters: list[str]) -> str:
    side, first, *rest = path
    name = parameters[first.idx] if side.idx == 0 else str(first.key)
    return _joined((name, *rest))


def _joined(path: tuple[Any, ...]) -> str:
    """A path through containers as a word that every runtime takes for a name."""
    words = [
        part if isinstance(part, str) else getattr(part, "name", getattr(part, "key", getattr(part, "idx", "")))
        for part in path
    ]
    return "_".join("".join(c if c.isalnum() else "_" for c in str(word)) for word in words)
