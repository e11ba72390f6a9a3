"""`mixbench scale tokenring`: methods of sequence-parallel attention over degrees and lengths, measured here, modelled beyond.

Measured points come from processes of this machine (or of a joined world), modelled ones from `schedule_model` on a named
machine; they share no list, no column and no unit.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from ..models.errors import BadInput
from ..models.strategies.layout import even_lengths
from ..models.versions import versions
from .devices.base import find
from .joined import joined
from .links import Hardware
from .machine import Disturbances, look
from .parallel import ALONE, MODES, AttentionJob, Method, MethodTimes
from .parallel_job import Sweep, flops, overlap, planned_bytes
from .parallel_modelled import model_points
from .ranks import RankFailure, launch
from .runs.parallel_run import Bar, Duel, MeasuredPoint, ModelledPoint, ParallelRun, Status
from .runs.scale_run import over, speed_up
from .scaling import Plan as Place
from .scaling import degrees_to, ended_by
from .stats import estimate, ratio
from .workers import backend

_WORKER = "mixbench.profilers.parallel:time_methods"
PATIENCE_S = 3.0
"""A step that is sure to take longer is left to the model, unless the user has time."""
_CPU_FLOPS_PER_S = 60e9
"""Of one thread, about: only to guess whether a step takes seconds."""


Progress = Callable[[str, float], None]


def sweep(
    job: Sweep,
    place: Place,
    hardware: Hardware,
    progress: Progress = lambda text, share: None,
    last_words: Callable[[ParallelRun], None] = lambda run: None,
) -> tuple[ParallelRun, BaseException | None]:
    """Measure every degree and length that this place can run, and model every one up to the degree asked for.

    A rank that fails, Ctrl-C or SIGTERM ends the measuring; what was measured until then is returned, marked partial, and with
    it the exception. In a joined world such an end is the process's, and ``last_words`` is given the run before.

    Raises:
        BadInput: when no method can work at any degree above 1.
    """
    notes = _refusals(job, place)
    watch = Disturbances()
    # Before anything is measured, so that a run that ends early has it. Of a joined world rank 0 speaks alone.
    world = joined()
    modelled = model_points(job, degrees_to(place.asked), hardware) if not world or world.rank == 0 else []
    measured: list[MeasuredPoint] = []
    duels: list[Duel] = []

    def so_far(cause: str = "", last: Sequence[MeasuredPoint] = ()) -> ParallelRun:
        points = (*measured, *last)
        return replace(
            record(job, place, hardware, [] if world else watch.warnings()),
            measured=points,
            modelled=tuple(modelled),
            duels=tuple(duels),
            verdicts=(*_measured_verdicts(job, points), *_modelled_verdicts(job, modelled, hardware)),
            notes=(*place.notes, *notes),
            partial=bool(cause),
            cause=cause,
        )

    settings = [(seq_len, degree) for seq_len in job.seq_lens for degree in place.degrees]
    alone: dict[int, list[float]] = {}
    for done, (seq_len, degree) in enumerate(settings):
        length = job.length(seq_len, degree)
        able, points = _able(job, seq_len, degree, place)
        measured += points
        if not able:
            continue
        if not job.slow and (guess := _guess_s(job, able[0], seq_len, degree, place)) > PATIENCE_S:
            cause = f"a step would take some {guess:.0f} s: --slow measures it all the same"
            measured += _missing(able, length, degree, place, cause)
            continue

        setting = _Setting(job, place, able, seq_len, degree, alone.get(seq_len, ()))
        told = partial(_told, setting, so_far, last_words)
        ended: BaseException | None = None
        cause = ""
        for number in range(job.repeats):
            progress(f"degree {degree}, {length} tokens", (done + number / job.repeats) / len(settings))
            try:
                setting.repeat(told)
            except RankFailure as failure:
                ended, cause = failure, failure.what
            except (KeyboardInterrupt, SystemExit) as signalled:
                ended, cause = signalled, ended_by(signalled)
            if ended:
                break
        if setting.runs or isinstance(ended, RankFailure):
            measured += setting.points(cause)
            duels += setting.duels()
        if ended:
            return so_far(cause), ended
        if degree == 1:
            alone[seq_len] = setting.times(ALONE, "whole")
    return so_far(), None


@dataclass(eq=False)
class _Setting:
    """A degree and a length, and what the ranks have found there, repeat by repeat."""

    job: Sweep
    place: Place
    able: Sequence[Method]
    seq_len: int
    degree: int
    alone: Sequence[float]
    runs: list[list[dict[str, MethodTimes]]] = field(default_factory=list)

    def repeat(self, last_words: Callable[[str], None]) -> None:
        """Measure once more, in fresh processes."""
        work = _attention_job(self.job, self.able, self.seq_len, self.degree)
        words = (_WORKER, self.degree, work, self.job.timeout_s, self.place.cores_per_rank, None, self.place.device)
        self.runs.append(launch(*words, last_words))

    def times(self, label: str, mode: str) -> list[float]:
        """The slowest rank of every round of every repeat."""
        return [ns for ranks in self.runs for ns in _slowest(ranks, label, mode)]

    def points(self, cause: str = "") -> list[MeasuredPoint]:
        """A point for each method; with a cause what there is of it."""
        length = self.job.length(self.seq_len, self.degree)
        if not self.runs:
            return _missing(self.able, length, self.degree, self.place, cause, "failed")
        found = (_point(self, label) for label in self.runs[0][0])
        return [replace(point, status="partial", cause=cause) if cause else point for point in found]

    def duels(self) -> list[Duel]:
        """Each method beside ring attention, if that is among them, from the same rounds."""
        labels = list(self.runs[0][0]) if self.runs else []
        base = next((label for label in labels if label.partition(" ")[0] == "ring"), None)
        if base is None:
            return []
        theirs, length = self.times(base, "whole"), self.job.length(self.seq_len, self.degree)
        others = [label for label in labels if label != base]
        return [Duel(label, base, self.degree, length, ratio(theirs, self.times(label, "whole"))) for label in others]


def _told(
    setting: _Setting,
    so_far: Callable[[str, Sequence[MeasuredPoint]], ParallelRun],
    last_words: Callable[[ParallelRun], None],
    cause: str,
) -> None:
    """In a joined world, what there is of the setting that failed is told with the rest, before the process ends."""
    last_words(so_far(cause, setting.points(cause)))


def _refusals(job: Sweep, place: Place) -> list[str]:
    """A note for each method that can't work at some degrees.

    Raises:
        BadInput: when none can at any.
    """
    said, refusal = [], None
    works = place.asked == 1
    for method in job.methods:
        causes: dict[int, BadInput] = {}
        for degree in degrees_to(place.asked)[1:]:
            try:
                job.plan(method, job.seq_lens[0], degree)
                works = True
            except BadInput as error:
                causes[degree] = error
        if causes:
            refusal = next(iter(causes.values()))
            said.append(f"{method.label} is left out at {' and '.join(map(str, causes))} ranks: {refusal.what}")
    if refusal and not works:
        raise refusal
    return said


def record(job: Sweep, place: Place, hardware: Hardware, warnings: Sequence[str] = ()) -> ParallelRun:
    """A record with everything but its points."""
    device = find(place.device)
    return ParallelRun(
        model="tokenring",
        workload=job.workload,
        asked=place.asked,
        scaling="weak" if job.weak else "strong",
        measured=(),
        modelled=(),
        duels=(),
        verdicts=(),
        hardware=hardware,
        device=place.device,
        backend=backend(place.device),
        threads_per_rank=place.cores_per_rank,
        machine=look(device.describe(), device.clock, versions("mixbench", "torch")),
        notes=place.notes,
        warnings=tuple(warnings),
    )


def _attention_job(job: Sweep, methods: Sequence[Method], seq_len: int, degree: int) -> AttentionJob:
    work = job.workload
    return AttentionJob(
        methods=tuple(methods),
        lengths=even_lengths(job.length(seq_len, degree), degree),
        batch=work.batch,
        heads=work.heads,
        kv_heads=work.kv_heads,
        head_dim=work.head_dim,
        dtype=work.dtype,
        causal=work.causal,
        backward=work.backward,
        seconds=job.seconds,
        rounds=job.rounds,
    )


def _able(job: Sweep, seq_len: int, degree: int, place: Place) -> tuple[list[Method], list[MeasuredPoint]]:
    """The methods that can work on these sizes, and a point that says why for each that can't."""
    able, refused = [], []
    for method in job.methods:
        try:
            job.plan(method, seq_len, degree)
        except BadInput as error:
            refused += _missing([method], job.length(seq_len, degree), degree, place, error.what)
        else:
            able.append(method)
    return able, refused


