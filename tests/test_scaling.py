"""`mixbench scale`: figures by construction, what is refused and marked, and the command as a user meets it."""

import csv
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import psutil
import pytest

from mixbench.models.errors import BadInput, CannotMeasure
from mixbench.profilers import scaling
from mixbench.profilers.devices.base import find
from mixbench.profilers.joined import Joined
from mixbench.profilers.machine import usable_cores
from mixbench.profilers.ranks import RankFailure
from mixbench.profilers.runs.scale_run import ScalePoint, ScaleRun, over, rate, speed_up
from mixbench.profilers.scaling import Job, Plan, RankTimes, degrees_to, plan, split, sweep, time_rounds
from mixbench.profilers.stats import estimate
from mixbench.profilers.workers import World

pytestmark = pytest.mark.alone

SCRIPT = Path(sys.executable).with_name("mixbench")
TORCHRUN = Path(sys.executable).with_name("torchrun")
TWO_CORES = pytest.mark.skipif(len(usable_cores()) < 2, reason="two ranks want two cores")
QUICK = ("--repeats", "1", "--seconds", "0.1", "--timeout", "30")

FAKE = """
import time
from mixbench.profilers.devices.base import find
from mixbench.profilers.scaling import RankTimes, time_rounds

PACE_S = {(1, 0): 0.040, (2, 0): 0.020, (2, 1): 0.030}

def timer(world, payload):
    job, batch = payload
    pause = PACE_S[world.degree, world.rank]
    samples = time_rounds(world, lambda: time.sleep(pause), find("cpu"), job.seconds, job.rounds)
    return RankTimes(tuple(samples), (f"batch {batch} at degree {world.degree}",))
"""

NET = """
import os, time
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.linear, self.unused = nn.Linear(8, 8), nn.Linear(3, 3)
        self.how, self.calls = how, 0
    def forward(self, x):
        self.calls += not x.is_meta
        if self.how and self.calls == 3 and os.environ.get("RANK", os.environ.get("SLURM_PROCID")) == "1":
            if self.how == "killed":
                os.kill(os.getpid(), 9)
            if self.how == "hangs":
                print("hanging", flush=True)
                time.sleep(60)
            raise ValueError("no such luck")
        return self.linear(x)

def make(how=""):
    return Net(how), torch.zeros(2, 8)
"""


@pytest.fixture
def net(tmp_path: Path) -> str:
    """A model of two samples' batch whose rank 1 can be told to fail."""
    (tmp_path / "net.py").write_text(NET)
    return f"{tmp_path / 'net.py'}:make"


@pytest.fixture
def fake(tmp_path: Path) -> dict[str, str]:
    """An environment in which workers find the timers above."""
    (tmp_path / "fake_timer.py").write_text(FAKE)
    return {"PYTHONPATH": str(tmp_path)}


@pytest.fixture
def ranks(monkeypatch: pytest.MonkeyPatch) -> "Put":
    """Puts ranks in the place of real ones whose calls take so many ns at each degree; a degree without a time fails."""

    def put(times_ns: dict[int, float]) -> None:
        def launch(timer: str, degree: int, *_: Any) -> list[RankTimes]:
            if degree not in times_ns:
                raise RankFailure(degree - 1, f"raised ValueError: {degree} is too many")
            return [RankTimes((times_ns[degree],) * 12)] * degree

        monkeypatch.setattr(scaling, "launch", launch)

    return put


Put = Callable[[dict[int, float]], None]


def two(oversubscribed: bool = False) -> Plan:
    """Degrees 1 and 2, whatever machine this is."""
    return Plan(asked=2, degrees=(1, 2), device="cpu", cores_per_rank=1, cores=1 if oversubscribed else 2, here=2)


