"""The record of `mixbench scale tokenring`: measured points and modelled points, in lists of their own. No torch here.

Times are nanoseconds where they were measured and seconds where they come from the model, so that neither can stand in the
other's column. The schema beside this file (``parallel-1.schema.json``) is generated from these types.
"""

from dataclasses import dataclass, field
from typing import Literal

from ...models.versions import versions
from ..links import Hardware
from ..machine import Machine
from ..stats import Estimate

SCHEMA = 1

Status = Literal["measured", "partial", "skipped", "failed"]


@dataclass(frozen=True, slots=True)
class Workload:
    """The attention that is spread: B batch, H query heads, G key and value heads, D head size."""

    batch: int
    heads: int
    kv_heads: int
    head_dim: int
    dtype: str
    causal: bool
    backward: bool


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar of a time line, from the start of the step. ``lane`` is "compute", "send" or "wait"; ``peer`` the other end."""

    rank: int
    lane: str
    label: str
    start: float
    end: float
    peer: int | None = None


@dataclass(frozen=True, slots=True)
class MeasuredPoint:
    """A method at one degree and length, on this machine.

    Attributes:
        status: "measured"; or with the ``cause`` "skipped", when nobody tried (a method that can't divide the heads, a step
            that would take long), or "failed".
        step_ns: median over rounds of the slowest rank's time.
        compute_ns, messages_ns: the same schedule without its messages, and with nothing but them.
        exposed_ns: of the whole beyond computing, never below 0.
        overlap: share of the messages' time hidden behind computing.
        sent_bytes: of the rank that sends most, counted from the real messages; ``planned_bytes`` by the plan.
        tokens_per_s, flops_per_s: of all ranks together; FLOPs are those of attention, a causal mask's half left out.
        speed_up: FLOP/s over those of one process of as many threads on ``seq_len`` tokens, with weak scaling on its share.
            (In tokens/s weak scaling could never be efficient: the work of each token grows with the sequence.)
        efficiency: ``speed_up`` over the degree. None for oversubscribed points.
        working_bytes: peak memory of a step beyond its inputs, of the rank that takes most.
        max_error: from attention in float64, over a sample of rows.
        bars_ns: the time line of one step, ranks by their own clocks from a common barrier.
    """

    method: str
    degree: int
    seq_len: int
    status: Status
    cause: str
    oversubscribed: bool
    step_ns: Estimate | None = None
    compute_ns: Estimate | None = None
    messages_ns: Estimate | None = None
    exposed_ns: float | None = None
    overlap: float | None = None
    tokens_per_s: float | None = None
    flops_per_s: float | None = None
    speed_up: Estimate | None = None
    efficiency: Estimate | None = None
    sent_bytes: int | None = None
    planned_bytes: int | None = None
    working_bytes: int | None = None
    max_error: float | None = None
    slowest_ns: tuple[float, ...] = ()
    bars_ns: tuple[Bar, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelledPoint:
    """A method at one degree and length, by the model of `schedule_model` on ``hardware``. Never measured.

    Attributes:
        efficiency: FLOP/s over the degree times those of one device, by the same model.
    """

    method: str
    degree: int
    seq_len: int
    step_s: float
    compute_s: float
    messages_s: float
    exposed_s: float
    overlap: float
    tokens_per_s: float
    flops_per_s: float
    efficiency: float
    sent_bytes: int
    binds: Literal["compute", "messages"]
    bars_s: tuple[Bar, ...] = ()


@dataclass(frozen=True, slots=True)
class Duel:
    """A method beside ring attention in the same rounds: its time over ring's."""

    method: str
    base: str
    degree: int
    seq_len: int
    ratio: Estimate


@dataclass(frozen=True, slots=True)
class Crossover:
    """The shortest sequence, within a sixteenth, whose messages the model hides behind computing; None beyond 2^24 tokens."""

    method: str
    degree: int
    seq_len: int | None


@dataclass(frozen=True, slots=True)
class ParallelRun:
    """One call of the command.

    Attributes:
        asked: the degree that was asked for.
        scaling: "strong": one sequence, cut ever finer; "weak": the sequence grows with the degree.
        verdicts: a sentence for each measured and each modelled setting, saying which.
        partial: whether the sweep ended before its end, and ``cause`` what ended it; its points until then are kept.
    """

    model: str
    workload: Workload
    asked: int
    scaling: Literal["strong", "weak"]
    measured: tuple[MeasuredPoint, ...]
    modelled: tuple[ModelledPoint, ...]
    duels: tuple[Duel, ...]
    verdicts: tuple[str, ...]
    hardware: Hardware
    device: str
    backend: str
    threads_per_rank: int
    machine: Machine
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    crossovers: tuple[Crossover, ...] = ()
    partial: bool = False
    cause: str = ""
    command: str = "scale"
    schema: int = SCHEMA
    versions: dict[str, str] = field(default_factory=lambda: versions("mixbench", "torch"))
