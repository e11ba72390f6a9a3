"""Where a wrong file begins to be wrong: the first module, or the first operator of the graph, whose output is not torch's."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from onnx import ModelProto
from torch import Tensor, fx, nn
from torch.export.graph_signature import InputKind

from .graph import LIMIT_BYTES, Graph, weight_bytes
from .signature import Flat, run
from .source import Source
from .targets.onnx import open_session
from .verify import compare

_VISIBLE_DB = 60.0
"""Rounding alone leaves more than this between one operator and the next; what is below is a fault."""


def first_departure(graph: Graph, source: Source, inputs: Mapping[str, np.ndarray]) -> str:
    """A sentence on where the results leave those of the model, "" where nothing is found.

    Three suspects, in the order in which they worked: the rewrites of modules (module by module against the model as it was
    built), the translation and the rewrites of the graph (value by value against the program that it was translated from),
    ONNX Runtime's own optimisation (against itself without).
    """
    tensors = {name: torch.from_numpy(array.copy()) for name, array in inputs.items()}
    expected = [tensor.numpy() for tensor in run(source.reference, tensors)]
    if not _agree([tensor.numpy() for tensor in run(source.module, tensors)], expected):
        found = _first_module(source, tensors)
        return f"the rewritten model differs already in torch, first in module {found}" if found else ""
    if weight_bytes(graph.model) > LIMIT_BYTES:
        return ""  # ONNX Runtime opens no graph of that size with all its values laid open
    found = _first_operator(graph, tensors)
    if found:
        return f"the first operator whose output departs is {found}"
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(graph.model.SerializeToString())
        plain, optimised = (open_session(path, 1, optimise)(dict(inputs)) for optimise in (False, True))
    if _agree(plain, expected) and not _agree(optimised, expected):
        return "the graph is right, and ONNX Runtime's optimisation of it departs"
    return ""


def _agree(found: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> bool:
    return all(_alike(theirs, ours) for theirs, ours in zip(found, expected, strict=True))


def _alike(found: np.ndarray, expected: np.ndarray) -> bool:
    snr = compare(expected, found)[1]
    return snr is None or snr > _VISIBLE_DB


def _first_module(source: Source, tensors: Mapping[str, Tensor]) -> str:
    """The first module to end with another output, by names that are in both models; innermost ones end first."""
    ours, theirs = (dict(_outputs(module, tensors)) for module in (source.reference, source.module))
    for name, output in theirs.items():
        # A convolution that has taken a norm in ends with what that norm ended with.
        alike = [other for other in ours.values() if other.shape == output.shape]
        if name in ours and alike and not any(_alike(output.numpy(), other.numpy()) for other in alike):
            return f"{name} ({type(_bare(source.module).get_submodule(name)).__name__})"
    return ""


def _outputs(module: nn.Module, tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    found: list[tuple[str, Tensor]] = []

    def watch(name: str, part: nn.Module) -> Any:
        def keep(_module: nn.Module, _given: Any, result: Any) -> None:
            if isinstance(result, Tensor):
                found.append((name, result.detach().clone()))

        return part.register_forward_hook(keep)

    handles = [watch(name, part) for name, part in _bare(module).named_modules() if name]
    try:
        run(module, tensors)
    finally:
        for handle in handles:
            handle.remove()
    yield from found


def _bare(module: nn.Module) -> nn.Module:
    return module.model if isinstance(module, Flat) else module


def _first_operator(graph: Graph, tensors: Mapping[str, Tensor]) -> str:
    expected = _program_values(graph.program, list(tensors.values()), [value.name for value in graph.model.graph.output])
    found = _graph_values(graph.model, {name: tensor.numpy() for name, tensor in tensors.items()})
    for node in graph.model.graph.node:
        for name in node.output:
            both = name in found and name in expected and found[name].shape == expected[name].shape
            if both and not _alike(found[name], expected[name]):
                return f"{node.op_type} ({node.name}, value {name})"
    return ""


def _program_values(program: torch.export.ExportedProgram, inputs: list[Tensor], outputs: list[str]) -> dict[str, np.ndarray]:
    """What every node of the program gives, by the name that the graph's value has."""
    values: dict[str, np.ndarray] = {}

    class Watching(fx.Interpreter):
        def run_node(self, node: fx.Node) -> Any:
            result = super().run_node(node)
            if isinstance(result, Tensor):
                values[node.name] = result.detach().clone().numpy()
            return result

    waiting = iter(inputs)
    kept: dict[str, Any] = {**program.constants, **program.state_dict}
    given = [
        next(waiting) if spec.kind is InputKind.USER_INPUT else kept[str(spec.target)]
        for spec in program.graph_signature.input_specs
    ]
    with torch.no_grad():
        Watching(program.graph_module).run(*given)
    for name, spec in zip(outputs, program.graph_signature.output_specs, strict=True):
        if getattr(spec.arg, "name", None) in values:
            values[name] = values[spec.arg.name]
    return values


def _graph_values(model: ModelProto, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What every operator gives, computed by ONNX Runtime as the file says, without its optimisation."""
    laid_open = ModelProto()
    laid_open.CopyFrom(model)
    known = {value.name: value for value in model.graph.value_info}
    final = {value.name for value in model.graph.output}
    names = [name for node in model.graph.node for name in node.output if name in known and name not in final]
    laid_open.graph.output.extend(known[name] for name in names)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(laid_open.SerializeToString())
        arrays = open_session(path, 1, optimise=False)(feeds)
    return dict(zip([value.name for value in laid_open.graph.output], arrays, strict=True))
