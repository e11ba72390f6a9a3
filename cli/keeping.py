"""``--save``: the run that was just printed goes into the project's history. No torch here."""

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..profilers.commit import Commit


@dataclass(frozen=True, slots=True)
class Keeping:
    """Where a run will be kept, and the commit that was checked out when it began."""

    path: Path
    commit: "Commit"


def begin(save: bool) -> Keeping | None:
    """Find the history, and say before any work what stands against writing it; None where nothing is to be kept.

    Raises:
        BadInput: when it can't be written, is damaged, or is of a newer mixbench.
    """
    if not save:
        return None
    from ..profilers.commit import commit_of
    from ..profilers.store import place_of_store, prepare

    here = Path.cwd()
    path = place_of_store(here)
    prepare(path)
    return Keeping(path, commit_of(here))


def keep(keeping: Keeping, record: Any) -> None:
    """Write a record and, once it is on the disk, say so. One that was stopped before its end is not kept."""
    from ..profilers.runs.metrics import metrics_of
    from ..profilers.store import KeptRun, occasion, save
    from . import export_metrics  # noqa: F401 - it adds its record to those that metrics_of knows

    if getattr(record, "partial", False):
        print("note: not saved, since it was stopped before its end", file=sys.stderr)  # noqa: T201
        return
    figures = metrics_of(record)
    machine = getattr(getattr(record, "trace", record), "machine", None)
    if machine is None and any(item.kind == "measured" for item in figures):
        from ..profilers.machine import look

        machine = look("cpu", "", {})
    versions = getattr(record, "versions", None) or (machine.versions if machine else {})
    where = (machine.fingerprint, machine.processor) if machine else ("", "")
    run = KeptRun(occasion(record.command, keeping.commit, *where, **versions), figures, asdict(record))
    save(keeping.path, [run])
    # Git may be missing, or refuse a folder that belongs to somebody else, as containers of CI often mount it.
    without = "" if keeping.commit.sha else ", without a commit: git names none here"
    print(f"saved as {run.occasion.id[:10]} in {keeping.path}{without}", file=sys.stderr)  # noqa: T201
