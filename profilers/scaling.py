"""How throughput grows with the number of processes: data parallel, training or inference, at degrees 1, 2, 4, ... N.

A training step is DistributedDataParallel's: forward, backward with the gradients' all-reduce in it, and SGD; at degree 1 the
plain model. Inference is independent replicas. Ranks start each round together behind a barrier, each times its own call,
and the slowest is the round's time: a batch is done when its last part is.

Each degree runs in fresh processes, since times differ between processes more than within one; it is repeated, and the degrees
take turns in random order, so that drift of the machine hits all of them alike (docs/timing.md). In a joined world the
processes are given, and degrees are groups of its first ranks.
"""

import gc
import math
import os
import random
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from time import perf_counter_ns
from typing import Any

import torch

from ..models.case import Case, build
from ..models.errors import BadInput, CannotMeasure
from ..models.lookup import resolve
from ..models.spec import TensorSpec, Workload
from ..models.versions import versions
from .counted_form import run_backward
from .devices.base import Device, find
from .joined import Joined, joined
from .machine import Disturbances, look, usable_cores
from .ranks import TIMEOUT_S, RankFailure, launch
from .runs.scale_run import ScalePoint, ScaleRun, Status, over, rate, speed_up
from .stats import estimate, median
from .subject import Subject, torch_subject
from .workers import World, backend

MIN_ROUNDS = 12
"""In each process. Nine samples are the fewest that have an interval at the level that a ratio of two needs."""
_MAX_ROUNDS = 2000
_WARM_CALLS, _WARM_NS, _WARM_MAX_NS = 3, 0.3e9, 4e9
_BLOCK_NS = 5e6
"""Shorter calls are timed in blocks of so long: who wakes from a barrier finds its caches cold, which is no cost of scaling."""
_TIMER = "mixbench.profilers.scaling:time_rank"


@dataclass(frozen=True, slots=True)
class Job:
    """What is measured; travels to the ranks.

    Attributes:
        batch: global for strong scaling, per rank for weak; None takes the model's own, times what splits it for strong.
        seconds: of rounds in each process, about; at least `MIN_ROUNDS` rounds are made.
        rounds: so many instead.
    """

    model: str
    settings: Mapping[str, Any]
    inputs: tuple[TensorSpec, ...] = ()
    batch: int | None = None
    dtype: str = "float32"
    train: bool = False
    weak: bool = False
    compiled: bool = False
    channels_last: bool = False
    seconds: float = 2.0
    rounds: int | None = None
    repeats: int = 3
    timeout_s: float = TIMEOUT_S

    def build(self, device: str, batch: int | None) -> Case:
        """The model and one rank's inputs."""
        workload = Workload(self.inputs, batch, self.dtype, "train" if self.train else "eval")
        return build(resolve(self.model, self.settings), workload, device)


