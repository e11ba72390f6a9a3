"""`mixbench check` between its command and its records: take every target's metrics, judge them, keep them."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import chdir, contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path

from ..models.errors import BadInput, MixbenchError
from ..models.versions import versions
from ..profilers.runs import baseline as store
from ..profilers.runs.check_run import CheckRun, Judgement, Metric
from ..profilers.runs.verdict import conclude, judge
from .console import quick_imports, working
from .metrics import Specimen
from .targets import Target

_SHOWN = 6
"""Changes that an update spells out."""


@dataclass(frozen=True, slots=True)
class Taken:
    """A target's metrics, and the workload that they are of. ``notes`` are what the user should know of them."""

    target: Target
    workload: str
    metrics: tuple[Metric, ...]
    notes: tuple[str, ...]


def take_all(targets: Sequence[Target], folder: Path) -> tuple[list[Taken], list[MixbenchError]]:
    """Take the metrics of targets whose files are looked for in this folder; and the errors of those that fail, named in them.

    What a model's own code prints goes to stderr: stdout is the record's.
    """
    failures: list[MixbenchError] = []
    with quick_imports():
        from ..profilers import counter  # noqa: F401 - torch, before the first target's turn
    found = []
    with chdir(folder), redirect_stdout(sys.stderr):
        for target in targets:
            with working(f"checking {target.name}"), failing_alone(target, failures):
                found.append(_take(target))
    return found, failures


def against_baseline(taken: Sequence[Taken], path: Path, whole: bool) -> CheckRun:
    """Judge what was taken by a baseline file.

    Args:
        whole: these are all targets, so that what else the baseline knows is a leftover.

    Raises:
        BadInput: when the file can't be read.
    """
    base = store.read(path)
    notes = [note for item in taken for note in item.notes]
    if base is None:
        notes.append(f"there is no {path.name}: `mixbench check --update` writes it; commit it")
    else:
        if base.torch != _torch():
            notes.append(f"{path.name} was counted with torch {base.torch}, and this is torch {_torch()}")
        notes += _leftovers(base, taken, path) if whole else []
    return conclude(_judged(taken, base), path.name, notes)


def update(taken: Sequence[Taken], path: Path, whole: bool) -> CheckRun:
    """Write what was taken as the new baseline, and judge by it: only budgets can fail.

    Args:
        whole: these are all targets; otherwise what the file has of others stays.

    Raises:
        BadInput: when the file can't be written, or is to be kept in part and can't be read.
    """
    before = _before(path, whole)
    kept = {} if whole or before is None else dict(before.targets)
    if kept and before is not None and before.torch != _torch():
        what = f"{path.name} was counted with torch {before.torch}, and this is torch {_torch()}"
        raise BadInput(what, "update all targets together: mixbench check --update")
    fresh = {item.target.name: store.entry_of(item.workload, item.metrics) for item in taken}
    base = store.Baseline(_torch(), kept | fresh)
    store.write(path, base)
    notes = [note for item in taken for note in item.notes]
    return conclude(_judged(taken, base), path.name, [*notes, *_changes(before, base, path)])


def _take(target: Target) -> Taken:
    specimen = Specimen(target)
    metrics = []
    unknown = (f"{item.operator}, {item.calls} calls: no rule, in no total" for item in specimen.count.uncounted)
    notes = [f"{target.name}: {note}" for note in (*specimen.count.notes, *unknown)]
    for entry in target.metrics:
        if entry.take is None:
            notes.append(f"{target.name}: {entry.name} is judged by --against REVISION only")
            continue
        found = entry.take(specimen, target.budgets.get(entry.name))
        metrics.append(
            Metric(
                target.name,
                entry.name,
                found.value,
                entry.unit,
                entry.kind,
                entry.better,
                found.low,
                found.high,
                dict(found.parts),
            )
        )
    form = ", reparameterised" if target.reparameterised else ""
    return Taken(target, specimen.case.workload.key + form, tuple(metrics), tuple(notes))


def _judged(taken: Sequence[Taken], base: store.Baseline | None) -> list[Judgement]:
    return [
        judge(metric, item.workload, base, item.target.budgets.get(metric.name)) for item in taken for metric in item.metrics
    ]


def _before(path: Path, whole: bool) -> store.Baseline | None:
    """The file that an update replaces. One that is broken may be replaced as a whole, one of a newer mixbench may not."""
    try:
        return store.read(path)
    except store.NewerBaseline:
        raise
    except BadInput:
        if whole:
            return None
        raise


def _leftovers(base: store.Baseline, taken: Sequence[Taken], path: Path) -> Iterator[str]:
    left = sorted(base.targets.keys() - {item.target.name for item in taken})
    if left:
        yield f"{path.name} has {', '.join(left)}, which nothing names any more: --update removes that"
    for item in taken:
        known = base.targets.get(item.target.name)
        exact = {metric.name for metric in item.metrics if metric.kind == "counted"}
        gone = sorted(known.metrics.keys() - exact) if known else []
        if gone:
            yield f"{path.name} has {', '.join(gone)} of {item.target.name}, not taken any more: --update removes that"


def _changes(before: store.Baseline | None, after: store.Baseline, path: Path) -> Iterator[str]:
    """What an update did, in words."""
    old = {
        (name, key): value for name, entry in (before.targets if before else {}).items() for key, value in entry.metrics.items()
    }
    new = {(name, key): value for name, entry in after.targets.items() for key, value in entry.metrics.items()}
    changed = sorted(key for key in {**old, **new} if old.get(key) != new.get(key))
    if before is None:
        yield f"wrote {path.name}: {len(new)} figures of {len(after.targets)} targets"
        return
    yield f"wrote {path.name}: {len(changed)} of {len(new)} figures changed"
    for key in changed[:_SHOWN]:
        sides = (f"{side[key]:,}" if key in side else "nothing" for side in (old, new))
        yield f"{'.'.join(key)}: {' -> '.join(sides)}"
    if len(changed) > _SHOWN:
        yield f"and {len(changed) - _SHOWN} more; git diff shows them"


def _torch() -> str:
    """torch's version, without what says for which device it was built: the figures are the same."""
    return versions("torch").get("torch", "").partition("+")[0]


@contextmanager
def failing_alone(target: Target, failures: list[MixbenchError]) -> Iterator[None]:
    """An error in here is kept among the failures, with the target's name: the others are checked all the same."""
    try:
        yield
    except MixbenchError as error:
        error.what = f"target {target.name!r}: {error.what}"
        failures.append(error)


def noted(run: CheckRun, failures: Sequence[MixbenchError]) -> CheckRun:
    """The run with a note on each target that could not be judged."""
    return replace(run, notes=(*run.notes, *(f"not judged: {error.what}" for error in failures)))
