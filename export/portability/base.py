"""A `Runtime`: whose table says what it takes, and what else it asks of a graph. One file each in ``runtimes/``."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from .caveats import unmet
from .graph import Node
from .table import Table

Support = Callable[[Node], tuple[str, list[str]]]
"""Why a runtime does not take a node, empty if it does; and what its table says of it that nothing checks."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """What a runtime's file assigns to ``RUNTIME``.

    Attributes:
        title: its name in words.
        table: reads its list of operators, or only names the source where ``support`` asks the runtime itself.
        support: judges a node; None where the table's operators and remarks do.
        static_shapes: whether it leaves nodes with open dimensions to the CPU.
        most_dimensions: of any tensor.
        fused_after: an operator that it has no kernel for and takes all the same right behind one of these.
        notes: what else there is to know.
    """

    title: str
    table: Callable[[], Table]
    support: Support | None = None
    static_shapes: bool = False
    most_dimensions: int | None = None
    fused_after: tuple[tuple[str, tuple[str, ...]], ...] = ()
    notes: tuple[str, ...] = ()


def names() -> list[str]:
    """All runtimes; what runs anywhere comes first."""
    found = {path.stem for path in (Path(__file__).parent / "runtimes").glob("[!_]*.py")}
    return sorted(found, key=lambda name: (name != "ort_cpu", name))


def find(name: str) -> Runtime:
    """The runtime of that name."""
    runtime: Runtime = import_module(f".runtimes.{name}", __package__).RUNTIME
    return runtime


def judge(runtime: Runtime, table: Table, nodes: list[Node]) -> list[tuple[str, list[str]]]:
    """For each node why the runtime does not take it, empty if it does, and the remarks that nothing checks."""
    found: list[tuple[str, list[str]]] = []
    for node in nodes:
        reason, unchecked = (runtime.support or _by_table(runtime, table))(node)
        behind = dict(runtime.fused_after).get(node.full_name, ())
        if reason and behind:
            before = [nodes[place] for place in node.reads if nodes[place].full_name in behind and not found[place][0]]
            reason = "" if before else f"taken right behind {', '.join(behind)} only"
        found.append((reason, unchecked))
    return found


def _by_table(runtime: Runtime, table: Table) -> Support:
    def support(node: Node) -> tuple[str, list[str]]:
        remark = table.remarks.get(node.full_name.lower())
        if remark is None:
            return "not among its operators", []
        tensors = [item for item in (*node.inputs, *node.outputs) if item is not None]
        if runtime.static_shapes and not all(item.static for item in tensors):
            return "open dimensions: it takes fixed shapes only", []
        if runtime.most_dimensions and any(item.rank > runtime.most_dimensions for item in tensors):
            return f"more than {runtime.most_dimensions} dimensions", []
        return unmet(node, remark)

    return support
