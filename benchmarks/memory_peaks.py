"""Peak memory as mixbench predicts it from shapes, beside what this machine really takes.

Three measurements of one call, one thread: all blocks that torch's CPU allocator gives out and takes back (`mixbench time`
prints the same); that in the channels-last layout, in which oneDNN makes no copies between layouts; and the growth of a fresh
process's resident memory beyond what it had after building the model and making the input. The last has everything in it that a
library keeps for itself (kernels that are compiled or paged in, packed weights), so it is far above for a small model.

    python benchmarks/memory_peaks.py [--rss] [MODEL ...]
"""

import argparse
import subprocess
import sys
from pathlib import Path

NETS = Path(__file__).resolve().parent.parent / "tests" / "memory_nets.py"
MODELS = ("ghostnetv2", "affnet", "affnet-et", "memoryformer-tiny", f"{NETS}:resnet", f"{NETS}:decoder")
RESIDENT = """
import sys, torch
from pathlib import Path
from mixbench.models.case import build
from mixbench.models.spec import Workload
from mixbench.profilers.subject import torch_subject
torch.set_num_threads(1)
lines = lambda: (line.split() for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("Vm"))
status = lambda: {words[0][:-1]: int(words[1]) * 1024 for words in lines()}
subject = torch_subject(build(sys.argv[1], Workload(mode=sys.argv[2]), device="cpu"))
Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts from here
before = status()["VmRSS"]
with torch.enable_grad() if subject.grad else torch.inference_mode():
    subject.call()
print(status()["VmHWM"] - before)
"""


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--rss", action="store_true", help="fresh processes too (Linux)")
    options = parser.parse_args()

    import torch

    from mixbench.models.case import build
    from mixbench.models.spec import Mode, Workload
    from mixbench.profilers.counter import count
    from mixbench.profilers.memory import allocator_peak
    from mixbench.profilers.subject import torch_subject

    torch.set_num_threads(1)
    modes: tuple[Mode, ...] = ("eval", "train")
    print("| model | pass | predicted, MB | allocator, MB | channels-last, MB | process, MB |")
    print("|---|---|---|---|---|---|")
    for model in options.models:
        for mode in modes:
            workload = Workload(mode=mode)
            predicted = count(build(model, workload)).footprint.peak_activation_bytes
            cells = [f"{predicted / 1e6:,.2f}"]
            for channels_last in (False, True):
                subject = torch_subject(build(model, workload, device="cpu"), channels_last=channels_last)
                with torch.enable_grad() if subject.grad else torch.inference_mode():
                    subject.call()
                    cells.append(_beside(allocator_peak(subject.call), predicted))
                del subject
            if options.rss:
                words = [sys.executable, "-c", RESIDENT, model, mode]
                done = subprocess.run(words, capture_output=True, text=True, check=True)
                cells.append(_beside(int(done.stdout), predicted))
            name = model.rpartition(":")[2]
            print(f"| {name} | {mode} | {' | '.join(cells)} |", flush=True)


def _beside(measured: int, predicted: int) -> str:
    return f"{measured / 1e6:,.2f} ({predicted / measured - 1:+.1%})"


if __name__ == "__main__":
    main()
