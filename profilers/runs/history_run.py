"""The record of one `mixbench history`: series over commits and where they changed. No torch here.

The schema beside this file (``history-1.schema.json``) is generated from these types; a change that a reader could notice
raises ``SCHEMA``.
"""

from dataclasses import dataclass, field
from typing import Literal

from ...models.versions import versions
from .check_run import Better, Culprit, Kind

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Point:
    """A figure at one commit.

    Attributes:
        commit: in full; "" for runs outside of git. ``dirty``: the tree differed from it, so the point stands for one run only.
        date: of the commit where there is one, else of the run; UTC, ISO 8601.
        value: of a counted figure the last one, of a measured one the median over ``runs`` runs.
        low, high: the interval of a single run; of several the lowest and the highest value.
    """

    commit: str
    dirty: bool
    branch: str
    date: str
    value: float
    low: float | None
    high: float | None
    runs: int


@dataclass(frozen=True, slots=True)
class Change:
    """A new level that begins at ``place`` among the points; ``before`` and ``after`` are the levels' medians.

    Attributes:
        ratio: after over before; None when that was 0.
        parts: of a counted figure, by how much each module or operator changed, the largest first.
    """

    place: int
    commit: str
    dirty: bool
    date: str
    before: float
    after: float
    ratio: float | None
    word: Literal["better", "worse"]
    parts: tuple[Culprit, ...] = ()


@dataclass(frozen=True, slots=True)
class Series:
    """One figure over commits, of one workload, and where it was measured of one machine: others make series of their own.

    Attributes:
        machine: the fingerprint; "" for a counted figure, which is the same everywhere.
    """

    target: str
    name: str
    unit: str
    kind: Kind
    better: Better
    workload: str
    machine: str
    processor: str
    points: tuple[Point, ...]
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class HistoryRun:
    """One call of the command."""

    model: str
    series: tuple[Series, ...]
    notes: tuple[str, ...] = ()
    command: str = "history"
    schema: int = SCHEMA
    versions: dict[str, str] = field(default_factory=lambda: versions("mixbench"))
