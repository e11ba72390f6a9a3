"""What the project says of itself is true: generated pages are fresh, and the README's commands run."""

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = Path(sys.executable).with_name("mixbench")


def fenced(page: str, language: str) -> list[str]:
    """The code blocks of a page in one language."""
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)


def readme_commands() -> list[str]:
    """Each ``mixbench`` line of the README that names something that exists."""
    lines = [line.partition("#")[0].strip() for block in fenced("README.md", "sh") for line in block.splitlines()]
    # A server runs until it is stopped; tests/test_tracing.py has it. A gate needs a project; tests/test_check.py makes some.
    elsewhere = ("path/to", "package.module", "--tensorboard", "mixbench init", "mixbench check", "mixbench history")
    return [line for line in lines if line.startswith("mixbench ") and not any(word in line for word in elsewhere)]


def test_generated_pages_are_fresh() -> None:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for path, text in module.pages().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is stale; run ./dev docs"


def slow_or_not(command: str) -> Any:
    """What exports and measures takes its time; other tests do the same with small networks."""
    long = command.startswith(("mixbench export", "mixbench time", "mixbench trace", "mixbench scale"))
    return pytest.param(command, marks=pytest.mark.slow) if long and "--crossover" not in command else command


@pytest.mark.parametrize("command", list(map(slow_or_not, readme_commands())))
def test_a_command_of_the_readme_runs(command: str, tmp_path: Path) -> None:
    done = subprocess.run([SCRIPT, *shlex.split(command)[1:]], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout or any(tmp_path.iterdir()), "a page holds the tables, which are not printed then"


def test_the_readme_has_enough_commands_to_test() -> None:
    assert len(readme_commands()) >= 10


def test_the_first_screen_of_the_readme_is_what_the_command_prints() -> None:
    block = re.search(
        r"```\n\$ mixbench flops ghostnetv2\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL
    )
    assert block is not None
    printed = subprocess.run([SCRIPT, "flops", "ghostnetv2"], capture_output=True, text=True).stdout
    assert printed == block[1]


def test_the_python_example_of_the_readme_runs() -> None:
    block, _ = fenced("README.md", "python")
    subprocess.run([sys.executable, "-c", block], check=True, stdout=subprocess.DEVNULL)


def test_the_readmes_lines_for_torchrun_run_under_it(tmp_path: Path) -> None:
    _, block = fenced("README.md", "python")
    program = tmp_path / "program.py"
    program.write_text(block)
    words = [str(SCRIPT.with_name("torchrun")), "--standalone", "--nproc-per-node", "2", str(program)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_the_readmes_way_to_a_users_own_model_works(tmp_path: Path) -> None:
    (tmp_path / "path" / "to").mkdir(parents=True)
    source = """
import torch

def make(width):
    return torch.nn.Linear(4, width)

def make_inputs():
    return torch.ones(2, 4)
"""
    (tmp_path / "path" / "to" / "net.py").write_text(source)
    line = next(line for block in fenced("README.md", "sh") for line in block.splitlines() if "path/to" in line)
    done = subprocess.run([SCRIPT, *shlex.split(line)[1:]], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"{2 * 4 * 64:,}" in done.stdout


def test_every_local_link_of_the_pages_leads_somewhere() -> None:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
