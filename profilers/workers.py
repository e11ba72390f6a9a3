"""What happens inside a rank: its `World`, and how a process that `ranks.launch` started becomes one.

No torch at the top: a rank first keeps to its cores, so that torch's threads inherit them.
"""

import faulthandler
import json
import os
import pickle
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

from ..models.errors import MixbenchError

LOOPBACK = "127.0.0.1"
_STEP_BYTES = 200
_ORPHAN_S = 0.5
_START_S = 60.0
"""What a rank may take to import torch, if the timeout is shorter: nothing of the caller's has run by then."""


@dataclass(frozen=True, slots=True)
class Step:
    """What a rank is doing. ``waits`` is for others, so that being late is their fault; ``number`` tells steps apart.

    Number 0 is for starting and importing: what that takes depends on the machine's disk and load, and not on the job.
    """

    name: str
    waits: bool = False
    number: int = 0

    def write(self, file: int) -> None:
        """Into a file of constant size, in one call, so that a reader never sees half of it."""
        text = json.dumps([self.name[:100], self.waits, self.number])
        os.pwrite(file, text[:_STEP_BYTES].encode().ljust(_STEP_BYTES), 0)

    def patience_s(self, timeout_s: float) -> float:
        """How long it may take before the rank counts as hanging."""
        return timeout_s if self.number else max(timeout_s, _START_S)

    @classmethod
    def read(cls, path: Path) -> "Step | None":
        """The step that a rank wrote last; None before its first."""
        try:
            return cls(*json.loads(path.read_bytes()))
        except (OSError, ValueError):
            return None


@dataclass
class World:
    """A rank's view of the ranks that work together.

    Attributes:
        rank, degree: this one, 0 to ``degree`` - 1, and how many there are.
        device: of torch; an accelerator's current index is this rank's own.
        group: the process group of these ranks, None when there is one rank only: then nothing is ever sent.
        tell: is told of each step.
    """

    rank: int
    degree: int
    device: str
    group: Any = None
    tell: Callable[[Step], None] = lambda step: None
    _step: Step = field(default_factory=lambda: Step("starting"))

    def beat(self, name: str) -> None:
        """Say that the rank has come on, and what it does next: one that doesn't for the launch's timeout counts as hanging."""
        self._step = Step(name, False, self._step.number + 1)
        self.tell(self._step)

    def prepare(self, name: str) -> None:
        """Say that the rank imports what it needs, which may take as long as its start, however short the launch's timeout."""
        self._step = Step(name)
        self.tell(self._step)

    def slowest(self, value: float) -> float:
        """The largest value of all ranks, once all have come here: a barrier that brings news."""
        if self.group is None:
            return value
        import torch
        from torch import distributed

        tensor = torch.tensor([value], dtype=torch.float64)  # on the CPU, where gloo carries it whatever the device is
        self.tell(replace(self._step, waits=True))
        distributed.all_reduce(tensor, distributed.ReduceOp.MAX, group=self.group)
        self.tell(self._step)
        return float(tensor.item())

    def barrier(self) -> None:
        """Wait until all ranks are here."""
        self.slowest(0.0)


def find_function(words: str) -> Callable[[World, Any], Any]:
    """What ``module:function`` names."""
    module, _, name = words.partition(":")
    found: Callable[[World, Any], Any] = getattr(import_module(module), name)
    return found


def loopback_interface() -> str:
    """What the system calls the loopback: ``lo`` on Linux, ``lo0`` elsewhere."""
    return next((name for _, name in socket.if_nameindex() if name.startswith("lo")), "lo")


def connect(host: str, port: int, timeout_s: float, listener: int | None = None) -> Any:
    """A connection to the ranks' meeting point, torch's TCPStore; with a ``listener``, a bound socket, the place itself."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    patience = timedelta(seconds=timeout_s)
    if listener is None:
        return TCPStore(host, port, is_master=False, timeout=patience)
    # The store takes the socket over as it is, so it can't listen anywhere else.
    return TCPStore(host, port, is_master=True, timeout=patience, wait_for_workers=False, master_listen_fd=listener)


def take_device(device: str, local_rank: int) -> None:
    """Make an accelerator's ``local_rank``-th unit the current one."""
    if device != "cpu":
        import torch

        torch.accelerator.set_device_index(local_rank)


def backend(device: str) -> str:
    """gloo for what lies on the CPU, and what torch recommends for an accelerator (NCCL for cuda)."""
    from torch import distributed

    return "gloo" if device == "cpu" else f"cpu:gloo,{device}:{distributed.get_default_backend_for_device(device)}"


def main() -> None:
    """A worker's whole life: ``FOLDER RANK`` are its arguments, the job lies in the folder, and there its result goes."""
    folder, rank = Path(sys.argv[1]), int(sys.argv[2])
    try:
        job = json.loads((folder / "job.json").read_text())
        log = os.open(folder / f"log-{rank}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    except FileNotFoundError:
        os._exit(1)  # interrupted while it started the ranks, the parent is gone already
    for stream in (1, 2):
        os.dup2(log, stream)
    threading.Thread(target=_end_with_parent, args=(job["parent"],), daemon=True).start()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, job["cores"][rank])  # of this thread and of all that are to come
    if hasattr(signal, "SIGUSR1"):
        faulthandler.register(signal.SIGUSR1, all_threads=False)  # a hanging rank is asked where it stands
    from torch.distributed.elastic.multiprocessing.errors import record

    record(_work)(folder, rank, job)


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_ORPHAN_S)
    os._exit(1)


def _work(folder: Path, rank: int, job: dict[str, Any]) -> None:
    import torch
    from torch import distributed

    torch.set_num_threads(job["threads"])
    take_device(job["device"], rank)
    steps = os.open(folder / f"beat-{rank}", os.O_WRONLY | os.O_CREAT, 0o600)
    world = World(rank, job["degree"], job["device"], tell=lambda step: step.write(steps))
    if world.degree > 1:
        world.tell(Step("meeting the other ranks", waits=True, number=1))
        # The parent's watch is to speak first: it knows who hangs, where a collective only knows that it waited.
        patience_s = 2 * job["timeout_s"] + 60
        distributed.init_process_group(
            backend(world.device),
            store=connect(LOOPBACK, job["port"], patience_s),
            rank=rank,
            world_size=world.degree,
            timeout=timedelta(seconds=patience_s),
        )
        world.group = distributed.group.WORLD
    world.prepare("importing what it runs")
    function = find_function(job["function"])
    world.beat("working")
    try:
        result = function(world, pickle.loads((folder / "payload").read_bytes()))
    except MixbenchError as error:
        raise type(error)(f"{error.what}\n{error.hint}") from error  # elastic keeps the text alone
    world.beat("handing in its result")
    partial = folder / f"result-{rank}.partial"
    partial.write_bytes(pickle.dumps(result))
    partial.rename(folder / f"result-{rank}")
    if world.group is not None:
        world.barrier()  # nobody leaves while another still reads from it
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # torch's way out with a process group is long, and now and then has no end
