"""An associative memory at work: letters are stored, spoiled, and retrieved by a modern Hopfield network.

Twelve letters of a small bitmap font are the stored patterns. Each is spoiled twice: half of it covered, and a quarter of its
pixels flipped. The memory, `Hopfield.retrieval`, gets them back; the terminal shows some of it, and an SVG file all of it, with
the energy at each update (Ramsauer et al., arXiv 2008.02217, equations 2 and 3).

Run: python examples/hopfield_retrieval.py [--beta 0.15] [--steps 4] [--out retrieval.svg]
A small --beta, such as 0.01, shows the other thing that such a memory does: it averages what it can't tell apart.
"""

import argparse
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import torch
from torch import Tensor

from mixbench.models import Hopfield
from mixbench.models.energy import energy, retrieval_error_bound, separation

# Twelve glyphs, seven rows of five pixels each; a row is a number whose bits are the pixels, the left one the highest.
FONT = {
    "A": (14, 17, 17, 31, 17, 17, 17),
    "C": (14, 17, 16, 16, 16, 17, 14),
    "E": (31, 16, 16, 30, 16, 16, 31),
    "H": (17, 17, 17, 31, 17, 17, 17),
    "K": (17, 18, 20, 24, 20, 18, 17),
    "M": (17, 27, 21, 21, 17, 17, 17),
    "N": (17, 25, 21, 19, 17, 17, 17),
    "R": (30, 17, 17, 30, 20, 18, 17),
    "S": (15, 16, 16, 14, 1, 1, 30),
    "T": (31, 4, 4, 4, 4, 4, 4),
    "X": (17, 17, 10, 4, 10, 17, 17),
    "Z": (31, 1, 2, 4, 8, 16, 31),
}
ROWS, COLUMNS, SCALE = 14, 10, 2
SHADES = " .:-=+*#%@"
SHOWN = {"half covered": 1, "a quarter flipped": 8}
"""The letter that the terminal shows of each damage: C and S."""


def glyph(letter: str) -> Tensor:
    """A letter as ROWS x COLUMNS pixels of -1 and 1, flattened."""
    bits = [[1.0 if row >> (4 - column) & 1 else -1.0 for column in range(5)] for row in FONT[letter]]
    return torch.tensor(bits).repeat_interleave(SCALE, 0).repeat_interleave(SCALE, 1).flatten()


