"""What fewer bits cost: the table of docs/export-precision.md, from exports through the command.

    python benchmarks/export_precision.py [MODEL ...] [--calibrate DATA]

Random inputs if no data is named: the figures then compare precisions with each other, and say nothing about accuracy.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SCRIPT = Path(sys.executable).with_name("mixbench")
MODELS = ("ghostnetv2-1.0x", "affnet-et")
RUNS = (("fp16", None), ("w8a16", None), ("int8", None), ("int8", 25), ("int8", 30))


def export(model: str, precision: str, budget: int | None, data: str, folder: Path) -> dict[str, Any]:
    """The record of one export's precision, with the seconds that the export took."""
    words = ["export", model, "-o", str(folder / "model.onnx"), "--precision", precision, "--calibrate", data, "--json"]
    words += ["--min-snr", str(budget)] if budget is not None else []
    begin = time.monotonic()
    done = subprocess.run([SCRIPT, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout)["precision"]
    return found | {"seconds": time.monotonic() - begin}


def main() -> None:
    """Print the table as Markdown, a line as soon as it is there."""
    parser = argparse.ArgumentParser(description="What fewer bits cost.")
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--calibrate", default="random")
    given = parser.parse_args()
    names = "model precision MB of-float32 exact-dB kernels-dB kept-float32 conversions files seconds".split()
    print("| " + " | ".join(names) + " |\n" + "|---" * len(names) + "|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for model in given.models:
            for precision, budget in RUNS:
                found = export(model, precision, budget, given.calibrate, Path(folder))
                cells = (
                    model,
                    precision if budget is None else f"{precision}, at least {budget} dB",
                    f"{found['bytes'] / 1e6:.2f}",
                    f"{100 * found['bytes'] / found['float32_bytes']:.0f} %",
                    f"{found['exact']['snr_db']:.1f}",
                    f"{found['kernels']['snr_db']:.1f}",
                    f"{len(found['kept'])} of {found['nodes']}",
                    found["conversions"],
                    found["evaluations"],
                    f"{found['seconds']:.0f}",
                )
                print("| " + " | ".join(map(str, cells)) + " |", flush=True)


if __name__ == "__main__":
    main()
