"""A `Case`: a built model with example inputs, the only thing that counters, timers and exporters accept.

Models are built on the meta device by default: shapes without storage, so a model larger than memory costs nothing.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from . import meta
from .dims import Call, OpenInputs, check_known, usual_names
from .errors import BadInput, CannotMeasure, MixbenchError, first_line
from .lookup import resolve
from .spec import ModelSpec, TensorSpec, Workload


@dataclass(frozen=True)
class Case:
    """A model ready to run: ``module(*args, **kwargs)`` on ``device``."""

    spec: ModelSpec
    workload: Workload
    device: str
    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    request: Workload
    """The workload as it was asked for, with the model's own example inputs still to be made."""
    notes: tuple[str, ...] = ()
    weights: Path | None = None
    reparameterised: bool = False
    """Whether the module is the inference form, see `reparameterise.reparameterise`."""
    weight_bytes: int = 0
    """What the weights take while the model is built, on whatever device."""

    def on(self, device: str) -> "Case":
        """The same case built anew on another device, with real values if it is not meta.

        Raises:
            CannotMeasure: when the model would not fit into the free memory.
        """
        if device != "meta":
            _check_memory(self.weight_bytes, self.spec.name)
        return _build(self.spec, self.request, device, self.weights, self.reparameterised)


def build(
    model: str | ModelSpec,
    workload: Workload | None = None,
    device: str = "meta",
    weights: Path | None = None,
    reparameterised: bool = False,
    **settings: Any,
) -> Case:
    """Build a model and its example inputs.

    Args:
        model: a name of an architecture or of a source, see docs/models.md, or a spec from `lookup.resolve`.
        workload: inputs, batch, dtype, mode and seed; without inputs the model's own example.
        device: ``meta``, ``cpu`` or any other of torch's.
        weights: a checkpoint to load, see `weights.load_weights`.
        reparameterised: take the inference form, with norms folded; not for training.
        settings: keyword arguments for the factory, such as ``width=0.75``.

    Raises:
        BadInput: when the factory raises, makes no module, or no example inputs are known.
        CannotMeasure: when the model would not fit into the free memory, before any of it is taken.
    """
    if settings and not isinstance(model, str):
        raise BadInput("settings go into the spec when a spec is given", "call resolve(name, settings)")
    spec = resolve(model, settings) if isinstance(model, str) else model
    workload = workload or Workload()
    if torch.device(device).type == "cpu":
        _check_size(spec, workload)
    return _build(spec, workload, device, weights, reparameterised)


def _build(spec: ModelSpec, workload: Workload, device: str, weights: Path | None, reparameterised: bool) -> Case:
    made, notes = _call_factory(spec, device, workload.seed)
    module, given = _unpack(made)
    _check_module(module, spec.name)
    if weights is not None:
        from .weights import load_weights

        if unwrapped := load_weights(module, weights):
            notes.append(f"weights of {weights}: {unwrapped}")
    weight_bytes = _weight_bytes(module, workload)
    if reparameterised:
        if workload.mode == "train":
            raise BadInput("a reparameterised model is for inference and can't be trained", "leave one of the two out")
        from .reparameterise import reparameterise

        module = reparameterise(module)
    dtype = getattr(torch, workload.dtype)
    module = module.to(dtype=dtype).train(workload.mode == "train")
    if any(parameter.device.type != device for parameter in module.parameters()):
        module = _moved(module, device, spec.name)
    specs, args, kwargs = _inputs(spec, module, given, workload, torch.device(device))
    return Case(
        spec,
        workload.resolved(specs),
        device,
        module,
        args,
        kwargs,
        workload,
        tuple(notes),
        weights,
        reparameterised,
        weight_bytes,
    )


def _unpack(made: Any) -> tuple[Any, Any]:
    """A factory's result as the module and its example inputs, None where it gives none."""
    return made if isinstance(made, tuple) and len(made) == 2 else (made, None)


def _call_factory(spec: ModelSpec, device: str, seed: int) -> tuple[Any, list[str]]:
    """The factory's result, made on ``device``, or on the CPU when the factory refuses the meta device."""
    factory = spec.factory()
    _check_settings(factory, spec)
    torch.manual_seed(seed)
    try:
        with meta.building() if device == "meta" else torch.device(device):
            return factory(**spec.settings), []
    except MixbenchError:
        raise
    except Exception as refusal:  # noqa: BLE001 - whatever the factory dislikes about meta
        try:
            made = factory(**spec.settings)
        except Exception as error:
            what = f"the factory of {spec.name} raises {first_line(error)}"
            raise BadInput(what, "--kwarg NAME=VALUE reaches the factory; --debug shows the traceback") from error
        return made, [f"built on the CPU, since its factory fails on {device}: {first_line(refusal)}"]