def spoiled(patterns: Tensor, seed: int) -> dict[str, Tensor]:
    """The patterns with their lower half covered, and with a quarter of their pixels flipped."""
    covered = patterns.clone()
    covered[:, patterns.shape[1] // 2 :] = 0
    generator = torch.Generator().manual_seed(seed)
    flipped = torch.where(torch.rand(patterns.shape, generator=generator) < 0.25, -patterns, patterns)
    return {"half covered": covered, "a quarter flipped": flipped}


def trajectory(state: Tensor, patterns: Tensor, beta: float, steps: int) -> list[Tensor]:
    """The states (N, d) before and after each of ``steps`` updates, through the layer itself."""
    states = [state]
    for update in range(steps):
        # n updates beyond the first look end in n + 1 averages of the stored patterns.
        memory = Hopfield.retrieval(beta, update_steps_max=update, update_steps_eps=0)
        states.append(memory((patterns[None], state[None], patterns[None]))[0])
    return states


def shaded(pattern: Tensor) -> list[str]:
    """A pattern in characters, one line for two rows of pixels."""
    pixels = pattern.view(ROWS, COLUMNS)[::2].clamp(-1, 1)
    return ["".join(SHADES[round((x + 1) / 2 * (len(SHADES) - 1))] for x in row) for row in pixels.tolist()]


def side_by_side(pictures: list[Tensor]) -> str:
    """Several patterns beside each other."""
    return "\n".join("   ".join(line) for line in zip(*map(shaded, pictures), strict=True))


def svg(columns: list[list[Tensor]], energies: list[list[float]], titles: list[str]) -> Iterator[str]:
    """One row a letter: its states from left to right, and the fall of its energy at the right end."""
    pixel, gap, head = 3, 14, 30
    wide, high = COLUMNS * pixel + gap, ROWS * pixel + gap
    width, height = len(columns) * wide + 190, head + len(columns[0]) * high
    top = max(map(max, energies)) or 1.0
    yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="9">'
    yield f'<rect width="{width}" height="{height}" fill="white"/>'
    for index, title in enumerate([*titles, "energy at each update"]):
        yield f'<text x="{gap + index * wide}" y="18" fill="#444">{title}</text>'
    for column, pictures in enumerate(columns):
        for row, picture in enumerate(pictures):
            x0, y0 = gap + column * wide, head + row * high
            for above, values in enumerate(picture.clamp(-1, 1).view(ROWS, COLUMNS).tolist()):
                at = 0
                for shade, run in groupby(round(247 - (value + 1) / 2 * 217) for value in values):
                    long = len(list(run))
                    place = f'x="{x0 + at * pixel}" y="{y0 + above * pixel}" width="{long * pixel}" height="{pixel}"'
                    yield f'<rect {place} fill="#{shade:02x}{shade:02x}{shade:02x}"/>'
                    at += long
    for row, falls in enumerate(energies):
        x0, y0, room = gap + len(columns) * wide, head + row * high, high - gap
        points = [
            (x0 + at * 150 / max(1, len(falls) - 1), y0 + room * (1 - max(0.0, fall) / top)) for at, fall in enumerate(falls)
        ]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        yield f'<line x1="{x0}" y1="{y0 + room}" x2="{x0 + 150}" y2="{y0 + room}" stroke="#ccc"/>'
        yield f'<polyline points="{line}" fill="none" stroke="#c2410c" stroke-width="1.5"/>'
        yield from (f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2" fill="#c2410c"/>' for x, y in points)
    yield "</svg>"


def main() -> None:
    """Store, spoil, retrieve; print a little of it, and draw all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--beta", type=float, default=0.15, help="inverse temperature: large picks, small averages")
    parser.add_argument("--steps", type=int, default=4, help="updates to draw")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("hopfield_retrieval.svg"), help="where the picture goes")
    asked = parser.parse_args()

    letters = list(FONT)
    patterns = torch.stack([glyph(letter) for letter in letters])
    least = separation(patterns).min().item()
    bound = retrieval_error_bound(patterns, asked.beta).max().item()
    print(f"{len(letters)} patterns of {patterns.shape[1]} pixels, beta {asked.beta:g}, least separation {least:.0f}")
    print(f"fixed points lie within {bound:.2g} of patterns {patterns[0].norm():.1f} long, where Theorem 5 applies\n")

    drawn: list[list[Tensor]] = []
    falls: list[list[float]] = []
    for damage, states in spoiled(patterns, asked.seed).items():
        path = trajectory(states, patterns, asked.beta, asked.steps)
        memory = Hopfield.retrieval(asked.beta)
        found = memory((patterns[None], states[None], patterns[None]))[0]
        right = (found @ patterns.mT).argmax(-1) == torch.arange(len(letters))
        close = (found - patterns).norm(dim=-1) < 0.05 * patterns.norm(dim=-1)
        retrieved, (updates,) = int((right & close).sum()), memory.executed_steps or (0,)
        print(f"{damage}: {retrieved} of {len(letters)} letters retrieved, at rest after {updates} more updates")
        print(f"stored, spoiled, after each of {asked.steps} updates:")
        shown = SHOWN[damage]
        print(side_by_side([patterns[shown], *(state[shown] for state in path)]))
        spent = [energy(state, patterns, asked.beta) for state in path]
        print("energy " + " > ".join(f"{fall[shown]:.1f}" for fall in spent) + "\n")
        columns = [patterns, *path]
        drawn = [[*old, *new] for old, new in zip(drawn or [[] for _ in columns], columns, strict=True)]
        falls += torch.stack(spent, 1).tolist()

    titles = ["stored", "spoiled", *(f"update {step}" for step in range(1, asked.steps + 1))]
    asked.out.write_text("\n".join(svg(drawn, falls, titles)) + "\n", encoding="utf-8")
    print(f"all of it, with energies: {asked.out}")


if __name__ == "__main__":
    main()
