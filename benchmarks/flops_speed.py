"""Three ratios of the counter's speed, each measured side by side in one run, since times on a shared machine drift.

  process   `mixbench flops ghostnetv2` against `python -c "import torch"`, whole processes
  fvcore    counting GhostNetV2 with fvcore against counting it with mixbench, in one process
  decoder   building and counting a decoder of 7 billion parameters at 2,048 tokens, in a fresh process: seconds and MB

Run: ./dev bench, or python benchmarks/flops_speed.py [--rounds N | --quick].
"""

import argparse
import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

from mixbench.profilers.stats import Estimate, median, ratio
from side_by_side import interval, seconds, times

HERE = Path(__file__).resolve().parent
SCRIPT = Path(sys.executable).with_name("mixbench")

_DECODER = """
import json, resource, sys, time
import torch, mixbench
from mixbench.models import case
from mixbench.profilers import counter
start = time.perf_counter()
built = mixbench.build(sys.argv[1] + ":seven_billion")
counted = mixbench.count(built)
seconds = time.perf_counter() - start
resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"seconds": seconds, "resident_mib": resident, "params": counted.params, "macs": counted.totals.macs}))
"""


def process(*command: str) -> Callable[[], object]:
    """A process, run to its end and its output dropped."""
    return lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def report(name: str, ours: list[float], theirs: list[float], found: Estimate, bar: str) -> None:
    """Medians, and the ratio with its interval."""
    print(
        f"{name:<9} ours {median(ours):.3f} s, theirs {median(theirs):.3f} s, "
        f"ratio {found.value:.2f} ({interval(found)}), bar {bar}"
    )


def main() -> None:
    """Print the three lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=11, help="pairs for each ratio")
    parser.add_argument("--quick", action="store_true", help="three pairs")
    arguments = parser.parse_args()
    rounds = 3 if arguments.quick else arguments.rounds

    counting = process(str(SCRIPT), "flops", "ghostnetv2")
    importing = process(sys.executable, "-c", "import torch")
    ours, theirs = times(rounds, counting, importing)
    report("process", ours, theirs, ratio(theirs, ours), "at most 1.3")

    helping = [seconds(process(str(SCRIPT), "--help")) for _ in range(rounds)]
    print(f"help      mixbench --help {median(helping) * 1000:.0f} ms, bar below 150 ms")

    import mixbench

    case = mixbench.build("ghostnetv2")
    real = case.on("cpu")

    def fvcore() -> None:
        from fvcore.nn import FlopCountAnalysis

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            FlopCountAnalysis(real.module, real.args).unsupported_ops_warnings(False).uncalled_modules_warnings(False).total()

    ours, theirs = times(rounds, lambda: mixbench.count(case), fvcore, collector=True)
    report("fvcore", ours, theirs, ratio(ours, theirs), "at least 5")

    command = (sys.executable, "-c", _DECODER, str(HERE / "decoder.py"))
    runs = [json.loads(subprocess.run(command, check=True, capture_output=True).stdout) for _ in range(3)]
    print(
        f"decoder   {median([run['seconds'] for run in runs]):.2f} s to build and count "
        f"{runs[0]['params']:,} parameters, {max(run['resident_mib'] for run in runs):.0f} MiB resident; bar 1 s, 500 MB"
    )


if __name__ == "__main__":
    main()
