"""`attend` between processes: the plan of a method carried out over a process group of torch.distributed."""

import os
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary, ref

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.distributed.distributed_c10d import PrefixStore

from ..errors import BadInput, CannotMeasure
from . import make_plan
from .execute import Executor, Message, Mode, State, Timeline, rows_of
from .plan import Piece, Plan, Recv, Sizes

KEPT = 16
"""Executors, each with its buffers, that a group keeps for cases it has met."""


FIRST_TAG = 1 << 20
"""Where tags begin, out of the way of messages that others send in the same group."""

_TELLING = FIRST_TAG - 1


class GroupTransport:
    """Messages over torch.distributed.

    Peers are named by their rank in the group, and translated: a subgroup's rank 0 may be any rank of the world. Messages
    carry tags, which keep channels apart as well. NCCL has none: there, each channel is a process group of its own, those
    that a program posts in a row go as one batch, and the order within a pair of ranks tells them apart.

    Over gloo, what goes to higher ranks and what goes to lower ones has connections of its own. gloo's thread asks for the lock
    of a connection that has something for it again and again (torch 2.13), so where the thread that computes holds the lock, to
    send, and both share a core, nothing goes on until the system takes the core away: some 4 ms at each meeting.
    """

    def __init__(self, group: dist.ProcessGroup) -> None:
        self.group, self.members = ref(group), dist.get_process_group_ranks(group)
        self.rank, self.backend = dist.get_rank(group), dist.get_backend(group)
        self.tagged = self.backend != "nccl"
        self.channels: dict[int, dist.ProcessGroup] = {}
        self.ways: tuple[Any, ...] = ()
        self.row: list[Message] = []

    def open(self, channels: Iterable[int]) -> None:
        """Make the channels ready; every member at the same time.

        A group that its members alone make is named by how many groups a process knows (torch 2.13), so members that know
        different numbers wait for one another for ever. Hence tags where there are tags, and over NCCL, for the whole world,
        the form that the world takes part in.
        """
        if self.backend == "gloo" and len(self.members) > 1 and not self.ways:
            self.ways = _ways(self.alive())
        part = len(self.members) < dist.get_world_size()
        for channel in sorted(set(channels) - set(self.channels)) if not self.tagged else ():
            self.channels[channel] = dist.new_group(self.members, backend=self.backend, use_local_synchronization=part)

    def post(self, message: Message) -> None:
        if not self.tagged:
            self.row.append(message)
            return
        tag = FIRST_TAG + message.tag
        if self.ways:
            if isinstance(message.op, Recv):
                way = self.ways[message.op.source < self.rank]
                message.work = way.recv([message.buffer], message.op.source, tag)
            else:
                way = self.ways[message.op.target > self.rank]
                message.work = way.send([message.buffer], message.op.target, tag)
            return
        start = dist.irecv if isinstance(message.op, Recv) else dist.isend
        message.work = start(message.buffer, self._peer(message), group=self.alive(), tag=tag)

    def flush(self) -> None:
        for channel, group in self.channels.items():
            batch = [message for message in self.row if message.op.channel == channel]
            if batch:
                starts = [dist.irecv if isinstance(message.op, Recv) else dist.isend for message in batch]
                works = dist.batch_isend_irecv(
                    [
                        dist.P2POp(start, message.buffer, self._peer(message), group)
                        for start, message in zip(starts, batch, strict=True)
                    ]
                )
                for message in batch:
                    message.work = works  # one for all of them, on NCCL
        self.row = []

    def done(self, message: Message) -> bool:
        if message.work is None:
            self.flush()
        for work in message.work if isinstance(message.work, list) else [message.work]:
            work.wait()
        return True

    def tell(self, row: Tensor) -> list[Tensor]:
        """The rows of all members, each of the same size; every member at the same time."""
        everybody = [torch.empty_like(row) for _ in self.members]
        if not self.ways:
            dist.all_gather(everybody, row, group=self.alive())
            return everybody
        everybody[self.rank].copy_(row)
        others = [member for member in range(len(self.members)) if member != self.rank]
        works = [self.ways[other < self.rank].recv([everybody[other]], other, _TELLING) for other in others]
        works += [self.ways[other > self.rank].send([row], other, _TELLING) for other in others]
        for work in works:
            work.wait()
        return everybody

    def alive(self) -> dist.ProcessGroup:
        """The group."""
        group = self.group()  # held weakly: what is kept for a group must not keep it alive
        assert group is not None
        return group

    def _peer(self, message: Message) -> int:
        return self.members[message.op.source if isinstance(message.op, Recv) else message.op.target]


