"""Worker processes: what they return, how each way to fail is named, and that nothing is left behind."""

import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from mixbench.models.errors import BadInput, CannotMeasure
from mixbench.profilers.joined import joined
from mixbench.profilers.ranks import RankFailure, _explain, launch

pytestmark = pytest.mark.alone

WORK = """
import os, signal, time
from pathlib import Path
import psutil, torch

def places(world, payload):
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()
    found = [c.laddr.ip for c in psutil.Process().net_connections("tcp") if c.status == "LISTEN"]
    return world.rank, world.slowest(10.0 * world.rank), payload, sorted(cores), torch.get_num_threads(), found

def fails(world, how):
    world.barrier()
    if world.rank == 1:
        if how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        elif how == "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        elif how == "raises":
            raise ValueError("no such luck" + chr(10) + "a second line")
        elif how == "refuses":
            from mixbench.models.errors import BadInput
            raise BadInput("this will not do", "do that")
        elif how == "memory":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")
        elif how == "exits":
            os._exit(9)
        elif how == "leaves":
            os._exit(0)
        elif how == "hangs":
            world.beat("a long step")
            time.sleep(60)
    world.barrier()
    world.barrier()

def deadlocks(world, payload):
    if world.rank == 0:
        world.barrier()
        return
    torch.distributed.recv(torch.zeros(1), 0)

def slow(world, payload):
    for step in range(12):
        world.beat(f"step {step}")
        time.sleep(0.25)
    world.barrier()
    return "done"

def breeds(world, payload):
    import subprocess, sys
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    world.barrier()
    raise ValueError("with a child")
"""


class Nest:
    """Where launches of a test happen, and a look at what they leave."""

    def __init__(self, folder: Path) -> None:
        self.mark = uuid.uuid4().hex
        self.env = {"PYTHONPATH": str(folder), "MIXBENCH_TEST_MARK": self.mark}
        (folder / "rank_work.py").write_text(WORK)

    def living(self) -> list[psutil.Process]:
        """Processes that carry the mark and are no zombies."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("MIXBENCH_TEST_MARK") == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                continue
        return found


def listening() -> set[int]:
    """Ports that this process and its children have open for others."""
    me = psutil.Process()
    found = set()
    for process in [me, *me.children(recursive=True)]:
        found |= {c.laddr.port for c in process.net_connections("tcp") if c.status == psutil.CONN_LISTEN}
    return found


@pytest.fixture
def nest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Nest]:
    """A place for launches; after the test nothing of them is left: no process, no port, no file, no handler."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    ports, handlers = listening(), {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    found = Nest(tmp_path)
    yield found
    assert found.living() == []
    assert psutil.Process().children(recursive=True) == []
    assert listening() == ports
    assert list(scratch.iterdir()) == []
    assert {number: signal.getsignal(number) for number in handlers} == handlers


def failure(nest: Nest, function: str, payload: str = "", timeout_s: float = 20.0) -> RankFailure:
    """How a launch of two ranks fails, well within its timeout."""
    begin = time.monotonic()
    with pytest.raises(RankFailure) as caught:
        launch(f"rank_work:{function}", 2, payload, timeout_s, env=nest.env)
    assert time.monotonic() - begin < 15
    assert "\n" not in caught.value.what
    assert caught.value.exit_code == 3
    assert caught.value.hint
    return caught.value


def test_ranks_work_together_each_on_a_core_of_its_own_and_listen_on_the_loopback_only(nest: Nest) -> None:
    results = launch("rank_work:places", 2, {"any": 1}, 60, env=nest.env)
    assert [rank for rank, *_ in results] == [0, 1]
    assert [slowest for _, slowest, *_ in results] == [10.0, 10.0]
    assert [payload for _, _, payload, *_ in results] == [{"any": 1}] * 2
    assert [threads for *_, threads, _ in results] == [1, 1]
    assert {address for *_, found in results for address in found} <= {"127.0.0.1"}
    if hasattr(os, "sched_getaffinity"):
        first, second = (set(cores) for _, _, _, cores, _, _ in results)
        assert len(first) == len(second) == 1
        assert first != second or len(os.sched_getaffinity(0)) == 1


@pytest.mark.slow
def test_one_rank_sends_nothing(nest: Nest) -> None:
    ((rank, slowest, _, _, threads, ports),) = launch("rank_work:places", 1, None, 60, 2, env=nest.env)
    assert (rank, slowest, ports) == (0, 0.0, [])
    assert threads == 2


@pytest.mark.parametrize(
    ("how", "what"),
    [
        ("killed", "rank 1 was killed by SIGKILL"),
        pytest.param("segfault", "rank 1 was killed by SIGSEGV", marks=pytest.mark.slow),
        ("raises", "rank 1 raised ValueError: no such luck"),
        pytest.param("refuses", "rank 1 stopped: this will not do", marks=pytest.mark.slow),
        pytest.param(
            "memory",
            "rank 1 ran out of memory: OutOfMemoryError: CUDA out of memory. Tried to allocate 9 GiB",
            marks=pytest.mark.slow,
        ),
        pytest.param("exits", "rank 1 ended with exit code 9", marks=pytest.mark.slow),
        pytest.param("leaves", "rank 1 ended before its result", marks=pytest.mark.slow),
    ],
)
def test_a_rank_that_ends_early_is_named_with_its_cause(nest: Nest, how: str, what: str) -> None:
    found = failure(nest, "fails", how)
    assert found.what == what
    assert found.rank == 1
    if how in ("killed", "memory"):
        assert "--batch" in found.hint
    if how == "refuses":
        assert found.hint == "do that"
    if how == "raises":
        assert "in fails" in found.log, "the traceback is kept for --debug"


