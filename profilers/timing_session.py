"""From specs to a `TimeRun`: build the models, time them side by side batch by batch, then ask for memory and the roof."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch.utils import _pytree as pytree

from ..models.case import Case, build
from ..models.errors import BadInput, CannotMeasure
from ..models.spec import ModelSpec, Workload
from ..models.versions import versions
from .counter import count
from .devices.base import Device, Memory
from .machine import look
from .peaks_kept import peaks_here
from .roofline import Roof
from .runs.timing_run import Achieved, Comparison, TimedModel, TimeRun, achieved, comparisons, timed_model
from .subject import Subject, storage_bytes, torch_subject
from .timing import Measurement, Progress, Timing, measure, peak_memory


@dataclass(frozen=True, slots=True)
class Settings:
    """How models are run and for how long; see `subject.torch_subject` and `timing.measure`."""

    threads: int | None = None
    compiled: bool = False
    channels_last: bool = False
    cuda_graph: bool = False
    reparameterised: bool = False
    weights: Path | None = None
    seconds: float = 5.0
    samples: int | None = None
    precision: float = 0.01
    roofline: bool = True
    seed: int = 0


Make = Callable[[Workload], Subject]
"""Makes a subject for a workload; a model's name is resolved before, so that errors come before any work."""


def torch_maker(spec: ModelSpec, device: Device, settings: Settings) -> Make:
    """Builds a PyTorch model on the device."""

    def make(workload: Workload) -> Subject:
        case = build(spec, workload, device.kind, settings.weights, settings.reparameterised)
        return torch_subject(case, settings.compiled, settings.channels_last, settings.cuda_graph)

    return make


def onnx_maker(path: Path, device: Device, settings: Settings) -> Make:
    """Opens an ONNX file in ONNX Runtime, on the CPU.

    Raises:
        BadInput: on another device, or with settings that are PyTorch's.
    """
    if device.kind != "cpu":
        raise BadInput(f"{str(path)!r} runs on the CPU, not on {device.kind}", "leave --device out")
    words = {"--compile": settings.compiled, "--channels-last": settings.channels_last, "--weights": settings.weights}
    if said := [word for word, on in words.items() if on]:
        raise BadInput(f"{said[0]} is for PyTorch models, and {str(path)!r} is an ONNX file", "time them apart")

    def make(workload: Workload) -> Subject:
        from .onnx_subject import onnx_subject

        return onnx_subject(path, workload, settings.threads or torch.get_num_threads())

    return make


def time_models(
    makers: Sequence[Make],
    workload: Workload,
    batches: Sequence[int | None],
    device: Device,
    settings: Settings,
    progress: Callable[[str], Progress] = lambda what: lambda timings, share: None,
    tell: Callable[[str], None] = lambda text: None,
) -> TimeRun:
    """Time models side by side, once for each batch.

    Args:
        makers: one for each model; the first is what the others are compared with.
        batches: sizes of the first dimension, None for the model's own.
        progress: gives, for a batch, what `timing.measure` reports to.
        tell: hears what is odd about the peaks that are kept of this machine.
    """
    if settings.threads:
        torch.set_num_threads(settings.threads)
    machine = look(device.describe(), device.clock, versions("mixbench", "torch", "onnxruntime"))
    models: list[TimedModel] = []
    compared: list[Comparison] = []
    measurements: list[Measurement] = []
    roof: Roof | None = None
    doubts: tuple[str, ...] = ()
    for group, batch in enumerate(batches):
        subjects = _told_apart([make(replace(workload, batch=batch)) for make in makers])
        label = f"batch {batch}, " if len(batches) > 1 else ""
        found = measure(
            subjects, device, settings.seconds, settings.samples, settings.precision, settings.seed, progress(label)
        )
        measurements.append(found)
        compared += comparisons(found, group)
        if settings.roofline and roof is None and not found.partial:
            peaks = peaks_here(
                device, [workload.dtype], progress=lambda text, share: progress(f"{text} ")((), share), tell=tell
            )
            if workload.dtype in peaks.flops_per_s:
                roof, doubts = peaks.roof(workload.dtype), peaks.doubts
        for timing in found.timings:
            memory, reached = (None, None) if found.partial else (_memory(timing, device), _achieved(timing, roof))
            models.append(timed_model(timing, group, memory, reached))
        if found.partial:
            break
    return TimeRun(
        models=tuple(models),
        comparisons=tuple(compared),
        machine=machine,
        overhead_ns=measurements[0].overhead_ns,
        before=measurements[0].before,
        after=measurements[-1].after,
        warnings=tuple(
            dict.fromkeys([*(word for found in measurements for word in found.warnings), *doubts, *_doubts(models)])
        ),
        partial=any(found.partial for found in measurements),
    )


def _doubts(models: Sequence[TimedModel]) -> list[str]:
    """A share above 1 has a reason, and the user should know it."""
    over = [model for model in models if model.achieved and model.achieved.share > 1]
    why = "a peak was measured while something else ran, or its kernels multiply less than is counted"
    return [f"{m.model} is beyond the roof: {why}; `mixbench roofline --measure-again` measures the peaks anew" for m in over]


def _told_apart(subjects: list[Subject]) -> list[Subject]:
    """Copies of one model get numbers."""
    names = [subject.name for subject in subjects]
    seen: dict[str, int] = {}
    told = []
    for subject in subjects:
        seen[subject.name] = seen.get(subject.name, 0) + 1
        told.append(subject.numbered(seen[subject.name]) if names.count(subject.name) > 1 else subject)
    return told


def _memory(timing: Timing, device: Device) -> Memory | None:
    """Peak memory; None where nobody counts it: ONNX Runtime's arena is its own."""
    if timing.subject.runtime != "torch":
        return None
    try:
        return peak_memory(timing.subject, device)
    except CannotMeasure:  # a device without a counter
        return None


def _achieved(timing: Timing, roof: Roof | None) -> Achieved | None:
    """What was reached of the roof; None without one, or for an ONNX file whose FLOPs aren't known."""
    if roof is None:
        return None
    subject, case = timing.subject, timing.subject.case
    if case is not None:
        counted = count(_on_meta(case))
        least = (0, 0) if subject.grad else (counted.tree.compulsory_read_bytes, counted.tree.compulsory_written_bytes)
        return achieved(timing, counted.totals.flops, *least, roof)
    if subject.flops is None:
        return None
    return achieved(timing, subject.flops, subject.held_bytes, storage_bytes(pytree.tree_leaves(subject.call())), roof)


def _on_meta(case: Case) -> Case:
    """The same case where counting costs no computation."""
    return case.on("meta")