def _check_settings(factory: Callable[..., Any], spec: ModelSpec) -> None:
    """Name the settings that exist before the factory fails on one that doesn't."""
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):
        return
    if any(p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL) for p in parameters.values()):
        return
    for name in spec.settings:
        if name not in parameters:
            known = f"its settings: {', '.join(parameters)}" if parameters else "its factory takes no settings"
            raise BadInput(f"{spec.name} has no setting {name!r}", known)


def _check_module(module: Any, name: str) -> None:
    if not isinstance(module, nn.Module):
        what = f"the factory of {name} returns {type(module).__name__}, not a torch.nn.Module"
        raise BadInput(what, "return the module, or a pair (module, example inputs)")
    if inspect.getattr_static(module, "forward", None) is inspect.getattr_static(nn.Module, "forward"):
        raise BadInput(f"{name} builds {type(module).__name__}, which has no forward()", "define forward() on its class")


def _moved(module: nn.Module, device: str, name: str) -> nn.Module:
    try:
        return module.to(device)
    except NotImplementedError as error:  # a factory that builds on meta itself, or returns one module again and again
        what = f"{name} has parameters on meta, which hold no values for {device}"
        raise BadInput(what, "let the factory make the module anew, on no device of its own") from error


def _check_size(spec: ModelSpec, workload: Workload) -> None:
    """Build on meta, which takes no memory, to see whether the real model would fit; what fails here fails again later."""
    factory = spec.factory()  # imports the user's file, whose own tensors are to be real
    torch.manual_seed(workload.seed)
    try:
        with meta.building():
            module, _ = _unpack(factory(**spec.settings))
    except Exception:  # noqa: BLE001 - whatever the factory dislikes about meta
        return
    if isinstance(module, nn.Module):
        _check_memory(_weight_bytes(module, workload, only_meta=True), spec.name)


def _weight_bytes(module: nn.Module, workload: Workload, only_meta: bool = False) -> int:
    """Bytes of a fresh module's weights, before or after they are cast to the workload's dtype, whichever are more.

    Args:
        only_meta: leave out what has its memory already, such as a module that the user's file has made.
    """
    cast = getattr(torch, workload.dtype).itemsize
    tensors = [t for t in (*module.parameters(), *module.buffers()) if not nn.parameter.is_lazy(t)]
    sizes = (max(t.element_size(), cast) if t.is_floating_point() else t.element_size() for t in tensors)
    return sum(t.numel() * size for t, size in zip(tensors, sizes, strict=True) if t.is_meta or not only_meta)


def _check_memory(needed: int, name: str) -> None:
    """Refuse to allocate what is not free, before trying."""
    import psutil

    free = psutil.virtual_memory().available
    if needed > 0.8 * free:
        what = f"{name} holds {needed / 1e9:.1f} GB of weights, and {free / 1e9:.1f} GB of memory are free"
        raise CannotMeasure(what, "use a machine with more memory, or a model that runs on the meta device")


@contextmanager
def _explained(name: str) -> Iterator[None]:
    try:
        yield
    except MixbenchError:
        raise
    except Exception as error:
        raise BadInput(f"the example inputs of {name} fail: {first_line(error)}", "give them by --input") from error


