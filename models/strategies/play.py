"""All ranks of a plan in one process, one after the other: exact and repeatable, for tests and for looking at a method.

A message is copied when both its send and its receive were posted, never earlier, so a program that could wait for ever
between processes does so here, and is told.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .execute import Executor, Message, Mode, State, Timeline, Transport, rows_of
from .plan import Account, Plan, Recv, Sizes
from .shards import shard, unshard


class Table:
    """Where sends and receives meet."""

    def __init__(self) -> None:
        self.waiting: dict[tuple[int, int, int, int], Message] = {}
        self.events = 0  # grows as long as anything goes on

    def post(self, rank: int, message: Message) -> None:
        """Lay a message down, or carry it over if its other half lies there."""
        self.events += 1
        op, receiving = message.op, isinstance(message.op, Recv)
        source, target = (op.source, rank) if isinstance(op, Recv) else (rank, op.target)
        place = (source, target, op.channel, message.tag)
        other = self.waiting.pop(place, None)
        if other is None:
            self.waiting[place] = message
            return
        assert isinstance(other.op, Recv) != receiving, f"posted twice: {op}"
        to, come = (message, other) if receiving else (other, message)
        to.buffer.copy_(come.buffer)
        message.work = other.work = True


class Seat:
    """One rank's transport at the table."""

    tagged = True

    def __init__(self, table: Table, rank: int) -> None:
        self.table, self.rank = table, rank

    def post(self, message: Message) -> None:
        self.table.post(self.rank, message)

    def flush(self) -> None:
        pass

    def done(self, message: Message) -> bool:
        self.table.events += message.work is not None
        return message.work is not None


class Game:
    """The executors of all ranks of a plan, forward and backward, with buffers that stay; ``seat`` is their transport."""

    def __init__(
        self,
        plan: Plan,
        sizes: Sizes,
        dtype: torch.dtype,
        device: torch.device | None = None,
        seat: Callable[[Table, int], Transport] = Seat,
    ) -> None:
        self.plan, self.sizes = plan, sizes
        self.table = Table()
        self.executors: tuple[list[Executor], list[Executor]] = ([], [])
        for backward, programs in enumerate((plan.forward, plan.backward)):
            for rank, program in enumerate(programs):

                def tag(source: int, target: int, piece: Any, backward: bool = bool(backward)) -> int:
                    return plan.tags[backward, source, target, piece]

                place = device or torch.device("cpu")
                executor = Executor(program, rank, plan.degree, sizes, dtype, place, tag, seat(self.table, rank))
                self.executors[backward].append(executor)

    def run(
        self,
        states: Sequence[State],
        backward: bool = False,
        mode: Mode = "whole",
        timelines: Sequence[Timeline] | None = None,
    ) -> None:
        """Let every rank go on until it waits, in turn, until all are done.

        Raises:
            RuntimeError: when all wait for one another.
        """
        lines: Sequence[Timeline | None] = timelines or [None] * len(states)
        runs: dict[int, Iterator[None]] = {
            rank: executor.run(state, mode, line)
            for rank, (executor, state, line) in enumerate(zip(self.executors[backward], states, lines, strict=True))
        }
        while runs:
            before = self.table.events
            for rank in list(runs):
                if next(runs[rank], self) is self:
                    del runs[rank]
                    self.table.events += 1
            if runs and before == self.table.events:
                raise RuntimeError(f"ranks {', '.join(map(str, runs))} wait for one another")

    def account(self, backward: bool = False) -> Account:
        """What was truly sent, summed over ranks and runs."""
        return sum((executor.account for executor in self.executors[backward]), Account(self.plan.degree))

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, list[State]]:
        """Attention over whole tensors q (B, H, S, D), k and v (B, G, S, D), and the ranks' states for the backward pass."""
        states = [
            rows_of(tokens, self.sizes, {"q": shard(q, tokens)}, {"k": shard(k, tokens), "v": shard(v, tokens)})
            for tokens in self.plan.shares
        ]
        self.run(states)
        return unshard([state.output() for state in states], self.plan.shares), states

    def backward(self, do: Tensor, states: Sequence[State]) -> tuple[Tensor, Tensor, Tensor]:
        """The gradients of q, k and v, whole."""
        for state, tokens in zip(states, self.plan.shares, strict=True):
            state.start_backward(shard(do, tokens))
        self.run(states, backward=True)
        dq, dk, dv = ([state.gradient(name) for state in states] for name in ("dq", "dk", "dv"))
        return unshard(dq, self.plan.shares), unshard(dk, self.plan.shares), unshard(dv, self.plan.shares)


class _Play(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, game: Game) -> Tensor:
        out, ctx.states = game.forward(q, k, v)
        ctx.game = game
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, do: Tensor) -> tuple[Tensor | None, ...]:
        return (*ctx.game.backward(do, [state.copy() for state in ctx.states]), None)


def play(q: Tensor, k: Tensor, v: Tensor, plan: Plan) -> Tensor:
    """Attention of whole tensors by a plan, all ranks in this process; differentiable.

    Shapes: q (B, H, S, D), k and v (B, G, S, D) to (B, H, S, D), tokens in the order of the sequence.
    """
    sizes = Sizes(q.shape[0], q.shape[1], k.shape[1], q.shape[3], q.element_size())
    return _Play.apply(q, k, v, Game(plan, sizes, q.dtype, q.device))
