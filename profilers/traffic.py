"""Which bytes an operator's kernel has to read and write when nothing is fused with its neighbours. Shapes only, no values.

Each operand is read once and each result written once. A view moves nothing, an allocation neither; a look-up reads the rows
that it picks; writing in place into some elements touches those. An expanded tensor has the bytes that are there, not those
that it pretends to have.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor

from .formulas.table import name_of

Touch = tuple[Tensor, int]
"""A tensor, and how many of its bytes an operator reads or writes."""
Traffic = tuple[list[Touch], list[Touch]]
"""What is read, what is written."""
_Way = Callable[[Any, Any, Any], Traffic]

_NOTHING = frozenset(
    "empty empty_like empty_strided empty_permuted new_empty new_empty_strided resize_ as_strided_ set_ is_same_size sym_size "
    "sym_numel sym_stride _assert_tensor_metadata device layout _record_function_enter_new _record_function_exit".split()
)
_LIKE = frozenset("zeros_like ones_like full_like rand_like randn_like randint_like new_zeros new_ones new_full".split())
"""They write what is like an operand in shape, and read nothing of it."""
_OVERWRITING = frozenset(
    "fill_ zero_ copy_ uniform_ normal_ random_ exponential_ cauchy_ geometric_ log_normal_ bernoulli_".split()
)
_LOOKUPS = frozenset("embedding index _unsafe_index index_select gather take take_along_dim".split())
_BAGS = frozenset("_embedding_bag _embedding_bag_forward_only".split())
_SCATTERS = frozenset(
    "index_put_ _index_put_impl_ scatter_ scatter_add_ scatter_reduce_ index_add_ index_copy_ index_fill_ "
    "masked_scatter_".split()
)


def traffic(operator: Any, result: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Traffic:
    """What one call reads and writes: the tensors with the bytes that are touched of each."""
    return _way(operator)(result, args, kwargs)


def extent(tensor: Tensor) -> int:
    """The bytes that a tensor's elements lie in, each once."""
    if tensor.is_contiguous():
        return tensor.numel() * tensor.element_size()
    if not tensor.numel():
        return 0
    count = tensor.element_size()
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        if stride:
            count *= size
    return count


def leaves(values: Iterable[Any]) -> Iterator[Tensor]:
    """The tensors among arguments or results, and those in lists of them."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from leaves(value)


@cache
def _way(operator: Any) -> _Way:
    """How an operator touches its tensors: found out once for each."""
    if not isinstance(operator, torch._ops.OpOverload):
        return _plain
    name = name_of(operator).rpartition("::")[2]
    if operator.is_view:
        return _nothing
    for names, way in _WAYS:
        if name in names:
            return way
    arguments = operator._schema.arguments
    places = [
        (place, item.name) for place, item in enumerate(arguments) if item.alias_info is not None and item.alias_info.is_write
    ]
    if not places:
        return _plain
    outs = {item.name for item in arguments if item.is_out}
    unread = {item for item in places if item[1] in outs or name in _OVERWRITING}
    return _writing(places, unread)


def _nothing(result: Any, args: Any, kwargs: Any) -> Traffic:
    return [], []


def _sized(tensors: Iterable[Tensor]) -> list[Touch]:
    return [(tensor, extent(tensor)) for tensor in tensors]


def _plain(result: Any, args: Any, kwargs: Any) -> Traffic:
    """Operands in, results out; what lies in an operand's storage is a view of it, and if all do, nothing has moved."""
    read = [*leaves(args), *leaves(kwargs.values())] if kwargs else list(leaves(args))
    written = [result] if isinstance(result, Tensor) else list(leaves((result,)))
    if read and written:
        places = {_place(tensor) for tensor in read}
        fresh = [tensor for tensor in written if _place(tensor) not in places]
        if not fresh:
            return [], []
        written = fresh
    return _sized(read), _sized(written)


def _writing(places: list[tuple[int, str]], unread: set[tuple[int, str]]) -> _Way:
    """An operator that writes into arguments; those in ``unread`` it does not look at first."""

    def way(result: Any, args: Any, kwargs: Any) -> Traffic:
        given = {(place, name): args[place] if place < len(args) else kwargs.get(name) for place, name in places}
        targets = list(leaves(given.values()))
        blind = {id(tensor) for tensor in leaves(given[key] for key in unread)}
        read = [t for t in (*leaves(args), *leaves(kwargs.values())) if id(t) not in blind]
        held = {_place(tensor) for tensor in (*targets, *read)}
        fresh = [tensor for tensor in leaves((result,)) if _place(tensor) not in held]
        return _sized(read), _sized([*targets, *fresh])

    return way


def _lookup(result: Any, args: Any, kwargs: Any) -> Traffic:
    table, *others = (*leaves(args), *leaves(kwargs.values()))
    return [(table, extent(result)), *_sized(others)], _sized([result])


def _bag(result: Any, args: Any, kwargs: Any) -> Traffic:
    table, indices, *others = (*leaves(args), *leaves(kwargs.values()))
    rows = indices.numel() * table.shape[-1] * table.element_size()
    return [(table, rows), *_sized((indices, *others))], _sized([result[0]])  # the others are notes for the backward pass


def _scatter(result: Any, args: Any, kwargs: Any) -> Traffic:
    target, *others = (*leaves(args), *leaves(kwargs.values()))
    touched = min(extent(target), max((t.numel() for t in others), default=target.numel()) * target.element_size())
    return [(target, touched), *_sized(others)], [(target, touched)]


def _batch_norm(result: Any, args: Any, kwargs: Any) -> Traffic:
    """In training it writes the batch's statistics and the running ones, which its schema doesn't say; else its result."""
    x, weight, bias, mean, variance, training = args[:6]
    running = [tensor for tensor in (mean, variance) if tensor is not None]
    read = _sized(tensor for tensor in (x, weight, bias) if tensor is not None) + _sized(running)
    return read, _sized((*leaves(result), *running)) if training else _sized([result[0]])


def _like(result: Any, args: Any, kwargs: Any) -> Traffic:
    return [], _sized(leaves((result,)))


_WAYS: tuple[tuple[frozenset[str], _Way], ...] = (
    (_NOTHING, _nothing),
    (_LIKE, _like),
    (_LOOKUPS, _lookup),
    (_BAGS, _bag),
    (_SCATTERS, _scatter),
    (frozenset(("native_batch_norm",)), _batch_norm),
)


def storage_of(tensor: Tensor) -> torch.UntypedStorage | None:
    """Where a tensor's elements lie; a sparse tensor has no such place."""
    try:
        return tensor.untyped_storage()
    except NotImplementedError:  # how torch says so
        return None


def _place(tensor: Tensor) -> int:
    """Tells storages apart; a tensor without one is told by itself."""
    storage = storage_of(tensor)
    return id(tensor) if storage is None else storage._cdata
