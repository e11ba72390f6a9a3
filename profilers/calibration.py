"""The model's constants for the machine at hand: latency and bandwidth of messages, the rate of attention, copies.

Measured between two ranks, with messages and blocks of sizes of their own, so that what is then predicted was not measured
before. CPU processes that talk over the loopback copy every byte with the cores that they compute on, and both directions share
that: hence the topology ``uplink``, whose port carries what both directions reach together.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..models.errors import CannotMeasure
from ..models.strategies.block import attend_block
from ..models.strategies.execute import Message
from ..models.strategies.layout import tiles
from ..models.strategies.plan import Piece, Recv, Send
from ..models.strategies.spread import transport_of
from .devices.base import find
from .links import Hardware, Topology
from .ranks import TIMEOUT_S, launch
from .runs.parallel_run import Workload
from .scaling import Plan as Place
from .stats import median
from .workers import World

_SMALL, _LARGE, _LARGER = 2**10, 2**21, 2**23
"""Bytes of the messages: one that is all latency, and two whose difference is all bandwidth."""
_TRIES, _ROWS, _COPY_BYTES = 9, 1024, 2**24


@dataclass(frozen=True, slots=True)
class Found:
    """What one rank measured, in seconds by bytes, FLOP/s and bytes/s."""

    one_way: dict[int, float]
    both_ways: dict[int, float]
    flops_per_s: float
    memory_bytes_per_s: float


def calibrate(place: Place, work: Workload, topology: Topology | None = None, timeout_s: float = TIMEOUT_S) -> Hardware:
    """Measure the constants between two ranks of this place.

    Args:
        topology: what joins the ranks; ``uplink`` for CPU processes of one machine, ``switch`` for accelerators if None.

    Raises:
        CannotMeasure: when there is one rank only.
    """
    if max(place.degrees) < 2:
        raise CannotMeasure("calibration takes two ranks, and there is one", "--gpus 2 or more, or more cores")
    worker = "mixbench.profilers.calibration:time_rank"
    ranks: list[Found] = launch(worker, 2, work, timeout_s, place.cores_per_rank, None, place.device)
    return constants(ranks, topology or ("uplink" if place.device == "cpu" else "switch"), place.device == "cpu")


def constants(ranks: list[Found], topology: Topology, tagged: bool) -> Hardware:
    """A machine from what two or more ranks found, the slower of two figures where they differ; ``tagged`` as in `Hardware`."""
    first = ranks[0]
    flow = _slope(first.one_way)
    both = 2 * _slope(first.both_ways)
    limits = {"flow": flow, "port": both if topology == "uplink" else both / 2}
    if topology in ("mesh", "ring"):
        limits = {"link": both / 2}
    return Hardware(
        name="here",
        title="this machine, calibrated",
        topology=topology,
        flops_per_s=min(rank.flops_per_s for rank in ranks),
        efficiency=1.0,
        latency_s=first.one_way[_SMALL],
        memory_bytes_per_s=min(rank.memory_bytes_per_s for rank in ranks),
        source=f"measured here: messages of {_SMALL} to {_LARGER} bytes, attention of {_ROWS} queries to {_ROWS} keys, copies",
        tagged=tagged,
        verified=True,
        **limits,
    )


def _slope(times: dict[int, float]) -> float:
    """Bytes per second between the two larger messages."""
    return (_LARGER - _LARGE) / max(times[_LARGER] - times[_LARGE], 1e-9)


def time_rank(world: World, work: Workload) -> Found:
    """One rank's part. All ranks compute at once, as they will; ranks beyond the first two only do that."""
    device = find(world.device)
    kind = getattr(torch, work.dtype)

    def seconds(call: Callable[[], object], what: str) -> float:
        times = []
        for number in range(_TRIES):
            world.beat(f"{what}, {number + 1} of {_TRIES}")
            world.barrier()
            times.append(device.time_ns(call) / 1e9)
        return median(times[1:])

    transport = transport_of(world.group)
    transport.open({0})
    nothing, peer = Piece("q", (), (0, 0)), 1 - world.rank

    def message(size: int, both: bool) -> float:
        out, back = (torch.zeros(size, dtype=torch.uint8, device=world.device) for _ in range(2))

        def carry(*ops: Recv | Send) -> None:
            messages = [Message(op, back if isinstance(op, Recv) else out, 0) for op in ops]
            for each in messages:
                transport.post(each)
            transport.flush()
            for each in messages:
                transport.done(each)

        def exchange() -> None:
            # The receive first, as in a run: over gloo it would wait in line behind the message that was sent before it.
            carry(Recv(0, nothing, peer, 0), Send(0, nothing, peer, 0))

        def there_and_back() -> None:
            for sender in (0, 1):
                carry(Send(0, nothing, peer, 0) if world.rank == sender else Recv(0, nothing, peer, 0))

        call = (exchange if both else there_and_back) if world.rank < 2 else (lambda: None)
        return seconds(call, f"messages of {size} bytes") / (1 if both else 2)

    sizes = (_SMALL, _LARGE, _LARGER)
    q = torch.randn(work.batch, work.heads, _ROWS, work.head_dim).to(world.device, kind)
    k, v = (torch.randn(work.batch, work.kv_heads, _ROWS, work.head_dim).to(world.device, kind) for _ in range(2))
    block = tiles((range(_ROWS),), (range(_ROWS),), False)
    source = torch.zeros(_COPY_BYTES, dtype=torch.uint8, device=world.device)
    target = torch.empty_like(source)
    with torch.inference_mode():
        attention_s = seconds(lambda: attend_block(q, k, v, block), "attention")
        copy_s = seconds(lambda: target.copy_(source), "copies")
    flops = 4 * work.batch * work.heads * work.head_dim * _ROWS**2
    return Found(
        one_way={size: message(size, False) for size in sizes},
        both_ways={size: message(size, True) for size in sizes},
        flops_per_s=flops / attention_s,
        memory_bytes_per_s=2 * _COPY_BYTES / copy_s,
    )