def _ways(group: dist.ProcessGroup) -> tuple[Any, Any]:
    """Connections between the members for what goes to lower ranks and for what goes to higher ones; all at the same time.

    Made without `new_group`, whose groups of some ranks are named by how many groups a process knows, see `open`. The store may
    still hold the addresses of a group that had this one's name before: hence a name that was drawn.
    """
    timeout = group._get_backend(torch.device("cpu")).options._timeout
    store, rank, size = group.get_group_store(), dist.get_rank(group), dist.get_world_size(group)
    drawn = torch.tensor([int.from_bytes(os.urandom(7))])
    dist.broadcast(drawn, dist.get_global_rank(group, 0), group=group)
    down, up = (
        dist.ProcessGroupGloo(PrefixStore(f"mixbench {int(drawn)} {way}", store), rank, size, timeout) for way in ("down", "up")
    )
    return down, up


class Session:
    """A method's plan over a group, with its buffers: what `attend` keeps, and what a measurement runs directly."""

    def __init__(self, plan: Plan, sizes: Sizes, dtype: torch.dtype, device: torch.device, rank: int, transport: Any) -> None:
        self.plan, self.sizes, self.rank = plan, sizes, rank

        def executor(backward: bool) -> Executor:
            def tag(source: int, target: int, piece: Piece) -> int:
                return plan.tags[backward, source, target, piece]

            program = (plan.backward if backward else plan.forward)[rank]
            return Executor(program, rank, plan.degree, sizes, dtype, device, tag, transport)

        self.forward, self.backward = executor(False), executor(True)

    def state(self, q: Tensor, k: Tensor, v: Tensor) -> State:
        """This rank's state before a forward pass."""
        return rows_of(self.plan.shares[self.rank], self.sizes, {"q": q}, {"k": k, "v": v})

    def run(self, state: State, backward: bool = False, mode: Mode = "whole", timeline: Timeline | None = None) -> None:
        """One pass over ``state``, which it changes."""
        _exhaust((self.backward if backward else self.forward).run(state, mode, timeline))


def _exhaust(run: Iterator[None]) -> None:
    for _ in run:
        raise AssertionError("a transport between processes waits by itself")


class _Group:
    """What is kept for a process group."""

    def __init__(self, group: dist.ProcessGroup) -> None:
        self.rank, self.transport = dist.get_rank(group), GroupTransport(group)
        self.transport.open(())
        self.sessions: OrderedDict[Any, Session] = OrderedDict()

    def session(self, plan: Plan, key: tuple[Any, ...], sizes: Sizes, dtype: torch.dtype, device: torch.device) -> Session:
        key = (*key, sizes, dtype, device)
        if key in self.sessions:
            self.sessions.move_to_end(key)
            return self.sessions[key]
        self.transport.open(op.channel for program in (*plan.forward, *plan.backward) for op in program if isinstance(op, Recv))
        session = self.sessions[key] = Session(plan, sizes, dtype, device, self.rank, self.transport)
        if len(self.sessions) > KEPT:
            self.sessions.popitem(last=False)
        return session


_groups: WeakKeyDictionary[dist.ProcessGroup, _Group] = WeakKeyDictionary()


def _kept(group: dist.ProcessGroup) -> _Group:
    found = _groups.get(group)
    if found is None:
        found = _groups[group] = _Group(group)
    return found


def transport_of(group: dist.ProcessGroup) -> GroupTransport:
    """The one transport of a group, made at the first call: then by every member at the same time."""
    return _kept(group).transport


def open_session(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    method: str = "tokenring",
    group: dist.ProcessGroup | None = None,
    causal: bool = False,
    layout: str | None = None,
    lengths: Sequence[int] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Session:
    """The session that `attend` uses for such tensors: to be run by itself, with modes and a time line.

    Raises:
        BadInput: as `attend` does.
        CannotMeasure: when torch.distributed is missing or not initialised.
    """
    if not dist.is_available() or not dist.is_initialized():
        what = "torch.distributed has no process group in this process"
        raise CannotMeasure(what, "call torch.distributed.init_process_group first, in every rank")
    chosen = dist.group.WORLD if group is None else group
    assert chosen is not None
    if not isinstance(chosen, dist.ProcessGroup) or dist.get_rank(chosen) < 0:
        raise BadInput("this process is no member of the group", "call attend in the members of the group only")
    kept = _kept(chosen)
    degree, names = dist.get_world_size(chosen), tuple(sorted((options or {}).items()))
    problem = _misfit(q, k, v)
    if lengths is None and degree > 1:
        lengths = _tell(q, k, kept.transport, problem, f"{method} {causal} {layout} {names}")
    if problem:
        raise problem
    lengths = tuple(lengths or (q.shape[2],))
    if len(lengths) != degree or lengths[kept.rank] != q.shape[2]:
        what = f"rank {kept.rank} of {degree} has {q.shape[2]} tokens, the lengths given are {lengths}"
        raise BadInput(what, "give every rank's number of tokens, the same tuple everywhere, or leave lengths out")
    plan = make_plan(method, lengths, q.shape[1], k.shape[1], causal, layout, **dict(names))
    sizes = Sizes(q.shape[0], q.shape[1], k.shape[1], q.shape[3], q.element_size())
    return kept.session(plan, (method, lengths, causal, layout, names), sizes, q.dtype, q.device)


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    method: str,
    group: dist.ProcessGroup | None,
    causal: bool,
    layout: str | None,
    lengths: Sequence[int] | None,
    options: Mapping[str, Any],
) -> Tensor:
    """`mixbench.models.strategies.attend`, where the arguments are explained."""
    session = open_session(q, k, v, method, group, causal, layout, lengths, options)
    return _Attend.apply(q, k, v, session)


