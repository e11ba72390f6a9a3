"""What `mixbench scale tokenring` sweeps, and what each point of it costs by its plan: FLOPs and bytes."""

from collections import Counter
from dataclasses import dataclass

from ..models.errors import BadInput
from ..models.strategies import describe, make_plan, names
from ..models.strategies.layout import even_lengths
from ..models.strategies.plan import Plan, Sizes
from .parallel import Method
from .ranks import TIMEOUT_S
from .runs.parallel_run import Workload

_ITEMSIZES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
_FLOPS, _BACKWARD_FLOPS = 4, 10


@dataclass(frozen=True, slots=True)
class Sweep:
    """What is swept.

    Attributes:
        seq_lens: tokens of the whole sequence; with ``weak`` of each rank.
        slow: measure points too whose steps will take over `PATIENCE_S`.
        repeats: how often each setting is measured, in fresh processes.
    """

    methods: tuple[Method, ...]
    seq_lens: tuple[int, ...]
    workload: Workload
    weak: bool = False
    seconds: float = 4.0
    rounds: int | None = None
    timeout_s: float = TIMEOUT_S
    slow: bool = False
    repeats: int = 1

    def length(self, seq_len: int, degree: int) -> int:
        """Tokens of the whole sequence at a degree."""
        return seq_len * degree if self.weak else seq_len

    def plan(self, method: Method, seq_len: int, degree: int) -> Plan:
        """A method's plan at a degree."""
        work = self.workload
        lengths = even_lengths(self.length(seq_len, degree), degree)
        options = dict(method.options)
        return make_plan(method.name, lengths, work.heads, work.kv_heads, work.causal, method.layout, **options)

    def sizes(self) -> Sizes:
        """What plans need to know of the tensors."""
        work = self.workload
        return Sizes(work.batch, work.heads, work.kv_heads, work.head_dim, _ITEMSIZES[work.dtype])


def parse_methods(words: str, causal: bool) -> tuple[Method, ...]:
    """``tokenring,ring:zigzag`` or ``all`` as methods; under a causal mask the default layout is the balanced one.

    Raises:
        BadInput: for a method or layout that doesn't exist.
    """
    asked = names() if words == "all" else words.split(",")
    found = []
    for word in asked:
        name, _, layout = word.strip().replace("-", "_").partition(":")
        strategy = describe(name)
        if layout and layout not in strategy.layouts:
            raise BadInput(f"{name} can't work on the layout {layout!r}", f"it takes {', '.join(strategy.layouts)}")
        balanced = "zigzag" if causal and "zigzag" in strategy.layouts else "contiguous"
        found.append(Method(name, layout or balanced))
    return tuple(dict.fromkeys(found))


def flops(job: Sweep, plan: Plan) -> int:
    """Of both products of attention, and of the five of its gradient, over all ranks; a causal mask's half is left out."""
    factor = job.workload.batch * job.workload.head_dim
    backward = _BACKWARD_FLOPS * sum(plan.pairs(backward=True)) if job.workload.backward else 0
    return factor * (_FLOPS * sum(plan.pairs()) + backward)


def planned_bytes(job: Sweep, plan: Plan) -> Counter[int]:
    """Bytes that each rank sends in a step."""
    passes = (False, True) if job.workload.backward else (False,)
    sent: Counter[int] = Counter()
    for backward in passes:
        sent.update(dict(enumerate(plan.account(job.sizes(), backward).egress)))
    return sent


def overlap(whole: float, compute: float, messages: float) -> float:
    """The share of the shorter of both that is hidden: 0 when they follow one another, 1 when it costs nothing."""
    shorter = min(compute, messages)
    return min(1.0, max(0.0, (compute + messages - whole) / shorter)) if shorter else 0.0
