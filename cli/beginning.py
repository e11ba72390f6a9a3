"""The first settings of a project: its models, found in the source without running it, and what they cost today."""

import ast
import os
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path

from ..models.errors import BadInput, MixbenchError
from ..models.files import write_whole
from ..profilers.runs.baseline import toml_key, toml_text
from .config import OWN_FILE, SHARED_FILE
from .console import quick_imports, working

_SAMPLE = "ghostnetv2"
_MOST_FILES = 2000
_MOST_MODELS = 12
_SKIPPED = {"build", "dist", "node_modules", "site-packages", "tests", "test", "venv"}
_MODULES = {"nn.Module", "torch.nn.Module", "Module"}
_EXPLANATION = """\
# What `mixbench check` holds this project's models to. All keys: docs/check.md of mixbench.
#
# A table is a target: a model, on what it runs, and its budgets. The model is a name from `mixbench models` (wildcards name
# several variants), path/to/file.py:factory, or package.module:factory. Without `model` the table's name is the model's.
# On what it runs: inputs = ["1x3x224x224"], batch = 8, dtype = "bfloat16", train = true, kwargs = {width = 0.75}.
# Budgets: <=, <, >= or == and a number; k, M, G are powers of 1000; bytes may be KiB, MiB. The figures below are today's.
# Beside its budgets every figure is compared with mixbench-baseline.toml, which `mixbench check --update` writes.
"""


@dataclass(frozen=True, slots=True)
class Start:
    """A target to write: the table's name, the model, and today's figures; or why it can't be counted as it is."""

    name: str
    model: str
    params: int = 0
    macs: int = 0
    trouble: str = ""


def project_folder() -> Path:
    """The root of the git repository, or the current folder outside of one."""
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if (folder / ".git").exists()), here)


def find_models(folder: Path) -> list[str]:
    """``path/to/file.py:factory`` of the public functions that need no argument and say that they return a module."""
    found = []
    for number, path in enumerate(_sources(folder)):
        if number == _MOST_FILES:
            break
        found += [f"{path.relative_to(folder).as_posix()}:{name}" for name in _factories(path)]
    return found[:_MOST_MODELS]


def write(folder: Path, models: Sequence[str]) -> Path:
    """Count the models and write the start; returns the file.

    Raises:
        BadInput: when the file can't be written.
    """
    shared = folder / SHARED_FILE
    starts = _count(folder, models or [_SAMPLE])
    if shared.is_file() and (text := _appended(shared, _text(starts, models, "tool.mixbench."))) is not None:
        real = shared.resolve()  # a link stays one
        rights = real.stat().st_mode & 0o777
        write_whole(real, text)
        real.chmod(rights)
        return shared
    path = folder / OWN_FILE
    if path.exists():
        raise BadInput(f"{path} is there already", "edit it; docs/check.md has all keys")
    write_whole(path, _text(starts, models, ""))
    return path


def _appended(path: Path, addition: str) -> bytes | None:
    """A TOML file with something at its end, in its own line ends; None where that is not the same file and more."""
    before = path.read_bytes()
    ends = "\r\n" if b"\r\n" in before else "\n"
    gap = "" if not before or before.endswith(b"\n") else ends
    after = before + (gap + ends + addition.replace("\n", ends)).encode()
    try:
        old, new = tomllib.loads(before.decode()), tomllib.loads(after.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        return None
    del new["tool"]["mixbench"]
    if not old.get("tool"):
        old.pop("tool", None)
        new.pop("tool") if not new["tool"] else None
    return after if old == new else None


def _sources(folder: Path) -> Iterator[Path]:
    for here, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "_")) and name not in _SKIPPED)
        if "pyvenv.cfg" in files:
            folders.clear()
            continue
        yield from (Path(here, name) for name in sorted(files) if name.endswith(".py") and not name.startswith("test_"))


def _factories(path: Path) -> Iterator[str]:
    try:
        source = path.read_text(encoding="utf-8")
        tree = ast.parse(source) if "nn" in source else ast.Module([], [])
    except (OSError, UnicodeDecodeError, SyntaxError, ValueError, RecursionError):
        return
    classes: set[str] = set()
    for statement in tree.body:
        if isinstance(statement, ast.ClassDef):
            if any(ast.unparse(base) in _MODULES | classes for base in statement.bases):
                classes.add(statement.name)
        elif isinstance(statement, ast.FunctionDef) and not statement.name.startswith("_") and _needs_nothing(statement):
            returned = ast.unparse(statement.returns) if statement.returns else ""
            first = returned.strip("'\"").removeprefix("tuple[").removeprefix("Tuple[").partition(",")[0]
            if first in _MODULES | classes:
                yield statement.name


def _needs_nothing(function: ast.FunctionDef) -> bool:
    given = function.args
    optional = len(given.defaults) >= len(given.posonlyargs) + len(given.args)
    return optional and all(default is not None for default in given.kw_defaults)


def _count(folder: Path, models: Sequence[str]) -> list[Start]:
    with quick_imports():
        from ..models.case import build
        from ..profilers.counter import count
    starts: list[Start] = []
    with chdir(folder):
        for model in models:
            name = model.rpartition(":")[2]
            if any(start.name == name for start in starts):
                name = model.replace("/", "-").replace(".py:", "-")
            try:
                with working(f"counting {model}"):
                    counted = count(build(model))
                starts.append(Start(name, model, counted.params, counted.totals.macs))
            except MixbenchError as error:
                starts.append(Start(name, model, trouble=f"{error.what}; {error.hint}"))
    return starts


def _text(starts: Sequence[Start], models: Sequence[str], prefix: str) -> str:
    lines = [_EXPLANATION.rstrip()]
    if not models:
        lines.append("# No function of this project says that it returns a module, so here is a model of mixbench's own.")
    for start in starts:
        table = [f"[{prefix}targets.{toml_key(start.name)}]"]
        table += [f"model = {toml_text(start.model)}"] if start.model != start.name else []
        if start.trouble:
            why = "".join(sign for sign in " ".join(start.trouble.split()) if sign.isprintable())
            lines += [
                "",
                f"# Can't be counted as it is: {why}",
                *(f"# {line}" for line in [*table, 'inputs = ["1x3x224x224"]']),
            ]
            continue
        lines += ["", *table, f'params = "<= {start.params:_}"', f'macs = "<= {start.macs:_}"', 'uncounted = "== 0"']
    if all(start.trouble for start in starts):
        lines += ["", f"[{prefix}targets]"]
    return "\n".join(lines) + "\n"
