"""`mixbench check --against`: small repositories, both sides in processes of their own, and all that can be wrong with them."""

import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import psutil
import pytest

import mixbench.profilers
from mixbench.models.errors import BadInput, CannotMeasure
from mixbench.profilers.against.compare import _check, compare, judgement
from mixbench.profilers.against.pairs import Job, PairTimes, time_pair
from mixbench.profilers.against.trees import Trees, checked_out

SCRIPT = Path(sys.executable).with_name("mixbench")
PACKAGE = Path(mixbench.profilers.__file__).resolve().parents[1]
NET = """
import time
from torch import nn
from late import MS

class Sleeper(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)
    def forward(self, x):
        time.sleep(MS / 1e3)
        return self.linear(x)

def make():
    return Sleeper()
"""
TOML = '[targets.net]\nmodel = "net.py:make"\ninputs = "1x4"\n'
FILES = {"net.py": NET, "late.py": "MS = 2\n", "mixbench.toml": TOML}
JOB = Job("net.py:make", inputs=("1x4",))


@pytest.fixture(autouse=True)
def _own_git(monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings of whoever runs the tests."""
    for key, value in {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}.items():
        monkeypatch.setenv(key, value)
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "A. Tester")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "tester@example.org")


def git(folder: Path, *words: str) -> str:
    return subprocess.run(["git", "-C", str(folder), *words], check=True, capture_output=True, text=True).stdout.strip()


def commit(folder: Path, files: Mapping[str, str], message: str = "change") -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", message)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A model that sleeps for 2 ms, committed."""
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "--quiet", "--initial-branch=main")
    commit(folder, FILES)
    return folder


def pair(trees: Trees, folder: Path, job: Job = JOB) -> PairTimes:
    """One short pair, as `compare` takes them."""
    jobs = [replace(job, model=words, cores=(min(os.sched_getaffinity(0)),)) for words in trees.words(job.model, folder)]
    old, new = zip(trees.places(folder), jobs, strict=True)
    return time_pair(old, new, random.Random(0), partial(_check, trees), 0.05)


def check(folder: Path, *words: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """The installed script, as a user starts it."""
    plain = {name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "MIXBENCH_DEBUG")}
    return subprocess.run(
        [SCRIPT, "check", *words], capture_output=True, text=True, cwd=folder, env=plain | dict(env or {}), timeout=300
    )


def refused(folder: Path, revision: str, code: int, env: Mapping[str, str] | None = None) -> str:
    """A check that can't be made: nothing on stdout, two lines on stderr, and never a pass."""
    done = check(folder, "--against", revision, env=env)
    assert (done.returncode, done.stdout) == (code, ""), (done.returncode, done.stdout, done.stderr)
    error, hint = done.stderr.splitlines()
    assert error.startswith("error: ")
    assert hint.startswith("hint: ")
    return f"{error}\n{hint}"


def work_trees(folder: Path) -> int:
    return git(folder, "worktree", "list", "--porcelain").count("worktree ")


def test_each_side_runs_its_own_tree_and_what_that_imports(repository: Path) -> None:
    commit(repository, {"late.py": "MS = 4\n"})
    (repository / "late.py").write_text("MS = 6\n")
    with checked_out(repository, "HEAD~1") as trees:
        assert "1 file that are not committed" in trees.notes[0]
        found = pair(trees, repository)
    assert 2 < math.exp(found.log_ratio) < 4  # 6 ms over 2 ms: neither HEAD's 4 ms, nor one tree on both sides
    assert 2e6 < found.old_ns < 4e6
    assert work_trees(repository) == 1


def test_a_package_is_that_of_its_own_tree_wherever_the_user_stands(repository: Path) -> None:
    commit(
        repository,
        {"nets/__init__.py": "", "nets/net.py": NET.replace("from late", "from nets.late"), "nets/late.py": "MS = 2"},
    )
    (repository / "nets" / "late.py").write_text("MS = 6")
    with checked_out(repository / "nets", "HEAD") as trees:
        found = pair(trees, repository, replace(JOB, model="nets.net:make"))
    assert 2 < math.exp(found.log_ratio) < 4


