"""What has to pass the border of a module, whatever is fused within it: compulsory bytes. No torch here.

A module reads what it needs and did not make, once; it writes what it made and somebody outside needs. For the whole model that
is each weight, input and output once: the least that a machine with an endless cache has to move (Williams, Waterman and
Patterson, "Roofline", CACM 2009, take the compulsory misses of a cache as the least too).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Chain = Callable[[Any], tuple[str, ...]]
"""From a module to its own name and those of all modules around it, the outermost first."""
Border = Mapping[str, tuple[int, int]]
"""By module, with everything below it: bytes read from outside, bytes written for outside."""


@dataclass(slots=True, eq=False)
class Passage:
    """A piece of memory, and who uses it.

    Attributes:
        maker: the module that made it, None if it was there before the run.
        writers: modules that wrote into it.
        reads: the most bytes that a module read of a part, by (module, where it begins, how many elements).
    """

    size: int
    maker: Any
    is_output: bool = False
    writers: set[Any] = field(default_factory=set)
    reads: dict[tuple[Any, int, int], int] = field(default_factory=dict)

    def read(self, module: Any, start: int, count: int, size: int) -> None:
        """A module reads so many bytes of a part."""
        part = (module, start, count)
        if self.reads.get(part, -1) < size:
            self.reads[part] = min(size, self.size)


def borders(passages: Iterable[Passage], chain: Chain) -> Border:
    """The compulsory bytes of every module."""
    found: dict[str, list[int]] = {}
    for passage in passages:
        inner = frozenset(chain(passage.maker)) if passage.maker is not None else frozenset()
        for name, size in _entries(passage, inner, chain):
            found.setdefault(name, [0, 0])[0] += size
        for name, size in _exits(passage, inner, chain):
            found.setdefault(name, [0, 0])[1] += size
    return {name: (read, written) for name, (read, written) in found.items()}


def _entries(passage: Passage, inner: frozenset[str], chain: Chain) -> Iterator[tuple[str, int]]:
    """The modules that it comes into from outside, and how much of it: a part that is read twice comes once."""
    if len(passage.reads) == 1:
        ((reader, _, _), size) = next(iter(passage.reads.items()))
        yield from ((name, size) for name in chain(reader) if name not in inner)
        return
    parts: dict[str, dict[tuple[int, int], int]] = {}
    for (reader, start, count), size in passage.reads.items():
        for name in chain(reader):
            if name not in inner:
                mine = parts.setdefault(name, {})
                mine[start, count] = max(size, mine.get((start, count), 0))
    yield from ((name, min(passage.size, sum(mine.values()))) for name, mine in parts.items())


def _exits(passage: Passage, inner: frozenset[str], chain: Chain) -> Iterator[tuple[str, int]]:
    """The modules that write it for somebody outside."""
    readers = [frozenset(chain(reader)) for reader in {reader for reader, _, _ in passage.reads}]
    for name in {name for writer in passage.writers for name in chain(writer)}:
        changed = name not in inner  # it was there before the module ran, so others see the change
        if changed or passage.is_output or any(name not in reader for reader in readers):
            yield name, passage.size
