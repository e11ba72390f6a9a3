"""Files that are there whole or not at all."""

import os
import tempfile
from pathlib import Path

from .errors import BadInput


def cache_folder() -> Path:
    """Where what can be made again is kept for the user: ``mixbench`` in $XDG_CACHE_HOME or ~/.cache. It need not exist."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mixbench"


def check_writable(output: Path) -> None:
    """Refuse what can't be written before any work is done for it.

    Raises:
        BadInput: when it is a folder, its folder is missing, or rights are.
    """
    if output.is_dir():
        raise BadInput(f"{str(output)!r} is a folder", "name a file in it")
    if not output.parent.is_dir():
        raise BadInput(f"there is no folder {str(output.parent)!r}", "make it first, or check the path of --output")
    if not os.access(output if output.exists() else output.parent, os.W_OK):
        raise BadInput(f"{str(output)!r} may not be written", "choose another place for --output")


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file so that it is there whole or not at all, also after a kill.

    Raises:
        BadInput: when it can't be written.
    """
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            try:
                file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
                # A temporary file is private; the result gets the rights that any new file gets.
                mask = os.umask(0)
                os.umask(mask)
                temporary.chmod(0o666 & ~mask)
                temporary.replace(path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
    except OSError as error:
        raise BadInput(f"cannot write {str(path)!r}: {error.strerror}", "choose another place for --output") from error
