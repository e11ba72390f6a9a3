"""How often `mixbench check --against HEAD` is wrong: unchanged code, and slowdowns planted in the working copy.

Each check is a process of its own, as a user starts it, in a small repository made for it: a convolutional network, or
GhostNetV2 by `--model ghostnetv2`. A slowdown is one more convolution beside the model, on as many rows of the image as
take that share of the model's time; how many is found out before, side by side in one process, and measured once more. A false
alarm is exit code 1 on unchanged code; a slowdown is found by exit code 1. Intervals of the shares are Clopper and Pearson's,
95 %.

The kinds alternate at random. Every check is written down at once; the same command goes on where it was stopped.

Run: python benchmarks/check_verdicts.py [--same 300] [--planted 60] [--model small|ghostnetv2] [--output FILE.csv]
     --quick is the same with 20 and 4. At some 25 s a check of unchanged code, 300 take two hours.
"""

import argparse
import csv
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import linear_regression
from typing import Any

from mixbench.models.case import build
from mixbench.models.lookup import resolve
from mixbench.models.spec import TensorSpec, Workload
from mixbench.profilers.against.pairs import KEEPING
from mixbench.profilers.devices.base import find
from mixbench.profilers.machine import pin, processor
from mixbench.profilers.stats import median, share_interval
from mixbench.profilers.subject import torch_subject
from mixbench.profilers.timing import measure

PLANTED = {"plus 5 %": 0.05, "plus 10 %": 0.10}
COLUMNS = ("model", "kind", "planted", "ratio", "low", "high", "word", "exit", "pairs", "notes", "seconds")
SIDE = {"small": 56, "ghostnetv2": 224}
NET = """
import torch
from torch import nn

ROWS = 0


class Slowed(nn.Module):
    def __init__(self, model, rows, channels):
        super().__init__()
        self.model, self.rows, self.extra = model, rows, nn.Conv2d(3, channels, 3)

    def forward(self, x):
        if self.rows:
            self.extra(x[:, :, : self.rows])
        return self.model(x)


def small():
    layers = [nn.Conv2d(3, 32, 3, padding=1), nn.ReLU()]
    for _ in range(4):
        layers += [nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))


def ghostnetv2():
    from mixbench.models.architectures.ghostnetv2 import build
    return build()


def make(model="small", rows=None):
    factory, channels = {"small": (small, 256), "ghostnetv2": (ghostnetv2, 64)}[model]
    return Slowed(factory(), ROWS if rows is None else rows, channels)
"""


