"""Versions of what made a result, for its record."""

import platform


def versions(*packages: str) -> dict[str, str]:
    """Python's and these packages' versions; a package that is not installed is left out."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
