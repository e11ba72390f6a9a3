"""Runs that are kept: an SQLite file, usually ``.mixbench/history.db``, that is whole after a kill at any byte. No torch here.

One run is one transaction. The file uses SQLite's rollback journal and not its write-ahead log, so that at rest it is a
single file: it can be carried as an artifact, and be read where nothing may be written. Writers wait for each other.

The schema's number is ``user_version``: so many of `_STEPS` have been taken. A new file takes them all, an older one the rest.
"""

import json
import math
import sqlite3
import uuid
import zlib
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from ..models.errors import BadInput, CannotMeasure, first_line
from ..models.files import write_whole
from .commit import NOWHERE, Commit, root_of

_MAGIC = 0x6D697862
"""SQLite's ``application_id`` of our files: "mixb" in ASCII."""
_PATIENCE_S = 60.0
_STEPS = (
    """
CREATE TABLE run (
  id TEXT PRIMARY KEY, date TEXT NOT NULL, command TEXT NOT NULL,
  sha TEXT NOT NULL, committed TEXT NOT NULL, branch TEXT NOT NULL, dirty INTEGER NOT NULL,
  machine TEXT NOT NULL, processor TEXT NOT NULL, versions TEXT NOT NULL, document BLOB NOT NULL
);
CREATE TABLE figure (
  run TEXT NOT NULL REFERENCES run (id), place INTEGER NOT NULL, target TEXT NOT NULL, workload TEXT NOT NULL,
  name TEXT NOT NULL, value NUMERIC NOT NULL, unit TEXT NOT NULL, kind TEXT NOT NULL, better TEXT NOT NULL,
  low NUMERIC, high NUMERIC,
  PRIMARY KEY (run, place)
) WITHOUT ROWID;
""",
    # What a figure is made of, so that a change can name its module; and the way to one model's figures.
    """
ALTER TABLE figure ADD COLUMN parts TEXT NOT NULL DEFAULT '{}';
CREATE INDEX figure_of_target ON figure (target, name);
""",
)
SCHEMA = len(_STEPS)


@dataclass(frozen=True, slots=True)
class Figure:
    """A metric as it is kept. Only figures with the same target, workload, name and unit make a series.

    Attributes:
        workload: what the figure depends on beside the model: inputs, dtype, mode, device.
        parts: what it is made of, by module or operator, where that is known.
    """

    target: str
    workload: str
    name: str
    value: int | float
    unit: str
    kind: Literal["counted", "measured", "modelled"]
    better: Literal["lower", "higher"]
    low: int | float | None = None
    high: int | float | None = None
    parts: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Occasion:
    """When, where and from which commit a run came.

    Attributes:
        date: UTC, ISO 8601.
        machine: the fingerprint of `machine.Machine`; "" for a run that only counted.
    """

    id: str
    date: str
    command: str
    commit: Commit = NOWHERE
    machine: str = ""
    processor: str = ""
    versions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class KeptRun:
    """A run with its figures and with the whole document that ``--json`` printed."""

    occasion: Occasion
    figures: tuple[Figure, ...]
    document: dict[str, Any]


def occasion(command: str, commit: Commit, machine: str = "", processor: str = "", **versions: str) -> Occasion:
    """A new run, now."""
    now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    return Occasion(uuid.uuid4().hex, now, command, commit, machine, processor, versions)


def place_of_store(folder: Path) -> Path:
    """Where runs are kept for a folder: at the top of its git work tree, or in the folder itself."""
    return root_of(folder) / ".mixbench" / "history.db"


def prepare(path: Path) -> None:
    """Make the file if it is missing, and bring it to this schema, so that whatever stands against it is said before any work.

    Raises:
        BadInput: when it can't be written, is damaged, is no store, or is of a newer mixbench.
    """
    try:
        path.parent.mkdir(exist_ok=True)
        if not path.exists() and not (path.parent / ".gitignore").exists():
            write_whole(path.parent / ".gitignore", f"/{path.name}*\n/.gitignore\n")  # the journal beside it too
    except (OSError, BadInput) as error:
        raise _not_writable(path, error) from error
    with _opened(path, create=True) as db, _transaction(db):
        pass


def save(path: Path, runs: Iterable[KeptRun]) -> int:
    """Add runs, all of them or none; those that are there already stay as they are. Returns how many are new.

    When it returns, they are on the disk.

    Raises:
        BadInput: as `prepare`; or when a run is there with other content.
    """
    prepare(path)
    with _opened(path) as db, _transaction(db):
        damage = db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if damage != "ok":
            raise sqlite3.DatabaseError(damage)
        return sum(_add(db, run) for run in runs)