def _misfit(q: Tensor, k: Tensor, v: Tensor) -> BadInput | None:
    shapes = f"q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}"
    if not q.ndim == k.ndim == v.ndim == 4:
        return BadInput(f"{shapes} are not all of four dimensions", "give (batch, heads, tokens, head size)")
    if k.shape != v.shape or (q.shape[0], *q.shape[2:]) != (k.shape[0], *k.shape[2:]):
        return BadInput(f"{shapes} don't fit one another", "they may differ in the number of heads of q alone")
    if k.shape[1] == 0 or q.shape[1] % k.shape[1]:
        return BadInput(f"{shapes}: heads of k and v don't divide those of q", "give q a multiple of their number")
    if not q.dtype == k.dtype == v.dtype or not q.dtype.is_floating_point:
        return BadInput(f"q, k and v are {q.dtype}, {k.dtype} and {v.dtype}", "give all in one floating dtype")
    return None


def _tell(q: Tensor, k: Tensor, transport: GroupTransport, problem: BadInput | None, words: str) -> tuple[int, ...]:
    """Every rank's number of tokens, after making sure that all mean the same attention.

    A rank with a problem of its own takes part and says so: were it to leave at once, the others would wait for it.
    """
    mark = sum(byte * 31**index for index, byte in enumerate(words.encode())) % (2**31)
    mine = [0] * 7
    if problem is None:
        mine = [1, q.shape[2], q.shape[0], q.shape[1], k.shape[1], q.shape[3], q.element_size() * 2**32 + mark]
    device = torch.device("cpu") if transport.tagged else q.device
    everybody = transport.tell(torch.tensor(mine, dtype=torch.int64, device=device))
    if problem:
        raise problem
    table = [theirs.tolist() for theirs in everybody]
    for rank, theirs in enumerate(table):
        if theirs[0] == 0:
            raise BadInput(f"rank {rank} of the group can't take part", "its own error says why")
        if theirs[2:] != mine[2:]:
            names = ("batch", "query heads", "key and value heads", "head size", "dtype, method, mask, layout or options")
            unlike = [
                name if name == names[-1] else f"{name} ({there} there, {here} here)"
                for name, there, here in zip(names, theirs[2:], mine[2:], strict=True)
                if there != here
            ]
            what = f"rank {rank} of the group differs from this one in {', '.join(unlike)}"
            raise BadInput(what, "only the number of tokens may differ between ranks")
    return tuple(theirs[1] for theirs in table)


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, session: Session) -> Tensor:
        q, k, v = q.detach(), k.detach(), v.detach()
        state = session.state(q, k, v)
        session.run(state)
        out = state.output()
        have = state.home["q"].tensors
        lse = have.get("lse", q.new_empty(0))
        # What the backward pass is given back: gathered rows are kept by methods that would have to exchange them again.
        ctx.kept = [(family, rows.tokens, rows.heads, list(rows.tensors)) for family, rows in state.gathered.items()]
        tensors = [tensor for rows in state.gathered.values() for tensor in rows.tensors.values()]
        ctx.save_for_backward(q, k, v, out, lse, *tensors)
        ctx.session, ctx.whole = session, "lse" in have
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, do: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, lse, *tensors = ctx.saved_tensors
        state = ctx.session.state(q, k, v)
        if ctx.whole:
            state.home["q"].tensors.update(out=out, lse=lse)
        state.keep(ctx.kept, tensors)
        state.start_backward(do)
        ctx.session.run(state, backward=True)
        return state.gradient("dq"), state.gradient("dk"), state.gradient("dv"), None
