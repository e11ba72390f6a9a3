"""Hopfield layers against the plain formulation: the association matrix written down, and updated under a mask of heads.

The plain formulation is what the authors' package computes, written here from its definition: sequence first, heads folded
into the batch, the matrix materialised at each look, heads that go on picked by masked_select and put back by masked_scatter,
and the stop rule asked after every look. Both are first found equal, updates included. Pairs run in one process and random
order. With n = 0 both are bound by the same four projections, so there is less to win the wider the layer is: "floor" is that
work alone, projections and fused attention called straight from torch, without norms or a module. No layer built of these
operators can be faster.

The plain formulation makes large tensors at every call, and by default glibc gives their pages back to the system and fetches
them anew, or not, as the heap happens to lie: its time, and so the ratio, then differs between runs by up to a half. For
arithmetic alone, keep the pages: MALLOC_TRIM_THRESHOLD_=4000000000 MALLOC_MMAP_THRESHOLD_=2000000000 python benchmarks/...

  updates    n = 0, 1, 3 beyond the first look; both stop by the rule, and weights are such that none stops early
  fixed      the same with update_steps_eps=0, which lets ours take fused attention for n = 3 too
  inference  n = 0 of the inference form: `--reparameterised`, the norms' affine maps folded into the projections
  floor      n = 0 without norms

Run: ./dev bench, or python benchmarks/hopfield_speed.py [--rounds N] [--threads N] [--quick].
"""

import argparse
import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from mixbench.models import Hopfield
from mixbench.models.reparameterise import reparameterise
from mixbench.profilers.stats import median, ratio
from side_by_side import interval, times

# Input width, length, batch, heads.
SIZES = ((64, 32, 8, 4), (256, 128, 8, 8), (512, 256, 4, 8))
UPDATES = (0, 1, 3)


def plain(layer: Hopfield, x: Tensor, most: int, eps: float = 1e-4) -> tuple[Tensor, int]:
    """The definition for one tensor (B, L, E) that plays all three parts; also how many looks were taken."""
    core = layer.association_core
    heads, width = core.num_heads, core.head_dim
    assert core.in_proj_weight is not None and core.in_proj_bias is not None and width is not None
    assert layer.norm_stored_pattern is not None and layer.norm_state_pattern is not None
    assert layer.norm_pattern_projection is not None and core.out_proj is not None
    x = x.transpose(0, 1)
    length, batch, size = x.shape
    norms = (layer.norm_state_pattern, layer.norm_stored_pattern, layer.norm_pattern_projection)
    weights, biases = core.in_proj_weight.chunk(3), core.in_proj_bias.chunk(3)
    folded = []
    for norm, weight, bias in zip(norms, weights, biases, strict=True):
        projected = F.linear(norm(x.reshape(-1, size)).reshape(x.shape), weight, bias)
        folded.append(projected.contiguous().view(length, batch * heads, width).transpose(0, 1))
    q, k, v = folded
    active = torch.ones(batch * heads, 1, 1, dtype=torch.bool)
    matrix, step, looks = None, 0, 0
    while active.any():
        if matrix is not None:
            moved = torch.bmm(
                matrix.masked_select(active).view(-1, length, length), k.masked_select(active).view(-1, length, width)
            )
            q = torch.masked_scatter(q, active, moved)
        q = q / math.sqrt(width)
        logits = torch.bmm(q, k.transpose(1, 2))
        before = matrix
        if matrix is None:
            matrix = F.softmax(logits, -1)
        else:
            fresh = F.softmax(logits.masked_select(active).view(-1, length, length), -1)
            matrix = torch.masked_scatter(matrix, active, fresh)
        looks += 1
        going = torch.full((heads,), step < most)
        if before is not None:
            change = (matrix - before).view(batch, heads, length, length).norm(p=2, dim=(2, 3)).max(0)[0]
            going = going & (change > eps)
        active = going.repeat(batch)[:, None, None]
        step += 1
    assert matrix is not None
    out = torch.bmm(matrix, v).transpose(0, 1).contiguous().view(length, batch, heads * width)
    return F.linear(out, core.out_proj.weight, core.out_proj.bias).transpose(0, 1), looks


def floor(layer: Hopfield, x: Tensor) -> Tensor:
    """What n = 0 needs at the least, for one tensor (B, L, E) that plays all three parts: four projections, fused attention."""
    core = layer.association_core
    assert core.in_proj_weight is not None and core.out_proj is not None
    q, k, v = F.linear(x, core.in_proj_weight, core.in_proj_bias).unflatten(-1, (3, core.num_heads, -1)).permute(2, 0, 3, 1, 4)
    found = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    return F.linear(found, core.out_proj.weight, core.out_proj.bias)


def layer_of(size: int, heads: int, most: int, eps: float) -> Hopfield:
    """A layer whose heads do not come to rest within three updates: larger weights than at initialisation."""
    layer = Hopfield(size, num_heads=heads, update_steps_max=most, update_steps_eps=eps).eval()
    generator = torch.Generator().manual_seed(0)
    core = layer.association_core
    assert core.in_proj_weight is not None
    core.in_proj_weight.data = torch.randn(core.in_proj_weight.shape, generator=generator) * 1.2 / math.sqrt(size)
    return layer


def report(title: str, mine: list[float], other: list[float]) -> None:
    """Print a line: medians of both times and of their ratio, and its interval."""
    found = ratio(mine, other)
    print(
        f"{title} {median(mine) * 1000:7.2f} ms, plain {median(other) * 1000:7.2f} ms, "
        f"ratio {found.value:.2f} ({interval(found)}), bar 1.5"
    )


def main() -> None:
    """Print a line for each size, number of updates and rule."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=41, help="pairs for each ratio")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="few pairs, the smallest size")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    sizes, rounds = (SIZES[:1], 11) if asked.quick else (SIZES, asked.rounds)
    for size, length, batch, heads in sizes:
        x = torch.randn(batch, length, size, generator=torch.Generator().manual_seed(1))
        for most in UPDATES:
            for rule, eps in (("updates", 1e-4), ("fixed", 0.0))[: 2 if most > 1 else 1]:
                layer = layer_of(size, heads, most, eps)
                with torch.inference_mode():
                    expected, looks = plain(layer, x, most)
                    assert looks == most + 1, "a head came to rest early: the two rules would not do the same"
                    torch.testing.assert_close(layer(x), expected, atol=2e-5, rtol=1e-4)
                    mine, other = times(rounds, partial(layer, x), partial(plain, layer, x, most))
                title = f"E {size:<4} L {length:<4} B {batch} H {heads}  n {most}"
                report(f"{title} {rule:<10}ours ", mine, other)
                if most == 0:
                    with torch.inference_mode():
                        folded = reparameterise(layer)
                        torch.testing.assert_close(folded(x), expected, atol=2e-5, rtol=1e-4)
                        mine, other = times(rounds, partial(folded, x), partial(plain, layer, x, most))
                        report(f"{title} {'inference':<10}ours ", mine, other)
                        least, other = times(rounds, partial(floor, layer, x), partial(plain, layer, x, most))
                        report(f"{title} {'floor':<10}floor", least, other)


if __name__ == "__main__":
    main()
