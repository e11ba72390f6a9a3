"""Settings of a project: which file counts, what wins over what, and that a key that means nothing is never overlooked."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mixbench.cli.app import main
from mixbench.cli.beginning import find_models
from mixbench.cli.config import find
from mixbench.cli.metrics import entries
from mixbench.cli.targets import read
from mixbench.models.errors import BadInput
from mixbench.profilers.budget import parse

SCRIPT = Path(sys.executable).with_name("mixbench")
NET = """
import torch
from torch import nn

def make(width=4):
    return nn.Linear(8, width), torch.zeros(3, 8)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository with a model and a folder in it."""
    (tmp_path / ".git").mkdir()
    (tmp_path / "sub").mkdir()
    (tmp_path / "net.py").write_text(NET)
    return tmp_path


def settle(project: Path, text: str, name: str = "pyproject.toml") -> None:
    (project / name).write_text(text)


def mixbench(*words: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """The installed script in a folder."""
    return subprocess.run([SCRIPT, *words], cwd=cwd, env=os.environ | variables, capture_output=True, text=True, timeout=120)


def failure(*words: str, cwd: Path) -> tuple[str, str]:
    """What a command says that has to refuse its input."""
    done = mixbench(*words, cwd=cwd)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    error, hint = done.stderr.splitlines()
    return error, hint


@dataclass
class Here:
    """The command in this process, in a folder: as the script, less a second of importing torch."""

    patch: pytest.MonkeyPatch
    screen: pytest.CaptureFixture[str]

    def result(self, folder: Path, *words: str, **variables: str) -> dict[str, Any]:
        """The first model of a count."""
        with self.patch.context() as patch:
            patch.chdir(folder)
            for name, value in variables.items():
                patch.setenv(name, value)
            assert main(["flops", *words, "--json"]) == 0
        found: dict[str, Any] = json.loads(self.screen.readouterr().out)["models"][0]
        return found

    def refusal(self, folder: Path, *words: str) -> tuple[str, str]:
        """What the command says of its input."""
        with self.patch.context() as patch:
            patch.chdir(folder)
            assert main(list(words)) == 2
        error, hint = self.screen.readouterr().err.splitlines()
        return error, hint


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Here:
    """The command in this process."""
    return Here(monkeypatch, capsys)


def test_what_is_nearer_to_the_hand_wins(project: Path, here: Here) -> None:
    settle(project, '[tool.mixbench]\ndtype = "float64"\n')
    assert here.result(project / "sub", "hopfield")["dtype"] == "float64", "found from a folder below"
    settle(project, '[tool.mixbench]\ndtype = "float64"\n[tool.mixbench.flops]\ndtype = "bfloat16"\n')
    assert here.result(project, "hopfield")["dtype"] == "bfloat16"
    assert here.result(project, "hopfield", MIXBENCH_DTYPE="float16")["dtype"] == "float16"
    both = {"MIXBENCH_DTYPE": "float16", "MIXBENCH_FLOPS_DTYPE": "float64"}
    assert here.result(project, "hopfield", **both)["dtype"] == "float64"
    assert here.result(project, "hopfield", "--dtype", "float32", **both)["dtype"] == "float32"


def test_flags_and_lists_are_settings_too(project: Path, here: Here) -> None:
    settle(project, '[tool.mixbench.flops]\ntrain = true\ninput = ["5x8"]\n')
    found = here.result(project, "net.py:make")
    assert (found["mode"], found["inputs"]) == ("train", ["5x8"])
    settle(project, "[tool.mixbench.time]\nroofline = false\ncompile = false\n")
    assert mixbench("doctor", cwd=project).stdout.count("[tool.mixbench.time]") == 2


@pytest.mark.parametrize(
    ("text", "what", "hint"),
    [
        (
            '[tool.mixbench]\ndtpye = "float64"',
            "unknown key 'dtpye' in [tool.mixbench] of pyproject.toml",
            "did you mean dtype",
        ),
        ("[tool.mixbench.flop]\ntrain = true", "unknown key 'flop' in [tool.mixbench]", "did you mean flops"),
        ("[tool.mixbench.time]\nsecond = 3", "unknown key 'second' in [tool.mixbench.time]", "did you mean seconds"),
        ("[tool.mixbench.flops]\nmodels = ['x']", "unknown key 'models' in [tool.mixbench.flops]", "one of"),
        ("[tool.mixbench.flops]\ntrain = 1", "'train' in [tool.mixbench.flops] of pyproject.toml is 1", "true or false"),
        ("[tool.mixbench.flops]\nbatch = [1]", "'batch' in [tool.mixbench.flops]", "text or a number"),
        ("[tool.mixbench.flops]\nbatch = true", "'batch' in [tool.mixbench.flops]", "text or a number"),
        ("[tool.mixbench]\nflops = 3", "'flops' in [tool.mixbench] of pyproject.toml is 3", "[tool.mixbench.flops]"),
        ("[tool]\nmixbench = 3", "tool.mixbench of pyproject.toml is no table", "[tool.mixbench]"),
        ("[tool.mixbench\n", "pyproject.toml can't be read", "mend"),
        ('[tool.mixbench.flops]\ndtype = "int4"', "(set in [tool.mixbench.flops] of pyproject.toml)", "--help"),
        ('[tool.mixbench]\nbatch = "many"', "(set in [tool.mixbench] of pyproject.toml)", "--help"),
    ],
)
def test_a_bad_setting_is_answered_with_its_file_and_key(project: Path, here: Here, text: str, what: str, hint: str) -> None:
    settle(project, text)
    said = here.refusal(project, "flops", "hopfield")
    assert what in said[0]
    assert hint in said[1]


def test_a_bad_value_of_the_environment_is_named_by_its_variable(project: Path) -> None:
    done = mixbench("flops", "hopfield", cwd=project, MIXBENCH_FLOPS_BATCH="many")
    assert done.returncode == 2
    assert "(set in environment MIXBENCH_FLOPS_BATCH)" in done.stderr


def test_variables_of_the_ci_itself_do_not_end_a_command(project: Path) -> None:
    """A pipeline may keep mixbench's version in a variable; that must not turn a check into ``--version``."""
    assert mixbench("check", cwd=project, MIXBENCH_VERSION="1", MIXBENCH_UPDATE="").returncode == 2, (
        "no targets: nothing to pass"
    )


