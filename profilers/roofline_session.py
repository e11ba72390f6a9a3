"""From specs to a `RooflineRun`: count the models, measure or look up the peaks, time the models, and place them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ..models.case import build
from ..models.spec import ModelSpec, Workload
from ..models.versions import versions
from .cost import Count
from .counter import count
from .devices.base import Device
from .machine import Machine, look
from .peaks import DTYPES
from .peaks import Progress as PeaksProgress
from .peaks_kept import peaks_here
from .runs.memory import memory_of
from .runs.roofline_run import Place, RooflineRun, Work, measured_place, model_point
from .stats import Estimate
from .subject import torch_subject
from .timing import Measurement, Progress, measure
from .timing_session import Settings, onnx_maker, torch_maker

_STEPS = 5
Model = ModelSpec | Path
"""A model of PyTorch, or an ONNX file."""


@dataclass(frozen=True, slots=True)
class Here:
    """This machine: its peaks, and what was odd while they were measured."""

    place: Place
    machine: Machine
    warnings: tuple[str, ...]


def works(models: Sequence[Model], workload: Workload, settings: Settings) -> list[Work]:
    """What the models do; nothing is computed."""
    return [_of_file(item, workload) if isinstance(item, Path) else _of_spec(item, workload, settings) for item in models]


def _of_spec(spec: ModelSpec, workload: Workload, settings: Settings) -> Work:
    case = build(spec, workload, weights=settings.weights, reparameterised=settings.reparameterised)
    words = (
        ("reparameterised", case.reparameterised),
        ("compiled", settings.compiled),
        ("channels last", settings.channels_last),
    )
    return work_of(spec.name, case.workload, count(case), "torch", ", ".join(word for word, on in words if on))


def _of_file(path: Path, workload: Workload) -> Work:
    from .onnx_counter import count_onnx

    found = count_onnx(path, workload)
    return file_work(str(path), found.workload, found.count)


def file_work(name: str, workload: Workload, count: Count) -> Work:
    """What the count of an ONNX file says that it does."""
    from .onnx_counter import is_quantised

    work = work_of(name, workload, count, "onnxruntime")
    if not any(is_quantised(item.operator) for item in count.operators):
        return work
    said = f"{name} computes in integers: all its contractions are held to the peak of int8"
    return replace(work, notes=(*work.notes, said), peak_dtype="int8")


def work_of(name: str, workload: Workload, count: Count, runtime: str = "torch", how: str = "") -> Work:
    """What a count says that a model does; in training it needs what a step of SGD, which is timed, does."""
    memory = memory_of(count.footprint, train=workload.mode == "train")
    needed = memory.training.optimisers[0].peak_bytes if memory.training else memory.total_peak_bytes
    return Work(name, workload, count.tree, needed, runtime, how, count.notes)


def measure_here(
    device: Device,
    again: bool = False,
    progress: PeaksProgress = lambda text, share: None,
    tell: Callable[[str], None] = lambda text: None,
) -> Here:
    """The peaks of a device of this machine, kept ones if there are, with torch's threads as they are set."""
    peaks = peaks_here(device, DTYPES, again, progress, tell)
    machine = look(device.describe(), device.clock, versions("mixbench", "torch", "onnxruntime"))
    place = measured_place(machine.device, peaks, _memory(device, machine), machine.threads)
    return Here(place, machine, peaks.doubts)


def _memory(device: Device, machine: Machine) -> int:
    if device.kind == "cuda":
        return torch.cuda.get_device_properties(0).total_memory
    return machine.memory_bytes


def place_here(
    found: Here,
    done: Sequence[Work],
    latencies: Sequence[Estimate | None] = (),
    traces: Sequence[Mapping[str, tuple[float, float]]] = (),
    warnings: Sequence[str] = (),
    partial: bool = False,
) -> RooflineRun:
    """The run of this machine.

    Args:
        latencies: of all models, or of none: floors alone.
        traces: likewise, as `trace_model` makes them.
        warnings: what was odd while they were taken.
        partial: whether that was stopped before its end.
    """
    times, seen = latencies or [None] * len(done), traces or [{} for _ in done]
    points = [model_point(work, found.place, latency, traced) for work, latency, traced in zip(done, times, seen, strict=True)]
    said = dict.fromkeys((*found.warnings, *warnings))
    return RooflineRun((found.place,), tuple(points), found.machine, tuple(said), partial)


def time_models(
    models: Sequence[Model],
    workload: Workload,
    device: Device,
    settings: Settings,
    progress: Progress = lambda timings, share: None,
) -> Measurement:
    """Time them side by side, as `mixbench time` does."""
    makers = [
        onnx_maker(item, device, settings) if isinstance(item, Path) else torch_maker(item, device, settings) for item in models
    ]
    subjects = [make(workload) for make in makers]
    return measure(subjects, device, settings.seconds, settings.samples, settings.precision, settings.seed, progress)


def trace_model(spec: ModelSpec, workload: Workload, device: Device, settings: Settings) -> dict[str, tuple[float, float]]:
    """Calls and ns of each operator in one call of a model under torch's profiler, wherever it was called from."""
    from .tracing import trace_torch

    on_meta = build(spec, workload, weights=settings.weights, reparameterised=settings.reparameterised)
    subject = torch_subject(on_meta.on(device.kind), channels_last=settings.channels_last)
    found: dict[str, tuple[float, float]] = {}
    for item in trace_torch(subject, device, None, _STEPS).trace.operators:
        calls, spent = found.get(item.operator, (0.0, 0.0))
        found[item.operator] = (calls + item.calls, spent + item.total_ns)
    return found


def place_modelled(places: Sequence[Place], done: Sequence[Work]) -> RooflineRun:
    """The models on devices that are not at hand."""
    return RooflineRun(tuple(places), tuple(model_point(work, place) for work in done for place in places), None, ())
