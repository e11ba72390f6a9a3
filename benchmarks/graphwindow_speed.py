"""Attention under a graph window that skips what is blocked, against the original's dense mask; where it wins and where not.

The plain formulation is the authors': the window as an additive mask of -6000 over all S x S cells, handed to torch's masked
attention; beside it the same with a boolean mask. All have 8 heads of width 64 and one sequence in float32; spans of 16 tokens
for each node, or the paper's own prompt. Results and gradients are first found equal. One process, rounds in random order.

Lines "flex" have torch's own way to skip, flex_attention, forward only (it has no backward pass on the CPU): compiled, with
block masks of 128 tokens (its default) and of 32, made and compiled before the clock starts, in rounds of their own with ours.
It needs a C++ compiler; where it can't run, the line says why.

  ring     each node linked to the two next on either side
  random   2 N edges between random nodes
  tree     eight children each, so nodes near the root are hubs; k = 2 links all siblings
  prompt   the paper's prompt of 177 tokens, single tokens for nodes, unidirectional: too small for anything but a dense mask
  all      every pair linked: nothing to skip

Columns: cells that the window allows and that we execute, in percent of S x S; milliseconds; ratio theirs / ours with its 99 %
interval. Above 1 the window pays. ``train`` is forward and backward.

Run: ./dev bench, or python benchmarks/graphwindow_speed.py [--rounds N] [--threads N] [--quick].
"""

import argparse
import random
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from mixbench.models import GraphWindow, PromptTree, TokenGraph
from mixbench.models.windows import block_cells
from mixbench.profilers.stats import median, ratio
from side_by_side import bounds, times

HEADS, SIZE, SPAN = 8, 64, 16
FLEX_BLOCKS = (128, 32)
# Graph, tokens, k, direction.
CASES = (
    ("ring", 2048, 1, "bi"),
    ("ring", 4096, 1, "bi"),
    ("tree", 2048, 1, "bi"),
    ("tree", 4096, 1, "bi"),
    ("tree", 2048, 2, "bi"),
    ("random", 2048, 1, "bi"),
    ("random", 2048, 2, "bi"),
    ("ring", 2048, 1, "uni"),
    ("random", 2048, 1, "uni"),
    ("ring", 512, 1, "bi"),
    ("ring", 256, 1, "bi"),
    ("random", 2048, 3, "bi"),
    ("all", 1024, 1, "bi"),
    ("all", 1024, 1, "uni"),
    ("prompt", 177, 1, "uni"),
)
QUICK = (("ring", 1024, 1, "bi"), ("prompt", 177, 1, "uni"))