def _missing(
    methods: Sequence[Method], seq_len: int, degree: int, place: Place, cause: str, status: Status = "skipped"
) -> list[MeasuredPoint]:
    return [MeasuredPoint(m.label, degree, seq_len, status, cause, place.oversubscribed(degree)) for m in methods]


def _guess_s(job: Sweep, method: Method, seq_len: int, degree: int, place: Place) -> float:
    """Seconds of a step, roughly; 0 on an accelerator, where nothing feasible takes long."""
    if place.device != "cpu":
        return 0.0
    cores = min(degree * place.cores_per_rank, place.cores)
    return flops(job, job.plan(method, seq_len, degree)) / (cores * _CPU_FLOPS_PER_S)


def _slowest(ranks: Sequence[dict[str, MethodTimes]], label: str, mode: str) -> list[float]:
    """The slowest rank of every round, which began behind one barrier."""
    return [max(times) for times in zip(*(rank[label].samples_ns[mode] for rank in ranks), strict=True)]


def _point(setting: _Setting, label: str) -> MeasuredPoint:
    job, place, degree = setting.job, setting.place, setting.degree
    method = next((method for method in job.methods if method.label == label), job.methods[0])
    plan = job.plan(method, setting.seq_len, degree)
    length = job.length(setting.seq_len, degree)
    times = {mode: setting.times(label, mode) for mode in MODES}
    step = estimate(times["whole"])
    compute = estimate(times["compute"]) if times["compute"] else None
    messages = estimate(times["messages"]) if times["messages"] else None
    crowded = place.oversubscribed(degree)
    faster = None
    alone = times["whole"] if label == ALONE else setting.alone
    if alone and not crowded:
        own = flops(job, job.plan(method, setting.seq_len, 1))
        faster = speed_up(alone, own, times["whole"], flops(job, plan))
    found = [rank[label] for ranks in setting.runs for rank in ranks]
    memory = [rank.working_bytes for rank in found if rank.working_bytes is not None]
    return MeasuredPoint(
        method=label,
        degree=degree,
        seq_len=length,
        status="measured",
        cause="",
        oversubscribed=crowded,
        step_ns=step,
        compute_ns=compute,
        messages_ns=messages,
        exposed_ns=max(0.0, step.value - compute.value) if compute else None,
        overlap=overlap(step.value, compute.value, messages.value) if compute and messages else None,
        tokens_per_s=job.workload.batch * length / step.value * 1e9,
        flops_per_s=flops(job, plan) / step.value * 1e9,
        speed_up=faster,
        efficiency=over(faster, degree) if faster else None,
        sent_bytes=max(sum(rank.sent.values()) for rank in found),
        planned_bytes=max(planned_bytes(job, plan).values()) if degree > 1 else 0,
        working_bytes=max(memory) if len(memory) == len(found) else None,
        max_error=max(rank.max_error for rank in found),
        slowest_ns=tuple(times["whole"]),
        bars_ns=tuple(
            Bar(number, _lane(op), f"{op} {kind}", begin, end)
            for number, rank in enumerate(setting.runs[0])
            for op, kind, begin, end in rank[label].timeline
        ),
    )


