"""A Memory Layer against naive gathering, and against the nn.Linear that it replaces, over batches of 1 to 1,024 tokens.

  naive     gathering every row by an advanced index, (tokens, K, width), then weighting and adding: the plain formulation
  linear    nn.Linear of the same width, the honest question: eight times fewer multiply-adds, but rows from memory

Both pairs are run interleaved, in random order, in one process and on fresh random inputs in rotation, since an input that
comes back finds its rows in the cache. A ratio is the median of the paired ratios, with its 99 % order-statistic interval.

Run: python benchmarks/memoryformer_speed.py [--quick] [--width 1024] [--threads 1] [--plot FILE.svg].
"""

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import torch
from torch import Tensor, nn

from mixbench.models import MemoryLayer
from mixbench.profilers.stats import Estimate, median, ratio
from side_by_side import bounds, interval, samples, seconds

BITS = 8
NAIVE_TOKENS, BAR = 256, 10
INPUTS = 16
SHORTEST_S = 0.02
"""A single measurement repeats a call this long, so that neither the clock nor what the other left in the cache shows."""


@dataclass(frozen=True)
class Pair:
    """Two things timed side by side: milliseconds of a call, and how many times as long the second took."""

    tokens: int
    first_ms: float
    second_ms: float
    ratio: Estimate

    @property
    def low(self) -> float:
        """What the ratio is at least; nothing is known without an interval."""
        return -math.inf if self.ratio.low is None else self.ratio.low

    @property
    def high(self) -> float:
        """What the ratio is at most."""
        return math.inf if self.ratio.high is None else self.ratio.high


def naive(layer: MemoryLayer, x: Tensor) -> Tensor:
    """The paper's formulas as they stand: sign bits, the probability of their row, an indexed sum."""
    tables = len(layer.tables)
    z = x.view(len(x), tables, -1)
    index = ((z >= 0).long() * 2 ** torch.arange(z.shape[-1])).sum(-1)
    p = 1 / (1 + torch.exp(-2 * z.abs())).prod(-1)
    return (layer.tables[torch.arange(tables), index] * p.unsqueeze(-1)).sum(1)


def compare(
    first: Callable[[Tensor], Tensor], second: Callable[[Tensor], Tensor], tokens: int, width: int, rounds: int
) -> Pair:
    """Time both on the same inputs, alternating in random order."""
    inputs = cycle([torch.randn(tokens, width) for _ in range(INPUTS)])

    def clock(call: Callable[[Tensor], Tensor]) -> Callable[[], float]:
        """Seconds of a call: the mean over as many as take long enough, after one that is not timed."""
        work = map(call, inputs).__next__
        seconds(work, 3)
        calls = max(1, math.ceil(SHORTEST_S / seconds(work, 3)))

        def read() -> float:
            work()
            return seconds(work, calls)

        return read

    mine, other = samples(rounds, clock(first), clock(second))
    return Pair(tokens, 1000 * median(mine), 1000 * median(other), ratio(mine, other))


def plot(pairs: list[Pair], width: int) -> str:
    """Both times over the number of tokens as an SVG, both axes logarithmic."""
    left, top, wide, high = 70, 50, 560, 330
    times = [ms for pair in pairs for ms in (pair.first_ms, pair.second_ms)]
    low, up = math.floor(math.log10(min(times))), math.ceil(math.log10(max(times)))
    most = math.log2(pairs[-1].tokens)

    def x(tokens: int) -> float:
        return left + wide * math.log2(tokens) / most

    def y(ms: float) -> float:
        return top + high * (up - math.log10(ms)) / (up - low)

    parts = []
    for pair in pairs:
        parts.append(f'<text x="{x(pair.tokens):.0f}" y="{top + high + 20}" text-anchor="middle">{pair.tokens}</text>')
    for power in range(low, up + 1):
        level = y(10**power)
        parts.append(f'<path class="grid" d="M{left} {level:.1f}h{wide}"/>')
        parts.append(f'<text x="{left - 8}" y="{level + 4:.1f}" text-anchor="end">{10.0**power:g}</text>')
    for name, color, values in (
        ("Memory Layer", "#c2410c", [pair.first_ms for pair in pairs]),
        ("nn.Linear", "#1d4ed8", [pair.second_ms for pair in pairs]),
    ):
        points = " ".join(f"{x(pair.tokens):.1f},{y(ms):.1f}" for pair, ms in zip(pairs, values, strict=True))
        parts.append(f'<polyline points="{points}" stroke="{color}"/>')
        parts.append(f'<text x="{left + wide + 8}" y="{y(values[-1]) + 4:.1f}" fill="{color}">{name}</text>')
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 430" font-family="sans-serif" font-size="13">
<style>polyline {{ fill: none; stroke-width: 2 }} .grid {{ stroke: #ccc }}</style>
<rect width="760" height="430" fill="#fff"/>
<text x="{left}" y="24" font-size="15">Time of one layer of {width} inputs and outputs on the CPU, milliseconds</text>
<text x="{left + wide / 2}" y="{top + high + 42}" text-anchor="middle">tokens in a batch</text>
{chr(10).join(parts)}
</svg>
"""


@torch.no_grad()
def main() -> None:
    """Print the ratio to naive gathering and the table against nn.Linear."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds and batches")
    parser.add_argument("--width", type=int, default=512, help="inputs and outputs of the layers")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the table as an SVG too")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    width, rounds = options.width, 11 if options.quick else 41
    layer, dense = MemoryLayer(width, width, width // BITS), nn.Linear(width, width)

    x = torch.randn(NAIVE_TOKENS, width)
    torch.testing.assert_close(layer(x), naive(layer, x), rtol=1e-5, atol=1e-6)
    pair = compare(layer, lambda x: naive(layer, x), NAIVE_TOKENS, width, rounds)
    verdict = "met" if pair.low >= BAR else "missed" if pair.high < BAR else "not settled"
    print(f"width {width}, {width // BITS} tables of {2**BITS} rows, float32, {options.threads} thread(s), {rounds} pairs")
    print(
        f"naive     {NAIVE_TOKENS} tokens: ours {pair.first_ms:.3f} ms, naive {pair.second_ms:.2f} ms, "
        f"ratio {pair.ratio.value:.1f} ({interval(pair.ratio, 1)}), bar at least {BAR}: {verdict}"
    )

    print(f"\nlinear    the Memory Layer has {BITS} x fewer multiply-adds at any batch; bytes are those of weights and of rows")
    print("tokens  nn.Linear, ms  Memory Layer, ms  nn.Linear / Memory Layer   99 % interval   bytes, nn.Linear / Memory Layer")
    batches = [2**i for i in range(0, 11, 2 if options.quick else 1)]
    pairs = []
    for tokens in batches:
        pair = compare(layer, dense, tokens, width, rounds)
        pairs.append(pair)
        moved = dense.weight.numel() * dense.weight.element_size() / layer.table_bytes(tokens)
        print(
            f"{tokens:6}{pair.second_ms:15.3f}{pair.first_ms:18.3f}{pair.ratio.value:26.2f}"
            f"{bounds(pair.ratio):>16}{moved:34.3g}",
            flush=True,
        )
    faster = [pair.tokens for pair in pairs if pair.low > 1]
    slower = [pair.tokens for pair in pairs if pair.high < 1]
    for word, found in (("faster", faster), ("slower", slower)):
        print(f"{word} than nn.Linear at {', '.join(map(str, found)) or 'no'} tokens")
    if options.plot:
        options.plot.write_text(plot(pairs, width), encoding="utf-8")
        print(f"drawn in {options.plot}")


if __name__ == "__main__":
    main()
