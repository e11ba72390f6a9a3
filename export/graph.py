"""From a `Source` to an ONNX graph: torch's exporter, the rewrites of the graph, and nothing that tells of this machine."""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import onnx
import torch
from onnx import GraphProto, ModelProto, NodeProto

from ..models.errors import BadInput, CheckFailed, MixbenchError, first_line
from .axes import check_open
from .explain import explained
from .graph_checks import check_graph
from .opset import DEFAULT_OPSET, check_opset
from .quiet import quiet
from .rewrites.base import rewrite_graph
from .signature import Flat
from .source import Source

LIMIT_BYTES = 2**31 - 2**20
"""A protobuf message ends at 2 GiB; beyond this the weights lie beside it."""


@dataclass(frozen=True, slots=True)
class Graph:
    """A finished graph.

    Attributes:
        model: without metadata of the exporter's; with shapes.
        program: what it was translated from, whose nodes the graph's values are named after.
        rewrites: names of all rewrites that changed something, in the modules or in the graph.
        notes: what the user should know of the operators.
    """

    model: ModelProto
    program: torch.export.ExportedProgram
    rewrites: tuple[str, ...]
    notes: tuple[str, ...]


def to_graph(source: Source, opset: int = DEFAULT_OPSET) -> Graph:
    """Export a source to ONNX.

    Raises:
        BadInput: on an opset that torch can't translate to, a model that can't be exported, an open dimension that was fixed,
            random numbers, or parts in training mode.
        CheckFailed: when the graph is not valid ONNX.
    """
    check_opset(opset)
    with quiet():
        exported = _export(source, opset)
        model = exported.model_proto
        written = next(entry.version for entry in model.opset_import if entry.domain == "")
        if written != opset:
            raise BadInput(f"opset {opset} was asked for, and the exporter wrote {written}", f"try --opset {DEFAULT_OPSET}")
        names = [value.name for value in model.graph.input], [value.name for value in model.graph.output]
        assert names == (list(source.inputs), list(source.outputs)), f"the exporter renamed inputs or results: {names}"
        modules = _modules(model.graph, isinstance(source.module, Flat))
        changed = rewrite_graph(model, source.keep)
        _name_nodes(model.graph, modules)
        check_open(model, source.dynamic)
        _strip(model)
        model.graph.name = "".join(c if c.isalnum() else "_" for c in source.metadata.get("model", source.name))
        model.producer_name, model.producer_version = "mixbench", source.metadata.get("mixbench_version", "")
        model = _with_shapes(model)
    assert exported.exported_program is not None, "the new exporter keeps what it translated"
    return Graph(model, exported.exported_program, (*source.rewrites, *changed), check_graph(model))


def set_metadata(model: ModelProto, metadata: dict[str, str]) -> None:
    """Put words beside the graph, sorted, in place of those that are there."""
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, dict(sorted(metadata.items())))


def weight_bytes(model: ModelProto) -> int:
    """Bytes of the constants; what else a model holds is small."""
    return sum(len(tensor.raw_data) for tensor in model.graph.initializer)


def _export(source: Source, opset: int) -> "torch.onnx.ONNXProgram":
    shapes = tuple(dict(source.dynamic.get(name, {})) for name in source.inputs)
    dynamic = ((shapes,) if isinstance(source.module, Flat) else shapes) if source.dynamic else None
    try:
        exported = torch.onnx.export(
            source.module,
            tuple(tensor.clone() for tensor in source.inputs.values()),
            dynamo=True,
            verbose=False,
            opset_version=opset,
            input_names=list(source.inputs),
            output_names=list(source.outputs),
            dynamic_shapes=dynamic,
        )
    except MixbenchError:
        raise
    except Exception as error:
        raise explained(error, source.name) from error
    assert exported is not None, "the new exporter returns a program"
    return exported


def _modules(graph: GraphProto, is_flat: bool) -> dict[str, str]:
    """The module that each value comes from, as the exporter noted it beside the value's node."""
    modules: dict[str, str] = {}
    for node in graph.node:
        scopes = next((entry.value for entry in node.metadata_props if entry.key == "pkg.torch.onnx.name_scopes"), "[]")
        path = [scope for scope in ast.literal_eval(scopes)[:-1] if not scope.startswith("_")]
        module = path[-1] if path else ""
        module = module.removeprefix("model").removeprefix(".") if is_flat else module
        modules |= {name: module for name in node.output if name}
    return modules


def _name_nodes(graph: GraphProto, modules: Mapping[str, str]) -> None:
    """Name nodes after their modules: a report by module needs that, and it tells nothing of this machine.

    A rewrite leaves the old value's name on what takes its place; the nodes that it makes on the way there are of that module.
    """
    module = ""
    for place in reversed(range(len(graph.node))):
        node = graph.node[place]
        module = next((modules[name] for name in node.output if name in modules), module)
        node.name = f"{module}/{node.op_type}_{place}"


def _strip(model: ModelProto) -> None:
    """Clear the stack traces, class names and notes that the exporter left on everything."""
    del model.metadata_props[:]
    model.doc_string = ""
    for graph in _graphs(model.graph):
        del graph.metadata_props[:]
        graph.doc_string = ""
        for item in (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
            del item.metadata_props[:]
            item.doc_string = ""
    for function in model.functions:
        del function.metadata_props[:]
        function.doc_string = ""
        for node in function.node:
            del node.metadata_props[:]
            node.doc_string = ""


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """A graph and those inside its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
                yield from _graphs(inner)


def nodes(model: ModelProto) -> Iterator[NodeProto]:
    """Every node, those of inner graphs too."""
    for graph in _graphs(model.graph):
        yield from graph.node


def _with_shapes(model: ModelProto) -> ModelProto:
    """The model with the shapes of all values, and without those of values that a rewrite has removed."""
    made = {name for node in model.graph.node for name in node.output} | {t.name for t in model.graph.initializer}
    stale = [value for value in model.graph.value_info if value.name not in made]
    for value in stale:
        model.graph.value_info.remove(value)
    if weight_bytes(model) > LIMIT_BYTES:
        return model  # shape inference takes no larger message; the exporter's own shapes stand
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:
        what = f"the graph does not pass ONNX's own checker: {first_line(error)}"
        raise CheckFailed(what, "try another --opset, or leave a rewrite out with --keep NAME") from error
    return onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
