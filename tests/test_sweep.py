"""`mixbench scale tokenring` when things go wrong: each failure is named, nobody is left behind, measured points are kept."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

pytestmark = pytest.mark.alone

SCRIPT = Path(sys.executable).with_name("mixbench")
TORCHRUN = Path(sys.executable).with_name("torchrun")
SIZES = (
    "--seq",
    "64",
    "--heads",
    "4",
    "--head-dim",
    "16",
    "--methods",
    "ring,tokenring",
    "--seconds",
    "0.05",
    "--repeats",
    "1",
)
WORLD = ("--device", "cpu", "--oversubscribe", "--timeout", "20")

# Every Python process of the test imports this at its start; in rank 1 of 2 a method's round then goes wrong.
SABOTAGE = """
import os, sys

how = os.environ.get("SABOTAGE", "")
if how and (sys.argv[:1] == ["-c"] or "scale" in sys.orig_argv):
    from mixbench.profilers import workers

    beat = workers.World.beat

    def broken(self, name):
        beat(self, name)
        if self.degree == 2 and self.rank == 1 and name.startswith("ring, whole, round 3"):
            if how.startswith("later"):
                if os.path.exists(how.partition(" ")[2]):
                    os.kill(os.getpid(), 9)
                open(how.partition(" ")[2], "w").close()
            if how == "killed":
                os.kill(os.getpid(), 9)
            if how == "raises":
                raise ValueError("no such luck")
            if how == "memory":
                import torch
                torch.empty(1 << 60, dtype=torch.uint8)
            if how == "hangs":
                import time
                time.sleep(600)

    workers.World.beat = broken