def _inputs(
    spec: ModelSpec, module: nn.Module, given: Any, workload: Workload, device: torch.device
) -> tuple[tuple[TensorSpec, ...], tuple[Any, ...], dict[str, Any]]:
    """The example inputs, from the first source that has them: the user, the factory, its companion, the module, the family.

    A family's are for its published settings: a factory that offers others, since a setting changes what fits, goes first.
    """
    dtype = getattr(torch, workload.dtype)
    generator = torch.Generator().manual_seed(workload.seed)
    specs = workload.inputs
    if not specs:
        with _explained(spec.name):
            if given is None and spec.companion_inputs is not None:
                given = spec.companion_inputs()
            if given is None:
                given = getattr(module, "example_inputs", None)
            given = given() if callable(given) else given
        specs = spec.example_inputs if given is None else ()
        if isinstance(given, OpenInputs):
            given, workload = given.filled(spec.name, workload), replace(workload, batch=None, dims=())
    described = [leaf for leaf in (specs or pytree.tree_leaves(given)) if isinstance(leaf, TensorSpec)]
    check_known(spec.name, dict(workload.dims), (name for item in described for name in _names(item)))
    if specs:
        specs = tuple(_sized(s, workload) for s in specs)
        tensors = [_make(s, dtype, device, generator, _limit(spec, s, place)) for place, s in enumerate(specs)]
        args = tuple(t for s, t in zip(specs, tensors, strict=True) if not s.name)
        kwargs = {s.name: t for s, t in zip(specs, tensors, strict=True) if s.name}
        return specs, args, kwargs
    if given is None:
        hint = "give --input 1x3x224x224, or return (module, example inputs) from the factory"
        raise BadInput(f"no example inputs are known for {spec.name}", hint)

    def adapt(leaf: Any) -> Any:
        if isinstance(leaf, TensorSpec):
            return _make(_sized(leaf, workload), dtype, device, generator, _limit(spec, leaf))
        if not isinstance(leaf, Tensor):
            return leaf
        if workload.batch is not None and leaf.ndim:
            leaf = leaf[torch.arange(workload.batch, device=leaf.device) % leaf.shape[0]]
        return leaf.to(device=device, dtype=dtype if leaf.is_floating_point() else leaf.dtype)

    with _explained(spec.name):
        args, kwargs = _as_call(given)
    args, kwargs = pytree.tree_map(adapt, (args, kwargs))
    return _describe(args, kwargs, dtype), args, kwargs


def _sized(spec: TensorSpec, workload: Workload) -> TensorSpec:
    """The input with the workload's batch and named sizes, as far as it has such dimensions; a scalar has none."""
    asked = dict(workload.dims) | ({} if workload.batch is None else {"batch": workload.batch})
    return replace(spec, shape=tuple(asked.get(name, size) for name, size in zip(_names(spec), spec.shape, strict=True)))


def _names(spec: TensorSpec) -> tuple[str, ...]:
    return usual_names(len(spec.shape), not spec.dtype.startswith(("int", "uint", "bool")))


def _as_call(given: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Example inputs as a call: a dict is keyword arguments, a tuple or list positional ones, anything else is one."""
    if isinstance(given, Call):
        return given.args, dict(given.kwargs)
    if isinstance(given, Mapping):
        return (), dict(given)
    if isinstance(given, tuple | list):
        return tuple(given), {}
    return (given,), {}


def _describe(args: tuple[Any, ...], kwargs: dict[str, Any], dtype: torch.dtype) -> tuple[TensorSpec, ...]:
    named = [("", leaf) for leaf in pytree.tree_leaves(args)]
    named += [(name, leaf) for name, value in kwargs.items() for leaf in pytree.tree_leaves(value)]
    return tuple(
        TensorSpec(tuple(leaf.shape), "" if leaf.dtype == dtype else str(leaf.dtype).removeprefix("torch."), name)
        for name, leaf in named
        if isinstance(leaf, Tensor)
    )


def _limit(spec: ModelSpec, item: TensorSpec, place: int | None = None) -> int:
    """What the integers of an input stay below, also where the user gives another shape than that of the example in its place.

    The number or the value of the setting that it or the example names; 1 without, so that nothing but zeros is left.
    """
    examples = spec.example_inputs if place is not None else ()
    setting = item.below or (examples[place].below if place is not None and place < len(examples) else "")
    if isinstance(setting, int) or not setting:
        return setting or 1
    limit: int = spec.settings.get(setting) or inspect.signature(spec.factory()).parameters[setting].default
    return limit


def _make(spec: TensorSpec, dtype: torch.dtype, device: torch.device, generator: torch.Generator, limit: int) -> Tensor:
    """A seeded tensor: normal, or uniform whole numbers from 0 up and below the limit; a mask is False.

    Token ids that are all the same would time a look-up from the cache, which no text does.
    """
    kind = getattr(torch, spec.dtype) if spec.dtype else dtype
    if device.type == "meta":
        return torch.empty(spec.shape, dtype=kind, device=device)
    if kind.is_floating_point or kind.is_complex:
        return torch.randn(spec.shape, generator=generator, dtype=kind).to(device)
    if kind == torch.bool:
        return torch.zeros(spec.shape, dtype=kind, device=device)
    return torch.randint(min(limit, torch.iinfo(kind).max), spec.shape, generator=generator, dtype=kind).to(device)