def scale(*words: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the installed script."""
    command = [str(SCRIPT), "scale", *words]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **(env or {})}, timeout=90)


def values(run: ScaleRun) -> dict[int, ScalePoint]:
    return {point.degree: point for point in run.points}


def test_degrees_double_and_end_at_what_is_asked() -> None:
    assert [degrees_to(most) for most in (1, 2, 3, 6, 8)] == [(1,), (1, 2), (1, 2, 3), (1, 2, 4, 6), (1, 2, 4, 8)]


def test_throughput_is_the_global_batch_over_the_slowest_ranks_time(net: str, fake: dict[str, str]) -> None:
    job = Job(net, {}, batch=4, rounds=12, repeats=1)
    run, failure = sweep(job, two(), timer="fake_timer:timer", env=fake)
    assert failure is None
    one, both = values(run)[1], values(run)[2]
    assert (one.batch_per_rank, both.batch_per_rank, both.global_batch) == (4, 2, 4)
    for point in (one, both):
        assert point.status == "measured"
        assert point.step_ns is not None
        assert point.samples_per_s is not None
        assert point.samples_per_s.value == pytest.approx(4e9 / point.step_ns.value)
        assert len(point.slowest_ns) == 12
    # Sleeping takes its time at least; how much more is the machine's matter.
    assert one.rank_ns[0] == pytest.approx(40e6, rel=0.3)
    assert both.rank_ns == (pytest.approx(20e6, rel=0.4), pytest.approx(30e6, rel=0.4))
    assert both.step_ns is not None
    assert both.step_ns.value >= max(both.rank_ns) >= 30e6
    assert both.speed_up is not None
    assert both.efficiency is not None
    assert one.step_ns is not None
    assert both.speed_up.value == pytest.approx(one.step_ns.value / both.step_ns.value)
    assert both.efficiency.value == pytest.approx(both.speed_up.value / 2)
    assert "batch 2 at degree 2" in run.notes


def test_weak_scaling_keeps_the_batch_of_each_rank(net: str, ranks: Put) -> None:
    ranks({1: 1e6, 2: 0.5e6})
    run, _ = sweep(Job(net, {}, batch=3, weak=True, repeats=2), two())
    both = values(run)[2]
    assert (both.batch_per_rank, both.global_batch, both.repeats) == (3, 6, 2)
    assert both.speed_up is not None
    assert both.efficiency is not None
    # Twice the batch in half the time.
    assert both.speed_up.value == pytest.approx(4)
    assert both.efficiency.value == pytest.approx(2)


def test_an_oversubscribed_point_has_no_speed_up_and_no_efficiency(net: str, ranks: Put) -> None:
    ranks({1: 1e6, 2: 0.5e6})
    run, _ = sweep(Job(net, {}, repeats=1), two(oversubscribed=True))
    both = values(run)[2]
    assert both.oversubscribed
    assert (both.speed_up, both.efficiency) == (None, None)
    assert both.samples_per_s is not None
    assert not values(run)[1].oversubscribed


def test_a_degree_that_fails_leaves_the_others_and_is_marked(net: str, ranks: Put) -> None:
    ranks({1: 1e6})
    run, failure = sweep(Job(net, {}, repeats=2), replace(two(), asked=4, degrees=(1, 2, 4)))
    assert isinstance(failure, RankFailure)
    assert list(values(run)) == [1, 2], "what is above a failed degree is not tried"
    one, both = values(run)[1], values(run)[2]
    assert (one.status, one.repeats) == ("measured", 2)
    assert (both.status, both.step_ns, both.repeats) == ("failed", None, 0)
    assert "2 is too many" in both.cause


def test_the_interval_of_a_ratio_holds_what_both_intervals_allow() -> None:
    base, other = random.Random(1).sample(range(100, 140), 40), random.Random(2).sample(range(50, 90), 40)
    found = speed_up(base, 1, other, 1)
    slow, fast = (rate(estimate(samples, level=0.995), 1) for samples in (base, other))
    assert slow.low and slow.high and fast.low and fast.high
    assert found.value == pytest.approx(119.5 / 69.5)
    assert (found.low, found.high) == (fast.low / slow.high, fast.high / slow.low)
    assert over(found, 2).value == found.value / 2
    assert speed_up([1.0] * 3, 1, [1.0] * 3, 1).low is None, "three samples have no interval"


def test_more_processes_than_cores_are_refused_unless_asked_for() -> None:
    most = len(usable_cores())
    with pytest.raises(CannotMeasure, match=f"{most + 1} processes of 1 thread"):
        plan(most + 1, "cpu", None, False, None)
    with pytest.raises(CannotMeasure, match=f"need {2 * most} cores"):
        plan(most, "cpu", 2, False, None)
    crowd = plan(most + 1, "cpu", None, True, None)
    assert crowd.degrees[-1] == most + 1
    assert crowd.oversubscribed(most + 1)
    assert not crowd.oversubscribed(most)


def test_a_machine_without_gpus_says_so_and_ends_at_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.accelerator.is_available", lambda: False)
    most = len(usable_cores())
    found = plan(most + 2, "auto", None, False, None)
    assert found.device == "cpu"
    assert found.degrees[-1] == most
    (note,) = found.notes
    assert f"no {most + 2} GPUs" in note
    assert "\n" not in note


def test_a_joined_world_measures_its_own_size_only() -> None:
    world = Joined("torchrun", 0, 2, 0, 2, "127.0.0.1", 1, False)
    with pytest.raises(BadInput, match="--gpus 4 in a world of 2 ranks"):
        plan(4, "cpu", None, False, world)


def test_a_batch_that_does_not_split_names_those_that_do() -> None:
    job = Job("any", {}, batch=10)
    with pytest.raises(BadInput, match="a global batch of 10 does not split over 4 ranks") as caught:
        split(job, (1, 2, 4), 1)
    assert "--batch 8 or 12" in caught.value.hint
    assert split(Job("any", {}), (1, 2, 3), 2) == {1: 12, 2: 6, 3: 4}
    assert split(Job("any", {}, weak=True), (1, 2, 4), 2) == {1: 2, 2: 2, 4: 2}


def test_short_calls_are_timed_in_blocks() -> None:
    calls = []
    samples = time_rounds(World(0, 1, "cpu"), lambda: calls.append(0), find("cpu"), 0.05, 12)
    assert len(samples) == 12
    assert len(calls) > 12 * 1000
    assert max(samples) < 1e6


def test_help_and_wrong_use_come_without_torch() -> None:
    for words, code in (["--help"], 0), (["ghostnet2", "--gpus", "2"], 2), (["ghostnetv2"], 2):
        run = f"code = main(['scale', *{words!r}]); assert 'torch' not in sys.modules; sys.exit(code)"
        program = f"import sys; from mixbench.cli.app import main; {run}"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert done.returncode == code, done.stderr


@TWO_CORES
@pytest.mark.parametrize("train", [pytest.param(False, marks=pytest.mark.slow), True])
def test_the_command_measures_two_processes_and_keeps_its_schema(net: str, train: bool) -> None:
    done = scale(net, "--gpus", "2", "--batch", "4", "--device", "cpu", "--json", *QUICK, *(["--train"] if train else []))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    found = json.loads(done.stdout)
    schema = json.loads((files("mixbench.profilers.runs") / "scale-1.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(found, schema)
    assert [(point["degree"], point["batch_per_rank"]) for point in found["points"]] == [(1, 4), (2, 2)]
    assert found["kind"] == "measured"
    assert found["backend"] == "gloo"
    assert len(found["points"][1]["rank_ns"]) == 2
    assert any("no gradient" in note for note in found["notes"]) == train


@TWO_CORES
def test_the_table_shows_a_failed_degree_and_what_was_measured_before(net: str) -> None:
    done = scale(net, "--gpus", "2", "--kwarg", "how=killed", *QUICK)
    assert done.returncode == 3
    assert "failed: rank 1 was killed by SIGKILL" in done.stdout
    assert "samples/s" in done.stdout
    *notes, error, hint = done.stderr.splitlines()
    assert all(note.startswith("note: ") for note in notes)
    assert error == "error: rank 1 was killed by SIGKILL"
    assert hint.startswith("hint: ")


def test_the_command_refuses_more_ranks_than_cores() -> None:
    refused = scale("ghostnetv2", "--gpus", str(len(usable_cores()) + 1), "--device", "cpu")
    assert (refused.returncode, refused.stdout) == (3, "")
    error, hint = refused.stderr.splitlines()
    assert error.startswith("error: ")
    assert "--oversubscribe" in hint


@pytest.mark.slow
def test_more_ranks_than_cores_are_marked_in_the_table(net: str) -> None:
    crowd = str(len(usable_cores()) + 1)
    done = scale(net, "--gpus", crowd, "--device", "cpu", "--oversubscribe", "--weak", "--csv", *QUICK)
    assert done.returncode == 0, done.stderr
    *_, last = csv.DictReader(io.StringIO(done.stdout))
    assert last["degree"] == crowd
    assert last["oversubscribed"] == "True"
    assert last["efficiency"] == last["speed_up"] == ""


@pytest.mark.parametrize(("number", "code"), [pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_command_and_its_workers(net: str, number: int, code: int) -> None:
    command = [str(SCRIPT), "scale", net, "--gpus", "2", "--kwarg", "how=hangs", "--oversubscribe", "--repeats", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        until = time.monotonic() + 30
        workers: list[psutil.Process] = []
        while len(workers) < 2:
            assert time.monotonic() < until
            time.sleep(0.1)
            workers = psutil.Process(process.pid).children()
        process.send_signal(number)
        out, err = process.communicate(timeout=10)
    assert process.returncode == code
    assert out == ""
    assert all(line.startswith("note: ") for line in err.splitlines())
    assert psutil.wait_procs(workers, timeout=5)[1] == []


def joined_words(net: str, *words: str) -> list[str]:
    return ["-m", "mixbench", "scale", net, "--device", "cpu", "--oversubscribe", *QUICK, *words]


def no_child_is_left() -> bool:
    return psutil.wait_procs(psutil.Process().children(recursive=True), timeout=10)[1] == []


def run_torchrun(*words: str) -> subprocess.CompletedProcess[str]:
    command = [str(TORCHRUN), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=90)


def test_in_a_world_of_torchrun_rank_0_alone_speaks(net: str) -> None:
    done = run_torchrun("--nproc-per-node", "2", *joined_words(net, "--train", "--json"))
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["started_by"] == "torchrun"
    assert [point["degree"] for point in found["points"]] == [1, 2]
    assert no_child_is_left()


@pytest.mark.parametrize(
    ("how", "says"),
    [
        pytest.param("raises", "error: rank 1 raised ValueError: no such luck", marks=pytest.mark.slow),
        pytest.param("killed", "error: rank 1 ended without a word", marks=pytest.mark.slow),
        pytest.param("hangs", "error: rank 1 hangs: no progress for 5 s", marks=pytest.mark.slow),
    ],
)
def test_a_failure_in_a_world_of_torchrun_is_named(net: str, how: str, says: str) -> None:
    done = run_torchrun("--nproc-per-node", "2", *joined_words(net, "--kwarg", f"how={how}", "--timeout", "5"))
    assert done.returncode == 1, "torchrun's own code"
    assert [line for line in done.stderr.splitlines() if line.startswith("error: ")] == [
        line for line in done.stderr.splitlines() if line.startswith(says)
    ]
    assert says in done.stderr
    assert done.stdout == ""
    assert no_child_is_left()


@pytest.mark.slow
def test_two_agents_of_torchrun_make_one_world(net: str, free_port: int) -> None:
    shared = [
        "--nnodes",
        "2",
        "--nproc-per-node",
        "1",
        "--rdzv-backend",
        "c10d",
        "--rdzv-id",
        "one",
        "--local-addr",
        "127.0.0.1",
    ]
    command = [str(TORCHRUN), *shared, "--rdzv-endpoint", f"127.0.0.1:{free_port}", *joined_words(net, "--json")]
    agents = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    outs = [agent.communicate(timeout=90) for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], outs
    (spoken,) = (out for out, _ in outs if out)
    assert json.loads(spoken)["points"][1]["degree"] == 2
    assert no_child_is_left()


@pytest.fixture
def free_port() -> int:
    """A port that nobody uses just now."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def slurm(net: str, port: int, *words: str) -> list[tuple[int, str, str]]:
    """What two tasks of a simulated SLURM step end with: code, stdout, stderr."""
    tasks = []
    for rank in ("0", "1"):
        env = {**os.environ, "SLURM_PROCID": rank, "SLURM_NTASKS": "2", "SLURM_LOCALID": rank, "MASTER_PORT": str(port)}
        command = [sys.executable, *joined_words(net, *words)]
        tasks.append(subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    try:
        ends = [task.communicate(timeout=60) for task in tasks]
    finally:
        for task in tasks:
            task.kill()
    return [(task.returncode, *end) for task, end in zip(tasks, ends, strict=True)]


def test_two_tasks_of_slurm_make_one_world(net: str, free_port: int) -> None:
    (code, out, err), silent = slurm(net, free_port, "--json")
    assert code == 0, err
    assert json.loads(out)["started_by"] == "SLURM"
    assert silent == (0, "", "")
    assert no_child_is_left()


@pytest.mark.slow
def test_a_killed_task_of_slurm_ends_the_other(net: str, free_port: int) -> None:
    (code, out, err), silent = slurm(net, free_port, "--kwarg", "how=killed")
    assert (code, out) == (3, "")
    assert err.splitlines()[0] == "error: rank 1 ended without a word"
    assert silent == (-signal.SIGKILL, "", "")


def test_a_port_in_use_is_named(net: str) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        begin = time.monotonic()
        (code, out, err), silent = slurm(net, port, "--timeout", "3")
    assert time.monotonic() - begin < 20
    assert (code, out) == (3, "")
    assert err.splitlines() == [f"error: rank 0: port {port} of 127.0.0.1 is in use", "hint: set MASTER_PORT to a free one"]
    assert silent == (3, "", "")