def test_a_hanging_rank_is_blamed_and_not_the_one_that_waits_for_it(nest: Nest) -> None:
    found = failure(nest, "fails", "hangs", timeout_s=2)
    assert found.what == "rank 1 hangs: no progress for 2 s, in 'a long step'"
    assert "in fails" in found.log, "it is asked where it stands"


@pytest.mark.slow
def test_ranks_that_wait_for_one_another_are_a_hang_too(nest: Nest) -> None:
    assert "hangs: no progress for 2 s" in failure(nest, "deadlocks", timeout_s=2).what


@pytest.mark.slow
def test_a_slow_rank_that_comes_on_is_no_hang(nest: Nest) -> None:
    assert launch("rank_work:slow", 2, None, 1.5, env=nest.env) == ["done", "done"]


def test_what_a_rank_has_started_ends_with_it(nest: Nest) -> None:
    assert "with a child" in failure(nest, "breeds").what


@pytest.mark.slow
def test_an_unknown_function_is_a_failure_of_its_ranks(nest: Nest) -> None:
    assert "AttributeError" in failure(nest, "missing").what


@pytest.mark.parametrize(
    "number", [*(pytest.param(n, marks=pytest.mark.slow) for n in (signal.SIGINT, signal.SIGTERM)), signal.SIGKILL]
)
def test_workers_end_with_the_process_that_started_them(nest: Nest, tmp_path: Path, number: signal.Signals) -> None:
    program = f"""
import tempfile
tempfile.tempdir = {str(tmp_path / "parent")!r}
from mixbench.profilers.ranks import launch
launch("rank_work:fails", 2, "hangs", 60)
"""
    (tmp_path / "parent").mkdir()
    paths = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    with subprocess.Popen(
        [sys.executable, "-c", program], env={**os.environ, **nest.env, "PYTHONPATH": paths}, stderr=subprocess.DEVNULL
    ) as parent:
        steps: list[Path] = []
        until = time.monotonic() + 30
        while not (len(steps) == 2 and any("a long step" in step.read_text() for step in steps)):
            assert time.monotonic() < until
            steps = list((tmp_path / "parent").glob("mixbench-ranks-*/beat-*"))
            time.sleep(0.05)
        assert len(nest.living()) == 3
        parent.send_signal(number)
        code = parent.wait(10)
    assert code == {signal.SIGINT: -signal.SIGINT, signal.SIGTERM: 143, signal.SIGKILL: -signal.SIGKILL}[number]
    until = time.monotonic() + 5
    while nest.living():
        assert time.monotonic() < until, "workers outlive their parent"
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("code", "message", "what"),
    [
        (-9, "", "rank 3 was killed by SIGKILL"),
        (-11, "", "rank 3 was killed by SIGSEGV"),
        (-250, "", "rank 3 was killed by signal 250"),
        (9, "", "rank 3 ended with exit code 9"),
        (0, "", "rank 3 ended before its result"),
        (1, "MemoryError: ", "rank 3 ran out of memory: MemoryError"),
        (
            1,
            "RuntimeError: [enforce fail] not enough memory: you tried to allocate",
            "rank 3 ran out of memory: RuntimeError: ",
        ),
        (1, "BadInput: no\ndo that", "rank 3 stopped: no"),
        (1, "ValueError: one\ntwo", "rank 3 raised ValueError: one"),
    ],
)
def test_each_end_has_its_words(code: int, message: str, what: str) -> None:
    found = _explain(3, code, message, "")
    assert found.what.startswith(what)
    assert "\n" not in found.what
    assert found.hint


def test_the_variables_of_torchrun_and_slurm_are_understood() -> None:
    torchrun = {
        "RANK": "3",
        "WORLD_SIZE": "8",
        "LOCAL_RANK": "1",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "a",
        "MASTER_PORT": "7",
    }
    found = joined(torchrun | {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RUN_ID": "x"})
    assert found is not None
    assert (found.by, found.rank, found.degree, found.local_rank, found.host, found.port) == ("torchrun", 3, 8, 1, "a", 7)
    assert not found.hosts_store
    assert not found.one_machine
    slurm = {"SLURM_PROCID": "5", "SLURM_NTASKS": "8", "SLURM_LOCALID": "1", "SLURM_NNODES": "2", "SLURM_JOB_ID": "12"}
    found = joined(slurm | {"SLURM_STEP_NODELIST": "gpu[03-04]", "SLURM_STEP_TASKS_PER_NODE": "4(x2)"})
    assert found is not None
    assert (found.by, found.rank, found.degree, found.local_rank, found.host) == ("SLURM", 5, 8, 1, "gpu03")
    assert found.local_degree == 4
    assert found.hosts_store
    alone = joined({"SLURM_PROCID": "0", "SLURM_NTASKS": "2"})
    assert alone is not None
    assert alone.host == "127.0.0.1"
    assert joined({"SLURM_PROCID": "0", "SLURM_NTASKS": "1"}) is None
    assert joined({}) is None
    with pytest.raises(CannotMeasure, match="MASTER_PORT"):
        joined({"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "a"})


def test_a_refusal_keeps_its_kind_apart_from_a_failure() -> None:
    assert not issubclass(RankFailure, BadInput)
