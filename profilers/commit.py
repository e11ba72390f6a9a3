"""The commit that a run belongs to, asked of git itself. No torch here."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

_PATIENCE_S = 10.0


@dataclass(frozen=True, slots=True)
class Commit:
    """Where the work tree stood; all empty where there is no git, no repository, or nothing committed yet.

    Attributes:
        sha: in full.
        date: when it was committed, UTC, ISO 8601.
        branch: "" for a detached HEAD, which is what CI often checks out.
        dirty: whether a tracked file differs from the commit. Files that git doesn't track don't count: reports are such.
    """

    sha: str = ""
    date: str = ""
    branch: str = ""
    dirty: bool = False

    @property
    def short(self) -> str:
        """Its first ten digits, with a + where the tree differs from it."""
        return self.sha[:10] + ("+" if self.sha and self.dirty else "")


NOWHERE = Commit()


def commit_of(folder: Path) -> Commit:
    """The commit that is checked out there, with the state of the tree."""
    head = _git(folder, "log", "-1", "--no-show-signature", "--date=format-local:%Y-%m-%dT%H:%M:%SZ", "--format=%H %cd")
    if not head:
        return NOWHERE
    sha, _, date = head.partition(" ")
    branch = _git(folder, "symbolic-ref", "--quiet", "--short", "HEAD")
    return Commit(sha, date, branch, bool(_git(folder, "status", "--porcelain", "--untracked-files=no")))


def root_of(folder: Path) -> Path:
    """The top of the work tree around the folder, or the folder itself where there is none."""
    top = _git(folder, "rev-parse", "--show-toplevel")
    return Path(top) if top else folder


def _git(folder: Path, *words: str) -> str:
    """What git prints, or "" when it fails: a program that is missing and a folder without a repository are the same here."""
    import os

    # UTC for dates; and reading the state must not take the lock that the user's own git may want.
    plain = os.environ | {"TZ": "UTC", "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            ["git", *words], cwd=folder, env=plain, capture_output=True, text=True, timeout=_PATIENCE_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