def make_repository(folder: Path, model: str) -> None:
    """The model and its target, committed."""
    side = SIDE[model]
    (folder / "net.py").write_text(NET)
    target = f'[targets.net]\nmodel = "net.py:make"\ninputs = "1x3x{side}x{side}"\nkwargs = {{model = "{model}"}}\n'
    (folder / "mixbench.toml").write_text(target)
    env = os.environ | {f"GIT_{role}_{what}": "benchmark" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    for words in (("init", "--quiet"), ("add", "--all"), ("commit", "--quiet", "--message", "the model")):
        subprocess.run(["git", *words], cwd=folder, env=env, check=True)


def slowdown(folder: Path, model: str, rows: int) -> float:
    """What so many rows add, as a share of the model's time: both side by side in this process."""
    side = SIDE[model]
    workload = Workload((TensorSpec((1, 3, side, side)),))
    words = f"{folder / 'net.py'}:make"
    specs = [resolve(words, {"model": model, "rows": count}) for count in (0, rows)]
    subjects = [torch_subject(build(spec, workload, "cpu")) for spec in specs]
    found = measure(subjects, find("cpu"), seconds=4.0, precision=0.003).ratio(1)
    assert found is not None
    return found.value - 1


def calibrate(folder: Path, model: str, share: float) -> tuple[int, float]:
    """The rows whose convolution takes that share, and the share that they were measured to take.

    Bisection finds about how many. A line through further measurements around them says it better than the one of them that
    happened to come nearest.
    """
    low, high = 2, SIDE[model]
    while high - low > 2:
        middle = (low + high) // 2
        low, high = (middle, high) if slowdown(folder, model, middle) < share else (low, middle)
    around = sorted({max(2, round(low * part)) for part in (0.5, 0.75, 1.0, 1.25, 1.5)})
    line = linear_regression(around, [slowdown(folder, model, rows) for rows in around])
    rows = max(1, round((share - line.intercept) / line.slope))
    return rows, slowdown(folder, model, rows)


def check(folder: Path, model: str, kind: str, rows: int, planted: float) -> dict[str, Any]:
    """One call of the command, with so many rows in the working copy."""
    (folder / "net.py").write_text(NET.replace("ROWS = 0", f"ROWS = {rows}"))
    begin = time.perf_counter()
    words = [str(Path(sys.executable).with_name("mixbench")), "check", "--against", "HEAD", "--json"]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - begin
    if done.returncode not in (0, 1, 3) or not done.stdout:
        raise SystemExit(f"the check failed: {done.stderr}")
    run = json.loads(done.stdout)
    judged = run["judgements"][0]
    metric = judged["metric"]
    pairs = int(judged["reason"].partition(" pairs of processes")[0].rpartition(" ")[2])
    found = (model, kind, round(planted, 4), metric["value"], metric["low"], metric["high"], judged["word"])
    return dict(zip(COLUMNS, (*found, done.returncode, pairs, len(run["notes"]), round(seconds, 1)), strict=True))


def plan(same: int, planted: int) -> list[str]:
    """Every kind as often as it is to be checked, in an order that is the same each time."""
    kinds = ["same"] * same + [*PLANTED] * planted
    random.Random(0).shuffle(kinds)
    return kinds


def missing(kinds: list[str], done: list[dict[str, Any]]) -> Iterator[str]:
    """What is left of a plan."""
    left = {kind: sum(line["kind"] == kind for line in done) for kind in kinds}
    for kind in kinds:
        if left[kind]:
            left[kind] -= 1
        else:
            yield kind


def report(lines: list[dict[str, Any]]) -> None:
    """The shares with their intervals, and how long checks took."""
    for kind in ("same", *PLANTED):
        of_kind = [line for line in lines if line["kind"] == kind]
        if not of_kind:
            continue
        count = len(of_kind)
        for word, hits in (
            ("false alarms" if kind == "same" else "found", sum(int(line["exit"]) == 1 for line in of_kind)),
            ("can't tell", sum(int(line["exit"]) == 3 for line in of_kind)),
        ):
            low, high = share_interval(hits, count)
            share = f"{hits} of {count}, {100 * hits / count:.1f} % ({100 * low:.1f} to {100 * high:.1f})"
            print(f"{kind:10} {word:12} {share}")
        ratios, seconds = (sorted(float(line[name]) for line in of_kind) for name in ("ratio", "seconds"))
        print(f"{'':10} ratios {ratios[0]:.3f} to {ratios[-1]:.3f}, median {median(ratios):.3f}", end="; ")
        print(f"seconds {seconds[0]:.0f} to {seconds[-1]:.0f}, median {median(seconds):.0f}")


def main() -> None:
    """Make what is missing, and report on all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--same", type=int, default=300, help="checks of unchanged code")
    parser.add_argument("--planted", type=int, default=60, help="checks of each planted slowdown")
    parser.add_argument("--quick", action="store_true", help="20 and 4")
    parser.add_argument("--model", choices=sorted(SIDE), default="small")
    parser.add_argument("--output", type=Path, help="a CSV file; benchmarks/check_verdicts_MODEL.csv if not given")
    asked = parser.parse_args()
    output = asked.output or Path(__file__).with_name(f"check_verdicts_{asked.model}.csv")
    lines: list[dict[str, Any]] = []
    if output.exists():
        with output.open(encoding="utf-8", newline="") as file:
            lines = list(csv.DictReader(file))
    todo = list(missing(plan(20, 4) if asked.quick else plan(asked.same, asked.planted), lines))
    print(f"{processor()}; {asked.model}: {len(lines)} checks made, {len(todo)} to be made", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_repository(folder, asked.model)
        rows: dict[str, tuple[int, float]] = {"same": (0, 0.0)}
        for kind, share in PLANTED.items():
            if kind in todo:
                rows[kind] = _calibrated(folder, asked.model, share)
                print(f"{kind}: {rows[kind][0]} rows, measured {100 * rows[kind][1]:.2f} %", flush=True)
        for number, kind in enumerate(todo, 1):
            lines.append(check(folder, asked.model, kind, *rows[kind]))
            partial = output.with_suffix(".partial")
            with partial.open("w", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
                writer.writeheader()
                writer.writerows(lines)
            partial.replace(output)
            print(f"{number} of {len(todo)}: {kind}, {lines[-1]['word']}, {lines[-1]['ratio']:.3f}", flush=True)
    report(lines)


def _calibrated(folder: Path, model: str, share: float) -> tuple[int, float]:
    """`calibrate`, in a process that keeps to one core and to its memory as a check's sides do."""
    code = "import sys, json; sys.path.insert(0, sys.argv[1]); import check_verdicts as c; c.calibrate_alone(*sys.argv[2:])"
    words = [sys.executable, "-c", code, str(Path(__file__).parent), str(folder), model, str(share)]
    env = KEEPING | os.environ  # what a check's sides keep, the calibration keeps too
    found = json.loads(subprocess.run(words, capture_output=True, text=True, check=True, env=env).stdout)
    return found[0], found[1]


def calibrate_alone(folder: str, model: str, share: str) -> None:
    """Print what `calibrate` finds with one thread."""
    import torch

    pin(1)
    torch.set_num_threads(1)
    print(json.dumps(calibrate(Path(folder), model, float(share))))


if __name__ == "__main__":
    main()
