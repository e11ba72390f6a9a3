"""Ours beside torch's own context parallelism (experimental in 2.13): two ranks, one core and one thread each, no mask.

Rounds of random order, the same on both ranks, behind a barrier; a round is as long as its slowest rank. torch's shards whole
tensors when its context is entered, which is not timed, and takes for granted that all ranks have as many tokens: ours is told
so, and needn't ask. Ratios are theirs over ours, with a 99 % interval. One head, since with
several of them and 512 tokens or more torch 2.13 on the CPU gives back the whole sequence of some heads instead of this
rank's tokens of all.

Run: python benchmarks/context_parallel_speed.py [--seq 8192] [--rounds 20]
"""

import argparse
import os
import random
import socket
import subprocess
import sys
from collections.abc import Callable
from time import perf_counter_ns

import torch
import torch.nn.functional as F
from torch import Tensor, distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor.experimental import context_parallel
from torch.distributed.tensor.experimental._attention import set_rotate_method

from mixbench.models.strategies import attend
from mixbench.profilers.stats import estimate, ratio

RANKS, HEADS, DIM = 2, 1, 64
OURS = ("ring", "tokenring", "allgather_kv")


def theirs(whole: list[Tensor], rotate: str) -> tuple[float, Tensor]:
    """Milliseconds of attention under torch's context, and this rank's part of the output.

    torch deals the sequence out from both its ends, so that a mask would leave all ranks the same work: rank r has parts r and
    2 N - 1 - r of 2 N.
    """
    mesh = init_device_mesh("cpu", (RANKS,))
    set_rotate_method(rotate)
    q, k, v = buffers = [tensor.clone() for tensor in whole]
    with torch.no_grad(), context_parallel(mesh, buffers=buffers, buffer_seq_dims=[2, 2, 2]):
        distributed.barrier()
        start = perf_counter_ns()
        out = F.scaled_dot_product_attention(q, k, v)
        return (perf_counter_ns() - start) / 1e6, out


def ours(shards: list[Tensor], method: str) -> tuple[float, Tensor]:
    """Milliseconds of one of our methods, and this rank's part of the output."""
    with torch.no_grad():
        distributed.barrier()
        start = perf_counter_ns()
        out = attend(shards[0], shards[1], shards[2], method=method, lengths=[shards[0].shape[2]] * RANKS)
        return (perf_counter_ns() - start) / 1e6, out


def rank_main(seq: int, rounds: int) -> None:
    """One rank; rank 0 prints."""
    rank = int(os.environ["RANK"])
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[rank % len(cores)]})
    torch.set_num_threads(1)
    distributed.init_process_group("gloo")
    generator = torch.Generator().manual_seed(0)
    whole = [torch.randn(1, HEADS, seq, DIM, generator=generator) for _ in range(3)]
    shards = [tensor.chunk(RANKS, 2)[rank].contiguous() for tensor in whole]
    expected = F.scaled_dot_product_attention(whole[0], whole[1], whole[2])
    parts = expected.chunk(2 * RANKS, 2)
    dealt = torch.cat((parts[rank], parts[2 * RANKS - 1 - rank]), 2)

    def torchs(rotate: str) -> Callable[[], tuple[float, Tensor]]:
        return lambda: theirs(whole, rotate)

    def mine(method: str) -> Callable[[], tuple[float, Tensor]]:
        return lambda: ours(shards, method)

    calls = {f"torch, {rotate}": torchs(rotate) for rotate in ("allgather", "alltoall")}
    calls |= {method: mine(method) for method in OURS}
    for name, call in calls.items():
        own = dealt if name.startswith("torch") else expected.chunk(RANKS, 2)[rank]
        error = (call()[1] - own).abs().max().item()
        assert error < 1e-5, f"{name} is off by {error}"
    order, times = random.Random(0), {name: [0.0] * rounds for name in calls}
    for number in range(rounds):
        for name in order.sample(list(calls), len(calls)):
            times[name][number] = calls[name]()[0]
    table = torch.tensor(list(times.values()))
    distributed.all_reduce(table, distributed.ReduceOp.MAX)
    if rank == 0:
        slowest = dict(zip(times, table.tolist(), strict=True))
        best = min((name for name in slowest if name.startswith("torch")), key=lambda name: estimate(slowest[name]).value)
        print(f"{seq} tokens, one head of {DIM}, {RANKS} ranks of one thread; compared with {best}")
        for name, values in slowest.items():
            against = ratio(values, slowest[best])
            inside = f"{against.low:.3f} to {against.high:.3f}" if against.low and against.high else "too few rounds"
            print(f"  {name:20} {estimate(values).value:8.1f} ms, torch takes {against.value:.3f} x as long ({inside})")
    distributed.destroy_process_group()


def main() -> None:
    """Start the ranks on the loopback."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seq", type=int, default=8192)
    parser.add_argument("--rounds", type=int, default=20)
    asked = parser.parse_args()
    if "RANK" in os.environ:
        rank_main(asked.seq, asked.rounds)
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    world = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(RANKS), "GLOO_SOCKET_IFNAME": "lo"}
    ranks = [
        subprocess.Popen([sys.executable, *sys.argv], env={**os.environ, **world, "RANK": str(rank), "OMP_NUM_THREADS": "1"})
        for rank in range(RANKS)
    ]
    sys.exit(max(rank.wait() for rank in ranks))


if __name__ == "__main__":
    main()
