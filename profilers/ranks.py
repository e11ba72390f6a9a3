"""Start, watch and end worker processes: one for each rank of a world.

`launch` runs a function in N fresh processes on this machine, or, inside ``torchrun`` or SLURM, in the world that is there
already. It returns what the ranks returned or raises `RankFailure`, which names the rank that failed and why; either way
nothing is left behind: no process, no port, no file.

Processes are started by torch's elastic multiprocessing, each in a session of its own, and meet at a TCPStore that this process
keeps on 127.0.0.1, on a port that the system chose while binding it, so that no other program can take it in between. Elastic's
own agent isn't used: it ends the survivors before they can say anything, and of a hang it knows only who waited. Here each
rank writes down its last step (`workers.World.beat`), and a hang is blamed on the rank that stopped, not on those that wait
for it. A worker whose parent is gone ends itself.

No torch at the top, so that a command can ask `joined.joined` before it costs a second.
"""

import json
import os
import pickle
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from ..models.errors import CannotMeasure
from .joined import is_lost, joined, run_in_joined_world
from .machine import usable_cores
from .workers import LOOPBACK, Step, connect, loopback_interface

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing import SubprocessContext

TIMEOUT_S = 300.0
_LOOK_S = 0.05
_LEAVE_S = 5.0
"""What ranks get to leave by themselves when all results are there."""
_LAST_WORDS_S = 0.2
_CULPRIT_S = 2.0
"""How long to wait for the rank that failed first, when all that is known is that others have lost it."""
_ENTRY = "from mixbench.profilers.workers import main; main()"
_MEMORY = ("memoryerror", "outofmemory", "out of memory", "not enough memory", "can't allocate memory")


class RankFailure(CannotMeasure):
    """A rank was killed, raised, hung or ended early. ``what`` names it and the cause."""

    def __init__(self, rank: int | None, cause: str, hint: str = "", log: str = "") -> None:
        who = "the world" if rank is None else f"rank {rank}"
        super().__init__(f"{who} {cause}", hint)
        self.rank = rank
        self.log = log
        """The end of what the rank printed, and its traceback."""
        if log:
            self.add_note(f"the last that {who} wrote:\n{log}")


def launch(
    function: str,
    degree: int,
    payload: Any = None,
    timeout_s: float = TIMEOUT_S,
    cores_per_rank: int = 1,
    env: Mapping[str, str] | None = None,
    device: str = "cpu",
    last_words: Callable[[str], None] = lambda cause: None,
) -> list[Any]:
    """Run ``module:function`` in each rank, as ``function(world, payload)``, and return the results in the order of ranks.

    In a joined world each of its processes has to make the same calls; all get the same results.

    Args:
        degree: how many ranks; in a joined world its first ones.
        payload: anything that can be pickled, the results likewise.
        timeout_s: without a step of progress for so long, a rank counts as hanging.
        cores_per_rank: each rank keeps to as many cores of its own, and torch's threads to as many, as long as the cores
            suffice; after that ranks share them in turn.
        env: variables for the workers, over this process's own.
        device: ``cpu`` (gloo) or a kind of accelerator, of which rank r takes the r-th.
        last_words: in a joined world a failure ends this process from a thread, since the main one may wait in torch for ever;
            rank 0 calls it before that, with the cause.

    Raises:
        RankFailure: when any rank fails; all others have been ended.
        KeyboardInterrupt, SystemExit: on SIGINT, and with 128 + its number on SIGTERM, SIGHUP and SIGQUIT; likewise.
    """
    if place := joined():
        return run_in_joined_world(place, function, degree, payload, timeout_s, cores_per_rank, device, last_words)
    with tempfile.TemporaryDirectory(prefix="mixbench-ranks-", ignore_cleanup_errors=True) as name, _signals():
        folder = Path(name)
        (folder / "payload").write_bytes(pickle.dumps(payload))
        cores = _share_cores(degree, cores_per_rank)
        with _store() as port:
            job = {
                "function": function,
                "degree": degree,
                "port": port,
                "device": device,
                "cores": cores,
                "threads": cores_per_rank,
                "timeout_s": timeout_s,
                "parent": os.getpid(),
            }
            (folder / "job.json").write_text(json.dumps(job))
            with _workers(folder, degree, port, cores_per_rank, env or {}) as context:
                _watch(context, folder, degree, timeout_s)
        return [pickle.loads((folder / f"result-{rank}").read_bytes()) for rank in range(degree)]


