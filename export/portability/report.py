"""The report: each runtime asked about each node, the parts counted, and each obstacle taken away in turn."""

from collections.abc import Mapping

import onnx

from ..rewrites.base import mending
from .base import find, judge, names
from .graph import Node, nodes_of
from .partition import partitions
from .record import Breaker, RuntimeReport


def report(model: onnx.ModelProto, macs: Mapping[str, int]) -> tuple[RuntimeReport, ...]:
    """What becomes of a model in each runtime.

    Args:
        model: weights beside the file may be missing, values of constants are looked at only where they are sizes.
        macs: of each node, by its name or, where it has none of its own, its first result's (`onnx_names.node_names`).

    Raises:
        CannotMeasure: when a runtime's table is not to be found.
    """
    nodes = nodes_of(model)
    rewrites = mending()
    return tuple(_one(name, nodes, macs, rewrites) for name in names())


def _one(name: str, nodes: list[Node], macs: Mapping[str, int], rewrites: Mapping[str, str]) -> RuntimeReport:
    runtime = find(name)
    table = runtime.table()
    verdicts = judge(runtime, table, nodes)
    taken = [not reason for reason, _ in verdicts]
    reads = [node.reads for node in nodes]
    work = [macs.get(node.name, 0) for node in nodes]
    unchecked = {
        f"{node.full_name}: {sentence}": None
        for node, (_, remarks) in zip(nodes, verdicts, strict=True)
        for sentence in remarks
    }

    def parts(also: set[int]) -> int:
        return len(partitions(reads, [mine or place in also for place, mine in enumerate(taken)]))

    left: dict[tuple[str, str], list[int]] = {}
    for place, (node, (reason, _)) in enumerate(zip(nodes, verdicts, strict=True)):
        if reason:
            left.setdefault((node.full_name, reason), []).append(place)
    breakers = [
        Breaker(
            operator=operator,
            reason=reason,
            nodes=tuple(nodes[place].name for place in places),
            macs=sum(work[place] for place in places),
            partitions_if_mended=parts(set(places)),
            rewrite=rewrites.get(operator, ""),
        )
        for (operator, reason), places in left.items()
    ]
    mended = {place for (operator, _), places in left.items() if operator in rewrites for place in places}
    return RuntimeReport(
        runtime=name,
        title=runtime.title,
        partitions=parts(set()),
        nodes=len(nodes),
        taken_nodes=sum(taken),
        macs=sum(work),
        taken_macs=sum(size for size, mine in zip(work, taken, strict=True) if mine),
        breakers=tuple(sorted(breakers, key=lambda item: (item.partitions_if_mended, -len(item.nodes), item.operator))),
        partitions_if_rewritten=parts(mended),
        unchecked=tuple(unchecked),
        source=table.source,
        notes=runtime.notes,
    )