"""


@pytest.fixture
def sabotage(tmp_path: Path) -> Any:
    """An environment in which rank 1 of 2 fails as it is told."""
    (tmp_path / "sitecustomize.py").write_text(SABOTAGE)
    paths = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    return lambda how: {**os.environ, "PYTHONPATH": paths, "SABOTAGE": how}


def run(command: list[str], env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=env, encoding="utf-8")
    assert psutil.wait_procs(psutil.Process().children(recursive=True), timeout=10)[1] == [], "nobody is left"
    return done


def scale(*words: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return run([str(SCRIPT), "scale", "tokenring", "--gpus", "2", *WORLD, *words], env)


FAILURES = [
    ("killed", "rank 1 was killed by SIGKILL"),
    pytest.param("raises", "rank 1 raised ValueError: no such luck", marks=pytest.mark.slow),
    pytest.param("memory", "rank 1 ran out of memory: RuntimeError", marks=pytest.mark.slow),
    pytest.param("hangs", "rank 1 hangs: no progress for 3 s, in 'ring, whole, round 3", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("how", "cause"), FAILURES)
def test_a_failed_rank_ends_the_sweep_and_what_was_measured_is_kept_as_partial(sabotage: Any, how: str, cause: str) -> None:
    done = scale(*SIZES, "--timeout", "3", "--json", env=sabotage(how))
    assert done.returncode == 3, done.stderr
    error, hint = done.stderr.splitlines()
    assert error.startswith(f"error: {cause}")
    assert hint.startswith("hint: ")
    found = json.loads(done.stdout)
    assert found["partial"]
    assert found["cause"].startswith(cause)
    states = {(point["method"], point["degree"]): point for point in found["measured"]}
    assert states["one process", 1]["status"] == "measured"
    assert states["ring", 2]["status"] == states["tokenring", 2]["status"] == "failed"
    assert states["ring", 2]["cause"].startswith(cause)
    assert states["ring", 2]["step_ns"] is None
    assert len(found["modelled"]) == 3, "what needs no rank is complete"


def test_what_repeats_have_measured_before_one_fails_is_kept_as_partial(sabotage: Any, tmp_path: Path) -> None:
    done = scale(*SIZES, "--repeats", "3", "--json", env=sabotage(f"later {tmp_path / 'once'}"))
    assert done.returncode == 3, done.stderr
    found = json.loads(done.stdout)
    states = {(point["method"], point["degree"]): point for point in found["measured"]}
    alone, ring = states["one process", 1], states["ring", 2]
    assert (alone["status"], ring["status"]) == ("measured", "partial")
    assert ring["cause"].startswith("rank 1 was killed")
    assert ring["step_ns"]["value"] > 0
    assert len(alone["slowest_ns"]) >= 3 * 16, "the rounds of all three repeats"
    assert len(ring["slowest_ns"]) == len(states["tokenring", 2]["slowest_ns"]) >= 16


IN_A_WORLD = [
    ("raises", "rank 1 raised ValueError: no such luck"),
    pytest.param("killed", "rank 1 ended without a word", marks=pytest.mark.slow),
    pytest.param("hangs", "rank 1 hangs: no progress for 3 s", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("how", "cause"), IN_A_WORLD)
def test_a_failure_in_a_world_of_torchrun_prints_the_points_measured_so_far(sabotage: Any, how: str, cause: str) -> None:
    words = ["-m", "mixbench", "scale", "tokenring", *WORLD, *SIZES, "--timeout", "3"]
    done = run([str(TORCHRUN), "--nproc-per-node", "2", *words], sabotage(how))
    assert done.returncode == 1, "torchrun's own code"
    assert done.stdout.count("PARTIAL: ") == 1
    assert f"PARTIAL: {cause}" in done.stdout
    assert re.search(r"^one process +64 +1 +[\d.]+ ", done.stdout, re.MULTILINE)
    assert re.search(r"^ring +64 +2 +n/a +failed: ", done.stdout, re.MULTILINE), "the setting that failed has a row"
    (error,) = (line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert error.startswith(f"error: {cause}")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)])
def test_a_signal_ends_the_sweep_and_the_points_so_far_are_printed(sabotage: Any, number: int, code: int) -> None:
    command = [str(SCRIPT), "scale", "tokenring", "--gpus", "2", *WORLD, *SIZES]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8", env=sabotage("hangs")
    ) as process:
        until = time.monotonic() + 60
        workers: list[psutil.Process] = []
        while len(workers) < 2:  # the first degree has one
            assert time.monotonic() < until
            time.sleep(0.05)
            workers = psutil.Process(process.pid).children()
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert process.returncode == code
    said = "interrupted" if number == signal.SIGINT else "ended by SIGTERM"
    assert f"PARTIAL: {said}" in out
    assert re.search(r"^one process +64 +1 +[\d.]+ ", out, re.MULTILINE)
    assert err == ""
    assert psutil.wait_procs(workers, timeout=10)[1] == []


def test_heads_that_no_degree_divides_are_refused_before_anything_starts() -> None:
    done = scale("--seq", "64", "--heads", "3", "--methods", "ulysses")
    assert (done.returncode, done.stdout) == (2, "")
    error, hint = done.stderr.splitlines()
    assert "3 query heads" in error
    assert hint.startswith("hint: ")


@pytest.mark.slow
def test_uneven_lengths_and_fewer_tokens_than_ranks_are_measured_and_a_method_that_cannot_is_left_out() -> None:
    words = ("--gpus", "3", "--seq", "50", "--heads", "4", "--head-dim", "16", "--methods", "ulysses,ring,tokenring")
    done = scale(*words, "--seconds", "0.05", "--repeats", "1", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert not found["partial"]
    states = {(point["method"], point["degree"], point["seq_len"]): point for point in found["measured"]}
    for seq_len in (50,):
        refused = states["ulysses", 3, seq_len]
        assert refused["status"] == "skipped"
        assert "4 query heads" in refused["cause"]
        for method in ("ring", "tokenring"):
            assert states[method, 3, seq_len]["max_error"] < 1e-5
            assert states[method, 3, seq_len]["sent_bytes"] == states[method, 3, seq_len]["planned_bytes"]
    assert any("ulysses is left out at 3 ranks" in note for note in found["notes"])


@pytest.mark.slow
def test_a_port_in_use_is_named_by_the_rank_that_wanted_it() -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        env = {
            **os.environ,
            "RANK": "0",
            "WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(taken.getsockname()[1]),
        }
        done = run([str(SCRIPT), "scale", "tokenring", *WORLD, *SIZES, "--timeout", "3"], env)
    assert done.returncode == 3
    assert re.match(r"error: rank 0: port \d+ of 127.0.0.1 is in use\nhint: set MASTER_PORT", done.stderr)


@pytest.mark.slow
def test_two_agents_of_torchrun_print_one_result() -> None:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = [
        "--nnodes",
        "2",
        "--nproc-per-node",
        "1",
        "--rdzv-backend",
        "c10d",
        "--rdzv-id",
        "two",
        "--local-addr",
        "127.0.0.1",
    ]
    words = ["-m", "mixbench", "scale", "tokenring", *WORLD, *SIZES, "--json"]
    command = [str(TORCHRUN), *shared, "--rdzv-endpoint", f"127.0.0.1:{port}", *words]
    agents = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8") for _ in range(2)
    ]
    outs = [agent.communicate(timeout=110) for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], outs
    (spoken,) = (out for out, _ in outs if out)
    found = json.loads(spoken)
    assert {point["degree"] for point in found["measured"]} == {1, 2}
    assert all(point["max_error"] < 1e-5 for point in found["measured"])


@pytest.mark.parametrize("words", [("--train",), ("--input", "1x64"), ("--channels-last",)])
def test_options_of_other_models_are_refused_and_not_ignored(words: tuple[str, ...]) -> None:
    done = scale("--seq", "64", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert words[0] in done.stderr.splitlines()[0]
