"""Does `mixbench time` agree with other clocks on the same work? torch.utils.benchmark in one process, hyperfine on processes.

Alternating rounds: the command, then torch's Timer, which calls the same model in blocks, each in a process of its own and
pinned alike. hyperfine times whole commands, so it gets two that differ by some thousand calls: the difference of their medians
over those calls is the time of one. Agreement: the ratio of the other's time to ours has an interval (over rounds) that holds
1, or lies within 2 % of it.

Run: python benchmarks/time_agreement.py [--rounds 12]   (hyperfine: from the system's packages)
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from torch.utils.benchmark import Timer

from mixbench.profilers.machine import pin
from mixbench.profilers.stats import estimate, median

HERE = Path(__file__)
MODEL = f"{HERE.with_name('blocks.py')}:base"
CALLS = (300, 1300)


def model() -> tuple[torch.nn.Module, torch.Tensor]:
    """The model and its input, one thread."""
    pin(1)
    torch.set_num_threads(1)
    sys.path.insert(0, str(HERE.parent))
    from blocks import base

    module, x = base()
    return module.eval(), x


def timer_ns() -> float:
    """The median of torch's Timer."""
    module, x = model()
    with torch.inference_mode():
        return 1e9 * Timer("module(x)", globals={"module": module, "x": x}).blocked_autorange(min_run_time=2.0).median


def calls(number: int) -> None:
    """So many calls and nothing else."""
    module, x = model()
    with torch.inference_mode():
        for _ in range(number):
            module(x)


def ours_ns() -> float:
    """The median that the command prints."""
    script = str(Path(sys.executable).with_name("mixbench"))
    words = [script, "time", MODEL, "--threads", "1", "--no-roofline", "--seconds", "2", "--json"]
    record = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    return float(record["models"][0]["latency_ns"]["value"])


def other_process(word: str) -> float:
    """What this script prints in a process of its own."""
    return float(subprocess.run([sys.executable, str(HERE), word], capture_output=True, text=True, check=True).stdout)


def hyperfine_ns(runs: int) -> float:
    """Time of one call from two commands that differ by calls only."""
    with tempfile.TemporaryDirectory() as folder:
        export = Path(folder) / "hyperfine.json"
        commands = [f"{sys.executable} {HERE} calls-{number}" for number in CALLS]
        words = ["hyperfine", "--runs", str(runs), "--warmup", "1", "--export-json", str(export), *commands]
        subprocess.run(words, capture_output=True, check=True)
        few, many = (median(result["times"]) for result in json.loads(export.read_text())["results"])
    return 1e9 * (many - few) / (CALLS[1] - CALLS[0])


def main() -> None:
    """Alternate the clocks and print their ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("part", nargs="?", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.part == "timer":
        print(timer_ns())
    elif asked.part:
        calls(int(asked.part.removeprefix("calls-")))
    else:
        compare(asked.rounds)


def compare(rounds: int) -> None:
    """Print each clock's median and its ratio to ours."""
    ours: list[float] = []
    others: dict[str, list[float]] = {"torch.utils.benchmark": []}
    if shutil.which("hyperfine"):
        others["hyperfine"] = []
    else:
        print("hyperfine is not installed: left out")
    for _ in range(rounds):
        ours.append(ours_ns())
        others["torch.utils.benchmark"].append(other_process("timer"))
        if "hyperfine" in others:
            others["hyperfine"].append(hyperfine_ns(3))
    print(f"mixbench time: {median(ours) / 1e6:.4f} ms over {rounds} rounds")
    for name, times in others.items():
        ratio = estimate([b / a for a, b in zip(ours, times, strict=True)])
        if ratio.low is None or ratio.high is None:
            word = f"{ratio.samples} rounds are too few for an interval"
        else:
            agrees = ratio.low <= 1 <= ratio.high or (ratio.low >= 0.98 and ratio.high <= 1.02)
            word = f"99 % interval {ratio.low:.4f} to {ratio.high:.4f}: {'agrees' if agrees else 'DISAGREES'}"
        print(f"{name}: {median(times) / 1e6:.4f} ms, {ratio.value:.4f} of ours, {word}")


if __name__ == "__main__":
    main()
