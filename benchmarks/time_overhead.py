"""What `mixbench time` adds to each call: the median over a module that does nothing, in several processes.

Run: python benchmarks/time_overhead.py [--processes 10]   Bar: below 2 us on a CPU.
"""

import argparse
import subprocess
import sys

from mixbench.profilers.stats import median

CODE = """
from mixbench.profilers.machine import pin
pin(1)
from mixbench.profilers.devices.cpu import Cpu
from mixbench.profilers.timing import overhead_ns
print(overhead_ns(Cpu(), 20_000))
"""


def main() -> None:
    """Print each process's median and the largest."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=10)
    words = [sys.executable, "-c", CODE]
    times = [
        float(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
        for _ in range(parser.parse_args().processes)
    ]
    print(f"overhead a call: median {median(times):.0f} ns, most {max(times):.0f} ns, of {len(times)} processes; bar 2000 ns")


if __name__ == "__main__":
    main()
