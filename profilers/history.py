"""From kept runs to series over commits, with the points where they changed. No torch here.

Counted figures are exact, so every difference is a change, and it names the modules that differ. Measured ones wander:
`change_points` tells a new level from noise. Times of two machines never meet in one series.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Literal

from ..models.errors import BadInput, CannotMeasure
from .change_points import change_points
from .runs.check_run import Culprit
from .runs.history_run import Change, HistoryRun, Point, Series
from .stats import median
from .store import Figure, Occasion, figures, targets

_MOST_PARTS = 20
_Run = tuple[Occasion, Figure]


def look(path: Path, target: str, metrics: Sequence[str] = ()) -> HistoryRun:
    """The history of a target.

    Args:
        metrics: names of those to show; without any, all but those that are zero everywhere.

    Raises:
        CannotMeasure: when there is no run of it.
        BadInput: when no run has a metric; or as `store.figures`.
    """
    kept = figures(path, target)
    if not kept:
        known = ", ".join(targets(path)[:6])
        hint = f"there are runs of {known}" if known else f"mixbench flops {target} --save keeps one"
        raise CannotMeasure(f"no run of {target} is kept in {str(path)!r}", hint)
    every = series_of(kept)
    names = list(dict.fromkeys(series.name for series in every))
    for metric in metrics:
        if metric not in names:
            raise BadInput(f"no run of {target} has a metric {metric!r}", f"one of {', '.join(names)}")
    shown = [s for s in every if (s.name in metrics if metrics else any(point.value for point in s.points))]
    machines = {series.machine for series in shown if series.machine}
    notes = [f"measured on {len(machines)} machines, each with series of its own"] if len(machines) > 1 else []
    if any(point.dirty for series in shown for point in series.points):
        notes.append("a + marks a tree that differed from its commit")
    return HistoryRun(target, tuple(shown), tuple(notes))


def series_of(kept: Iterable[_Run]) -> list[Series]:
    """The series of kept figures, in the order in which each first came up.

    Args:
        kept: figures of one target in the order of their runs.
    """
    groups: dict[tuple[str, ...], list[_Run]] = {}
    for occasion, figure in kept:
        machine = occasion.machine if figure.kind == "measured" else ""
        key = (figure.name, figure.unit, figure.kind, figure.better, figure.workload, machine)
        groups.setdefault(key, []).append((occasion, figure))
    return [_series(runs, key[-1]) for key, runs in groups.items()]


def _series(runs: list[_Run], machine: str) -> Series:
    figure = runs[0][1]
    places: dict[tuple[str, ...], list[_Run]] = {}
    for run in sorted(runs, key=lambda run: (run[0].commit.date or run[0].date, run[0].commit.dirty, run[0].date)):
        commit = run[0].commit
        # What a tree held that differed from its commit is not known: such a run is compared with none as if it were the same.
        key = (commit.sha,) if commit.sha and not commit.dirty else (commit.sha, run[0].id)
        places.setdefault(key, []).append(run)
    groups = list(places.values())
    points = tuple(map(_point, groups))
    changes = _exact(groups, points) if figure.kind != "measured" else _levels(points, figure)
    return Series(
        target=figure.target,
        name=figure.name,
        unit=figure.unit,
        kind=figure.kind,
        better=figure.better,
        workload=figure.workload,
        machine=machine,
        processor=runs[-1][0].processor if machine else "",
        points=points,
        changes=tuple(changes),
    )


def _point(runs: Sequence[_Run]) -> Point:
    occasion, figure = runs[-1]
    commit = occasion.commit
    values = [figure.value for _, figure in runs]
    value, low, high = figure.value, figure.low, figure.high
    if figure.kind == "measured" and len(values) > 1:
        value, low, high = median(values), min(values), max(values)
    return Point(commit.sha, commit.dirty, commit.branch, commit.date or occasion.date, value, low, high, len(runs))


def _exact(groups: Sequence[Sequence[_Run]], points: Sequence[Point]) -> list[Change]:
    """Every difference between neighbours, with what it is made of."""
    found = []
    for place, ((old, before), (new, after)) in enumerate(pairwise(zip(groups, points, strict=True)), 1):
        if before.value != after.value:
            figure = new[-1][1]
            parts = _parts(old[-1][1].parts, figure.parts)
            found.append(_change(place, after, before.value, after.value, figure, parts))
    return found


def _parts(base: dict[str, int], new: dict[str, int]) -> tuple[Culprit, ...]:
    """What differs, the largest difference first; nothing when either side doesn't say what it is made of."""
    if not base or not new:
        return ()
    differing = [part for part in sorted({*base, *new}) if base.get(part, 0) != new.get(part, 0)]
    differing.sort(key=lambda part: -abs(new.get(part, 0) - base.get(part, 0)))
    return tuple(Culprit(part, base.get(part, 0), new.get(part, 0)) for part in differing[:_MOST_PARTS])


def _levels(points: Sequence[Point], figure: Figure) -> list[Change]:
    values = [point.value for point in points]
    cuts = change_points(values)
    edges = [0, *cuts, len(values)]
    levels = [median(values[a:b]) for a, b in pairwise(edges)] if cuts else []
    return [
        _change(place, points[place], before, after, figure)
        for place, (before, after) in zip(cuts, pairwise(levels), strict=True)
    ]


def _change(place: int, point: Point, before: float, after: float, figure: Figure, parts: tuple[Culprit, ...] = ()) -> Change:
    word: Literal["better", "worse"] = "better" if (after < before) == (figure.better == "lower") else "worse"
    ratio = after / before if before else None
    return Change(place, point.commit, point.dirty, point.date, before, after, ratio, word, parts)
