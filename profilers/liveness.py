"""Which memory a run holds, and what moves across each module's border: every storage from its making to its end.

torch frees a storage when nothing refers to it any more, on the meta device as anywhere else. So one run there, with a weak
reference on each storage, shows the order in which memory is taken and given back, autograd's saved tensors among it.

Attention that torch runs as one kernel is counted as products and softmax (`counter`), but holds no scores: what is made within
it stays there, unless somebody outside reads it. FlashAttention (Dao et al., arXiv 2205.14135) does so on every device.
"""

import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from .borders import Border, Passage, borders
from .traffic import Touch, extent, storage_of

Key = tuple[str, str, str, bool]
"""Module, operator, the family of its rule, and whether it is in the backward pass."""
_OUTSIDE = None


@dataclass(slots=True, eq=False)
class _Block(Passage):
    """One storage; ``kernel`` is the fused one that it stays in, ``pending`` what its making would have written."""

    kernel: int = 0
    alive: bool = False
    pending: tuple[Key, int] | None = None
    watch: Any = None


class Ledger:
    """The storages of a run.

    Args:
        spill: is told of bytes that an operator turns out to have written, once its result leaves a fused kernel.
    """

    def __init__(self, spill: Callable[[Key, int], None]) -> None:
        self._spill = spill
        self._alive: dict[int, _Block] = {}
        self._all: list[_Block] = []
        self.live = self.peak = self.made = 0
        self.peak_module = self.peak_operator = ""

    def outside(self, tensors: Iterable[Tensor]) -> None:
        """Name what is there before the run."""
        for tensor in tensors:
            self._find(tensor)

    def operator(
        self, key: Key, kernel: int, results: Iterable[Tensor], read: Sequence[Touch], written: Sequence[Touch]
    ) -> tuple[int, int]:
        """Enter one call of an operator: ``key`` says of what and where, ``kernel`` the fused one it is a part of, or 0.

        Returns:
            The bytes that it reads and writes; what stays within a fused kernel is in neither.
        """
        module = key[0]
        for tensor in results:
            storage = storage_of(tensor)
            if storage is not None and storage._cdata not in self._alive:
                self._make(storage, key, kernel)
        in_bytes = out_bytes = 0
        for tensor, size in read:
            block = self._find(tensor)
            if block is None:
                in_bytes += size
                continue
            if block.kernel:
                if block.kernel == kernel:
                    continue
                self._surface(block)
            in_bytes += size
            block.read(module, int(tensor.storage_offset()), tensor.numel(), size)
        for tensor, size in written:
            block = self._find(tensor)
            if block is not None:
                block.writers.add(module)
                if block.kernel and block.kernel == kernel:
                    block.pending = (key, size)
                    continue
            out_bytes += size
        return in_bytes, out_bytes

    def leave(self, results: Iterable[Tensor]) -> None:
        """These results come out of a fused kernel, or of the run."""
        for tensor in results:
            block = self._find(tensor)
            if block is not None and block.kernel:
                self._surface(block)

    def finish(self, outputs: Iterable[Tensor]) -> int:
        """The run is over, and this is left of it. Returns its bytes, without what was there before."""
        outputs = list(outputs)
        self.leave(outputs)
        blocks = {id(block): block for block in map(self._find, outputs) if block is not None}
        for block in blocks.values():
            block.is_output = True
        return sum(block.size for block in blocks.values() if block.maker is not _OUTSIDE)

    def borders(self) -> Border:
        """What has to pass each module's border; what stays within a fused kernel passes none."""
        return borders((block for block in self._all if not block.kernel), _chain)

    def _find(self, tensor: Tensor) -> _Block | None:
        """A tensor's block; one that nobody made was there before."""
        storage = storage_of(tensor)
        if storage is None:
            return None
        block = self._alive.get(storage._cdata)
        return block if block is not None else self._keep(storage, _Block(storage.nbytes(), _OUTSIDE))

    def _make(self, storage: torch.UntypedStorage, key: Key, kernel: int) -> None:
        block = self._keep(storage, _Block(storage.nbytes(), key[0], kernel=kernel))
        if not kernel:
            self._count(block, key)

    def _keep(self, storage: torch.UntypedStorage, block: _Block) -> _Block:
        address = storage._cdata
        block.watch = weakref.ref(storage, lambda _: self._end(address))
        self._alive[address] = block
        self._all.append(block)
        return block

    def _end(self, address: int) -> None:
        block = self._alive.pop(address, None)
        if block is not None and block.alive:
            self.live -= block.size

    def _count(self, block: _Block, key: Key) -> None:
        block.alive = True
        self.made += block.size
        self.live += block.size
        if self.live > self.peak:
            self.peak, self.peak_module, self.peak_operator = self.live, key[0], key[1]

    def _surface(self, block: _Block) -> None:
        """Somebody outside needs what a fused kernel made: so it was written to memory, and is held there."""
        block.kernel = 0
        if block.pending is not None:
            key, size = block.pending
            self._spill(key, size)
            self._count(block, key)


@cache
def _chain(name: str) -> tuple[str, ...]:
    """A module's name and those around it: torch joins them by dots, and allows none within one."""
    parts = name.split(".") if name else []
    return ("", *(".".join(parts[: end + 1]) for end in range(len(parts))))


def held_bytes(tensors: Iterable[Tensor]) -> Iterator[tuple[Tensor, int]]:
    """Tensors with their bytes, those that share a storage once."""
    seen: set[int] = set()
    for tensor in tensors:
        storage = storage_of(tensor)
        place = id(tensor) if storage is None else storage._cdata
        if place not in seen:
            seen.add(place)
            yield tensor, extent(tensor)
