"""``FILE.pt2``: a program that ``torch.export.save`` has written, with its own weights and example inputs."""

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..dims import Call, OpenInputs, usual_names
from ..errors import BadInput
from ..spec import ModelSpec, Source, TensorSpec

if TYPE_CHECKING:
    from torch.export import ExportedProgram

SOURCE = Source(form="FILE.pt2", title="a program of torch.export.save", patterns=("*.pt2",))


def find(words: str, settings: dict[str, Any]) -> ModelSpec:
    """The spec of a file; an exported program takes no settings."""
    path = Path(words)
    if not path.is_file():
        raise BadInput(f"there is no file {words!r}", "check the path; it is relative to the folder you are in")
    if settings:
        raise BadInput(f"{words!r} is exported and has no setting {next(iter(settings))!r}", "leave --kwarg out")
    return ModelSpec(name=words, factory=partial(_factory, path), label=path.stem)


def _factory(path: Path) -> Callable[[], Any]:
    """Loaded here and not when it is called, which is where everything new is made on meta."""
    from ..pt2_files import check_targets, read_program

    program = read_program(path)
    check_targets(program, path)
    module = program.module(check_guards=False)
    # The mode is part of what was exported; torch forbids to set it, and what takes models sets it always.
    del module.train, module.eval
    # Where the module is copied, torch's structure of its inputs warns of torch's own class.
    warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)
    _hold_constants(module)
    made = module, _inputs(path, program)
    return lambda: made


def _hold_constants(module: Any) -> None:
    """Make buffers of tensors that are plain attributes, so that they move with the module."""
    import torch

    for part in module.modules():
        for name, value in list(vars(part).items()):
            if isinstance(value, torch.Tensor):
                delattr(part, name)
                part.register_buffer(name, value, persistent=False)


def _inputs(path: Path, program: "ExportedProgram") -> OpenInputs | None:
    """The program's inputs; None where it has no example of them."""
    import torch
    from torch.utils import _pytree as pytree

    if program.example_inputs is None:
        return None
    leaves, structure = pytree.tree_flatten(program.example_inputs)
    users = set(program.graph_signature.user_inputs)
    values = [node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder" and node.name in users]
    names = [node.name for node in program.graph.nodes if node.op == "placeholder" and node.name in users]
    symbols: dict[Any, str] = {}
    sizes: dict[str, int] = {}
    shapes: list[tuple[Any, ...] | None] = []
    for name, value, leaf in zip(names, values, leaves, strict=True):
        if not isinstance(leaf, torch.Tensor):
            shapes.append(None)
            continue
        usual = usual_names(leaf.ndim, leaf.is_floating_point())
        shape = tuple(size.node.expr if isinstance(size, torch.SymInt) else size for size in value.shape)
        shapes.append(shape)
        for place, size in enumerate(shape):
            if not isinstance(size, int) and size.is_Symbol and size not in symbols:
                word = usual[place] if usual[place] and usual[place] not in sizes else f"{name}.{place}"
                symbols[size] = word
                sizes[word] = leaf.shape[place]

    def make(asked: Mapping[str, int]) -> Call:
        chosen = {symbol: asked[word] for symbol, word in symbols.items()}
        _check_ranges(path, program, symbols, chosen)
        made = [
            leaf if shape is None or all(isinstance(size, int) for size in shape) else _spec(leaf, shape, chosen)
            for leaf, shape in zip(leaves, shapes, strict=True)
        ]
        args, kwargs = pytree.tree_unflatten(made, structure)
        return Call(tuple(args), dict(kwargs))

    return OpenInputs(sizes, make)


def _spec(leaf: Any, shape: tuple[Any, ...], chosen: Mapping[Any, int]) -> TensorSpec:
    """An input at the sizes chosen, its whole numbers below the largest of the example's."""
    sizes = tuple(size if isinstance(size, int) else int(size.subs(chosen)) for size in shape)
    floats = leaf.is_floating_point() or leaf.is_complex()
    dtype = "" if leaf.is_floating_point() else str(leaf.dtype).removeprefix("torch.")
    return TensorSpec(sizes, dtype, below=1 if floats or not leaf.numel() or leaf.is_meta else int(leaf.max()) + 1)


def _check_ranges(path: Path, program: "ExportedProgram", symbols: Mapping[Any, str], chosen: Mapping[Any, int]) -> None:
    for symbol, bounds in program.range_constraints.items():
        size = chosen.get(symbol)
        if size is not None and not bounds.lower <= size <= bounds.upper:
            limits = f"{max(1, bounds.lower)} to {bounds.upper}" if bounds.upper.is_Integer else f"{bounds.lower} and more"
            raise BadInput(f"{str(path)!r} takes no {symbols[symbol]} of {size}", f"it was exported for {limits}")
