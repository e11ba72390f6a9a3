"""ONNX Runtime's own profile as a `Trace`: operators by type and provider, and the graph's nodes in the place of modules.

ONNX Runtime writes whole microseconds, so a node that takes less than one may read 0. Its profile holds the bytes of the
activations that each node is given and returns, but not of weights that it has repacked: those come from the file, by the
node's name, and so do its MACs. A node that the runtime has made itself and that the file doesn't name has neither; the MACs
of the whole are the file's all the same.
"""

import gzip
import json
import math
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx

from ..models.errors import BadInput, first_line
from ..models.onnx_names import node_names
from ..models.spec import TensorSpec, Workload
from ..models.versions import versions
from .devices.base import find
from .machine import look
from .onnx_counter import OnnxCount, count_onnx
from .onnx_session import open_onnx
from .runs.trace_run import Frame, ModuleTime, OperatorTime, Trace, Work, middle
from .stats import median
from .subject import Subject
from .timing import measure

_WARM_CALLS = 3
UNTRACED_S = 0.5
_SUFFIX = "_kernel_time"
_VIEWS = ("Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity")
"""ONNX Runtime lets their output share the memory of their input."""


def trace_onnx(
    path: Path,
    workload: Workload | None = None,
    threads: int | None = None,
    number: int = 5,
    keep: Path | None = None,
) -> Trace:
    """Trace an ONNX file.

    Args:
        workload, threads: see `onnx_session.open_onnx`.
        number: steps to trace.
        keep: where ONNX Runtime's profile is kept, which is a Chrome trace; nowhere if None.

    Raises:
        BadInput: when the file or its inputs can't be used.
    """
    if number < 1:
        raise BadInput(f"{number} steps trace nothing", "give --steps a number from 1 up")
    device = find("cpu")
    session, feeds = open_onnx(path, workload, threads)
    try:
        session.run(None, feeds)
    except Exception as error:
        raise BadInput(f"{str(path)!r} fails on its inputs: {first_line(error)}", "give them by --input NAME=SHAPE") from error
    untraced = measure([Subject(path.name, lambda: session.run(None, feeds))], device, seconds=UNTRACED_S)
    if untraced.partial:
        raise KeyboardInterrupt
    measured = untraced.timings[0]
    with TemporaryDirectory(prefix="mixbench-") as folder:
        profiled, feeds = open_onnx(path, workload, threads, profile_to=Path(folder) / "profile")
        for _ in range(_WARM_CALLS + number):
            profiled.run(None, feeds)
        written = Path(profiled.end_profiling())
        text = written.read_text(encoding="utf-8")
    if keep is not None:
        _keep(text, keep)
    specs = tuple(TensorSpec(value.shape, _other_dtype(value), name) for name, value in feeds.items())
    workload = Workload(specs)
    counted = _counted(path, workload)
    weights, macs = _weight_bytes(path), _node_macs(path, counted)
    calls = _calls(json.loads(text))[_WARM_CALLS:]
    for _, ran in calls:
        for node in ran:
            node["weights"], node["macs"] = weights.get(_name(node)), macs.get((_name(node), _plain_operator(node)))
    durations = tuple(1e3 * run["dur"] for run, _ in calls)
    used = middle(durations)
    nodes = [node for index in used for node in calls[index][1]]
    traced = sum(durations[index] for index in used) / len(used)
    machine = look(device.describe(), device.clock, versions("mixbench", "torch", "onnxruntime"))
    return Trace(
        model=path.name,
        engine="onnxruntime",
        workload=workload.key,
        inputs=tuple(map(str, specs)),
        dtype=workload.dtype,
        mode="eval",
        how=f"{threads} threads" if threads else "",
        clock="wall clock of each node, in whole us",
        step_ns=durations,
        used_steps=len(used),
        traced_ns=traced,
        untraced_ns=median(measured.samples),
        untraced_samples=len(measured.samples),
        operators=_operators(nodes, len(used)),
        modules=_modules(nodes, len(used), traced, path.name, counted),
        frames=_frames(nodes, len(used), traced, path.name),
        machine=machine,
        notes=(*_uncounted(counted), *untraced.warnings),
    )


def _other_dtype(value: np.ndarray) -> str:
    return "" if value.dtype == np.float32 else str(value.dtype)


def _keep(text: str, path: Path) -> None:
    data = text.encode()
    try:
        with TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
            whole = Path(folder) / path.name
            whole.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
            whole.replace(path)
    except OSError as error:
        raise BadInput(f"cannot write {str(path)!r}: {error.strerror}", "choose another place for --trace") from error


