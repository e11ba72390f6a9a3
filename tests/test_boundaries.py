"""The house stands as drawn: packages are listed, imports go downwards, and light commands stay light."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = Path(sys.executable).with_name("mixbench")
HEAVY = ("torch", "onnx", "onnxruntime", "fvcore", "numpy", "safetensors")


def test_every_package_folder_is_listed_for_installation() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {"mixbench"}
    for part in ("cli", "models", "profilers", "export"):
        inits = (ROOT / part).rglob("__init__.py")
        found |= {".".join(("mixbench", *init.parent.relative_to(ROOT).parts)) for init in inits}
    assert set(listed) == found


def test_no_loose_python_file_lies_in_the_root() -> None:
    assert {path.name for path in ROOT.glob("*.py")} == {"__init__.py", "__main__.py"}


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--help"], 0),
        (["--version"], 0),
        (["models"], 0),
        (["models", "--names"], 0),
        (["info", "ghostnetv2"], 0),
        (["flops", "--help"], 0),
        (["compare", "--help"], 0),
        (["sweep", "--help"], 0),
        (["scale", "--help"], 0),
        (["export", "--help"], 0),
        (["history", "--help"], 0),
        (["roofline", "--hardware", "list"], 0),
        (["roofline", "ghostnetv2", "--hardware", "t4", "--dtype", "bfloat16"], 2),
        (["history", "--import", "no/such/file"], 2),
        (["check", "--format", "junitt"], 2),
        (["flops", "ghostnet2"], 2),
        (["compare", "ghostnetv2-*", "ghostnet", "--x", "mac"], 2),
        (["sweep", "ghostnetv2", "--batch", "1:x"], 2),
        (["check", "--against", "no-such-revision"], 2),
        (["flops", "ghostnetv2", "--input", "oops"], 2),
        (["flops", "no/such/file.py:make"], 2),
        (["flops", "no/such/file.pt2"], 2),
    ],
)
def test_light_commands_load_nothing_heavy(words: list[str], code: int) -> None:
    program = f"""
import sys, json
from mixbench.cli.app import main
code = main({words!r})
print(json.dumps([code, [name for name in {HEAVY!r} if name in sys.modules]]), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(done.stderr.splitlines()[-1]) == [code, []]


def test_completion_of_models_loads_nothing_heavy() -> None:
    program = f"""
import sys
from mixbench.cli.options import complete_model
assert ("ghostnetv2-1.3x", "GhostNetV2") in complete_model("ghostnetv2-1")
assert not [name for name in {HEAVY!r} if name in sys.modules]
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_importing_mixbench_and_its_models_loads_nothing_heavy() -> None:
    program = f"import sys, mixbench, mixbench.models; assert not [n for n in {HEAVY!r} if n in sys.modules]"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_no_module_is_loaded_under_two_names() -> None:
    program = """
import sys, mixbench
mixbench.count(mixbench.build("ghostnetv2"))
files = [module.__file__ for name, module in sys.modules.items() if name.startswith(("mixbench", "models", "profilers", "cli"))
         and getattr(module, "__file__", None)]
assert len(files) == len(set(files)), files
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)


def test_the_import_contract_fails_on_an_upward_import(tmp_path: Path) -> None:
    """The contract is worth something only if it can break: a copy of the package with one wrong import has to fail."""
    copy = tmp_path / "mixbench"
    copy.mkdir()
    for part in ("__init__.py", "__main__.py", "cli", "models", "profilers", "export"):
        source = ROOT / part
        for path in [source] if source.is_file() else source.rglob("*.py"):
            target = copy / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(path.read_text())
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())

    def contract() -> subprocess.CompletedProcess[str]:
        lint = Path(sys.executable).with_name("lint-imports")
        command = [str(lint), "--no-cache"]
        return subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True)

    assert contract().returncode == 0, contract().stdout
    spec = copy / "models" / "spec.py"
    spec.write_text(spec.read_text() + "\nfrom ..profilers import cost  # upwards\n")
    broken = contract()
    assert broken.returncode == 1
    assert "mixbench.models.spec -> mixbench.profilers.cost" in broken.stdout
    spec.write_text(spec.read_text().replace("from ..profilers import cost  # upwards", "import torch"))
    assert contract().returncode == 1