def _add(db: sqlite3.Connection, run: KeptRun) -> bool:
    known = next(_runs(db, "WHERE id = ?", (run.occasion.id,)), None)
    if known is not None:
        if known != replace(run, document=json.loads(as_json(run.document))):  # tuples are lists by now
            raise BadInput(
                f"run {run.occasion.id} is kept already, with other content", "it was changed; give it an id of its own"
            )
        return False
    if bad := next((item for item in run.figures if not math.isfinite(item.value)), None):
        raise CannotMeasure(f"{bad.name} of {bad.target} is {bad.value}, which is no figure to keep")
    made, commit = run.occasion, run.occasion.commit
    where = (commit.sha, commit.date, commit.branch, commit.dirty, made.machine, made.processor)
    row = (made.id, made.date, made.command, *where, as_json(made.versions), zlib.compress(as_json(run.document).encode()))
    db.execute(f"INSERT INTO run VALUES ({', '.join('?' * len(row))})", row)
    for place, item in enumerate(run.figures):
        about = (item.target, item.workload, item.name, item.value, item.unit, item.kind, item.better, item.low, item.high)
        db.execute(f"INSERT INTO figure VALUES ({', '.join('?' * 12)})", (made.id, place, *about, as_json(item.parts)))
    return True


def targets(path: Path) -> list[str]:
    """Every model and target that has figures."""
    with _opened(path) as db:
        return [row[0] for row in db.execute("SELECT DISTINCT target FROM figure ORDER BY target")]


def figures(path: Path, target: str) -> list[tuple[Occasion, Figure]]:
    """The figures of a target in the order in which their runs were made; empty when there are none."""
    query = "SELECT run.*, figure.* FROM run JOIN figure ON figure.run = run.id WHERE target = ? ORDER BY date, id, place"
    with _opened(path) as db:
        return [(_occasion(row), _figure(row[13:])) for row in db.execute(query, (target,))]


def runs(path: Path) -> Iterator[KeptRun]:
    """Every run in the order in which they were made."""
    with _opened(path) as db:
        yield from _runs(db, "ORDER BY date, id")


def as_json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def _runs(db: sqlite3.Connection, clause: str, values: tuple[Any, ...] = ()) -> Iterator[KeptRun]:
    for row in db.execute(f"SELECT * FROM run {clause}", values).fetchall():
        made = db.execute("SELECT * FROM figure WHERE run = ? ORDER BY place", (row[0],))
        yield KeptRun(_occasion(row), tuple(_figure(item[2:]) for item in made), json.loads(zlib.decompress(row[10])))


def _occasion(row: tuple[Any, ...]) -> Occasion:
    name, date, command, sha, committed, branch, dirty, machine, processor, versions, *_ = row
    commit = Commit(sha, committed, branch, bool(dirty))
    return Occasion(name, date, command, commit, machine, processor, json.loads(versions))


def _figure(row: tuple[Any, ...]) -> Figure:
    target, workload, name, value, unit, kind, better, low, high, parts = row
    return Figure(target, workload, name, value, unit, kind, better, low, high, json.loads(parts))


@contextmanager
def _opened(path: Path, create: bool = False) -> Iterator[sqlite3.Connection]:
    """The file at this schema, with SQLite's complaints in words. What can't be written is opened for reading."""
    if not create and not path.exists():
        raise CannotMeasure(
            f"there is no history at {str(path)!r}", "add --save to a command, such as mixbench flops MODEL --save"
        )
    try:
        with closing(_connect(path, "rwc" if create else "rw")) as db:
            _migrate(db, path)
            yield db
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError) and "malformed" not in str(error):
            raise _not_writable(path, error) from error
        hint = "nothing was written to it; move it away, and take a copy or an export (--import) in its place"
        raise BadInput(f"{str(path)!r} is damaged, or no store of runs: {error}", hint) from error
    except (zlib.error, json.JSONDecodeError) as error:
        hint = "move the file away, and take a copy or an export (--import) in its place"
        raise BadInput(f"{str(path)!r} is damaged: {first_line(error)}", hint) from error


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    # Never "ro": after a kill the first to come takes back what was half done. Without rights SQLite settles for reading.
    db = sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True, timeout=_PATIENCE_S, isolation_level=None)
    db.execute("PRAGMA synchronous = EXTRA")  # a commit that has returned outlives a loss of power
    return db


def _migrate(db: sqlite3.Connection, path: Path) -> None:
    if _version(db, path) == SCHEMA:
        return
    with _transaction(db):
        for number in range(_version(db, path), SCHEMA):  # again: another process may have been faster
            for statement in _STEPS[number].split(";"):
                db.execute(statement)  # one by one: executescript() would commit first
        db.execute(f"PRAGMA application_id = {_MAGIC}")
        db.execute(f"PRAGMA user_version = {SCHEMA}")


def _version(db: sqlite3.Connection, path: Path) -> int:
    version: int = db.execute("PRAGMA user_version").fetchone()[0]
    magic = db.execute("PRAGMA application_id").fetchone()[0]
    if magic != _MAGIC and (version or db.execute("SELECT 1 FROM sqlite_master").fetchone()):
        raise BadInput(f"{str(path)!r} is a database, and not one of mixbench", "move it away, or work in another folder")
    if version > SCHEMA:
        what = f"{str(path)!r} has schema {version}, and this mixbench knows {SCHEMA}"
        raise BadInput(what, "upgrade mixbench; the file was left as it is")
    return version


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")  # waits for its turn now, when nothing has been done yet
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _not_writable(path: Path, error: Exception) -> BadInput:
    reason = error.what if isinstance(error, BadInput) else str(error)
    hint = "check the rights of the file and its folder, the room on the disk, and who else writes"
    return BadInput(f"{str(path)!r} can't be used: {reason}", hint)