def _share_cores(degree: int, cores_per_rank: int) -> list[list[int]]:
    """The cores of each rank: apart while there are enough, in turn after that; never more per rank than there are."""
    usable = usable_cores()
    width = min(cores_per_rank, len(usable))
    return [[usable[(rank * width + i) % len(usable)] for i in range(width)] for rank in range(degree)]


@contextmanager
def _store() -> Iterator[int]:
    """The meeting point of the ranks, on a port of the loopback that was free when it was bound."""
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        listener.listen()
        port = listener.getsockname()[1]
        store = connect(LOOPBACK, port, TIMEOUT_S, listener=listener.detach())
    try:
        yield port
    finally:
        del store  # an exception's traceback would keep it, and its port open


@contextmanager
def _signals() -> Iterator[None]:
    """Signals become exceptions here while workers live, and find their old handlers afterwards."""
    from torch.distributed.elastic.multiprocessing.api import SignalException

    known = [getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT") if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in known}
    try:
        yield
    except SignalException as caught:
        if caught.sigval == signal.SIGINT:
            raise KeyboardInterrupt from None
        raise SystemExit(128 + caught.sigval) from None
    finally:
        for number, handler in before.items():
            with suppress(ValueError):  # outside the main thread there is no handler to put back
                signal.signal(number, handler)


@contextmanager
def _workers(folder: Path, degree: int, port: int, threads: int, env: Mapping[str, str]) -> Iterator["SubprocessContext"]:
    """Started processes; when this ends they are gone, with all that they have started."""
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SubprocessContext

    logs = folder / "elastic"
    logs.mkdir()
    paths = [path for path in [env.get("PYTHONPATH", ""), *sys.path] if path]
    shared = {
        "GLOO_SOCKET_IFNAME": os.environ.get("GLOO_SOCKET_IFNAME", loopback_interface()),
        "NCCL_SOCKET_IFNAME": os.environ.get("NCCL_SOCKET_IFNAME", loopback_interface()),
        "TORCH_CPP_LOG_LEVEL": "ERROR",  # it warns of a loopback without a host name, which is meant
        "OMP_NUM_THREADS": str(threads),
        "MASTER_ADDR": LOOPBACK,
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(degree),
        "LOCAL_WORLD_SIZE": str(degree),
        **env,
        "PYTHONPATH": os.pathsep.join(paths),
    }
    context = SubprocessContext(
        name="mixbench",
        entrypoint=sys.executable,
        args={rank: ("-P", "-c", _ENTRY, str(folder), str(rank)) for rank in range(degree)},
        envs={rank: shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(degree)},
        logs_specs=DefaultLogsSpecs(log_dir=str(logs)),
    )
    try:
        context.start()
        yield context
    finally:
        _end(context, folder)


def _end(context: "SubprocessContext", folder: Path) -> None:
    """Kill each worker's process group and take its exit code, so that not even a zombie is left.

    A signal may have come while workers were being started: then elastic has no handle of them yet.
    """
    started = [handler.proc.pid for handler in context.subprocess_handlers.values()]
    strays = [] if started else [child for child in psutil.Process().children() if _is_worker(child, folder)]
    for pid in (*started, *(stray.pid for stray in strays)):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
    for handler in context.subprocess_handlers.values():
        with suppress(Exception):
            handler.proc.wait(10)
    psutil.wait_procs(strays, timeout=10)


def _is_worker(process: psutil.Process, folder: Path) -> bool:
    with suppress(psutil.Error):
        return str(folder) in process.cmdline()
    return False


def _watch(context: "SubprocessContext", folder: Path, degree: int, timeout_s: float) -> None:
    """Return when every rank has left its result.

    Raises:
        RankFailure: as soon as one failed or hangs.
    """
    steps = dict.fromkeys(range(degree), Step("starting"))
    seen = dict.fromkeys(range(degree), time.monotonic())
    while True:
        codes = {rank: handler.proc.poll() for rank, handler in context.subprocess_handlers.items()}
        if any(_failed(folder, rank, code) for rank, code in codes.items()):
            raise _culprit(context, folder)
        running = [rank for rank, code in codes.items() if code is None]
        done = [rank for rank in codes if (folder / f"result-{rank}").exists()]
        if not running or (len(done) == degree and time.monotonic() - max(seen.values()) > _LEAVE_S):
            return
        for rank in running:
            if (step := Step.read(folder / f"beat-{rank}")) and step != steps[rank]:
                steps[rank], seen[rank] = step, time.monotonic()
        if hang := _find_hang(running, steps, seen, timeout_s):
            rank, cause = hang
            context.subprocess_handlers[rank].proc.send_signal(signal.SIGUSR1)  # makes it write where it stands
            time.sleep(_LAST_WORDS_S)
            hint = "a longer --timeout if one step may take so long; --debug shows where it stood"
            raise RankFailure(rank, cause, hint, _tail(folder, rank))
        time.sleep(_LOOK_S)


def _find_hang(
    running: Sequence[int], steps: Mapping[int, Step], seen: Mapping[int, float], timeout_s: float
) -> tuple[int, str] | None:
    """The rank at work that made no progress for too long; or the first of all, when they wait for one another."""
    now = time.monotonic()
    limits = {rank: steps[rank].patience_s(timeout_s) for rank in running}
    late = [rank for rank in running if now - seen[rank] >= limits[rank]]
    working = [rank for rank in late if not steps[rank].waits]
    if not late or (not working and len(late) < len(running)):
        return None  # those who wait are not late while somebody works
    rank = min(working or late, key=lambda rank: seen[rank])
    doing = f"in {steps[rank].name!r}" + ("" if working else ", as every rank waits for another")
    return rank, f"hangs: no progress for {limits[rank]:g} s, {doing}"


def _failed(folder: Path, rank: int, code: int | None) -> bool:
    """Whether a rank ended without its result; how it ends after that is no matter."""
    return code is not None and not (folder / f"result-{rank}").exists()


def _culprit(context: "SubprocessContext", folder: Path) -> RankFailure:
    """The rank that failed by itself; the others only lost it, and may have ended sooner."""
    until = time.monotonic() + _CULPRIT_S
    while True:
        codes = {rank: handler.proc.poll() for rank, handler in context.subprocess_handlers.items()}
        failures = {rank: code for rank, code in codes.items() if _failed(folder, rank, code)}
        named = {rank: _message(context, rank) for rank in failures}
        guilty = [rank for rank in failures if not is_lost(named[rank])]
        if guilty or None not in codes.values() or time.monotonic() > until:
            break
        time.sleep(_LOOK_S)
    rank = min(guilty or failures, key=lambda rank: (not _killed(failures[rank]), _when(context, rank)))
    code = failures[rank]
    assert code is not None, "only ended ranks are looked at"
    return _explain(rank, code, named[rank], _tail(folder, rank))


def _killed(code: int | None) -> bool:
    return code is not None and code < 0


def _when(context: "SubprocessContext", rank: int) -> float:
    """When the rank wrote down its exception, for the order of several."""
    with suppress(OSError):
        return Path(context.error_files[rank]).stat().st_mtime
    return 0.0


def _message(context: "SubprocessContext", rank: int) -> str:
    """What elastic's ``record`` wrote of the exception that ended a worker; "" when it ended without one."""
    try:
        found = json.loads(Path(context.error_files[rank]).read_text())["message"]
    except (OSError, ValueError, KeyError):
        return ""
    return str(found["message"] if isinstance(found, dict) else found)


def _explain(rank: int, code: int, message: str, log: str) -> RankFailure:
    """A worker's end in words. A MixbenchError brings its own hint, on the second line."""
    first, _, rest = message.partition("\n")
    first = first.removesuffix(": ")
    kind, _, text = first.partition(": ")
    if kind in ("BadInput", "CannotMeasure", "MixbenchError"):
        return RankFailure(rank, f"stopped: {text}", rest, log)
    if any(word in message.lower() for word in _MEMORY):
        return RankFailure(rank, f"ran out of memory: {first}", "a smaller --batch or --seq, or fewer ranks", log)
    if message:
        return RankFailure(rank, f"raised {first}", "--debug shows its traceback", log)
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        hint = "the system kills so what takes too much memory: a smaller --batch or --seq, or fewer ranks"
        return RankFailure(
            rank, f"was killed by {name}", hint if code == -signal.SIGKILL else "--debug shows its last words", log
        )
    if code == 0:
        return RankFailure(rank, "ended before its result", "the model's code must not leave the process", log)
    return RankFailure(rank, f"ended with exit code {code}", "--debug shows its last words", log)


def _tail(folder: Path, rank: int, lines: int = 20) -> str:
    with suppress(OSError):
        return "\n".join((folder / f"log-{rank}").read_text(errors="replace").splitlines()[-lines:])
    return ""