@dataclass(frozen=True, slots=True)
class RankTimes:
    """What one rank measured, in ns: its own calls, in the order of the rounds."""

    samples_ns: tuple[float, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """Where ranks run: the degrees, and what each has to itself. ``cores``: of this machine, for ``here`` ranks at most."""

    asked: int
    degrees: tuple[int, ...]
    device: str
    cores_per_rank: int
    cores: int
    here: int
    notes: tuple[str, ...] = ()

    def oversubscribed(self, degree: int) -> bool:
        """Whether so many ranks have to share cores."""
        return min(degree, self.here) * self.cores_per_rank > self.cores


def degrees_to(most: int) -> tuple[int, ...]:
    """1, 2, 4, ... and the last one itself."""
    return tuple(sorted({*(2**power for power in range(most.bit_length())), most}))


def plan(asked: int, device: str, threads: int | None, oversubscribe: bool, place: Joined | None) -> Plan:
    """Where ``asked`` ranks can run.

    ``auto`` takes the accelerator; without one it takes CPU processes, as many as have cores of their own, and says so.

    Args:
        threads: of each rank, on as many cores; None is 1 on the CPU, and a fair share of the cores beside an accelerator.

    Raises:
        BadInput: when a joined world has another size.
        CannotMeasure: when the machine has too few devices or cores.
    """
    if place and place.degree != asked:
        raise BadInput(
            f"--gpus {asked} in a world of {place.degree} ranks",
            f"leave --gpus out, or let {place.by} start {asked} processes",
        )
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    chosen = find(device).kind if device != "auto" else accelerator.type if accelerator else "cpu"
    # Who started the ranks may have dealt the cores out already: then a rank sees its own only.
    cores = (os.cpu_count() or 1) if place else len(usable_cores())
    here = place.local_degree if place else asked
    if chosen != "cpu":
        count = torch.accelerator.device_count()
        if here > count:
            hint = f"--gpus {count}, or --device cpu for CPU processes; several machines by torchrun"
            raise CannotMeasure(f"this machine has {count} x {chosen}, {here} are asked", hint)
        return Plan(asked, degrees_to(asked), chosen, threads or max(1, cores // here), cores, here)
    width = threads or 1
    fit = max(1, cores // width)
    notes = []
    most = asked
    if device == "auto":
        most = asked if oversubscribe or place else min(asked, fit)
        few = "" if most == asked else f", and {most} at most, as there are {cores} cores (--oversubscribe runs the rest too)"
        units = "GPU" if asked == 1 else f"{asked} GPUs"
        notes.append(f"this machine has no {units} that torch can use: these are CPU processes{few}")
    if min(most, here) * width > cores and not oversubscribe:
        need = f"{min(most, here)} processes of {width} thread{'s' if width > 1 else ''} need {min(most, here) * width} cores"
        hint = f"--gpus {fit}, or --oversubscribe, which measures the scheduler and says so"
        raise CannotMeasure(f"{need}, and there are {cores}", hint)
    return Plan(asked, degrees_to(most), chosen, width, cores, here, tuple(notes))


def split(job: Job, degrees: Sequence[int], own_batch: int) -> dict[int, int]:
    """The batch of each rank at each degree.

    Raises:
        BadInput: when a global batch that the user gave does not split evenly.
    """
    if job.weak:
        return dict.fromkeys(degrees, job.batch or own_batch)
    even = math.lcm(*degrees)
    whole = job.batch or own_batch * even
    for degree in degrees:
        if whole % degree:
            below, above = whole - whole % even, whole - whole % even + even
            near = f"--batch {below} or {above}" if below else f"--batch {above}"
            raise BadInput(f"a global batch of {whole} does not split over {degree} ranks", f"{near}, or --weak")
    return {degree: whole // degree for degree in degrees}


Progress = Callable[[str, float], None]


def sweep(
    job: Job,
    place: Plan,
    progress: Progress = lambda text, share: None,
    timer: str = _TIMER,
    env: Mapping[str, str] | None = None,
    last_words: Callable[[ScaleRun], None] = lambda run: None,
) -> tuple[ScaleRun, BaseException | None]:
    """Measure every degree. One that fails is not tried again, nor are those above it; returned with the first failure.

    Ctrl-C and SIGTERM end the sweep; what was measured until then is returned, marked partial, and with it the exception.

    Args:
        timer: ``module:function`` that returns a rank's `RankTimes`, called as ``timer(world, (job, batch))``.
        last_words: is given what was measured, when a failure in a joined world ends this process.

    Raises:
        MixbenchError: when the model can't be built, or the batch does not split.
    """
    case = job.build("meta", None)
    batches = split(job, place.degrees, _batch_of(case))
    times: dict[int, list[list[RankTimes]]] = {degree: [] for degree in place.degrees}
    failures: dict[int, RankFailure] = {}
    turns = _turns(place.degrees, job.repeats)
    watch = Disturbances()

    def so_far(cause: str = "") -> ScaleRun:
        causes = {degree: caught.what for degree, caught in failures.items()}
        for degree, found in times.items():
            if 0 < len(found) < job.repeats:
                causes.setdefault(degree, f"not repeated, as degree {min(failures)} failed" if failures else cause)
        points = tuple(
            _point(degree, batches, times, place, causes.get(degree, ""))
            for degree in place.degrees
            if times[degree] or degree in causes
        )
        first = job.build("meta", batches[place.degrees[0]])
        # Other ranks of a joined world would look like strangers that keep the cores busy.
        run = _record(job, place, points, first, times, [] if joined() else watch.warnings())
        return replace(run, partial=bool(cause), cause=cause)

    for done, degree in enumerate(turns):
        if degree >= min(failures, default=math.inf):
            continue
        progress(f"degree {degree}", done / len(turns))
        try:
            payload = (job, batches[degree])
            words = (timer, degree, payload, job.timeout_s, place.cores_per_rank, env, place.device)
            times[degree].append(launch(*words, lambda cause: last_words(so_far(cause))))
        except RankFailure as caught:
            failures[degree] = caught
        except (KeyboardInterrupt, SystemExit) as signalled:
            return so_far(ended_by(signalled)), signalled
    failure = next(iter(failures.values()), None)
    return so_far(failure.what if failure else ""), failure


def ended_by(signalled: BaseException) -> str:
    """What ended a sweep from outside, in words."""
    if isinstance(signalled, SystemExit) and isinstance(signalled.code, int) and signalled.code > 128:
        return f"ended by {signal.Signals(signalled.code - 128).name}"
    return "interrupted"


def _turns(degrees: Sequence[int], repeats: int) -> list[int]:
    """Every degree once in each repeat, in random order; the same order in every process of a joined world."""
    draw = random.Random(0)
    return [degree for _ in range(repeats) for degree in draw.sample(degrees, len(degrees))]


def _batch_of(case: Case) -> int:
    inputs = case.workload.inputs
    return inputs[0].shape[0] if inputs and inputs[0].shape else 1


def _slowest(repeats: Sequence[Sequence[RankTimes]]) -> list[float]:
    """The slowest rank of every round: round i of all ranks began behind one barrier."""
    return [max(round_) for ranks in repeats for round_ in zip(*(rank.samples_ns for rank in ranks), strict=True)]


def _point(
    degree: int, batches: Mapping[int, int], times: Mapping[int, list[list[RankTimes]]], place: Plan, cause: str
) -> ScalePoint:
    slowest, base = _slowest(times[degree]), _slowest(times.get(1, []))
    batch = degree * batches[degree]
    step = estimate(slowest) if slowest else None
    crowded = place.oversubscribed(degree)
    faster = speed_up(base, batches[1], slowest, batch) if base and slowest and not crowded else None
    if degree == 1 and faster:
        faster = replace(faster, low=1.0, high=1.0)  # itself: nothing to be unsure of
    status: Status = "measured" if not cause else "partial" if slowest else "failed"
    ranks = zip(*times[degree], strict=True)
    return ScalePoint(
        degree=degree,
        batch_per_rank=batches[degree],
        global_batch=batch,
        status=status,
        cause=cause,
        repeats=len(times[degree]),
        step_ns=step,
        samples_per_s=rate(step, batch) if step else None,
        speed_up=faster,
        efficiency=over(faster, degree) if faster else None,
        oversubscribed=crowded,
        rank_ns=tuple(median([ns for times in rank for ns in times.samples_ns]) for rank in ranks),
        slowest_ns=tuple(slowest),
    )


def _record(
    job: Job,
    place: Plan,
    points: tuple[ScalePoint, ...],
    case: Case,
    times: Mapping[int, list[list[RankTimes]]],
    warnings: Sequence[str],
) -> ScaleRun:
    told = [note for repeats in times.values() for ranks in repeats for rank in ranks for note in rank.notes]
    words = (("compiled", job.compiled), ("channels last", job.channels_last))
    device, world = find(place.device), joined()
    torch.set_num_threads(place.cores_per_rank)  # as the ranks had: the fingerprint holds it
    found = look(device.describe(), device.clock, versions("mixbench", "torch"))
    return ScaleRun(
        model=case.spec.name,
        inputs=tuple(map(str, case.workload.inputs)),
        dtype=job.dtype,
        mode=case.workload.mode,
        how=", ".join(word for word, on in words if on),
        scaling="weak" if job.weak else "strong",
        parallel="DistributedDataParallel steps" if job.train else "independent replicas",
        asked=place.asked,
        points=points,
        device=place.device,
        backend=backend(place.device),
        threads_per_rank=place.cores_per_rank,
        cores_per_rank=place.cores_per_rank,
        started_by=world.by if world else "mixbench",
        machine=found,
        notes=(*place.notes, *case.notes, *dict.fromkeys(told)),
        warnings=tuple(warnings),
    )


def time_rank(world: World, payload: tuple[Job, int]) -> RankTimes:
    """One rank's part of a degree: build, warm up, then rounds that all ranks begin together."""
    job, batch = payload
    device = find(world.device)
    if job.train and world.group is not None:
        # Its constructor imports this: as much as torch again.
        world.prepare("importing DistributedDataParallel")
        import_module("torch._dynamo")
    world.beat("building the model")
    subject, notes = _subject(world, job, batch)
    with torch.inference_mode(not subject.grad), torch.set_grad_enabled(subject.grad):
        return RankTimes(tuple(time_rounds(world, subject.call, device, job.seconds, job.rounds)), tuple(notes))


def time_rounds(
    world: World, call: Callable[[], Any], device: Device, seconds: float, rounds: int | None = None
) -> list[float]:
    """Nanoseconds of one call of this rank's, in rounds that all ranks begin together; as many rounds on every rank."""
    world.beat("first call")
    slowest, begin = [world.slowest(device.time_ns(call))], perf_counter_ns()
    while True:
        world.beat(f"warm-up call {len(slowest)}")
        slowest.append(world.slowest(device.time_ns(call)))
        # What one rank decides all have to do: the clock that counts is the slowest one's.
        passed = world.slowest(perf_counter_ns() - begin)
        if (len(slowest) > _WARM_CALLS and passed >= _WARM_NS) or passed >= _WARM_MAX_NS:
            break
    usual = median(slowest[1:])
    calls = max(1, math.ceil(_BLOCK_NS / usual))
    count = rounds or min(max(MIN_ROUNDS, round(seconds * 1e9 / (calls * usual))), _MAX_ROUNDS)
    found = []
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for number in range(count):
            world.beat(f"round {number + 1} of {count}")
            if device.flushes:
                device.flush()
                device.synchronise()
            world.barrier()
            found.append(device.time_ns(call) if calls == 1 else device.time_many_ns(call, calls) / calls)
    finally:
        if was_on:
            gc.enable()
    return found


def _subject(world: World, job: Job, batch: int) -> tuple[Subject, list[str]]:
    """The call of one rank; several ranks that train are wrapped in DistributedDataParallel."""
    case, notes = job.build(world.device, batch), []
    if job.train and world.group is not None:
        from torch.nn.parallel import DistributedDataParallel

        if job.channels_last:  # before the gradients' buckets are laid out
            case.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        unused = _has_unused(case)
        if unused:
            notes.append("some parameters get no gradient: DistributedDataParallel looks for them in every step")
        ids = None if world.device == "cpu" else [torch.accelerator.current_device_index()]
        module = DistributedDataParallel(case.module, device_ids=ids, process_group=world.group, find_unused_parameters=unused)
        case = replace(case, module=module)
    return torch_subject(case, compiled=job.compiled, channels_last=job.channels_last), notes


def _has_unused(case: Case) -> bool:
    """Whether a parameter gets no gradient, on which DistributedDataParallel stumbles unless it is told."""
    run_backward(case.module(*case.args, **case.kwargs))
    wanted = [parameter for parameter in case.module.parameters() if parameter.requires_grad]
    unused = any(parameter.grad is None for parameter in wanted)
    case.module.zero_grad(set_to_none=True)
    return unused
