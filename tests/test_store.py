"""The store of runs: whole after a kill at any moment, complete under parallel writers, and clear about what it can't use."""

import json
import os
import random
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from mixbench.models.errors import BadInput, CannotMeasure
from mixbench.profilers import store
from mixbench.profilers.commit import Commit, commit_of
from mixbench.profilers.run_lines import from_lines, to_line
from mixbench.profilers.store import Figure, KeptRun, Occasion

GOLDEN = Path(__file__).parent / "golden"
KILLS = 50

WRITER = """
import os, sys
from pathlib import Path
from mixbench.profilers.run_lines import from_lines, to_line
from mixbench.profilers.store import Figure, KeptRun, Occasion, save
path, name, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
figures = tuple(Figure("net", "w", f"metric{i}", i, "", "counted", "lower", parts={"part": i}) for i in range(20))
for number in range(count):
    run = KeptRun(Occasion(f"{name}-{number}", f"2026-01-01T00:00:00.{number:06}Z", "flops"), figures, {"long": "x" * 20_000})
    save(path, [run])
    os.write(1, f"{name}-{number}\\n".encode())  # the acknowledgement
"""


# In a process of its own: it forks writers, so that the moment falls on writing and not on start-up.
KILLER = """
import os, random, signal, sqlite3, sys, time
from pathlib import Path
from mixbench.profilers import store
path, seed, kills, program = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
dice, known, cut = random.Random(seed), set(), 0
for number in range(kills):
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(writing, 1)
        sys.argv = ["", str(path), f"w{number}", "10000"]
        exec(program, {})
    os.close(writing)
    time.sleep(dice.uniform(0.0, 0.06))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    cut += path.with_name("history.db-journal").exists()
    with os.fdopen(reading) as lines:
        known |= set(lines.read().split())
    if path.exists():
        missing = known - {run.occasion.id for run in store.runs(path)}
        assert not missing, f"kill {number} lost {missing}"
        with sqlite3.connect(path) as db:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",), f"kill {number}"
        db.close()
print(len(known), cut)
"""


def run(name: str, value: float = 1, **more: object) -> KeptRun:
    figure = Figure("net", "w", "macs", value, "MACs", "counted", "lower", parts={"conv": 1})
    made = Occasion(name, f"2026-01-01T00:00:00.{len(name):06}Z", "flops", Commit("ab" * 20, "2026-01-01T00:00:00Z", "main"))
    return KeptRun(made, (figure,), {"models": [], **more})


def writer(path: Path, name: str, count: int) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-c", WRITER, str(path), name, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_after_a_kill_at_any_moment_the_store_is_whole_and_has_what_was_acknowledged(tmp_path: Path) -> None:
    """One store lives through all the kills."""
    seed = random.randrange(2**32)
    command = [sys.executable, "-c", KILLER, str(tmp_path / ".mixbench" / "history.db"), str(seed), str(KILLS), WRITER]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"seed {seed}: {done.stderr}"
    acknowledged, cut = map(int, done.stdout.split())
    assert acknowledged > KILLS, "the writers got to write"
    assert cut, "some kill fell into a transaction, or this test says little"


def test_eight_writers_at_once_lose_no_run(tmp_path: Path) -> None:
    """They start on a file that is not there, so that its making is raced for too."""
    path = tmp_path / ".mixbench" / "history.db"
    writers = [writer(path, f"w{number}", 5) for number in range(8)]
    for process in writers:
        _, error = process.communicate(timeout=60)
        assert process.returncode == 0, error.decode()
    assert {item.occasion.id for item in store.runs(path)} == {f"w{n}-{i}" for n in range(8) for i in range(5)}


