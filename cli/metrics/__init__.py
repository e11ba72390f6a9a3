"""The metrics that `mixbench check` knows: each file in this folder lists some in ``METRICS``. Names cost no torch.

A new metric is one `Entry`, in a file here or a new one, and one function that takes it of a `Specimen`. This is the floor
where metrics of profilers and of exports meet.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from ...profilers.budget import Budget
from ...profilers.runs.check_run import Better, Kind

if TYPE_CHECKING:
    from ...export.graph import Graph
    from ...export.source import Source
    from ...models.case import Case
    from ...profilers.cost import Count
    from ..targets import Target


@dataclass(frozen=True, slots=True)
class Figure:
    """A value, in its metric's unit.

    Attributes:
        low, high: the interval of a measured one.
        parts: what an exact one is made of: by module, or by module and operator with a blank between.
    """

    value: float
    low: float | None = None
    high: float | None = None
    parts: Mapping[str, int] = field(default_factory=dict)


class Specimen:
    """A target that metrics are taken of. What several of them need is made once, when the first asks for it."""

    def __init__(self, target: "Target") -> None:
        self.target = target

    @cached_property
    def case(self) -> "Case":
        """The model on the meta device, with its inputs."""
        return self.build("meta")

    @cached_property
    def count(self) -> "Count":
        """What it costs."""
        from ...profilers.counter import count

        return count(self.case)

    @cached_property
    def exported(self) -> "tuple[Source, Graph]":
        """The model ready to leave, and its ONNX graph."""
        from ...export.capture import capture
        from ...export.graph import to_graph

        source = capture(self.build("cpu"))
        return source, to_graph(source)

    def build(self, device: str) -> "Case":
        """The model made anew on a device."""
        from ...models.case import build

        target = self.target
        return build(target.spec, target.workload, device, target.weights, target.reparameterised)


@dataclass(frozen=True, slots=True)
class Entry:
    """A metric.

    Attributes:
        summary: what it is, in a few words.
        take: works it out, given the target's budget for it; None where a comparison of two revisions takes it.
        always: taken of every target; others only of targets that name them.
        words: where its budget is a list of words, all that there are; the value then has to be 0.
    """

    name: str
    unit: str
    kind: Kind
    summary: str
    take: Callable[[Specimen, Budget | None], Figure] | None
    better: Better = "lower"
    always: bool = False
    words: Callable[[], Sequence[str]] | None = None


@cache
def entries() -> Mapping[str, Entry]:
    """Every metric by its name."""
    found: dict[str, Entry] = {}
    for path in sorted(Path(__file__).parent.glob("[!_]*.py")):
        for entry in import_module(f".{path.stem}", __package__).METRICS:
            assert entry.name not in found, f"{path.name} lists {entry.name} a second time"
            found[entry.name] = entry
    return found