def test_code_of_the_working_copy_on_the_old_side_is_found_out(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit(repository, {"net.py": NET, ".gitignore": "lib\n"})
    git(repository, "rm", "--quiet", "--cached", "late.py")
    git(repository, "commit", "--quiet", "--message", "late.py is not part of it")
    (repository / "lib").mkdir()
    (repository / "late.py").rename(repository / "lib" / "late.py")
    monkeypatch.syspath_prepend(repository / "lib")  # as an editable install of an untracked folder does
    with checked_out(repository, "HEAD") as trees, pytest.raises(CannotMeasure, match=r"imports .*lib/late\.py of the working"):
        pair(trees, repository)


def test_an_installed_copy_of_the_repositorys_code_is_found_out(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "site-packages"
    for folder in (installed / "late", repository / "src" / "late"):
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text("MS = 2\n")
    git(repository, "rm", "--quiet", "late.py")
    commit(repository, {"net.py": NET})
    monkeypatch.syspath_prepend(installed)
    with checked_out(repository, "HEAD") as trees, pytest.raises(CannotMeasure, match="an installed copy"):
        pair(trees, repository)


def test_a_model_from_elsewhere_is_no_subject_of_the_repository(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NET)
    with checked_out(repository, "HEAD") as trees, pytest.raises(BadInput, match="outside of the repository"):
        compare(replace(JOB, model="../net.py:make"), trees, folder=repository)
    with checked_out(repository, "HEAD") as trees, pytest.raises(BadInput, match="none of its revisions changes it"):
        pair(trees, repository, replace(JOB, model="torch.nn:Identity"))


def test_a_revision_whose_model_does_not_build_is_no_pass(repository: Path) -> None:
    commit(repository, {"net.py": "def make():\n    raise ValueError('half done')\n"})
    commit(repository, {"net.py": NET})
    said = refused(repository, "HEAD~1", 3)
    assert "target 'net'" in said
    assert "fails in HEAD~1" in said
    assert "half done" in said
    assert work_trees(repository) == 1


def test_a_working_copy_that_does_not_build_is_wrong_input(repository: Path) -> None:
    (repository / "late.py").write_text("TIME = 2\n")
    assert "fails in the working copy: " in refused(repository, "main", 2)


def test_a_revision_without_the_file_is_no_pass(repository: Path) -> None:
    git(repository, "rm", "--quiet", "net.py")
    git(repository, "commit", "--quiet", "--message", "gone")
    commit(repository, {"net.py": NET})
    assert "there is no file" in refused(repository, "HEAD~1", 3)


def test_other_inputs_at_the_revision_can_not_be_compared(repository: Path) -> None:
    inputs = "def make_inputs():\n    import torch\n    return torch.zeros({}, 4)\n"
    commit(repository, {"net.py": NET + inputs.format(1)})
    (repository / "net.py").write_text(NET + inputs.format(2))
    with checked_out(repository, "HEAD") as trees, pytest.raises(CannotMeasure, match=r"runs on 1x4.* on 2x4"):
        pair(trees, repository, replace(JOB, inputs=()))


@pytest.mark.parametrize(
    ("revision", "said"),
    [
        ("mian", "did you mean main?"),
        ("HEAD~9", "no revision 'HEAD~9'"),
        ("", "no revision ''"),
        ("--help", "no revision '--help'"),
        ("mixbench==0.1.0", "names an installed version"),
    ],
)
def test_a_revision_that_is_none_is_wrong_input(repository: Path, revision: str, said: str) -> None:
    assert said in refused(repository, revision, 2)


def test_no_repository_is_wrong_input(tmp_path: Path) -> None:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    assert "is in no git repository" in refused(tmp_path, "main", 2, {"GIT_CEILING_DIRECTORIES": str(tmp_path.parent)})


def test_a_repository_without_commits_is_wrong_input(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    (tmp_path / "mixbench.toml").write_text(TOML)
    (tmp_path / "net.py").write_text(NET)
    assert "has no commit yet" in refused(tmp_path, "HEAD", 2)


def test_a_shallow_clone_says_how_to_deepen_it(repository: Path, tmp_path: Path) -> None:
    commit(repository, {"late.py": "MS = 3\n"})
    git(tmp_path, "clone", "--quiet", "--depth=1", repository.as_uri(), "shallow")
    said = refused(tmp_path / "shallow", "HEAD~1", 2)
    assert "is shallow" in said
    assert "--unshallow" in said


def test_without_git_nothing_can_be_measured(repository: Path, tmp_path: Path) -> None:
    assert "there is no git" in refused(repository, "main", 3, {"PATH": str(tmp_path)})


def test_a_detached_head_and_a_tag_are_revisions(repository: Path) -> None:
    git(repository, "tag", "v1")
    commit(repository, {"late.py": "MS = 3\n"})
    git(repository, "checkout", "--quiet", "--detach")
    with checked_out(repository, "v1") as trees:
        assert (trees.old / "late.py").read_text() == "MS = 2\n"
        assert trees.against.startswith("v1 (")
        assert trees.notes == ()


def test_hooks_of_the_repository_and_their_environment_stay_out_of_it(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = repository / ".git" / "hooks" / "post-checkout"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    monkeypatch.setenv("GIT_DIR", str(repository / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(repository / ".git" / "index"))
    with checked_out(repository, "main") as trees:
        assert (trees.old / "net.py").is_file()


@pytest.mark.parametrize("budget", [">= 1.05", "== 1", "<= 1", "<= 0.9"])
def test_a_budget_that_no_time_can_be_judged_by_is_wrong_input(repository: Path, budget: str) -> None:
    (repository / "mixbench.toml").write_text(f'{TOML}latency_ratio = "{budget}"\n')
    assert f"latency_ratio = '{budget}'" in refused(repository, "main", 2)


def test_an_update_takes_no_times(repository: Path) -> None:
    done = check(repository, "--against", "main", "--update")
    assert done.returncode == 2
    assert "--update" in done.stderr


def started(repository: Path) -> tuple[subprocess.Popen[str], list[psutil.Process]]:
    """A check whose two sides are up."""
    process = subprocess.Popen([SCRIPT, "check", "--against", "main"], cwd=repository, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 60
    while time.monotonic() < until:
        sides = [child for child in psutil.Process(process.pid).children() if _is_side(child)]
        if len(sides) == 2:
            return process, sides
        time.sleep(0.02)
    raise AssertionError(f"no sides after a minute: {process.poll()}")


def _is_side(child: psutil.Process) -> bool:
    try:
        return "side.py" in " ".join(child.cmdline())
    except psutil.Error:  # a git command that has just ended
        return False


def _gone(processes: list[psutil.Process]) -> bool:
    return not psutil.wait_procs(processes, timeout=10)[1]


@pytest.mark.alone
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_it_leaves_nothing_behind(repository: Path, number: int, code: int) -> None:
    process, sides = started(repository)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == code
    assert _gone(sides)
    assert work_trees(repository) == 1


@pytest.mark.alone
def test_killed_its_sides_end_and_the_next_start_removes_its_work_tree(repository: Path) -> None:
    process, sides = started(repository)
    process.kill()
    process.communicate()
    assert _gone(sides)
    assert work_trees(repository) == 2
    with checked_out(repository, "main") as trees:
        assert work_trees(repository) == 2
        assert trees.old.is_dir()
    assert work_trees(repository) == 1


@pytest.mark.alone
def test_a_side_that_dies_is_no_pass(repository: Path) -> None:
    commit(repository, {"late.py": "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n"})
    git(repository, "revert", "--no-edit", "HEAD")
    assert "killed by SIGKILL" in refused(repository, "HEAD~1", 3)


def _as_own_repository(folder: Path) -> Path:
    """mixbench's package as a repository of its own: its root is the package."""
    root = folder / "mixbench"
    ignored = shutil.ignore_patterns("__pycache__", ".git*", "build", "dist", ".venv", "tests", "docs", ".*_cache")
    shutil.copytree(PACKAGE, root, ignore=ignored)
    git(root, "init", "--quiet")
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "all of it")
    return root


SLOWER = """
from importlib import import_module
_own = build
def build(**settings):
    import time
    model = _own(**settings)
    model.register_forward_pre_hook(lambda module, args: time.sleep(0.05))
    return model
"""


def test_in_its_own_repository_each_side_builds_with_its_own_mixbench(tmp_path: Path) -> None:
    root = _as_own_repository(tmp_path)
    file = root / "models" / "architectures" / "ghostnet.py"
    file.write_text(file.read_text() + SLOWER)
    code = """
import random, sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from mixbench.profilers.against.compare import _check
from mixbench.profilers.against.pairs import Job, time_pair
from mixbench.profilers.against.trees import checked_out
root = Path(sys.argv[1])
with checked_out(root, "HEAD") as trees:
    old, new = ((place, Job("ghostnet", cores=(0,))) for place in trees.places(root))
    pair = time_pair(old, new, random.Random(0), partial(_check, trees), 0.05)
    print((pair.new_ns - pair.old_ns) / 1e6)
"""
    env = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code, str(root)], capture_output=True, text=True, env=env, timeout=200)
    assert done.returncode == 0, done.stderr
    assert 45 < float(done.stdout) < 80  # the 50 ms that only the working copy sleeps


@pytest.mark.slow
@pytest.mark.alone
def test_a_planted_slowdown_fails_the_check_and_the_same_code_passes(repository: Path) -> None:
    assert check(repository, "--against", "main").returncode == 0
    (repository / "late.py").write_text("MS = 2.4\n")
    done = check(repository, "--against", "main")
    assert done.returncode == 1, (done.stdout, done.stderr)
    assert "net latency_ratio" in done.stdout
    assert "slower by" in done.stdout


@pytest.mark.slow
@pytest.mark.alone
def test_a_larger_budget_lets_a_small_slowdown_pass(repository: Path) -> None:
    (repository / "late.py").write_text("MS = 2.4\n")
    (repository / "mixbench.toml").write_text(f'{TOML}latency_ratio = "<= 1.5"\n')
    done = check(repository, "--against", "main")
    assert done.returncode == 0, (done.stdout, done.stderr)


def test_a_judgement_names_revision_times_and_limit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def slower(*arguments: object) -> PairTimes:
        return PairTimes(math.log(1.25), 8e6, 1e7, 20)

    monkeypatch.setattr("mixbench.profilers.against.compare.time_pair", slower)
    trees = Trees(tmp_path, tmp_path, (), "main", "0123abc", ())
    found = compare(JOB, trees, folder=tmp_path)
    word = judgement(found, "net", trees)
    assert (word.word, word.fails, word.base, word.limit) == ("worse", True, 1.0, "<= 1.03")
    assert word.metric.value == pytest.approx(1.25)
    assert word.reason == (
        "slower by 25.0 %, in two runs of pairs on end; 10 ms a call, 8 ms in main (0123abc); 5 pairs of processes"
    )


def test_a_difference_below_the_clocks_own_noise_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def slower(*arguments: object) -> PairTimes:
        return PairTimes(math.log(1.1), 5e3, 5.5e3, 20)  # 0.5 us

    monkeypatch.setattr("mixbench.profilers.against.compare.time_pair", slower)
    trees = Trees(tmp_path, tmp_path, (), "main", "0123abc", ())
    word = judgement(compare(JOB, trees, folder=tmp_path), "net", trees)
    assert (word.word, word.limit) == ("same", "<= 1.2")
