"""How often change points are found where there are none, and how often planted ones are found and where: simulated series.

Series of independent normal noise, of the heavy tails of a Laplace distribution, of noise in which every twentieth run is
slower by a third, and of noise that remembers (autoregressive, 0.3). One half of the table has no change, the other a planted
one in the middle.
"""

import argparse
import math
import random
from collections.abc import Callable, Iterator

from mixbench.profilers.change_points import change_points
from mixbench.profilers.stats import share_interval

NOISE = 0.02


def normal(count: int, dice: random.Random) -> Iterator[float]:
    yield from (dice.gauss(0, NOISE) for _ in range(count))


def heavy(count: int, dice: random.Random) -> Iterator[float]:
    yield from (dice.expovariate(1 / NOISE) * dice.choice((-1, 1)) for _ in range(count))


def disturbed(count: int, dice: random.Random) -> Iterator[float]:
    yield from (dice.gauss(0, NOISE) + (0.3 if dice.random() < 0.05 else 0.0) for _ in range(count))


def remembering(count: int, dice: random.Random) -> Iterator[float]:
    value = dice.gauss(0, NOISE)
    for _ in range(count):
        yield value
        value = 0.3 * value + math.sqrt(1 - 0.09) * dice.gauss(0, NOISE)


def found_share(noise: Callable[[int, random.Random], Iterator[float]], count: int, step: float, tries: int) -> tuple[int, int]:
    """Series in which anything was found, and those in which just one change was, within a place of where it was planted."""
    anything = right = 0
    for seed in range(tries):
        dice = random.Random(seed)
        values = [
            1e6 * math.exp(value + (math.log1p(step) if place >= count // 2 else 0.0))
            for place, value in enumerate(noise(count, dice))
        ]
        cuts = change_points(values)
        anything += bool(cuts)
        right += len(cuts) == 1 and abs(cuts[0] - count // 2) <= 1
    return anything, right


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tries", type=int, default=1000)
    tries = parser.parse_args().tries
    print(f"{tries} series each; noise of {100 * NOISE:.0f} %")
    print("noise        points  change  found                        in its place, alone")
    for noise in (normal, heavy, disturbed, remembering):
        for count in (10, 30, 100):
            for step in (0.0, 0.05, 0.1):
                anything, right = found_share(noise, count, step, tries)
                low, high = share_interval(anything, tries)
                share = f"{100 * anything / tries:5.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
                print(f"{noise.__name__:12} {count:6}  {100 * step:4.0f} %  {share:27}  {100 * right / tries:5.1f} %")


if __name__ == "__main__":
    main()
