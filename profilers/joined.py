"""Worlds that somebody else has started: ``torchrun`` (RANK, WORLD_SIZE, MASTER_ADDR) or SLURM (SLURM_PROCID, SLURM_NTASKS).

All processes run the same command line and take part in each launch; rank 0 speaks, the others are silent. Nobody of ours
watches from outside, so each rank has a thread that does: through the store it learns what went wrong anywhere, rank 0 prints
it, and all end with the same exit code. A rank that is killed says nothing; its silence is noticed.

No torch at the top.
"""

import atexit
import errno
import json
import os
import re
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NoReturn

from ..models.errors import CannotMeasure, MixbenchError, first_line
from .machine import usable_cores
from .workers import LOOPBACK, Step, World, backend, connect, find_function, loopback_interface, take_device

_LOOK_S, _CULPRIT_S, _SILENT_S = 0.3, 1.0, 1.5
_LOST = (
    "connection closed",
    "connection reset",
    "connection refused",
    "broken pipe",
    "remote peer",
    "socket",
    "timed out waiting",
)
"""What torch and gloo say, in lower case, when another rank is gone."""
_ALL = "every rank has to run the same command, by torchrun or srun"


@dataclass(frozen=True, slots=True)
class Joined:
    """A process's place in a world that exists.

    Attributes:
        by: who started it.
        local_rank, local_degree: the same among the ranks of this machine, or of this agent.
        hosts_store: whether rank 0 itself has to open the meeting point.
    """

    by: str
    rank: int
    degree: int
    local_rank: int
    local_degree: int
    host: str
    port: int
    hosts_store: bool

    @property
    def one_machine(self) -> bool:
        """Whether all ranks are known to be here."""
        return self.local_degree == self.degree


def joined(env: Mapping[str, str] = os.environ) -> Joined | None:
    """The world that this process was started in, None when it is on its own.

    Raises:
        CannotMeasure: when the variables contradict themselves.
    """
    try:
        if "RANK" in env and "WORLD_SIZE" in env and "MASTER_ADDR" in env:
            rank, degree = int(env["RANK"]), int(env["WORLD_SIZE"])
            local = int(env.get("LOCAL_RANK", rank))
            local_degree = int(env.get("LOCAL_WORLD_SIZE", 1))
            # torchrun's agent keeps the store itself; by the variables alone it is rank 0's to open.
            hosts = env.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
            by = "torchrun" if "TORCHELASTIC_RUN_ID" in env else "RANK and WORLD_SIZE"
            return Joined(by, rank, degree, local, local_degree, env["MASTER_ADDR"], int(env["MASTER_PORT"]), hosts)
        degree = int(env.get("SLURM_STEP_NUM_TASKS", env.get("SLURM_NTASKS", 1)))
        if "SLURM_PROCID" in env and degree > 1:
            alone = int(env.get("SLURM_STEP_NUM_NODES", env.get("SLURM_NNODES", 1))) == 1
            local_degree = degree if alone else int(re.split(r"\D", env.get("SLURM_STEP_TASKS_PER_NODE", "1"))[0])
            host = env.get("MASTER_ADDR") or (LOOPBACK if alone else _first_host(env.get("SLURM_STEP_NODELIST", "")))
            # All tasks of a step know its job's and its own number, and so the same port without asking one another.
            number = 97 * int(env.get("SLURM_JOB_ID", 0)) + int(env.get("SLURM_STEP_ID", 0))
            port = int(env.get("MASTER_PORT", 20000 + number % 10000))
            rank = int(env["SLURM_PROCID"])
            return Joined("SLURM", rank, degree, int(env.get("SLURM_LOCALID", rank)), local_degree, host, port, True)
    except (KeyError, ValueError) as error:
        raise CannotMeasure(
            f"the world's variables are incomplete: {first_line(error)}", "start it by torchrun or srun"
        ) from error
    return None


def _first_host(nodes: str) -> str:
    """The first of SLURM's host list, such as ``node[03-05,9],other``."""
    found = re.match(r"([^,\[]+)(?:\[(\d+))?", nodes)
    if not found:
        raise ValueError("SLURM_STEP_NODELIST names no host, and there is no MASTER_ADDR")
    return found[1] + (found[2] or "")


def is_lost(message: str) -> bool:
    """Whether an exception tells of another rank's end rather than of its own fault."""
    return any(word in message.lower() for word in _LOST)


@dataclass
class _State:
    """What outlives a launch: the store, and how many launches there were."""

    store: Any = None
    launches: int = 0


_STATE = _State()


