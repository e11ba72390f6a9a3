"""Where a program's messages lie in memory: one block of bytes for each, laid out once and used again at every run.

A message is its fields one after the other, the wide ones first so that every field is aligned; there is no header. Two pieces
share a slot when the last step of the first lies before the first step of the second, so memory is bounded by what is under
way at once, not by the number of steps. Results on their way home stay `FLIGHT` steps longer: on a slow link a slot
that is wanted again at the next step would make the rank wait for its own message.
"""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from .block import wide
from .plan import KINDS, Attend, Gather, Grad, Keep, Merge, Op, Piece, Program, Recv, Send, Sizes

FLIGHT = 3
"""Steps that a result may be under way before its rank has to wait for the slot."""


def pieces_of(op: Op) -> Iterator[Piece]:
    """The pieces that an operation speaks of."""
    match op:
        case Recv() | Send() | Merge() | Keep():
            yield op.piece
        case Attend() | Grad():
            yield op.q
            yield op.kv
        case Gather():
            yield op.into
            yield from op.parts


def early(program: Program) -> Program:
    """The same program with its receives posted some steps sooner, before the sends of their step in any case.

    A receive is itself a word to the sender, without which nothing leaves; over gloo it stands in line behind whatever goes
    the same way, so that two opposite messages cross one after the other if each was asked for after the other had begun.
    Only for backends that tell messages apart by tags: one that carries them out in order would wait for ever.
    """
    steps = sorted({op.step for op in program})
    sooner: dict[int, list[Op]] = {}
    for op in program:
        if isinstance(op, Recv):
            ahead = FLIGHT if _is_result_of_queries(op.piece) else 1
            step = next(step for step in steps if step >= op.step - ahead)
            sooner.setdefault(step, []).append(replace(op, step=step))
    found: list[Op] = []
    for op in program:
        found += sooner.pop(op.step, ())
        if not isinstance(op, Recv):
            found.append(op)
    return tuple(found)


def _is_result_of_queries(piece: Piece) -> bool:
    kind = KINDS[piece.kind]
    return kind.result and kind.family == "q"


def slots(program: Program, sizes: Sizes) -> tuple[dict[Piece, int], list[int]]:
    """The slot of every piece that is sent or received, and the slots' sizes in bytes."""
    messages = {op.piece: op.step for op in reversed(program) if isinstance(op, Recv | Send)}
    last = {piece: op.step for op in program for piece in pieces_of(op) if piece in messages}
    for op in program:
        if isinstance(op, Send) and _is_result_of_queries(op.piece):
            last[op.piece] = max(last[op.piece], op.step + FLIGHT)
    places: dict[Piece, int] = {}
    room: list[int] = []
    busy_until: list[int] = []
    for piece, born in sorted(messages.items(), key=lambda item: item[1]):
        need = piece.bytes(sizes)
        for slot, size in enumerate(room):
            if size == need and busy_until[slot] < born:
                break
        else:
            slot = len(room)
            room.append(need)
            busy_until.append(0)
        places[piece], busy_until[slot] = slot, last[piece]
    return places, room


def fields(buffer: Tensor, piece: Piece, sizes: Sizes, dtype: torch.dtype) -> dict[str, Tensor]:
    """The tensors of a message: views of its bytes."""
    heads, rows = piece.heads[1] - piece.heads[0], sum(map(len, piece.tokens))
    found, offset = {}, 0
    for part in KINDS[piece.kind].fields:
        shape = (sizes.batch, heads, rows) if part.per_row else (sizes.batch, heads, rows, sizes.head_dim)
        kind = wide(dtype) if part.wide else dtype
        size = sizes.batch * heads * rows * (1 if part.per_row else sizes.head_dim) * kind.itemsize
        found[part.name] = buffer[offset : offset + size].view(kind).view(shape)
        offset += size
    return found
