"""Every architecture as an ONNX file: exported, verified and run by the command, and what phones' runtimes make of it.

Run: python benchmarks/export_table.py [MODEL ...]
It writes the table of docs/export.md anew, between its markers; with models named it prints their rows only. No latencies.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from mixbench.cli.app import main as mixbench

PAGE = Path(__file__).resolve().parent.parent / "docs" / "export.md"
BEGIN, END = "<!-- written by benchmarks/export_table.py -->", "<!-- end of the table -->"
NARROWED = ("depth=2", "width=256", "heads=4", "tables=32", "vocabulary=1024")
"""The published MemoryFormer-tiny holds 1.9 GB of weights, which an export keeps in memory several times."""
MODELS: dict[str, Sequence[str]] = {
    "ghostnetv2-1.0x": (),
    "ghostnetv2-1.3x": (),
    "ghostnetv2-1.6x": (),
    "affnet-et": (),
    "affnet-t": (),
    "affnet-small": (),
    "hopfield-layer": (),
    "hopfield-pooling": (),
    "hopfield-lookup": (),
    "memoryformer-tiny": NARROWED,
    "graphwindow-small": (),
}
RUNTIMES = {"nnapi": "NNAPI", "coreml_mlprogram": "CoreML MLProgram", "qnn": "QNN"}
HEADINGS = ("model", "MACs", "nodes", "MB", "largest error", "allowed", "SNR, dB", *RUNTIMES.values(), "SHA-256")


def record_of(model: str) -> dict[str, Any]:
    """The command's own record of one export."""
    settings = [word for pair in MODELS.get(model, ()) for word in ("--kwarg", pair)]
    written = StringIO()
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(written):
        status = mixbench(["export", model, *settings, "-o", f"{folder}/net.onnx", "--report", "--json"])
    if status:
        sys.exit(f"{model} was not exported: exit code {status}")
    record: dict[str, Any] = json.loads(written.getvalue())
    return record


def row(model: str) -> tuple[str, ...]:
    """The figures of one model, as words."""
    record = record_of(model)
    (made,) = record["artifacts"]
    checked = made["verification"]
    parts = {item["runtime"]: _parts(item) for item in record["portability"]}
    snr = "exact" if checked["snr_db"] is None else f"{checked['snr_db']:.0f}"
    return (
        made["metadata"]["model"] + (", narrowed" if MODELS.get(model) else ""),
        f"{int(made['metadata']['macs']):,}",
        str(sum(made["operators"].values())),
        f"{made['bytes'] / 1e6:.1f}",
        f"{checked['max_abs_error']:.1e}",
        f"{checked['tolerance']:.1e}",
        snr,
        *(parts[name] for name in RUNTIMES),
        made["sha256"][:12],
    )


def _parts(report: dict[str, Any]) -> str:
    """Parts on the accelerator, and what share of the MACs they hold where that is not all."""
    if report["taken_nodes"] == report["nodes"] or not report["macs"]:
        return str(report["partitions"])
    return f"{report['partitions']}, {100 * report['taken_macs'] / report['macs']:.0f} % of MACs"


def main() -> None:
    """Print the rows as they come; with all models, put them into the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="*", metavar="MODEL")
    named = parser.parse_args().models
    lines = [f"| {' | '.join(HEADINGS)} |", "|---" * len(HEADINGS) + "|"]
    sys.stdout.write("\n".join(lines) + "\n")
    for model in named or MODELS:
        lines.append(f"| {' | '.join(row(model))} |")
        sys.stdout.write(lines[-1] + "\n")
        sys.stdout.flush()
    if not named:
        before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
        after = rest.partition(END)[2]
        beside = PAGE.with_suffix(".new")
        beside.write_text("\n".join([before + BEGIN, "", *lines, "", END + after]), encoding="utf-8")
        beside.replace(PAGE)


if __name__ == "__main__":
    main()
