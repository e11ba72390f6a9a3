"""One of the processes of test_strategies_gloo: all its cases, one after the other, and a JSON line of what was found.

python gloo_worker.py RANK WORLD FILE
"""

import gc
import json
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from mixbench.models import strategies
from mixbench.models.errors import BadInput
from mixbench.models.strategies.layout import cut, even_lengths
from mixbench.models.strategies.shards import shard
from mixbench.models.strategies.spread import _groups, open_session, transport_of

TOKENS, HEADS, SIZE = 26, 12, 8


def whole(kv_heads: int) -> list[Tensor]:
    """q, k, v and the gradient of the output, the same in every process."""
    generator = torch.Generator().manual_seed(kv_heads)
    shapes = [(2, heads, TOKENS, SIZE) for heads in (HEADS, kv_heads, kv_heads, HEADS)]
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def error(group: Any, method: str, layout: str, causal: bool, kv_heads: int, lengths: tuple[int, ...], tell: bool) -> float:
    """The largest difference from ordinary attention, gradients included, on this rank's share."""
    share = cut(layout, lengths)[dist.get_rank(group)]
    q, k, v, do = whole(kv_heads)
    for tensor in (q, k, v):
        tensor.requires_grad_()
    exact = F.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=True)
    exact.backward(do)
    local = [shard(tensor.detach(), share).clone().requires_grad_() for tensor in (q, k, v)]
    out = strategies.attend(local[0], local[1], local[2], method, group, causal, layout, lengths=lengths if tell else None)
    out.backward(shard(do, share))
    pairs = [(out, exact), *((mine.grad, theirs.grad) for mine, theirs in zip(local, (q, k, v), strict=True))]
    return max((a.detach() - shard(b.detach(), share)).abs().max().item() for a, b in pairs if a is not None and b is not None)


def exactness(group: Any) -> dict[str, float]:
    """Every method, layout and mask, lengths told and found out."""
    degree, found = dist.get_world_size(group), {}
    for index, method in enumerate(strategies.names()):
        for layout in strategies.describe(method).layouts:
            for causal in (False, True):
                lengths = even_lengths(TOKENS, degree)
                if layout != "striped":
                    lengths = (lengths[0] + 3, *lengths[1:-1], lengths[-1] - 3)
                kv_heads = (12, 6, 12)[index % 3] if degree != 4 else 12
                name = f"{method} {layout} {causal}"
                found[name] = error(group, method, layout, causal, kv_heads, lengths, tell=causal)
    return found


def two_layers(group: Any) -> float:
    """Gathered rows and buffers of one call must survive another: two calls, then both backward passes."""
    share = cut("contiguous", even_lengths(TOKENS, dist.get_world_size(group)))[dist.get_rank(group)]
    worst = 0.0
    for method in ("ulysses", "tokenring", "ring"):
        q, k, v, do = whole(12)
        for tensor in (q, k, v):
            tensor.requires_grad_()
        exact = F.scaled_dot_product_attention(F.scaled_dot_product_attention(q, k, v), k, v)
        exact.backward(do)
        mine = [shard(tensor.detach(), share).clone().requires_grad_() for tensor in (q, k, v)]
        inner = strategies.attend(mine[0], mine[1], mine[2], method, group)
        strategies.attend(inner, mine[1], mine[2], method, group).backward(shard(do, share))
        for a, b in zip(mine, (q, k, v), strict=True):
            assert a.grad is not None and b.grad is not None
            worst = max(worst, (a.grad - shard(b.grad, share)).abs().max().item())
    return worst


def refusal(call: Callable[[], Any]) -> list[str]:
    """What was wrong, and the hint."""
    try:
        call()
    except BadInput as refused:
        return [refused.what, refused.hint]
    return []


def refusals(group: Any) -> dict[str, list[str]]:
    """Shapes and settings that differ between the ranks: every rank has to say so, none may hang."""
    rank = dist.get_rank(group)

    def ask(q: Tensor, k: Tensor | None = None, **settings: Any) -> list[str]:
        k = q if k is None else k
        return refusal(lambda: strategies.attend(q, k, k, group=group, **settings))

    q = torch.zeros(1, 4, 5, 8)
    odd = torch.zeros(1, 4 + (rank == 1), 5, 8)
    return {
        "heads": ask(odd),
        "mask": ask(q, causal=rank == 1),
        "one rank's own": ask(q, torch.zeros(1, 4, 6, 8) if rank == 1 else q),
        "lengths": ask(q, lengths=(5,) * (dist.get_world_size(group) + 1)),
        "after all that": [str(float(strategies.attend(q, q, q, group=group).abs().max()))],
    }


def steady(group: Any) -> dict[str, Any]:
    """A session run again and again: the same memory, and just the bytes of the account."""
    rank, degree = dist.get_rank(group), dist.get_world_size(group)
    q = torch.randn(1, 4, 8, 16, dtype=torch.bfloat16)
    session = open_session(q, q, q, "tokenring", group, causal=True, layout="zigzag")
    assert session is open_session(q, q, q, "tokenring", group, causal=True, layout="zigzag")
    memory: list[list[int]] = []
    timeline: list[Any] = []
    for _ in range(3):
        session.run(session.state(q, q, q))
        memory.append([buffer.data_ptr() for buffer in session.forward.buffers])
    session.run(session.state(q, q, q), mode="compute", timeline=timeline)
    session.run(session.state(q, q, q), mode="messages")
    planned = strategies.account("tokenring", (8,) * degree, 4, 4, 16, 2, 1, True, "zigzag").egress[rank]
    same = memory[0] == memory[1] == memory[2]
    return {"same": same, "sent": session.forward.account.total, "planned": 4 * planned, "operations": len(timeline)}


def connections(rank: int) -> dict[str, Any]:
    """Of a group that comes and goes: each direction has its own, whoever asks gets the same, and they end with the group."""
    ahead = len(_groups)
    group = dist.new_group([0, 1])
    if rank > 1:
        return {}
    q = torch.zeros(1, 1, 1, 1)
    strategies.attend(q, q, q, group=group)
    transport = transport_of(group)
    down, up = transport.ways
    found = {"apart": down is not up, "shared": open_session(q, q, q, group=group).forward.transport is transport}
    del transport, down, up
    dist.destroy_process_group(group)
    del group
    gc.collect()
    return {**found, "left": len(_groups) - ahead}


def main() -> None:
    """Groups of two, three and four processes, of which two are parts of the world."""
    rank, world, file = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=world, timeout=timedelta(seconds=60))
    found: dict[str, Any] = {}
    for members in ([1, 3], [0, 2, 3], None):
        group = dist.new_group(members) if members else None
        if members is None or rank in members:
            found[str(len(members or range(world)))] = exactness(group)
            if members:
                found[f"layers {len(members)}"] = two_layers(group)
    found["refusals"], found["steady"] = refusals(None), steady(None)
    pair = dist.new_group([1, 3])
    if rank in (0, 2):
        q = torch.zeros(1, 1, 1, 1)
        found["stranger"] = refusal(lambda: strategies.attend(q, q, q, group=pair))
    found["connections"] = connections(rank)
    dist.barrier()
    dist.destroy_process_group()
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