def _calls(events: list[dict[str, Any]]) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Each call of the model with the nodes that ran in it; nodes of a subgraph have their time taken from the node around."""
    runs = sorted((event for event in events if event["name"] == "model_run"), key=lambda event: event["ts"])
    nodes = [event for event in events if event["cat"] == "Node" and event["name"].endswith(_SUFFIX)]
    nodes.sort(key=lambda event: (event["ts"], -event["dur"]))
    around: list[dict[str, Any]] = []
    for node in nodes:
        node["self"] = node["dur"]
        while around and around[-1]["ts"] + around[-1]["dur"] <= node["ts"]:
            around.pop()
        if around:
            around[-1]["self"] = max(0, around[-1]["self"] - node["dur"])
        around.append(node)
    return [(run, [node for node in nodes if run["ts"] <= node["ts"] < run["ts"] + run["dur"]]) for run in runs]


def _weight_bytes(path: Path) -> dict[str, int]:
    """Bytes of the initializers that each node of the file takes, by the node's name."""
    graph = onnx.load(str(path), load_external_data=False).graph
    sizes = {
        item.name: math.prod(item.dims) * onnx.helper.tensor_dtype_to_np_dtype(item.data_type).itemsize
        for item in graph.initializer
    }
    return {node.name: sum(sizes.get(name, 0) for name in set(node.input)) for node in graph.node if node.name}


def _name(node: dict[str, Any]) -> str:
    return str(node["name"]).removesuffix(_SUFFIX) or f"node {node['args'].get('node_index', '?')}"


def _counted(path: Path, workload: Workload) -> OnnxCount | None:
    try:
        return count_onnx(path, workload)
    except BadInput:  # what runs need not be described well enough to be counted
        return None


def _uncounted(counted: OnnxCount | None) -> tuple[str, ...]:
    if counted is None:
        return ("FLOPs are unknown: the file does not describe its inputs well enough",)
    names = ", ".join(operator.operator for operator in counted.count.uncounted)
    return (f"FLOPs of {names} are unknown and in no figure",) if names else ()


def _node_macs(path: Path, counted: OnnxCount | None) -> dict[tuple[str, str], int | None]:
    """MACs of the file's nodes, by name and operator; None for one without a rule."""
    if counted is None:
        return {}
    unknown = {operator.operator for operator in counted.count.uncounted}
    graph = onnx.load(str(path), load_external_data=False).graph
    names = zip(node_names(graph), graph.node, strict=True)
    return {(name, node.op_type): None if node.op_type in unknown else counted.node_macs.get(name) for name, node in names}


def _plain_operator(node: dict[str, Any]) -> str:
    """The operator that the file has where the runtime has fused an activation into it."""
    return str(node["args"]["op_name"]).removeprefix("Fused")


def _work(nodes: list[dict[str, Any]], used: int) -> Work:
    """MACs and bytes of nodes, each unknown if it is of one of them."""
    known = [node["macs"] for node in nodes if node["macs"] is not None]
    macs = round(sum(known) / used) if len(known) == len(nodes) else None
    read = written = 0
    for node in nodes:
        if node["args"]["op_name"] not in _VIEWS:
            if node["weights"] is None:
                return Work(macs)
            read += int(node["args"].get("activation_size", 0)) + node["weights"]
            written += int(node["args"].get("output_size", 0))
    return Work(macs, bytes_read=round(read / used), bytes_written=round(written / used))


def _operators(nodes: list[dict[str, Any]], used: int) -> tuple[OperatorTime, ...]:
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for node in nodes:
        groups.setdefault((node["args"]["op_name"], node["args"].get("provider", "")), []).append(node)
    rows = []
    for (name, provider), group in groups.items():
        time = 1e3 * sum(node["self"] for node in group) / used
        rows.append(OperatorTime("forward", name, "", len(group) / used, time, time, _work(group, used), provider))
    return tuple(sorted(rows, key=lambda item: (-item.total_ns, item.operator)))


def _by_name(nodes: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for node in nodes:
        groups.setdefault(_name(node), []).append(node)
    return groups


def _modules(
    nodes: list[dict[str, Any]], used: int, traced: float, model: str, counted: OnnxCount | None
) -> tuple[ModuleTime, ...]:
    found = []
    for name, group in _by_name(nodes).items():
        time = 1e3 * sum(node["self"] for node in group) / used
        kind = group[0]["args"]["op_name"]
        found.append(ModuleTime(name, kind, 1, len(group) / used, time, time, time, 0.0, _work(group, used)))
    outside = traced - sum(item.total_ns for item in found)
    whole = _work(nodes, used)
    if counted is not None and not counted.count.uncounted:
        whole = replace(whole, macs=counted.count.totals.macs)
    return (ModuleTime("", model, 0, 1.0, outside, 0.0, traced, 0.0, whole), *found)


def _frames(nodes: list[dict[str, Any]], used: int, traced: float, model: str) -> Frame:
    children = []
    for name, group in _by_name(nodes).items():
        time, calls = 1e3 * sum(node["self"] for node in group) / used, len(group) / used
        leaf = Frame(group[0]["args"]["op_name"], "operator", calls, time, time)
        children.append(Frame(name, "module", calls, 0.0, time, (leaf,)))
    outside = traced - sum(child.total_ns for child in children)
    return Frame(model, "step", 1.0, outside, traced, tuple(children))