def test_the_nearest_file_counts_and_mixbench_toml_before_pyproject(project: Path, here: Here) -> None:
    settle(project, '[tool.mixbench]\ndtype = "float64"\n')
    settle(project / "sub", '[project]\nname = "no settings of mixbench, its name only"\n')
    assert find(project / "sub").path == project / "pyproject.toml"
    settle(project, 'dtype = "bfloat16"\n', "mixbench.toml")
    found = find(project / "sub")
    assert (found.path, found.shadowed) == (project / "mixbench.toml", project / "pyproject.toml")
    assert here.result(project, "hopfield")["dtype"] == "bfloat16"
    assert "which are not read" in mixbench("doctor", cwd=project).stdout
    settle(project / "sub", '[tool.mixbench]\ndtype = "float16"\n')
    assert here.result(project / "sub", "hopfield")["dtype"] == "float16"


def test_folders_above_the_repository_are_nobodys_business(project: Path) -> None:
    inner = project / "sub" / "repository"
    (inner / ".git").mkdir(parents=True)
    settle(project, '[tool.mixbench]\nnonsense = "x"\n')
    assert find(inner).path is None
    outside = project / "outside" / "below"
    outside.mkdir(parents=True)
    (project / ".git").rmdir()
    assert find(outside).path is None, "outside of a repository only the current folder counts"


def test_doctor_says_where_each_value_comes_from(project: Path) -> None:
    settle(project, "[tool.mixbench]\nthreads = 1\n[tool.mixbench.time]\nseconds = 2.5\n[tool.mixbench.targets.hopfield]\n")
    done = mixbench("doctor", "--json", cwd=project, MIXBENCH_TIME_THREADS="2", MIXBENCH_NONSENSE="1")
    found = json.loads(done.stdout)
    settings = {(item["command"], item["option"]): (item["value"], item["origin"]) for item in found["settings"]}
    assert settings["time", "seconds"] == ("2.5", "[tool.mixbench.time] of pyproject.toml")
    assert settings["time", "threads"] == ("2", "environment MIXBENCH_TIME_THREADS")
    assert settings["trace", "threads"] == ("1", "[tool.mixbench] of pyproject.toml")
    assert found["targets"] == ["hopfield"]
    assert found["notes"] == ["MIXBENCH_NONSENSE in the environment sets no option"]


