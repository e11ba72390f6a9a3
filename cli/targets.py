"""What `mixbench check` checks: ``[tool.mixbench.targets.NAME]``, a model on a workload with its budgets. No torch here."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from ..models.errors import BadInput, MixbenchError
from ..models.lookup import all_names, resolve
from ..models.registry import architectures
from ..models.spec import Mode, ModelSpec, TensorSpec, Workload
from ..profilers.budget import Budget, parse
from .config import SHARED_FILE, TARGETS, Config, unknown_key
from .metrics import Entry, entries

_WILD = "*?["
_KINDS: Mapping[str, tuple[type | tuple[type, ...], str]] = {
    "model": (str, "a model's name, as text"),
    "kwargs": (dict, "a table, as in {width = 0.75}"),
    "inputs": ((str, list), "a shape, or a list of shapes, as text"),
    "batch": (int, "a whole number"),
    "dtype": (str, "text"),
    "train": (bool, "true or false"),
    "weights": (str, "a file's name"),
    "reparameterised": (bool, "true or false"),
}


@dataclass(frozen=True, slots=True)
class Target:
    """One model on one workload.

    Attributes:
        name: the table's; with the model's behind a slash where a wildcard named several.
        budgets: by metric; what is named with ``same`` is among them.
    """

    name: str
    spec: ModelSpec
    workload: Workload
    budgets: Mapping[str, Budget]
    weights: Path | None = None
    reparameterised: bool = False

    @property
    def metrics(self) -> tuple[Entry, ...]:
        """What is taken of it, in the order of the metrics' files."""
        return tuple(entry for entry in entries().values() if entry.always or entry.name in self.budgets)


def read(config: Config, only: tuple[str, ...] = ()) -> tuple[Target, ...]:
    """The targets of a project, in the file's order. Call it in the config's folder, where models' files are looked for.

    Args:
        only: names of tables, or of targets that a wildcard made; all of them if empty.

    Raises:
        BadInput: when there is none, or one is not as it should be.
    """
    tables = config.table.get(TARGETS, {})
    found = tuple(target for name in tables for target in _targets(config, name, tables[name]))
    if not found:
        where = config.path.name if config.path else SHARED_FILE
        raise BadInput(f"{where} names nothing to check", "`mixbench init` writes a start; docs/check.md has all keys")
    names = [target.name for target in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise BadInput(f"two targets are called {twice!r}", "give one of the tables another name, and its model by `model = `")
    chosen = {name: [t for t in found if name in (t.name, t.name.partition("/")[0])] for name in only}
    for name, targets in chosen.items():
        if not targets:
            raise BadInput(f"no target named {name!r}", _nearest(name, list(dict.fromkeys((*tables, *names)))))
    return tuple(t for t in found if not only or any(t in targets for targets in chosen.values()))


def _nearest(name: str, names: list[str]) -> str:
    import difflib

    near = difflib.get_close_matches(name, names, n=2, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else f"one of {', '.join(names)}"


def _targets(config: Config, name: str, table: Any) -> Iterator[Target]:
    place = config.place(TARGETS, name)
    if not isinstance(table, dict):
        raise BadInput(f"target {name!r} is {table!r}, not a table", f"write {place.partition(' ')[0]}")
    for key in table:
        if key not in _KINDS and key not in entries():
            raise unknown_key(key, {*_KINDS, *entries()}, place)
    for key, (kind, words) in _KINDS.items():
        value = table.get(key, _default(kind))
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise BadInput(f"{key!r} in {place} is {value!r}", f"it takes {words}")
    try:
        budgets = {key: _budget(key, value) for key, value in table.items() if key in entries()}
        model = table.get("model", name)
        for found in models_named(model):
            yield Target(
                _name(name, table.get("model"), found),
                resolve(found, table.get("kwargs")),
                _workload(table),
                budgets,
                _weights(config, table.get("weights")),
                table.get("reparameterised", False),
            )
    except MixbenchError as error:
        raise BadInput(f"{place}: {error.what}", error.hint) from error


def _default(kind: type | tuple[type, ...]) -> Any:
    """Something of that kind, for a key that is not there."""
    return kind[0]() if isinstance(kind, tuple) else kind()


def _name(table: str, model: str | None, found: str) -> str:
    if model is None:
        return found  # the table's name is the model's, or a wildcard over models
    return table if found == model else f"{table}/{found}"


def models_named(words: str) -> list[str]:
    """The models that are meant; a wildcard means variants of built-in families.

    Raises:
        BadInput: when a wildcard fits none, or stands in the name of a model of the user's own.
    """
    place = words.rpartition(":")[0]
    if not any(sign in words for sign in _WILD) or "[" in place:
        return [words]
    if place:
        raise BadInput(f"{words!r} has a wildcard", "they are for built-in models; write a table for each of your own")
    families = architectures.names()
    found = [name for name in all_names() if name not in families and fnmatchcase(name, words)]
    if not found:
        raise BadInput(f"no model is called like {words!r}", "`mixbench models` lists all with their variants")
    return found


def _workload(table: Mapping[str, Any]) -> Workload:
    inputs = table.get("inputs", [])
    shapes = [inputs] if isinstance(inputs, str) else inputs
    if not all(isinstance(shape, str) for shape in shapes):
        raise BadInput(f"inputs {inputs!r} are no shapes", "write text, such as '1x3x224x224'")
    mode: Mode = "train" if table.get("train") else "eval"
    return Workload(tuple(map(TensorSpec.parse, shapes)), table.get("batch"), table.get("dtype", "float32"), mode)


def _weights(config: Config, name: str | None) -> Path | None:
    if name is None:
        return None
    path = config.folder / name
    if not path.is_file():
        raise BadInput(f"there is no file {name!r} for weights", f"it is looked for in {config.folder}")
    return path


def _budget(name: str, value: Any) -> Budget:
    entry = entries()[name]
    try:
        if entry.words is None:
            return parse(value, entry.unit)
        if not isinstance(value, list) or not value or not all(isinstance(word, str) for word in value):
            raise BadInput(f"{value!r} is no list of names", "write for example ['nnapi']")
        known = entry.words()
        if unknown := [word for word in value if word not in known]:
            raise BadInput(f"nothing is called {unknown[0]!r}", _nearest(unknown[0], list(known)))
        return Budget("==", 0, ", ".join(value), tuple(value))
    except BadInput as error:
        raise BadInput(f"{name}: {error.what}", error.hint) from error