def run_in_joined_world(
    place: Joined,
    function: str,
    degree: int,
    payload: Any,
    timeout_s: float,
    cores_per_rank: int,
    device: str,
    last_words: Callable[[str], None],
) -> list[Any]:
    """`ranks.launch` in a joined world: its first ``degree`` ranks work, the others wait; all get all results.

    Raises:
        CannotMeasure: when the world does not come together. What fails later ends the process, as no other rank could go on.
    """
    from torch import distributed

    if degree > place.degree:
        raise CannotMeasure(f"this world has {place.degree} ranks, {degree} are asked", "let torchrun or SLURM start more")
    if _STATE.store is None:
        _settle(place, cores_per_rank, device)
        _enter(place, timeout_s, device)
    _STATE.launches += 1
    watch = _Watch(place, timeout_s, f"launch-{_STATE.launches}", last_words)
    with watch.watching():
        try:
            group = distributed.new_group(list(range(degree)), timeout=timedelta(seconds=2 * timeout_s + 60))
            result = None
            if place.rank < degree:
                world = World(place.rank, degree, device, group if degree > 1 else None, watch.told)
                world.prepare("importing what it runs")
                work = find_function(function)
                world.beat("working")
                result = work(world, payload)
                world.beat("handing in its result")
            watch.told(Step("waiting for the others", waits=True))
            results: list[Any] = [None] * place.degree
            distributed.all_gather_object(results, result)
            if place.rank < degree:
                distributed.destroy_process_group(group)
        except Exception as error:  # noqa: BLE001 - whatever it is, the other ranks wait to hear of it
            watch.fail(error)
    return results[:degree]


def _settle(place: Joined, cores_per_rank: int, device: str) -> None:
    """Take one's device, or cores of one's own, unless whoever started the ranks has dealt them out (SLURM does)."""
    import torch

    take_device(device, place.local_rank)
    torch.set_num_threads(cores_per_rank)
    cores = usable_cores()
    if place.one_machine and hasattr(os, "sched_setaffinity") and len(cores) >= place.degree * cores_per_rank:
        first = place.rank * cores_per_rank
        os.sched_setaffinity(0, cores[first : first + cores_per_rank])


def _enter(place: Joined, timeout_s: float, device: str) -> None:
    """Meet the other ranks."""
    from torch import distributed

    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    if place.one_machine:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback_interface())
        os.environ.setdefault("NCCL_SOCKET_IFNAME", loopback_interface())
    # What answers at that port may be no store and never answer, which torch waits for without an end.
    what = f"nothing like a store answers at {place.host}:{place.port} within {timeout_s:g} s"
    alarm = threading.Timer(timeout_s + _CULPRIT_S, _end, (place, what, _ALL))
    alarm.daemon = True
    alarm.start()
    try:
        opens = place.hosts_store and place.rank == 0
        listener = _bound(place.host, place.port) if opens else None
        store = connect(place.host, place.port, timeout_s, listener)
        _meet(_branch(store, "mixbench"), place, timeout_s)
        # Ranks that sit out a launch wait for those that work, however long that takes.
        distributed.init_process_group(
            backend(device),
            store=_branch(store, "mixbench"),
            rank=place.rank,
            world_size=place.degree,
            timeout=timedelta(days=1),
        )
    except RuntimeError as error:
        what = f"the {place.degree} ranks of {place.by} did not meet at {place.host}:{place.port}: {first_line(error)}"
        raise CannotMeasure(what, _ALL) from error
    finally:
        alarm.cancel()
    _STATE.store = store
    atexit.register(_leave)


def _meet(store: Any, place: Joined, timeout_s: float) -> None:
    until = time.monotonic() + timeout_s
    came = store.add("came", 1)
    while came < place.degree:
        if time.monotonic() > until:
            what = f"{came} of the {place.degree} ranks of {place.by} came to {place.host}:{place.port} within {timeout_s:g} s"
            raise CannotMeasure(what, _ALL)
        time.sleep(_LOOK_S / 10)
        came = store.add("came", 0)


