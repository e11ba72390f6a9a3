"""The modelled half of `mixbench scale tokenring`: every method, degree and length on the named hardware. Never measured."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from ..models.errors import BadInput
from ..models.strategies.plan import Plan
from .links import Hardware
from .parallel import ALONE, Method
from .parallel_job import Sweep, flops, overlap, planned_bytes
from .runs.parallel_run import Bar, Crossover, ModelledPoint
from .scaling import degrees_to
from .schedule_model import Modelled, model

_LONGEST = 2**24
Progress = Callable[[str, float], None]


def model_points(job: Sweep, degrees: Sequence[int], hardware: Hardware) -> list[ModelledPoint]:
    """Every method at every degree and length on the named machine; those that can't divide the heads are left out.

    One device alone, where all methods are the same, is one point, and what the efficiency of the others is against.
    """
    found = []
    for seq_len in job.seq_lens:
        alone = _modelled(job, ALONE, job.plan(job.methods[0], seq_len, 1), seq_len, 1, hardware)
        found += [alone] * (1 in degrees)
        for degree in degrees:
            for method in job.methods if degree > 1 else ():
                try:
                    plan = job.plan(method, seq_len, degree)
                except BadInput:
                    continue
                last = degree == degrees[-1]
                found.append(_modelled(job, method.label, plan, seq_len, degree, hardware, alone.flops_per_s, keep=last))
    return found


def _modelled(
    job: Sweep,
    label: str,
    plan: Plan,
    seq_len: int,
    degree: int,
    hardware: Hardware,
    alone: float | None = None,
    keep: bool = False,
) -> ModelledPoint:
    passes = [model(plan, job.sizes(), hardware)]
    if job.workload.backward:
        passes.append(model(plan, job.sizes(), hardware, backward=True))
    step, compute, messages = (sum(getattr(part, name) for part in passes) for name in ("seconds", "compute_s", "messages_s"))
    length = job.length(seq_len, degree)
    work = flops(job, plan)
    return ModelledPoint(
        method=label,
        degree=degree,
        seq_len=length,
        step_s=step,
        compute_s=compute,
        messages_s=messages,
        exposed_s=max(0.0, step - compute),
        overlap=overlap(step, compute, messages),
        tokens_per_s=job.workload.batch * length / step,
        flops_per_s=work / step,
        efficiency=work / step / (degree * alone) if alone else 1.0,
        sent_bytes=max(planned_bytes(job, plan).values()) if degree > 1 else 0,
        binds="compute" if compute >= messages else "messages",
        bars_s=_bars(passes) if keep else (),
    )


def _bars(passes: Sequence[Modelled]) -> tuple[Bar, ...]:
    """The spans of one pass after the other. A message is the sender's bar."""
    lanes = {"compute": "compute", "transfer": "send", "wait": "wait"}
    found, begin = [], 0.0
    for part in passes:
        spans = part.whole.spans
        found += [Bar(s.rank, lanes[s.kind], s.label, begin + s.start, begin + s.end, s.peer) for s in spans]
        begin += part.seconds
    return tuple(found)


def crossovers(job: Sweep, asked: int, hardware: Hardware, progress: Progress = lambda text, share: None) -> list[Crossover]:
    """For each method and degree the length from which on messages hide behind computing, by the model."""
    pairs = [(method, degree) for method in job.methods for degree in degrees_to(asked) if degree > 1]
    found = []
    for done, (method, degree) in enumerate(pairs):
        progress(f"{method.label}, {degree} ranks", done / len(pairs))
        try:
            found.append(Crossover(method.label, degree, _crossover(job, method, degree, hardware)))
        except BadInput:  # heads that don't divide
            continue
    return found


def _crossover(job: Sweep, method: Method, degree: int, hardware: Hardware) -> int | None:
    def hidden(length: int) -> bool:
        plan = replace(job, weak=False).plan(method, length, degree)
        found = model(plan, job.sizes(), hardware)
        return found.compute_s >= found.messages_s

    low = high = 16 * degree
    while not hidden(high):
        low, high = high, 2 * high
        if high > _LONGEST:
            return None
    while high - low > max(degree, low // 16):
        middle = (low + high) // 2
        low, high = (low, middle) if hidden(middle) else (middle, high)
    return high