def test_a_run_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    saved = KeptRun(
        Occasion("id", "2026-01-01T00:00:00.000000Z", "time", Commit("c" * 40, "2026-01-01T00:00:00Z", "", True), "m", "CPU"),
        (
            Figure("net", "w", "macs", 2**60 + 1, "MACs", "counted", "lower", parts={"a": 1, "ü[x]": 2}),
            Figure("net", "w", "latency", 1.5, "ns", "measured", "lower", 1.25, 1.75),
        ),
        {"text": "ü 🙂", "list": [1, 2.5, None]},
    )
    assert store.save(path, [saved]) == 1
    assert list(store.runs(path)) == [saved]
    assert store.figures(path, "net") == [(saved.occasion, figure) for figure in saved.figures]
    assert store.targets(path) == ["net"]


def test_saving_again_changes_nothing_and_other_content_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    assert store.save(path, [run("a", tuple=(1, 2)), run("b")]) == 2
    assert store.save(path, [run("a", tuple=(1, 2)), run("c")]) == 1
    with pytest.raises(BadInput, match="run a is kept already, with other content"):
        store.save(path, [run("new"), run("a", 2)])
    assert {item.occasion.id for item in store.runs(path)} == {"a", "b", "c"}, "all or none"


def test_a_store_of_schema_1_is_brought_up_to_date_and_keeps_its_runs(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    with sqlite3.connect(path) as db:
        db.executescript((GOLDEN / "history-1.sql").read_text())
    db.close()
    assert [figure.value for _, figure in store.figures(path, "net")] == [1000, 1100]
    assert [item.document for item in store.runs(path)] == [{"some": True}] * 2
    assert store.save(path, [run("new")]) == 1
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (store.SCHEMA,)
    db.close()


@pytest.mark.parametrize("number", [store.SCHEMA + 1, 99])
def test_a_store_of_a_newer_mixbench_is_refused_and_left_as_it_is(tmp_path: Path, number: int) -> None:
    path = tmp_path / "history.db"
    store.save(path, [run("a")])
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version = {number}")
    db.close()
    before = path.read_bytes()
    for use in (lambda: store.save(path, [run("b")]), lambda: list(store.runs(path)), lambda: store.targets(path)):
        with pytest.raises(BadInput, match=f"has schema {number}, and this mixbench knows {store.SCHEMA}"):
            use()
    assert path.read_bytes() == before


def test_a_database_of_somebody_else_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE mine (x)")
    db.close()
    before = path.read_bytes()
    with pytest.raises(BadInput, match="not one of mixbench"):
        store.save(path, [run("a")])
    assert path.read_bytes() == before


@pytest.mark.parametrize("damage", ["text", "cut", "overwritten"])
def test_a_damaged_file_is_named_and_left_as_it_is(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "history.db"
    store.save(path, [run(f"r{number}", long=random.Random(number).randbytes(20_000).hex()) for number in range(20)])
    whole = path.read_bytes()
    broken = {
        "text": b"no database at all" * 500,
        "cut": whole[: len(whole) // 2],
        "overwritten": whole[:4096] + bytes(len(whole) - 4096),
    }[damage]
    path.write_bytes(broken)
    for use in (lambda: store.save(path, [run("b")]), lambda: list(store.runs(path))):
        with pytest.raises(BadInput, match="is damaged"):
            use()
    assert path.read_bytes() == broken


def test_a_place_that_cannot_be_written_is_said_before_any_work(tmp_path: Path) -> None:
    (tmp_path / ".mixbench").write_text("a file where the folder would be")
    with pytest.raises(BadInput, match="can't be used"):
        store.prepare(tmp_path / ".mixbench" / "history.db")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="takes other rights by becoming somebody else")
def test_without_rights_to_write_runs_can_be_read_and_none_saved(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    store.save(path, [run("a")])
    for folder in (tmp_path, *tmp_path.parents):
        if folder != Path("/tmp"):
            folder.chmod(folder.stat().st_mode | 0o055)
    program = """
import os, sys
from pathlib import Path
from mixbench.models.errors import BadInput
from mixbench.profilers import store
os.setuid(65534)
path = Path(sys.argv[1])
known = list(store.runs(path))
assert len(known) == 1
try:
    store.save(path, [store.KeptRun(store.Occasion("b", "", "flops"), (), {})])
except BadInput as error:
    print(error.what)
"""
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "can't be used: attempt to write a readonly database" in done.stdout


def test_no_store_is_no_empty_history(tmp_path: Path) -> None:
    with pytest.raises(CannotMeasure, match="there is no history"):
        store.targets(tmp_path / "history.db")
    assert not list(tmp_path.iterdir()), "looking makes nothing"


def test_the_stores_folder_keeps_itself_out_of_git(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    path = store.place_of_store(tmp_path)
    assert path == tmp_path / ".mixbench" / "history.db"
    (tmp_path / "below").mkdir()
    assert store.place_of_store(tmp_path / "below") == path
    store.save(path, [run("a")])
    path.with_name("history.db-journal").write_text("")
    status = subprocess.run(["git", "status", "--porcelain", "-uall"], cwd=tmp_path, capture_output=True, text=True).stdout
    assert status == ""


def test_lines_come_back_as_runs() -> None:
    kept = [run("a"), run("b", 2**60 + 1)]
    lines = [to_line(item).encode() for item in kept]
    assert list(from_lines([*lines, b"\n"], "f")) == kept
    assert all(json.loads(line)["schema"] == store.SCHEMA for line in lines)


def test_a_line_of_schema_1_is_read() -> None:
    old = json.loads(to_line(run("a")))
    old["schema"] = 1
    del old["figures"][0]["parts"]
    found = next(from_lines([json.dumps(old).encode()], "f"))
    assert found.figures[0].parts == {}


def broken(**changes: object) -> bytes:
    return json.dumps(json.loads(to_line(run("a"))) | changes).encode()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"{", "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"[]", "it has no schema"),
        (broken(schema=store.SCHEMA + 1), "newer than"),
        (broken(figures=[{"target": "net"}]), "figures.0.workload: field required"),
        (broken(extra=1), "extra: unexpected"),
        (broken(document=3), "document: input should be an object"),
        (to_line(run("a", float("inf"))).encode(), "not finite"),
        (to_line(run("")).encode(), "lacks an id"),
        (to_line(run("a")).replace('"value":1', '"value":"1"').encode(), "figures.0.value"),
    ],
)
def test_a_malformed_line_is_named(line: bytes, words: str) -> None:
    good = to_line(run("good")).encode()
    with pytest.raises(BadInput) as caught:
        list(from_lines([good, line], "runs.jsonl"))
    assert caught.value.what.startswith("runs.jsonl, line 2 is ")
    assert words in caught.value.what


def test_a_commit_is_what_git_says(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        about = ["-c", "user.name=n", "-c", "user.email=e@x"]
        return subprocess.run(["git", *about, *words], cwd=tmp_path, capture_output=True, text=True, check=True).stdout.strip()

    assert commit_of(tmp_path) == Commit(), "no repository"
    git("init", "-q", "-b", "trunk")
    assert commit_of(tmp_path) == Commit(), "nothing committed"
    (tmp_path / "file").write_text("1")
    git("add", ".")
    git("commit", "-q", "-m", "one", "--date", "2026-01-01T12:00:00+02:00")
    found = commit_of(tmp_path)
    assert (found.sha, found.branch, found.dirty) == (git("rev-parse", "HEAD"), "trunk", False)
    assert found.date.endswith("Z")
    (tmp_path / "report").write_text("untracked")
    assert not commit_of(tmp_path).dirty
    (tmp_path / "file").write_text("2")
    assert commit_of(tmp_path).short == f"{found.sha[:10]}+"
    git("checkout", "-q", "--detach")
    assert commit_of(tmp_path).branch == ""
    assert commit_of(tmp_path / "missing") == Commit(), "a folder that is gone"
