"""``python -m mixbench`` is the ``mixbench`` command."""

from .cli.app import script

if __name__ == "__main__":
    raise SystemExit(script())
