"""Errors that mixbench explains: what was wrong, what to do next, and which exit code says so to a machine."""


class MixbenchError(Exception):
    """Something the user can mend. ``what`` names the fault with what was given, ``hint`` the next step.

    Subclasses differ in their exit code only: 1 a check failed, 2 wrong use or input, 3 could not measure.
    """

    exit_code = 2

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint


class BadInput(MixbenchError):
    """The command, a model's name, a shape, a file or the user's own code cannot be used as given."""


class CannotMeasure(MixbenchError):
    """The request makes sense, but this machine cannot answer it (memory, a missing runtime or device)."""

    exit_code = 3


class CheckFailed(MixbenchError):
    """What was made is not what it should be; nothing of it is kept."""

    exit_code = 1


def first_line(error: BaseException) -> str:
    """The error's type and the first line of its message, for a one-line report of somebody else's exception."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
