"""What a Memory Layer saves and costs beside the nn.Linear that it replaces: FLOPs down, bytes up, and where they cross.

For each batch: FLOPs and compulsory bytes by mixbench's count, the least time that they take under this machine's measured
roofs (memory's bandwidth for the bytes, the peak of matrix products for contractions, no cache: weights and rows come from
memory), and the time that the layers take, interleaved, on fresh inputs. Where the predicted times cross, the bytes do, at
about one row of each table for every bit of its index (arXiv 2411.12992 leaves the bytes out). Weights that fit into a cache
don't come from memory: then the dense layer is faster than predicted, and the crossing is earlier or nowhere.

Run: python benchmarks/memoryformer_picture.py [--widths 512 2048 4096] [--tokens 1 2 4 ...] [--threads 1]
"""

import argparse
from dataclasses import replace

import torch
from torch import nn

import mixbench
from memoryformer_speed import BITS, compare
from mixbench.models import MemoryLayer
from mixbench.profilers.devices.base import find
from mixbench.profilers.peaks_kept import peaks_here
from mixbench.profilers.roofline import Roof
from side_by_side import bounds

ROUNDS = 21


def floor_s(cost: mixbench.Cost, read: int, written: int, roof: Roof) -> float:
    """The least time of a layer whose compulsory bytes all come from memory, most of them by reading alone."""
    return max(roof.compute_s(cost.flops), roof.move_s(read, written))


def crossing(tokens: list[int], ratios: list[float]) -> str:
    """Between which batches a ratio falls below 1."""
    below = [n for n, ratio in zip(tokens, ratios, strict=True) if ratio < 1]
    if not below:
        return f"not up to {tokens[-1]} tokens"
    first = below[0]
    return f"between {tokens[tokens.index(first) - 1]} and {first} tokens" if first != tokens[0] else f"already at {first}"


@torch.no_grad()
def main() -> None:
    """Print a table for each width."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", type=int, nargs="+", default=[512, 2048, 4096])
    parser.add_argument("--tokens", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64, 128])
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    roof = peaks_here(find("cpu"), ["float32"]).roof("float32")
    memory = roof.levels[-1]
    roof = replace(roof, levels=(memory,))
    print(
        f"roofs: {roof.flops_per_s / 1e9:.1f} GFLOP/s, {memory.bytes_per_s / 1e9:.1f} GB/s, "
        f"{(memory.read_bytes_per_s or memory.bytes_per_s) / 1e9:.1f} GB/s reading alone, {options.threads} thread(s)"
    )
    for width in options.widths:
        layer, dense = MemoryLayer(width, width, width // BITS), nn.Linear(width, width)
        print(
            f"\nwidth {width}: {dense.weight.nbytes / 1e6:.1f} MB of weights, {layer.tables.nbytes / 1e6:.1f} MB of tables\n"
            "| tokens | MFLOP, dense | MFLOP, memory | MB, dense | MB, memory | predicted, dense / memory | measured | 99 % |\n"
            "|---|---|---|---|---|---|---|---|"
        )
        bytes_ratios, predicted, measured = [], [], []
        for tokens in options.tokens:
            counts = [mixbench.count_call(net, torch.randn(tokens, width)) for net in (dense, layer)]
            moved = [(count.tree.compulsory_read_bytes, count.tree.compulsory_written_bytes) for count in counts]
            floors = [floor_s(count.totals, *both, roof) for count, both in zip(counts, moved, strict=True)]
            pair = compare(layer, dense, tokens, width, ROUNDS)
            bytes_ratios.append(sum(moved[0]) / sum(moved[1]))
            predicted.append(floors[0] / floors[1])
            measured.append(pair.ratio.value)
            flops = " | ".join(f"{count.totals.all_flops / 1e6:.3g}" for count in counts)
            sizes = " | ".join(f"{sum(both) / 1e6:.3g}" for both in moved)
            row = f"| {tokens} | {flops} | {sizes} | {predicted[-1]:.2f} | {pair.ratio.value:.2f} | {bounds(pair.ratio)} |"
            print(row, flush=True)
        print(f"\nbytes cross {crossing(options.tokens, bytes_ratios)}")
        print(f"predicted times cross {crossing(options.tokens, predicted)}")
        print(f"measured times cross {crossing(options.tokens, measured)}")
        del layer, dense


if __name__ == "__main__":
    main()
