"""What a person reads of an export: one file at length, several as a table."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...export.artifact import Artifact, ExportRun, Value, Verification
from . import portability_view, precision_view
from .table import add, ns, table_of

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table


def tables(run: ExportRun) -> "Iterator[RenderableType]":
    """The one artifact, or all side by side, and what there is to note."""
    if len(run.artifacts) == 1 and not run.refusals:
        yield _one(run.artifacts[0])
    elif run.artifacts or run.refusals:
        yield _several(run)
        if run.refusals:
            yield _refused(run)
    if run.precision is not None:
        yield from precision_view.tables([run.precision])
    if run.portability:
        yield from portability_view.tables(run.portability)
    notes = dict.fromkeys(note for artifact in run.artifacts for note in artifact.notes)
    if notes:
        table = table_of("", ("", "left"))
        for note in notes:
            add(table, f"note: {note}")
        yield table


def bytes_of(size: int) -> str:
    """Bytes in kB of 10^3 or MB of 10^6, with three digits."""
    return f"{size / 1e6:.3g} MB" if size >= 1e6 else f"{size / 1e3:.3g} kB"


def _one(artifact: Artifact) -> "Table":
    table = table_of(f"{artifact.path}  {bytes_of(artifact.bytes)}", ("", "left"), ("", "left"))
    add(table, "format", f"{artifact.title}, opset {artifact.opset}, IR version {artifact.ir}")
    add(table, "inputs", _values(artifact.inputs))
    add(table, "results", _values(artifact.outputs))
    if artifact.dynamic:
        add(table, "open", ", ".join(artifact.dynamic))
    count = sum(artifact.operators.values())
    add(table, "operators", f"{count}: " + ", ".join(f"{name} {number}" for name, number in artifact.operators.items()))
    if artifact.rewrites:
        add(table, "rewritten", ", ".join(artifact.rewrites))
    for name, size in list(artifact.files.items())[1:]:
        add(table, "beside it", f"{name}  {bytes_of(size)}")
    add(table, "verified", _verified(artifact.verification, artifact.runtime))
    add(table, "SHA-256", artifact.sha256)
    return table


def _verified(found: Verification | None, runtime: str) -> str:
    if found is None:
        return "no: nothing on this machine runs it"
    ratio = "no difference" if found.snr_db is None else f"{found.snr_db:.0f} dB"
    asked = f"{found.tolerance:.2g} allowed" if found.min_snr_db is None else f"{found.min_snr_db:g} dB asked for"
    return f"largest error {found.max_abs_error:.2g}, {asked}, {ratio}; {len(found.checks)} inputs, {runtime}"


def _values(values: tuple[Value, ...]) -> str:
    return ", ".join(f"{value.name} {_shape(value)} {value.dtype}" for value in values)


def _shape(value: Value) -> str:
    """Sizes joined by x, with room around it where some are names."""
    room = " " if any(isinstance(size, str) for size in value.shape) else ""
    return f"{room}x{room}".join(map(str, value.shape)) or "scalar"


def _several(run: ExportRun) -> "Table":
    columns = (("format", "left"), ("file", "left"), ("size", "right"), ("error", "right"), ("latency here", "right"))
    table = table_of(run.model, *columns, ("runs on", "left"))
    for made in run.artifacts:
        error = "not verified" if made.verification is None else f"{made.verification.max_abs_error:.2g}"
        latency = "" if made.latency is None else ns(made.latency.median_ns)
        add(table, made.target, made.path, bytes_of(made.bytes), error, latency, made.portable)
    return table


def _refused(run: ExportRun) -> "Table":
    table = table_of("not written", ("", "left"), ("", "left"))
    for refusal in run.refusals:
        add(table, refusal.target, f"{refusal.what}; {refusal.hint}" if refusal.hint else refusal.what)
    return table
