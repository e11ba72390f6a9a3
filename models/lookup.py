"""From the user's words to a `ModelSpec`: ``name`` or ``name-variant`` of an architecture, or the words of a source.

No torch here: a wrong name is answered at once. Others' code runs only when the spec's factory is called.
"""

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from importlib.util import find_spec
from typing import Any

from .errors import BadInput, CannotMeasure, MixbenchError
from .registry import architectures, sources
from .spec import Family, ModelSpec, Source


def resolve(words: str, settings: Mapping[str, Any] | None = None) -> ModelSpec:
    """Find the model that the user names.

    Args:
        words: a registered name with or without ``-variant``, or what a file of ``sources/`` takes, such as ``timm:NAME`` or
            ``PLACE:FACTORY`` of the user's own code.
        settings: keyword arguments for the factory, over the variant's own.

    Raises:
        BadInput: when nothing has this name; the hint names the nearest.
        CannotMeasure: when a package that the source needs is missing.
    """
    settings = dict(settings or {})
    fitting = [
        (len(pattern), name, source)
        for name, source in all_sources()
        for pattern in source.patterns
        if fnmatchcase(words, pattern)
    ]
    if fitting:
        _, name, source = max(fitting, key=lambda found: found[0])
        _check_installed(words, source)
        found: ModelSpec = sources.module(name).find(words, settings)
        return found
    name, family, variant = _find(words)
    return ModelSpec(
        name=f"{name}-{variant}",
        factory=lambda: architectures.module(name).build,
        settings={**family.variants[variant].settings, **settings},
        entry=name,
        changed=bool(settings),
        family=family,
        variant=family.variants[variant],
    )


def all_names() -> list[str]:
    """Every name of an architecture: families (their default variant) and all variants, in the families' order."""
    names = []
    for name in architectures.names():
        names.append(name)
        names.extend(f"{name}-{variant}" for variant in architectures.describe(name).variants)
    return names


def all_sources() -> Iterator[tuple[str, Source]]:
    """The sources by name; one of another package that fails to import is left out, since the rest can do without it."""
    for name in sources.names():
        try:
            yield name, sources.describe(name)
        except MixbenchError:
            continue


def _check_installed(words: str, source: Source) -> None:
    if missing := [module for module in source.needs if find_spec(module) is None]:
        what = f"{words} needs the package{'s' if len(missing) > 1 else ''} {', '.join(missing)}"
        raise CannotMeasure(what, f"pip install 'mixbench[{source.extra}]'")


def _find(words: str) -> tuple[str, Family, str]:
    families = [name for name in architectures.names() if words == name or words.startswith(f"{name}-")]
    if not families:
        raise architectures.unknown(words, all_names())
    name = max(families, key=len)
    family: Family = architectures.describe(name)
    variant = words[len(name) + 1 :] or family.default
    if variant not in family.variants:
        raise BadInput(f"{name} has no variant {variant!r}", f"its variants: {', '.join(family.variants)}")
    return name, family, variant
