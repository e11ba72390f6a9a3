"""Settings of a project: ``[tool.mixbench]`` of pyproject.toml, or mixbench.toml with the same tables without that prefix.

The nearest folder counts, from the current one up to the root of its git repository; outside of a repository only the current
one. A mixbench.toml wins over the pyproject.toml beside it. For an option of a command, what is nearer to the hand wins:
flag > MIXBENCH_COMMAND_OPTION > MIXBENCH_OPTION > ``[tool.mixbench.COMMAND]`` > ``[tool.mixbench]`` > default.

A key that means nothing is an error: a budget that nobody checks is worse than none. No torch here; a project without settings
costs a few looks into folders.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..models.errors import BadInput

OWN_FILE, SHARED_FILE = "mixbench.toml", "pyproject.toml"
TARGETS = "targets"
_PREFIX = "MIXBENCH_"
_DEBUG = "MIXBENCH_DEBUG"


@dataclass(frozen=True, slots=True)
class Config:
    """The project's file.

    Attributes:
        path: None where there is no file.
        table: what is in it, without ``tool.mixbench``.
        shadowed: a file beside it that has settings too, which are not read.
    """

    path: Path | None = None
    table: Mapping[str, Any] = field(default_factory=dict)
    shadowed: Path | None = None

    @property
    def folder(self) -> Path:
        """Where the paths in it begin."""
        return self.path.parent if self.path else Path.cwd()

    def place(self, *keys: str) -> str:
        """A table's name as it is written in the file, with the file's."""
        assert self.path is not None, "a table comes from a file"
        prefix = () if self.path.name == OWN_FILE else ("tool", "mixbench")
        words = ".".join(key if key.replace("-", "").replace("_", "").isalnum() else f'"{key}"' for key in (*prefix, *keys))
        return f"[{words}] of {self.path.name}" if words else self.path.name


@dataclass(frozen=True, slots=True)
class Setting:
    """A value for an option of a command, and where it stands."""

    command: str
    option: str
    value: Any
    origin: str


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a call of the command goes by."""

    config: Config
    settings: tuple[Setting, ...]

    def defaults(self) -> dict[str, dict[str, Any]]:
        """The settings as Typer takes them: by command and parameter."""
        found: dict[str, dict[str, Any]] = {}
        for item in self.settings:
            found.setdefault(item.command, {})[item.option] = item.value
        return found

    def origin(self, command: str, option: str) -> str:
        """Where an option's value stands; empty where it is not set here."""
        return next((item.origin for item in self.settings if (item.command, item.option) == (command, option)), "")


def find(start: Path) -> Config:
    """The nearest file with settings.

    Raises:
        BadInput: when it is not TOML.
    """
    folders = (start, *start.parents)
    root = next((folder for folder in folders if (folder / ".git").exists()), start)
    for folder in folders:
        own, shared = folder / OWN_FILE, folder / SHARED_FILE
        if own.is_file():
            return Config(own, _read(own), shared if _has_table(shared) else None)
        if _has_table(shared) and (table := _read(shared).get("tool", {}).get("mixbench")) is not None:
            if not isinstance(table, dict):
                raise BadInput(f"tool.mixbench of {shared.name} is no table", "write [tool.mixbench]")
            return Config(shared, table)
        if folder == root:
            break
    return Config()


def load(config: Config, commands: Mapping[str, Any], environment: Mapping[str, str]) -> Loaded:
    """The settings for the options of these commands.

    Args:
        commands: Typer's, by name.

    Raises:
        BadInput: when the file has a key that means nothing, or a value of another kind than its option.
    """
    if not config.table and not any(name.startswith(_PREFIX) for name in environment):
        return Loaded(config, ())
    options = {name: _options(command) for name, command in commands.items()}
    found: dict[tuple[str, str], Setting] = {}
    for item in (*_from_file(config, options), *_from_environment(environment, options)):
        found[item.command, item.option] = item  # the later wins
    return Loaded(config, tuple(found.values()))


