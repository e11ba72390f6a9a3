"""How often `mixbench time` is wrong: two copies of one model, and slowdowns planted in one of them.

Each run is a process of its own, as a user starts it. A false alarm is a verdict of faster or slower on two copies: the 99 %
interval leaves 1 out and the ratio is beyond 2 %. A slowdown is found when the verdict is slower. Runs of the three kinds
alternate, so that the machine's moods hit all alike. Intervals of the shares are Clopper and Pearson's, 95 %.

Run: python benchmarks/time_verdicts.py [--same 300] [--planted 100] [--threads 1] [--output docs/time_verdicts.csv]
"""

import argparse
import csv
import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from mixbench.profilers.machine import processor
from mixbench.profilers.stats import median, share_interval

MODELS = Path(__file__).with_name("blocks.py")
KINDS = {"same": "base", "plus 3 %": "plus_3", "plus 5 %": "plus_5"}


def run(kind: str, threads: int) -> dict[str, Any]:
    """One call of the command; its verdict and ratio."""
    script = Path(sys.executable).with_name("mixbench")
    words = [
        str(script),
        "time",
        f"{MODELS}:base",
        f"{MODELS}:{KINDS[kind]}",
        "--threads",
        str(threads),
        "--no-roofline",
        "--json",
    ]
    begin = time.perf_counter()
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - begin
    record = json.loads(done.stdout)
    found = record["comparisons"][0]
    ratio, first = found["ratio"], record["models"][0]["latency_ns"]["value"]
    return {
        "kind": kind,
        "ratio": ratio["value"],
        "low": ratio["low"],
        "high": ratio["high"],
        "pairs": ratio["samples"],
        "base_ms": first / 1e6,
        "verdict": found["verdict"],
        "warnings": len(record["warnings"]),
        "seconds": round(seconds, 2),
    }


def main() -> None:
    """Run all, print the shares, and keep every run if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--same", type=int, default=300)
    parser.add_argument("--planted", type=int, default=100, help="runs of each planted slowdown")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, help="a CSV file with a line for each run, written as they come")
    asked = parser.parse_args()
    plan = ["same"] * asked.same + ["plus 3 %", "plus 5 %"] * asked.planted
    random.Random(0).shuffle(plan)
    print(f"{processor()}, {asked.threads} threads, {len(plan)} runs")
    lines: list[dict[str, Any]] = []
    for number, kind in enumerate(plan, 1):
        lines.append(run(kind, asked.threads))
        if asked.output:
            with asked.output.open("w", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, fieldnames=list(lines[0]), lineterminator="\n")
                writer.writeheader()
                writer.writerows(lines)
        if sys.stderr.isatty():
            print(f"\r{number} of {len(plan)}", end="", file=sys.stderr)
    for kind in KINDS:
        of_kind = [line for line in lines if line["kind"] == kind]
        if not of_kind:
            continue
        wanted = ("faster", "slower") if kind == "same" else ("slower",)
        hits = sum(line["verdict"] in wanted for line in of_kind)
        low, high = share_interval(hits, len(of_kind))
        word = "false alarms" if kind == "same" else "found"
        ratios = sorted(line["ratio"] for line in of_kind)
        share = f"{hits} of {len(of_kind)}, {100 * hits / len(of_kind):.1f} % ({100 * low:.1f} to {100 * high:.1f})"
        pairs, seconds = (median([line[name] for line in of_kind]) for name in ("pairs", "seconds"))
        print(f"{kind:9} {word:12} {share}; ratios {ratios[0]:.3f} to {ratios[-1]:.3f}, median {median(ratios):.3f}")
        print(f"{'':22} {pairs:.0f} pairs and {seconds:.1f} s a run (medians)")


if __name__ == "__main__":
    main()