def _lane(op: str) -> str:
    return {"send": "send", "recv": "send", "merge": "wait"}.get(op, "compute")


def _measured_verdicts(job: Sweep, points: Sequence[MeasuredPoint]) -> list[str]:
    """Who was fastest at each measured setting beyond one process, and by what its bytes."""
    said = []
    settings = dict.fromkeys((point.seq_len, point.degree) for point in points if point.degree > 1)
    for seq_len, degree in settings:
        there = [p for p in points if (p.seq_len, p.degree) == (seq_len, degree) and p.step_ns is not None]
        if len(there) > 1:
            rows = [(p.method, p.step_ns.value / 1e9, p.sent_bytes or 0) for p in there if p.step_ns]
            first, second = sorted(there, key=lambda p: p.step_ns.value if p.step_ns else 0.0)[:2]
            apart = ratio(first.slowest_ns, second.slowest_ns)  # of the same rounds
            sure = apart.low is not None and apart.low > 1
            words = _verdict(job, rows) if sure else f"no winner, {first.method} and {second.method} are within the noise"
            crowd = " (oversubscribed)" if first.oversubscribed else ""
            said.append(f"measured, {degree} processes{crowd}, {seq_len} tokens: {words}")
    return said


def _modelled_verdicts(job: Sweep, points: Sequence[ModelledPoint], hardware: Hardware) -> list[str]:
    said = []
    for seq_len, degree in dict.fromkeys((point.seq_len, point.degree) for point in points if point.degree > 1):
        rows = [(p.method, p.step_s, p.sent_bytes) for p in points if (p.seq_len, p.degree) == (seq_len, degree)]
        if len(rows) > 1:
            said.append(f"modelled, {degree} x {hardware.name}, {seq_len} tokens: " + _verdict(job, rows))
    return said


def _verdict(job: Sweep, rows: Sequence[tuple[str, float, int]]) -> str:
    """A sentence from (method, seconds, bytes sent): the fastest, by how much, and the bytes behind it."""
    (first, best, sent), (second, next_best, its) = sorted(rows, key=lambda row: row[1])[:2]
    gain = next_best / best
    if gain < 1.02:
        return f"{first} and {second} tie within 2 %"
    heads = job.workload
    moved = ""
    if sent and its and max(sent, its) / min(sent, its) > 1.05:
        more = its / sent
        few = f"with {heads.kv_heads} of {heads.heads} heads for keys and values " if heads.kv_heads < heads.heads else ""
        moved = f": {few}it sends {more:.2g} x less" if more > 1 else f", though it sends {1 / more:.2g} x more"
    return f"{first} wins, {gain:.2f} x faster than {second}{moved}"
