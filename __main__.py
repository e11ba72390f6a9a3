"""``python -m mixbench`` is the ``mixbench`` command."""

from .cli.app import main

if __name__ == "__main__":
    raise SystemExit(main())