def strangers(commands: Mapping[str, Any], environment: Mapping[str, str]) -> list[str]:
    """Variables that begin like ours and set no option."""
    options = {name: _options(command) for name, command in commands.items()}
    known = {_DEBUG, *(name for command in options for key in options[command] for name in _variables(command, key))}
    return sorted(name for name in environment if name.startswith(_PREFIX) and name not in known)


def unknown_key(key: str, known: Iterable[str], place: str) -> BadInput:
    """The error for a key that means nothing, with the nearest that would."""
    import difflib

    names = sorted(set(known))
    near = difflib.get_close_matches(key, names, n=2, cutoff=0.6)
    hint = f"did you mean {' or '.join(near)}?" if near else f"one of {', '.join(names)}"
    return BadInput(f"unknown key {key!r} in {place}", hint)


def _read(path: Path) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise BadInput(f"{path.name} can't be read: {error}", f"mend {path}") from error


def _has_table(path: Path) -> bool:
    """Whether it may have settings: most pyproject.toml files don't, and are not worth parsing."""
    try:
        return b"mixbench" in path.read_bytes()
    except OSError:
        return False


def _options(command: Any) -> dict[str, Any]:
    """A command's parameters by the names of their options, as in ``--by-op``: ``by_op``."""
    found = {}
    for parameter in command.params:
        for word in parameter.opts:
            if word.startswith("--") and parameter.name != "help":
                found[word[2:].replace("-", "_")] = parameter
    return found


def _from_file(config: Config, options: Mapping[str, Mapping[str, Any]]) -> Iterator[Setting]:
    tables = {name: value for name, value in config.table.items() if name in options}
    for key, value in config.table.items():
        if key == TARGETS or key in options:
            if not isinstance(value, dict):
                raise BadInput(f"{key!r} in {config.place()} is {value!r}, not a table", f"write {_header(config, key)}")
            continue
        name = key.replace("-", "_")
        takers = [command for command, known in options.items() if name in known]
        if not takers:
            every = {word.replace("_", "-") for known in options.values() for word in known}
            raise unknown_key(key, {*every, *options, TARGETS}, config.place())
        for command in takers:
            yield _setting(config, command, options[command][name], key, value, ())
    for command, table in tables.items():
        for key, value in table.items():
            name = key.replace("-", "_")
            if name not in options[command]:
                known = {word.replace("_", "-") for word in options[command]}
                raise unknown_key(key, known, config.place(command))
            yield _setting(config, command, options[command][name], key, value, (command,))


def _header(config: Config, key: str) -> str:
    return config.place(key).partition(" ")[0]


def _setting(config: Config, command: str, parameter: Any, key: str, value: Any, table: tuple[str, ...]) -> Setting:
    """A value of the file, if it is of the option's kind; whether it is a good one the command says."""
    is_list = isinstance(value, list)
    words = value if is_list else [value]
    scalars = all(isinstance(word, str | int | float) and not isinstance(word, bool) for word in words)
    wanted, fits = "text or a number", scalars and not is_list
    if getattr(parameter, "is_flag", False):
        wanted, fits = "true or false", isinstance(value, bool)
    elif parameter.multiple:
        wanted, fits = "a list", scalars
        value = words
    if not fits:
        raise BadInput(f"{key!r} in {config.place(*table)} is {value!r}", f"it takes {wanted}")
    return Setting(command, parameter.name, value, config.place(*table))


def _variables(command: str, key: str) -> tuple[str, str]:
    """The environment's names of an option, the one that wins last."""
    return f"{_PREFIX}{key.upper()}", f"{_PREFIX}{command.upper()}_{key.upper()}"


def _from_environment(environment: Mapping[str, str], options: Mapping[str, Mapping[str, Any]]) -> Iterator[Setting]:
    if not any(name.startswith(_PREFIX) for name in environment):
        return
    for command, known in options.items():
        for key, parameter in known.items():
            for name in _variables(command, key):
                if value := environment.get(name):
                    yield Setting(
                        command, parameter.name, value.split() if parameter.multiple else value, f"environment {name}"
                    )


def load_here(commands: Mapping[str, Any]) -> Loaded:
    """The settings that hold in the current folder."""
    return load(find(Path.cwd()), commands, os.environ)
