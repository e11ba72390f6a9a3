"""``file.py:factory`` and ``package.module:factory``: the user's own code."""

import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import partial, wraps
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from ..errors import BadInput, first_line
from ..spec import ModelSpec, Source

SOURCE = Source(
    form="PLACE:FACTORY",
    title="your own code, path/to/file.py:factory or package.module:factory",
    patterns=("*:*", "*.py"),
)


def find(words: str, settings: dict[str, Any]) -> ModelSpec:
    """The spec of what ``FACTORY`` in ``PLACE`` builds: a function, a class, or a module that is made already."""
    place, colon, factory = words.rpartition(":")
    if not colon:
        raise BadInput(f"{words!r} names a file, not a model in it", f"name the function or class too: {words}:FACTORY")
    if not place or not factory:
        raise BadInput(f"{words!r} is not PLACE:FACTORY", "write path/to/file.py:factory or package.module:factory")
    if place.endswith(".py") and not Path(place).is_file():
        raise BadInput(f"there is no file {place!r}", "check the path; it is relative to the folder you are in")
    return ModelSpec(
        name=words,
        factory=partial(_load_factory, place, factory),
        settings=settings,
        changed=bool(settings),
        companion_inputs=partial(_companion_inputs, place, factory),
    )


def _companion_inputs(place: str, factory: str) -> Any:
    """What ``<factory>_inputs()`` in the same place returns, or None when there is no such function."""
    companion = getattr(_load_module(place), f"{factory}_inputs", None)
    if companion is None:
        return None
    with _importable(place):
        return companion()


def _load_factory(place: str, name: str) -> Callable[..., Any]:
    module = _load_module(place)
    try:
        found = getattr(module, name)
    except AttributeError:
        public = [word for word in vars(module) if not word.startswith("_")]
        import difflib

        near = difflib.get_close_matches(name, public, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else "name a function, a class or a module defined there"
        raise BadInput(f"{place!r} has no {name!r}", hint) from None
    if not callable(found):
        kind = type(found).__name__
        raise BadInput(f"{place}:{name} is a {kind}, which builds no model", "name a function, a class or a module")

    # An nn.Module is callable as well, but it is the model already; asking by name keeps torch out of this file.
    if any(kind.__module__ == "torch.nn.modules.module" for kind in type(found).__mro__):
        # A copy, since a case moves its module to meta and the values have to last for the next case.
        return lambda: deepcopy(found)

    @wraps(found, updated=())  # so that its settings can be checked before it is called
    def build(**settings: Any) -> Any:
        # Imports that the factory makes late have to find its neighbours too.
        with _importable(place):
            return found(**settings)

    return build


def _load_module(place: str) -> ModuleType:
    with _importable(place):
        if not place.endswith(".py"):
            try:
                return import_module(place)
            except ModuleNotFoundError as error:
                if error.name and place.split(".")[: len(error.name.split("."))] == error.name.split("."):
                    hint = "check its spelling, and that it is installed or below the folder you are in"
                    raise BadInput(f"there is no Python module {place!r}", hint) from error
                raise _broken(place, error) from error
            except Exception as error:
                raise _broken(place, error) from error
        path = Path(place).resolve()
        name = f"_mixbench_user_{path.stem}_{abs(hash(str(path)))}"
        if name in sys.modules:
            return sys.modules[name]
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None, "a .py file always has a loader"
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # dataclasses and pickle look the module up while it runs
        try:
            spec.loader.exec_module(module)
        except BaseException as error:
            del sys.modules[name]
            if isinstance(error, Exception):
                raise _broken(place, error) from error
            raise
        return module


def _broken(place: str, error: Exception) -> BadInput:
    return BadInput(f"{place} fails to import: {first_line(error)}", "--debug shows the traceback")


@contextmanager
def _importable(place: str) -> Iterator[None]:
    """The user's folder on the path while the user's code runs: the file's own, or the one the user is in."""
    folder = str(Path(place).resolve().parent) if place.endswith(".py") else str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
