"""The record of one `mixbench check`: metrics, what each was held against, and the word on it. No torch here.

A metric's ``kind`` says how it is judged: ``counted`` ones are compared exactly, ``measured`` ones by their interval,
``modelled`` ones never fail a check.
"""

from dataclasses import dataclass, field
from typing import Literal

from ...models.versions import versions

SCHEMA = 1

Kind = Literal["counted", "measured", "modelled"]
Better = Literal["lower", "higher"]
Word = Literal["same", "better", "worse", "cannot tell"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure of one target.

    Attributes:
        target: the target's name in the configuration, or the model's name.
        name: such as ``macs``, ``onnx_bytes``, ``latency``.
        unit: such as ``MACs``, ``bytes``, ``ns``, ``ratio``; "" for a bare number.
        low, high: the interval of a measured figure.
        parts: what the figure is made of, for the exact ones that have parts: by full module name, or by module and operator
            with a blank between. A judgement keeps the parts that changed only, as culprits.
    """

    target: str
    name: str
    value: float
    unit: str
    kind: Kind
    better: Better = "lower"
    low: float | None = None
    high: float | None = None
    parts: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Culprit:
    """A part that changed; ``base`` or ``new`` is 0 where it was not there. The largest changes come first.

    Attributes:
        part: the module's full name; the model's own is empty.
        operator: the operator in it; empty for figures that belong to modules as such, like parameters.
    """

    part: str
    base: int
    new: int
    operator: str = ""


@dataclass(frozen=True, slots=True)
class Judgement:
    """The word on one metric.

    Attributes:
        base: what it was, None where nothing is known.
        limit: the budget or threshold in words, such as ``<= 200M``; "" for equality with the baseline.
        fails: whether this alone makes the check fail.
        reason: why, in a sentence.
        over_budget: whether it is outside its budget, whatever the baseline says.
    """

    metric: Metric
    base: float | None
    limit: str
    word: Word
    fails: bool
    reason: str
    culprits: tuple[Culprit, ...] = ()
    over_budget: bool = False


@dataclass(frozen=True, slots=True)
class CheckRun:
    """One call of the command.

    Attributes:
        against: what it was compared with: the baseline file, or a revision with its commit.
        failed: whether any judgement fails.
        undecided: whether any could not be made, and none failed.
    """

    judgements: tuple[Judgement, ...]
    against: str
    failed: bool
    undecided: bool
    notes: tuple[str, ...] = ()
    command: str = "check"
    schema: int = SCHEMA
    versions: dict[str, str] = field(default_factory=lambda: versions("mixbench", "torch"))
