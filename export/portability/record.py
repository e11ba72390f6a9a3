"""The record of a portability report: what the table shows and what ``--json`` prints. No torch, no onnx here."""

from dataclasses import dataclass, field

from ...models.versions import versions

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Breaker:
    """Nodes of one operator that a runtime leaves to the CPU, for one reason.

    Attributes:
        operator: its full name, such as ``HardSigmoid`` or ``com.microsoft::FusedConv``.
        reason: why the runtime does not take it.
        nodes: their names, in the file's order.
        macs: what they compute.
        partitions_if_mended: parts that there would be if the runtime took these nodes.
        rewrite: the rewrite that writes them in another form, empty if there is none.
    """

    operator: str
    reason: str
    nodes: tuple[str, ...]
    macs: int
    partitions_if_mended: int
    rewrite: str


@dataclass(frozen=True, slots=True)
class RuntimeReport:
    """What becomes of a graph in one runtime.

    Attributes:
        partitions: parts of the graph that it takes, each in one piece; the graph leaves it and comes back between them.
        nodes: of the graph; those that depend on constants alone are computed on loading, and not among them.
        taken_nodes, taken_macs: what stays with it, of ``nodes`` and ``macs``.
        breakers: what it does not take, those that cut the graph most first.
        partitions_if_rewritten: parts that there would be with every rewrite made that ``breakers`` name, if it takes their
            results.
        unchecked: what the source says of operators in this graph, and nothing here checks.
        source: where it is written what the runtime takes, with its version.
        notes: what else there is to know, such as what to use instead.
    """

    runtime: str
    title: str
    partitions: int
    nodes: int
    taken_nodes: int
    macs: int
    taken_macs: int
    breakers: tuple[Breaker, ...]
    partitions_if_rewritten: int
    unchecked: tuple[str, ...]
    source: str
    notes: tuple[str, ...]

    @property
    def whole(self) -> bool:
        """Whether the runtime takes the graph in one piece."""
        return self.taken_nodes == self.nodes and self.partitions == 1


@dataclass(frozen=True, slots=True)
class PortabilityRun:
    """One call of the command on one file."""

    model: str
    inputs: tuple[str, ...]
    runtimes: tuple[RuntimeReport, ...]
    command: str = "export --report"
    schema: int = SCHEMA
    versions: dict[str, str] = field(default_factory=lambda: versions("mixbench", "onnx", "onnxruntime"))
