"""What can be built: the architectures, and how a user's words become a model.

Every public class of every architecture can be imported from here, without a list to keep: the name is looked up in the
``__all__`` of the files in ``architectures/``, and only the file that owns it is imported::

    from mixbench.models import DFCAttention, GhostModule
"""

from typing import Any


def __getattr__(name: str) -> Any:
    """Import a class from the architecture file that exports it (PEP 562)."""
    if name[0].isupper():  # classes, that is; a submodule must not be looked for here
        from .registry import architectures

        for entry in architectures.names():
            if name in architectures.exports(entry):
                return getattr(architectures.module(entry), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