def graph_of(kind: str, tokens: int) -> TokenGraph:
    """The named graph on that many tokens."""
    nodes = tokens // SPAN
    generator = random.Random(0)
    if kind == "prompt":
        return PromptTree.of_sizes([8] * 8).graph()
    edges = {
        "ring": [(node, (node + step) % nodes) for node in range(nodes) for step in (1, 2)],
        "random": [(generator.randrange(nodes), generator.randrange(nodes)) for _ in range(2 * nodes)],
        "tree": [((node - 1) // 8, node) for node in range(1, nodes)],
        "all": [(a, b) for a in range(nodes) for b in range(a)],
    }[kind]
    return TokenGraph.of_nodes(nodes, SPAN, edges)


def plain(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """The dense formulation, (1, S, H, D) to the same."""
    y = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attn_mask=mask)
    return y.transpose(1, 2)


def flex(tensors: list[Tensor], allowed: Tensor, block: int, compiled: Callable[..., Tensor]) -> Callable[[], Tensor]:
    """A call of compiled flex_attention under the mask, once compiled and found equal to the dense formulation.

    Raises:
        Exception: whatever torch raises where it can't; the caller prints it.
    """
    size = len(allowed)

    def inside(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return allowed[query, key]

    blocks = create_block_mask(inside, None, None, size, size, device="cpu", BLOCK_SIZE=block)
    q, k, v = tensors

    def call() -> Tensor:
        y = compiled(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), block_mask=blocks)
        return y.transpose(1, 2)

    torch.testing.assert_close(call(), plain(q, k, v, allowed), rtol=1e-3, atol=1e-4)
    return call


def flex_line(kind: str, tensors: list[Tensor], window: GraphWindow, ours: Callable[[], object], rounds: int) -> None:
    """Time flex_attention beside ours, forward only, and print the line, or why there is none."""
    assert window.planned is not None
    size, direction = window.graph.length, window.direction
    head = f"{kind:<7}{size:>5} {window.k} {direction:<3} flex "
    try:
        torch.compiler.reset()
        compiled = torch.compile(flex_attention, dynamic=False)
        calls = [flex(tensors, window.allowed, block, compiled) for block in FLEX_BLOCKS]
    except Exception as error:  # noqa: BLE001 - a missing compiler, an old torch, an unknown processor
        print(f"{head} doesn't run here: {type(error).__name__}: {str(error).strip().splitlines()[0]}", flush=True)
        return
    mine, *theirs = times(rounds, ours, *calls)
    for block, found in zip(FLEX_BLOCKS, theirs, strict=True):
        share = 100 * block_cells(window.allowed, block).executed / size**2
        executed = 100 * window.planned.executed / size**2
        print(
            f"{head} blocks of {block:>3}: {share:6.1f} % executed, ours {executed:6.1f} %; ms {milliseconds(found)},"
            f" ours {milliseconds(mine)}; flex / ours {shown(mine, found)}",
            flush=True,
        )


def trained(attend: Callable[..., Tensor], tensors: list[Tensor], *rest: Tensor) -> list[Tensor]:
    """Gradients of a sum of the result."""
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    attend(*leaves, *rest).sum().backward()
    return [leaf.grad for leaf in leaves if leaf.grad is not None]


def shown(ours: list[float], theirs: list[float]) -> str:
    """The median of the paired ratios theirs / ours and its interval."""
    found = ratio(ours, theirs)
    return f"{found.value:6.2f} ({bounds(found)})"


def milliseconds(values: list[float]) -> str:
    """The median."""
    return f"{median(values) * 1000:8.2f}"


def main() -> None:
    """Print for each case a line for the forward pass, one for training, and those of flex_attention."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="rounds for each case")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="few rounds, two cases")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    cases, rounds = (QUICK, 9) if asked.quick else (CASES, asked.rounds)
    head = f"{'graph':<7}{'S':>5} k dir pass   useful executed   ours ms  -6000 ms   bool ms"
    print(f"{head}   {'-6000 / ours':<23}  bool / ours")
    for kind, tokens, k, direction in cases:
        graph = graph_of(kind, tokens)
        window = GraphWindow(graph, k, direction, path="sparse")
        assert window.planned is not None
        mask = window.allowed
        additive = torch.zeros(mask.shape).masked_fill(~mask, -6000.0)
        generator = torch.Generator().manual_seed(0)
        tensors = [torch.randn(1, graph.length, HEADS, SIZE, generator=generator) for _ in range(3)]
        torch.testing.assert_close(window(*tensors), plain(tensors[0], tensors[1], tensors[2], additive), rtol=1e-4, atol=1e-5)
        for mine, other in zip(trained(window, tensors), trained(plain, tensors, mask), strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-4)
        cells = graph.length**2
        shares = [100 * count / cells for count in (window.planned.useful, window.planned.executed)]
        q, key, v = tensors
        forward: list[Callable[[], object]] = [
            partial(window, q, key, v),
            *(partial(plain, q, key, v, m) for m in (additive, mask)),
        ]
        training: list[Callable[[], object]] = [
            partial(trained, window, tensors),
            *(partial(trained, plain, tensors, m) for m in (additive, mask)),
        ]
        for name, works in (("eval", forward), ("train", training)):
            with torch.set_grad_enabled(name == "train"):
                ours, sixes, booleans = times(rounds, *works)
            print(
                f"{kind:<7}{graph.length:>5} {k} {direction:<3} {name:<6}{shares[0]:6.1f} % {shares[1]:6.1f} %"
                f"{milliseconds(ours)}  {milliseconds(sixes)}  {milliseconds(booleans)}"
                f"   {shown(ours, sixes):<23}  {shown(ours, booleans)}",
                flush=True,
            )
        with torch.no_grad():
            flex_line(kind, tensors, window, forward[0], rounds)


if __name__ == "__main__":
    main()
