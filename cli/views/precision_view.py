"""`PrecisionRecord`s as a table, as CSV rows, and the findings of a search."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...export.precision.records import Fidelity, Layer, PrecisionRecord
from .table import add, has_unicode, table_of

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

_LAYERS, _NOTES = 10, 10


def tables(records: Sequence[PrecisionRecord]) -> Iterator["RenderableType"]:
    """The files side by side; for each the layers that hurt, its data, why nodes stayed float32, and what speaks against it."""
    from rich.text import Text

    yield _files(records)
    for record in records:
        if record.layers:
            yield Text("")
            yield _harm(record)
        yield Text(f"\n{_setting(record)}", style="dim")
        for note in record.notes[:_NOTES]:
            yield Text(f"note: {note}", style="dim")
        if len(record.notes) > _NOTES:
            yield Text(f"note: {len(record.notes) - _NOTES} more, which --json lists", style="dim")
        for warning in record.warnings:
            yield Text(f"warning: {warning}", style="yellow")


def rows(records: Sequence[PrecisionRecord]) -> Iterator[Mapping[str, Any]]:
    """A line for each file; an empty cell is a figure that there is none of."""
    for record in records:
        row: dict[str, Any] = {
            "precision": record.precision,
            "bytes": record.bytes,
            "float32_bytes": record.float32_bytes,
        }
        for name, found in (("exact", record.exact), ("kernels", record.kernels)):
            for figure in ("snr_db", "cosine", "max_error", "top1", "broken"):
                value = getattr(found, figure)
                row[f"{name}_{figure}"] = "" if value is None else value
        yield row | {
            "kept_nodes": len(record.kept),
            "nodes": record.nodes,
            "conversion_nodes": record.conversions,
            "min_snr_db": "" if record.min_snr_db is None else record.min_snr_db,
            "met": record.met,
            "evaluations": record.evaluations,
            "calibration": record.calibration.kind,
            "samples": record.calibration.samples,
        }


def _files(records: Sequence[PrecisionRecord]) -> "Table":
    columns = (
        "size, MB",
        "of float32",
        "SNR exact, dB",
        "SNR kernels, dB",
        "cosine",
        "top-1 same",
        "kept float32",
        "conversions",
    )
    table = table_of("", ("precision", "left"), *((name, "right") for name in columns))
    for record in records:
        add(
            table,
            record.precision,
            f"{record.bytes / 1e6:.2f}",
            f"{100 * record.bytes / record.float32_bytes:.0f} %",
            _snr(record.exact),
            _snr(record.kernels),
            "n/a" if record.exact.cosine is None else f"{record.exact.cosine:.5f}",
            "n/a" if record.exact.top1 is None else f"{100 * record.exact.top1:.0f} %",
            f"{len(record.kept)} of {record.nodes}",
            record.conversions,
        )
    return table


def _harm(record: PrecisionRecord) -> "Table":
    """The layers that hurt most, each with nothing but itself converted."""
    kept = set(record.kept)
    table = table_of(
        "most harmful layers, alone",
        ("layer", "left"),
        ("nodes", "right"),
        ("weights, kB", "right"),
        ("SNR, dB", "right"),
        ("", "left"),
    )
    for layer in record.layers[:_LAYERS]:
        add(table, layer.nodes[0], len(layer.nodes), f"{layer.weight_bytes / 1e3:.1f}", _snr(layer.alone), _place(layer, kept))
    return table


def _place(layer: Layer, kept: set[str]) -> str:
    return "float32" if kept.issuperset(layer.nodes) else ""


def _snr(found: Fidelity) -> str:
    if found.broken:
        return f"{found.broken} not finite"
    if found.snr_db is not None:
        return f"{found.snr_db:.1f}"
    return "n/a" if found.max_error else "∞" if has_unicode() else "inf"


def _setting(record: PrecisionRecord) -> str:
    source = record.calibration
    held = "held back from it" if source.held_out else "the same"
    data = f"{record.title}; ranges from {source.samples} runs ({source.kind}: {source.name}, SHA-256 {source.sha256[:12]})"
    tried = f", {record.evaluations} files tried" if record.evaluations > 1 else ""
    search = "" if record.min_snr_db is None else f"; at least {record.min_snr_db:g} dB asked for{tried}"
    return f"{data}; measured on {source.evaluated}, {held}{search}"
