"""A folder in which the file's name is the entry's name: no list to edit, and no import until an entry is used.

An entry's description is one assignment of plain data at the top level of its file. It is read from the source and
evaluated with nothing but the plain-data types in reach, so listing, completing and explaining models never loads torch.
Other distributions add entries through an entry point group.
"""

import ast
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .errors import BadInput, first_line
from .spec import Family, Preprocessing, Published, Source, TensorSpec, Variant

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


class Registry:
    """Entries of one kind: the Python files of ``package`` and the entry points of ``group``.

    ``listing`` tells the user of a wrong name how to see all.
    """

    def __init__(
        self,
        kind: str,
        package: str,
        attribute: str,
        group: str,
        vocabulary: Mapping[str, Any],
        listing: str = "`mixbench models` lists all",
    ) -> None:
        self.kind = kind
        self.listing = listing
        self._package = package
        self._attribute = attribute
        self._group = group
        self._vocabulary = dict(vocabulary)
        self._folder = Path(__file__).parent.joinpath(*package.split("."))

    def names(self) -> list[str]:
        """Every entry's name, sorted; nothing is imported."""
        return sorted({*self._files(), *self._plugins()})

    def describe(self, name: str) -> Any:
        """The entry's description.

        Raises:
            BadInput: when there is no such entry, with the nearest names as hint.
        """
        if name in self._files():
            return self._read(name, self._attribute)
        return getattr(self.module(name), self._attribute)

    def exports(self, name: str) -> list[str]:
        """The public names of an entry's file, read from its ``__all__``; a plug-in's are not re-exported."""
        return list(self._read(name, "__all__")) if name in self._files() else []

    def module(self, name: str) -> ModuleType:
        """Import the entry's file, or the plug-in's module.

        Raises:
            BadInput: when there is no such entry, or a plug-in fails to import.
        """
        if name in self._files():
            return import_module(f".{self._package}.{name}", __package__)
        if name not in self._plugins():
            raise self.unknown(name)
        try:
            return import_module(self._plugins()[name].module)
        except Exception as error:
            what = f"the {self.kind} {name!r} of another package fails to import: {first_line(error)}"
            raise BadInput(what, "mend or uninstall that package") from error

    def unknown(self, name: str, among: list[str] | None = None) -> BadInput:
        """The error for a name that is not registered, with the nearest ones."""
        import difflib

        near = difflib.get_close_matches(name, among or self.names(), n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        return BadInput(f"no {self.kind} named {name!r}", hint + self.listing)

    @cache  # noqa: B019 - registries live as long as the process
    def _files(self) -> dict[str, Path]:
        return {path.stem: path for path in sorted(self._folder.glob("[!_]*.py"))}

    @cache  # noqa: B019
    def _plugins(self) -> dict[str, "EntryPoint"]:
        from importlib.metadata import entry_points  # a fifth of the time that --help takes

        return {point.name: point for point in entry_points(group=self._group)}

    @cache  # noqa: B019
    def _read(self, name: str, attribute: str) -> Any:
        tree = ast.parse(self._files()[name].read_text(encoding="utf-8"))
        for statement in tree.body:
            targets = statement.targets if isinstance(statement, ast.Assign) else []
            if any(isinstance(target, ast.Name) and target.id == attribute for target in targets):
                assert isinstance(statement, ast.Assign)
                code = compile(ast.Expression(statement.value), f"{self._package}/{name}.py", "eval")
                return eval(code, {"__builtins__": {}, **self._vocabulary})
        raise AttributeError(f"{self._package}/{name}.py assigns no {attribute} at its top level")


architectures = Registry(
    kind="model",
    package="architectures",
    attribute="FAMILY",
    group="mixbench.architectures",
    vocabulary={kind.__name__: kind for kind in (Family, Variant, Published, Preprocessing, TensorSpec)},
)

sources = Registry(
    kind="source of models",
    package="sources",
    attribute="SOURCE",
    group="mixbench.sources",
    vocabulary={"Source": Source},
)