def _branch(store: Any, name: str) -> Any:
    """A part of the store, so that nobody else's keys are met; each start that torchrun makes has its own."""
    from torch.distributed import PrefixStore  # type: ignore[attr-defined]

    return PrefixStore(f"{name}/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)


def _leave() -> None:
    from torch import distributed

    with suppress(Exception):
        distributed.destroy_process_group()


def _bound(host: str, port: int) -> int:
    """A listening socket at this address and no other."""
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
            listener.listen()
        except OSError as error:
            taken = "is in use" if error.errno == errno.EADDRINUSE else f"can't be opened: {error.strerror}"
            raise CannotMeasure(f"rank 0: port {port} of {host} {taken}", "set MASTER_PORT to a free one") from error
        return listener.detach()


class _Watch:
    """One rank's watch over a launch: passes on failures, notices its own hang, and ends the process when any rank failed."""

    def __init__(self, place: Joined, timeout_s: float, name: str, last_words: Callable[[str], None]) -> None:
        # A connection of its own: the other one is taken while it waits.
        self._store = _branch(connect(place.host, place.port, timeout_s), f"mixbench/{name}")
        self._place, self._timeout_s, self._last_words = place, timeout_s, last_words
        self._step, self._since = Step("starting", waits=True), time.time()
        self._done = threading.Event()
        self._lock = threading.Lock()

    def told(self, step: Step) -> None:
        """The rank has come on."""
        self._step, self._since = step, time.time()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch from a thread. Signals reach it through a pipe, even while the main thread is deep in a collective."""
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)}
        thread = threading.Thread(target=self._watch, args=(reader,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._done.set()
            thread.join()
            signal.set_wakeup_fd(wakeup)
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(reader)
            os.close(writer)

    def fail(self, error: Exception) -> NoReturn:
        """Pass on what ended this rank; the watch then ends the process."""
        if isinstance(error, MixbenchError):
            self._report(f"stopped: {error.what}", error.hint, False)
        else:
            lost = is_lost(str(error))
            cause = f"lost another rank: {first_line(error)}" if lost else f"raised {first_line(error)}"
            self._report(cause, "", lost)
        threading.Event().wait()
        raise AssertionError

    def _report(self, cause: str, hint: str, lost: bool) -> None:
        with suppress(Exception):
            self._store.set(f"failure/{self._place.rank}", json.dumps([lost, self._since, cause, hint]))
            self._store.add("failures", 1)

    def _watch(self, reader: int) -> None:
        alive, hung = f"alive/{self._place.rank}", False
        while not self._done.is_set():
            ready, _, _ = select.select([reader], [], [], _LOOK_S)
            number = os.read(reader, 1)[0] if ready else 0
            try:
                self._store.add(alive, 1)
                patience_s = self._step.patience_s(self._timeout_s)
                if not hung and not self._step.waits and time.time() - self._since > patience_s:
                    hung = True
                    cause = f"hangs: no progress for {patience_s:g} s, in {self._step.name!r}"
                    self._report(cause, "a longer --timeout if one step may take so long", False)
                failed = self._store.add("failures", 0) > 0
            except RuntimeError:  # the store went with the rank that kept it
                if self._done.wait(_CULPRIT_S):
                    return  # in peace: all was done
                _end(self._place, "rank 0, which kept the store, is gone", f"{self._place.by} knows its exit code")
            if number:  # someone ends us; most likely since another rank failed, so look for its words first
                time.sleep(_CULPRIT_S)
                with suppress(RuntimeError):
                    failed = failed or self._store.add("failures", 0) > 0
            if failed and not self._done.is_set():
                self._explain()
            if number:
                self._speak(f"ended by {signal.Signals(number).name}")
                os._exit(128 + number)

    def _explain(self) -> NoReturn:
        """Say which rank failed, and end. Rank 0 speaks; the others give it the time."""
        if self._place.rank:
            until = time.monotonic() + 2 * _CULPRIT_S + 2 * _SILENT_S
            with suppress(RuntimeError):  # rank 0 is gone, and its store
                while time.monotonic() < until and not self._store.check(["said"]):
                    time.sleep(_LOOK_S)
            os._exit(CannotMeasure.exit_code)
        time.sleep(_CULPRIT_S)
        found = []
        for rank in range(self._place.degree):
            if self._store.check([f"failure/{rank}"]):
                lost, since, cause, hint = json.loads(self._store.get(f"failure/{rank}"))
                found.append((lost, since, rank, cause, hint))
        lost, _, rank, cause, hint = min(found)
        if lost and (silent := self._silent()):
            rank, cause, hint = silent[0], "ended without a word", f"{self._place.by} knows its exit code"
        self._speak(f"rank {rank} {cause}")
        _say(self._place, f"rank {rank} {cause}", hint or "the exception is of the model or of torch on that rank")
        with suppress(RuntimeError):
            self._store.set("said", "1")  # the others need wait no longer
        os._exit(CannotMeasure.exit_code)

    def _speak(self, cause: str) -> None:
        """Let rank 0 tell what there is. Whatever comes of it, the process has to end."""
        if self._place.rank == 0:
            with suppress(Exception):
                self._last_words(cause)

    def _silent(self) -> list[int]:
        """The ranks that give no sign of life."""
        names = [f"alive/{rank}" for rank in range(self._place.degree)]
        before = [self._store.add(name, 0) for name in names]
        time.sleep(_SILENT_S)
        return [rank for rank, name in enumerate(names) if rank and self._store.add(name, 0) == before[rank]]


def _say(place: Joined, what: str, hint: str) -> None:
    if place.rank == 0:
        print(f"error: {what}\nhint: {hint}", file=sys.stderr, flush=True)  # noqa: T201


def _end(place: Joined, what: str, hint: str) -> NoReturn:
    """End from a thread, while the main one is deep in torch. Rank 0 says why."""
    _say(place, what, hint)
    os._exit(CannotMeasure.exit_code)