def test_settings_cost_no_torch(project: Path) -> None:
    settle(project, '[tool.mixbench]\ndtype = "float64"\n[tool.mixbench.targets.small]\nmodel = "net.py:make"\nmacz = "<= 1"\n')
    program = """
import sys
from mixbench.cli.app import main
assert main(["models", "--names"]) == 0
assert main(["check"]) == 2
heavy = [name for name in ("torch", "onnx", "onnxruntime", "numpy") if name in sys.modules]
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=project, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "unknown key 'macz' in [tool.mixbench.targets.small] of pyproject.toml" in done.stderr


def test_a_project_without_settings_does_not_load_a_parser(project: Path) -> None:
    settle(project, '[project]\nname = "x"\n')
    # Whoever measures coverage has loaded it already.
    program = (
        "import sys; sys.modules.pop('tomllib', None); from mixbench.cli.app import main; main(['models', '--names']);"
        "assert 'tomllib' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], cwd=project, check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize(
    ("text", "unit", "limit"),
    [
        ("<= 200M", "MACs", 200_000_000),
        ("<=0.2G", "MACs", 200_000_000),
        ("< 1.5 MiB", "bytes", 3 * 2**19),
        ("<= 1.5 MB", "bytes", 1_500_000),
        (">= 40 dB", "dB", 40),
        ("== 0", "calls", 0),
        ("<= 1.05", "", 1.05),
        ("<= 167_048_288", "MACs", 167_048_288),
        ("<= 16777217k", "MACs", 16_777_217_000),
    ],
)
def test_budgets_are_read_exactly(text: str, unit: str, limit: float) -> None:
    found = parse(text, unit)
    assert found.limit == limit
    assert isinstance(found.limit, int) == isinstance(limit, int)
    assert (found.holds(limit), found.holds(limit + 1), found.holds(limit - 0.5)) == {
        "<=": (True, False, True),
        "<": (False, False, True),
        ">=": (True, True, False),
        "==": (True, False, False),
    }[text[:2].strip()]


@pytest.mark.parametrize(
    "text", ["200M", "<= ", "<= many", "=< 3", "<= 3 MiB", "<= -1", "<= 1e6", "<= nan", 3, True, None, ["<= 3"]]
)
def test_what_is_no_budget_is_refused(text: Any) -> None:
    with pytest.raises(BadInput):
        parse(text, "MACs")


@pytest.mark.parametrize(
    ("table", "what", "hint"),
    [
        ('model = "ghostnet2"', "[tool.mixbench.targets.x] of pyproject.toml: no model named 'ghostnet2'", "ghostnetv2"),
        ('model = "hopfild-*"', "no model is called like 'hopfild-*'", "mixbench models"),
        ('model = "net.py:ma*"', "has a wildcard", "built-in"),
        ('model = "nowhere.py:make"', "there is no file 'nowhere.py'", "path"),
        ('model = "hopfield"\nmacs = "200M"', "macs: '200M' is no budget", "begin with <="),
        ('model = "hopfield"\nmacs = 3', "macs: 3 is no budget", "'<= 3'"),
        ('model = "hopfield"\nonnx_bytes = "<= 3 MIB"', "unknown unit 'MIB'", "MiB"),
        ('model = "hopfield"\nonnx_portable = "nnapi"', "no list of names", "['nnapi']"),
        ('model = "hopfield"\nonnx_portable = ["nnpai"]', "nothing is called 'nnpai'", "did you mean nnapi"),
        ('model = "hopfield"\nbatch = true', "'batch' in [tool.mixbench.targets.x]", "whole number"),
        ('model = "hopfield"\nbatch = 0', "a batch of 0", "1 up"),
        ('model = "hopfield"\ninputs = [3]', "are no shapes", "1x3x224x224"),
        ('model = "hopfield"\ninputs = "1x?"', "'1x?' is not a shape", "sizes"),
        ('model = "hopfield"\ndtype = "int4"', "no dtype named 'int4'", "float32"),
        ('model = "hopfield"\nkwargs = 3', "'kwargs' in", "a table"),
        ('model = "hopfield"\nweights = "none.pth"', "there is no file 'none.pth'", "looked for in"),
        ('model = "hopfield"\nlatency = "<= 3"', "unknown key 'latency'", "did you mean latency_ratio"),
    ],
)
def test_a_bad_target_is_answered_with_its_table(project: Path, here: Here, table: str, what: str, hint: str) -> None:
    settle(project, f"[tool.mixbench.targets.x]\n{table}\n")
    said = here.refusal(project, "check")
    assert (
        said[0].startswith("error: [tool.mixbench.targets.x] of pyproject.toml: ") or "in [tool.mixbench.targets.x]" in said[0]
    )
    assert what in said[0]
    assert hint in said[1]


def test_wildcards_name_variants(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    settle(project, '[tool.mixbench.targets."ghostnetv2-1.*"]\n[tool.mixbench.targets.old]\nmodel = "ghostnet-1.3*"\n')
    targets = read(find(project))
    names = ["ghostnetv2-1.0x", "ghostnetv2-1.3x", "ghostnetv2-1.6x", "old/ghostnet-1.3x"]
    assert [target.name for target in targets] == names
    assert [target.name for target in read(find(project), ("old",))] == names[3:]
    assert [target.name for target in read(find(project), ("ghostnetv2-1.3x",))] == ["ghostnetv2-1.3x"]
    settle(project, '[tool.mixbench.targets."hopfield-*"]\n[tool.mixbench.targets.hopfield-layer]\n')
    with pytest.raises(BadInput, match="two targets are called 'hopfield-layer'"):
        read(find(project))


def test_every_metric_has_a_unit_of_its_budget_and_one_name() -> None:
    assert {
        "params",
        "macs",
        "flops",
        "uncounted",
        "peak_memory",
        "onnx_bytes",
        "onnx_portable",
        "snr",
        "latency_ratio",
    } <= set(entries())
    assert all(entry.kind == "counted" for entry in entries().values() if entry.always), "what is always taken is exact"


def test_init_finds_what_says_that_it_is_a_module_and_runs_nothing_for_it(project: Path) -> None:
    (project / "boom.py").write_text("raise SystemExit('nn: I was run')\n")
    (project / "bad.py").write_text("def nn(:\n")
    (project / "nets.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Module): ...\n"
        "class Deeper(Net): ...\n"
        "def one() -> nn.Module: ...\n"
        "def two(width: int = 3, *, depth=2) -> 'Net': ...\n"
        "def three() -> tuple[Deeper, object]: ...\n"
        "def needs(width) -> nn.Module: ...\n"
        "def needs_too(*, width) -> nn.Module: ...\n"
        "def number() -> int: ...\n"
        "def silent(): return Net()\n"
        "def _private() -> nn.Module: ...\n"
    )
    (project / "tests").mkdir()
    (project / "tests" / "nets.py").write_text("from torch import nn\ndef one() -> nn.Module: ...\n")
    assert find_models(project) == ["nets.py:one", "nets.py:two", "nets.py:three"]


def test_init_adds_to_pyproject_and_its_check_passes_once_it_is_kept(project: Path) -> None:
    (project / "net.py").write_text(NET.replace("def make(width=4):", "def make(width=4) -> tuple[nn.Module, torch.Tensor]:"))
    before = b'[project]\r\nname = "x"  # mine'
    (project / "pyproject.toml").write_bytes(before)
    done = mixbench("init", cwd=project / "sub")
    assert done.returncode == 0, done.stderr
    after = (project / "pyproject.toml").read_bytes()
    assert after.startswith(before + b"\r\n")
    assert b"\n" not in after.replace(b"\r\n", b"")
    assert b'macs = "<= 96"' in after, "3 x 8 x 4"
    assert mixbench("check", cwd=project).returncode == 3
    assert mixbench("check", "--update", cwd=project).returncode == 0
    assert mixbench("check", cwd=project).returncode == 0
    assert "has settings already" in failure("init", cwd=project)[0]
    assert (project / "pyproject.toml").read_bytes() == after


def test_init_writes_a_file_of_its_own_where_pyproject_takes_no_table(project: Path) -> None:
    before = "tool = { black = { line-length = 80 } }\n"
    settle(project, before)
    (project / "net.py").unlink()
    done = mixbench("init", cwd=project)
    assert done.returncode == 0, done.stderr
    assert (project / "pyproject.toml").read_text() == before
    assert "[targets.ghostnetv2]" in (project / "mixbench.toml").read_text()


def test_a_model_that_init_can_not_count_is_left_as_a_comment(project: Path) -> None:
    source = "from torch import nn\ndef make() -> nn.Module:\n    raise ValueError('no\\x1b[1m\\nluck')\n"
    (project / "net.py").write_text(source)
    assert mixbench("init", cwd=project).returncode == 0
    text = (project / "mixbench.toml").read_text()
    assert "# Can't be counted as it is: the factory of net.py:make raises ValueError" in text
    assert find(project).table == {"targets": {}}
    assert "names nothing to check" in failure("check", cwd=project)[0]
