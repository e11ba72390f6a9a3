"""The two trees of a comparison: the working copy as it is, and a revision of its repository in a temporary git work tree.

Nothing stays behind: the work tree is removed at the end, also after Ctrl-C and SIGTERM; what a killed process left is found by
its name and removed when the next comparison of the repository begins.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from ...models.errors import BadInput, CannotMeasure
from .pairs import Place

_PREFIX = "mixbench-against-"
_PACKAGE = Path(__file__).resolve().parents[2]
"""The running mixbench. Where it is a tree of the repository itself, each side builds with its own."""
_HOOKED = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR")
"""What git tells its hooks, and what would turn a hook's call for another tree into one for its own."""


@dataclass(frozen=True, slots=True)
class Trees:
    """Both sides of a comparison.

    Attributes:
        new: root of the working copy.
        old: root of the revision's work tree.
        faces: folders that hold nothing but a link named mixbench to one side's tree, old first; () where the repository is
            not mixbench's own.
        revision, commit: as it was asked for, and its abbreviated hash.
        notes: what the user should know of the sides.
    """

    new: Path
    old: Path
    faces: tuple[Path, ...]
    revision: str
    commit: str
    notes: tuple[str, ...]

    @property
    def against(self) -> str:
        """The revision with its commit, in words."""
        return self.revision if self.revision.startswith(self.commit) else f"{self.revision} ({self.commit})"

    def places(self, folder: Path) -> tuple[Place, Place]:
        """Where the sides live, old first, for a user who is in ``folder``."""
        old_folder = self._counterpart(folder)
        path = [entry for entry in sys.path if entry]
        old_path = [str(self._counterpart(Path(entry))) for entry in path]
        old_face, new_face = ([str(face)] for face in self.faces) if self.faces else ([], [])
        return (
            Place(self.against, old_folder if old_folder.is_dir() else self.old, (*old_face, *old_path), CannotMeasure),
            Place("the working copy", folder, (*new_face, *path)),
        )

    def words(self, model: str, folder: Path) -> tuple[str, str]:
        """What a model is called on each side, old first: the path of a file in one tree becomes that in the other.

        Raises:
            BadInput: when the file lies outside of the repository.
        """
        place, _, factory = model.rpartition(":")
        if not place.endswith(".py"):
            return model, model
        path = (folder / place).resolve()
        if not path.is_relative_to(self.new):
            what = f"{place} lies outside of the repository {self.new}"
            raise BadInput(what, "no revision of the one changes the other; go to the file's repository")
        return f"{self.old / path.relative_to(self.new)}:{factory}", f"{path}:{factory}"

    def _counterpart(self, path: Path) -> Path:
        """The same place in the other tree; what is not part of the revision (a virtual environment, say) stays itself."""
        resolved = path.resolve()
        if not resolved.is_relative_to(self.new):
            return path
        other = self.old / resolved.relative_to(self.new)
        return other if other.exists() else path


def root_of(folder: Path) -> Path:
    """The root of the work tree that holds a folder.

    Raises:
        BadInput: when the folder is in none.
        CannotMeasure: without git.
    """
    if shutil.which("git") is None:
        raise CannotMeasure("there is no git to get the other revision with", "install git, or put it on the PATH")
    found = _git(folder, "rev-parse", "--show-toplevel")
    if found is None:
        said = _run(folder, "rev-parse", "--show-toplevel").stderr
        if "dubious ownership" in said:
            hint = f"git config --global --add safe.directory {folder}"
            raise BadInput(f"git refuses {folder}, which belongs to another user", hint)
        raise BadInput(f"{folder} is in no git repository", "--against compares with a revision of one: git init, git commit")
    return Path(found).resolve()


