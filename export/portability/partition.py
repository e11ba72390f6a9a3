"""How many parts of a graph a runtime takes, counted as ONNX Runtime's partitioner forms them.

A part is a set of nodes that can run without leaving the runtime: no path from one of its nodes to another passes a node
that is left out, so that the parts and the nodes between them can be put in an order. The parts are formed greedily, in
waves: a wave takes every node whose inputs are there, and a node that the runtime does not take waits for the next wave if
it reads from this one. Nodes of one part need not be connected.

Source: ONNX Runtime, ``onnxruntime/core/providers/partitioning_utils.cc``, the comment on its node groups.
"""

from collections import deque
from collections.abc import Sequence


def partitions(reads: Sequence[frozenset[int]], taken: Sequence[bool]) -> list[list[int]]:
    """The parts, as places of nodes.

    Args:
        reads: for each node the places of those that it reads.
        taken: whether the runtime takes it.
    """
    readers: list[list[int]] = [[] for _ in reads]
    for place, sources in enumerate(reads):
        for source in sources:
            readers[source].append(place)
    waiting = [len(sources) for sources in reads]
    ready = deque(place for place, count in enumerate(waiting) if not count)
    found: list[list[int]] = []
    while ready:
        part: list[int] = []
        border: set[int] = set()
        later: deque[int] = deque()
        while ready:
            place = ready.popleft()
            if taken[place]:
                part.append(place)
                border.update(readers[place])
            elif place in border:
                later.append(place)
                continue
            for reader in readers[place]:
                waiting[reader] -= 1
                if not waiting[reader]:
                    ready.append(reader)
        if part:
            found.append(part)
        ready = later
    return found
