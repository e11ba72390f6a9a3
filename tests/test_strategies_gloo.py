"""The strategies between real processes over gloo: a world of four, and groups of two and three inside it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from mixbench.models import strategies
from mixbench.models.errors import CannotMeasure

pytestmark = pytest.mark.alone

WORLD = 4


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each process found; they are started once for all tests here."""
    folder = tmp_path_factory.mktemp("gloo")
    worker = Path(__file__).with_name("gloo_worker.py")
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error"}
    started = [
        subprocess.Popen(
            [sys.executable, str(worker), str(rank), str(WORLD), str(folder / "store")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for rank in range(WORLD)
    ]
    try:
        results = [process.communicate(timeout=60) for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()
    assert [process.returncode for process in started] == [0] * WORLD, "\n".join(err for _, err in results)
    return [json.loads(out.splitlines()[-1]) for out, _ in results]


@pytest.mark.parametrize("degree", [2, 3, 4])
def test_every_method_is_exact_between_processes(found: list[dict[str, Any]], degree: int) -> None:
    answers = [rank[str(degree)] for rank in found if str(degree) in rank]
    assert len(answers) == degree
    for answer in answers:
        cases = sum(2 * len(strategies.describe(method).layouts) for method in strategies.names())
        assert len(answer) == cases
        assert max(answer.values()) < 1e-10, answer


def test_two_layers_keep_apart(found: list[dict[str, Any]]) -> None:
    errors = [value for rank in found for name, value in rank.items() if name.startswith("layers")]
    assert len(errors) == 5
    assert max(errors) < 1e-10


def test_ranks_that_differ_are_all_told(found: list[dict[str, Any]]) -> None:
    for rank, answers in enumerate(rank["refusals"] for rank in found):
        assert "query heads (" in answers["heads"][0]
        assert "mask" in answers["mask"][0]
        own, hint = answers["one rank's own"]
        assert "don't fit one another" in own if rank == 1 else own == "rank 1 of the group can't take part"
        assert hint
        assert "lengths given are (5, 5, 5, 5, 5)" in answers["lengths"][0]
        assert answers["after all that"] == ["0.0"]


def test_a_steady_loop_keeps_its_memory_and_sends_what_was_planned(found: list[dict[str, Any]]) -> None:
    for rank in found:
        steady = rank["steady"]
        assert steady["same"]
        assert steady["sent"] == steady["planned"] > 0
        assert steady["operations"] > 0


def test_a_stranger_to_the_group_is_refused(found: list[dict[str, Any]]) -> None:
    assert [rank.get("stranger", ["", ""])[0] for rank in found] == ["this process is no member of the group", ""] * 2


def test_each_direction_has_connections_that_end_with_their_group(found: list[dict[str, Any]]) -> None:
    assert [rank["connections"] for rank in found[:2]] == [{"apart": True, "shared": True, "left": 0}] * 2


def test_without_a_process_group_the_way_out_is_named() -> None:
    q = torch.zeros(1, 1, 1, 1)
    with pytest.raises(CannotMeasure) as caught:
        strategies.attend(q, q, q)
    assert "init_process_group" in caught.value.hint