@contextmanager
def checked_out(folder: Path, revision: str) -> Iterator[Trees]:
    """The working copy that holds ``folder``, and a revision of its repository beside it for as long as this lasts.

    Raises:
        BadInput: without a repository or such a revision.
        CannotMeasure: when git is missing or fails.
        SystemExit: with 128 + its number on SIGTERM and SIGHUP, so that everything is removed.
    """
    if "==" in revision:
        hint = "give a git revision, such as the tag of that version"
        raise BadInput(f"{revision!r} names an installed version, and only revisions can be compared with", hint)
    new = root_of(folder)
    commit = _commit(new, revision)
    _remove_leftovers(new)
    with _signals(), tempfile.TemporaryDirectory(prefix=f"{_PREFIX}{os.getpid()}-", ignore_cleanup_errors=True) as name:
        place = Path(name).resolve()
        old = place / "tree"
        try:
            # The repository's hooks are for people who check out, and may be slow or wrong here.
            done = _run(new, "-c", "core.hooksPath=/dev/null", "worktree", "add", "--detach", "--quiet", str(old), commit)
            if done.returncode:
                last = next(iter(done.stderr.strip().splitlines()[-1:]), "git gave no reason")
                raise CannotMeasure(f"git can't check {revision} out beside the working copy: {last}", "see git worktree")
            short = _git(new, "rev-parse", "--short", commit) or commit
            yield Trees(new, old, _faces(place, old, new), revision, short, tuple(_notes(new, commit)))
        finally:
            _run(new, "worktree", "remove", "--force", str(old))


def _commit(root: Path, revision: str) -> str:
    found = _git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    if found:
        return found
    if _git(root, "rev-parse", "--verify", "--quiet", "HEAD") is None:
        raise BadInput(f"the repository {root} has no commit yet", "commit what the working copy is to be compared with")
    if _git(root, "rev-parse", "--is-shallow-repository") == "true":
        hint = "fetch its history: git fetch --unshallow; in CI a checkout of full depth (fetch-depth: 0)"
        raise BadInput(f"this clone is shallow and has no revision {revision!r}", hint)
    import difflib

    names = (_git(root, "for-each-ref", "--format=%(refname:short)") or "").split()
    near = difflib.get_close_matches(revision, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    raise BadInput(f"no revision {revision!r} in {root}", f"{hint}a branch, a tag, a commit's hash, or HEAD~1")


def _notes(root: Path, commit: str) -> Iterator[str]:
    changed = (_run(root, "status", "--porcelain").stdout or "").splitlines()
    if changed:
        count = f"{len(changed)} file{'s' if len(changed) > 1 else ''}"
        yield f"the new side is the working copy, with changes in {count} that are not committed"
    if not changed and _git(root, "rev-parse", "HEAD^{tree}") == _git(root, "rev-parse", f"{commit}^{{tree}}"):
        yield "both sides have the same files"


def _faces(place: Path, old: Path, new: Path) -> tuple[Path, ...]:
    """The root of mixbench's own repository is the package: a link named mixbench makes it importable."""
    if new != _PACKAGE:
        return ()
    faces = (place / "old", place / "new")
    for face, root in zip(faces, (old, new), strict=True):
        face.mkdir()
        (face / "mixbench").symlink_to(root, target_is_directory=True)
    return faces


def _remove_leftovers(root: Path) -> None:
    """Work trees of processes that are gone, whether their folders are still there or not."""
    import psutil

    listed = (_git(root, "worktree", "list", "--porcelain") or "").splitlines()
    for tree in [Path(line.removeprefix("worktree ")) for line in listed if line.startswith("worktree ")]:
        pid = tree.parent.name.removeprefix(_PREFIX).partition("-")[0]
        if tree.parent.name.startswith(_PREFIX) and pid.isdecimal() and not psutil.pid_exists(int(pid)):
            _run(root, "worktree", "remove", "--force", str(tree))
            shutil.rmtree(tree.parent, ignore_errors=True)


def _git(folder: Path, *words: str) -> str | None:
    """What git prints, None when it fails."""
    done = _run(folder, *words)
    return done.stdout.strip() if done.returncode == 0 else None


def _run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if name not in _HOOKED}
    return subprocess.run(
        ["git", "-C", str(folder), *words],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        env={**env, "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
    )


@contextmanager
def _signals() -> Iterator[None]:
    """Signals that end a process become exceptions, so that what was made is removed; afterwards they are as before."""

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    known = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    if threading.current_thread() is not threading.main_thread():
        known = []  # handlers are the main thread's
    before = {number: signal.signal(number, end) for number in known}
    try:
        yield
    finally:
        for number, handler in before.items():
            with suppress(TypeError):  # one that was not set from Python can't be put back
                signal.signal(number, handler)
