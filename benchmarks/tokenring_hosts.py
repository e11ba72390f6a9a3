"""Sequence-parallel methods between hosts, measured beside what the model says: full mesh and switch, MHA and GQA.

Hosts are network namespaces joined by links of limited speed (`hosts`), ranks are processes on this machine's cores. The model's
constants come from this machine too, but from other messages and sizes: link rate and latency from messages between two hosts,
the rate of attention from the compute-only runs of the smallest case, memory from copies. Every line shows the measured time,
the modelled one, and their ratios to one-way ring attention.

Run as root: python benchmarks/tokenring_hosts.py [--hosts 2,3,4] [--mbit 200] [--seq 2048] [--topology mesh,switch]
"""

import argparse
import csv
import json
import os
import random
import subprocess
import sys
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from mixbench.models.errors import BadInput
from mixbench.models.strategies import make_plan
from mixbench.models.strategies.layout import even_lengths
from mixbench.models.strategies.plan import Sizes
from mixbench.profilers.links import Hardware
from mixbench.profilers.parallel import AttentionJob, Method, MethodTimes, time_methods
from mixbench.profilers.schedule_model import model
from mixbench.profilers.stats import estimate, median, ratio
from mixbench.profilers.workers import World

METHODS = ("ring", "ring_bidirectional", "tokenring_paper", "tokenring", "ulysses", "allgather_kv")
HEADS = ((8, 8), (8, 1))
DIM = 64
MESSAGES = (2**12, 2**16, 2**19, 2**20, 2**22)


@dataclass(frozen=True, slots=True)
class Task:
    """One attention job, or with ``messages`` the times of messages between rank 0 and 1."""

    job: AttentionJob | None = None
    messages: bool = False


def rank_main(tasks: list[Task]) -> None:
    """What runs on a host: join, do every task, and let rank 0 print what all found."""
    rank, degree = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[rank % len(cores)]})
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", timeout=timedelta(seconds=300))
    world = World(rank, degree, "cpu", distributed.group.WORLD)
    found: list[Any] = []
    for task in tasks:
        mine = _messages(world) if task.messages else time_methods(world, task.job) if task.job else None
        everybody: list[Any] = [None] * degree
        distributed.all_gather_object(everybody, mine)
        found.append(everybody)
    if rank == 0:
        torch.save(found, os.environ["RESULT"])
    world.barrier()
    distributed.destroy_process_group()


def _messages(world: World) -> dict[int, float]:
    """Seconds of a message from rank 0 to rank 1, by bytes: half of there and back."""
    times = {}
    for size in MESSAGES:
        buffer = torch.zeros(size, dtype=torch.uint8)
        trips = []
        for _ in range(5):
            world.barrier()
            begin = torch.tensor(0.0)
            start = _now()
            if world.rank == 0:
                distributed.send(buffer, 1)
                distributed.recv(buffer, 1)
            elif world.rank == 1:
                distributed.recv(buffer, 0)
                distributed.send(buffer, 0)
            del begin
            trips.append((_now() - start) / 2)
        times[size] = median(trips)
    return times


def _now() -> float:
    from time import perf_counter

    return perf_counter()


def on_hosts(count: int, topology: Any, mbit: float, tasks: list[Task], folder: Path) -> list[Any]:
    """Run tasks on that many hosts; what every rank found, task by task."""
    from hosts import command, hosts  # type: ignore[import-not-found, unused-ignore]

    (folder / "tasks").write_bytes(_pickled(tasks))
    result = folder / "result"
    with hosts(count, topology, mbit) as environments:
        ranks = [
            subprocess.Popen(
                command(host, sys.executable, __file__, "--rank", str(folder / "tasks")),
                env={**environment, "RESULT": str(result)},
                stderr=subprocess.PIPE,
                text=True,
            )
            for host, environment in enumerate(environments)
        ]
        try:
            errors = [rank.communicate(timeout=1500)[1] for rank in ranks]
        finally:
            for rank in ranks:
                rank.kill()
        if any(rank.returncode for rank in ranks):
            sys.exit("\n".join(errors))
    found: list[Any] = torch.load(result, weights_only=False)  # written by our own ranks, above
    return found


def _pickled(tasks: list[Task]) -> bytes:
    import pickle

    return pickle.dumps(tasks)


def slowest(ranks: list[dict[str, MethodTimes]], label: str, mode: str = "whole") -> list[float]:
    """Of every round, in ns."""
    return [max(times) for times in zip(*(rank[label].samples_ns[mode] for rank in ranks), strict=True)]


def calibrate(topology: Any, messages: dict[int, float], small: list[dict[str, MethodTimes]], job: AttentionJob) -> Hardware:
    """The machine's constants from messages between two hosts, and from a small case's compute-only runs."""
    sizes = sorted(messages)
    bandwidth = (sizes[-1] - sizes[-2]) / (messages[sizes[-1]] - messages[sizes[-2]])
    latency = messages[sizes[0]]
    degree = len(job.lengths)
    plan = make_plan("ring", job.lengths, job.heads, job.kv_heads, job.causal)
    flops = 4 * job.head_dim * job.batch * max(plan.pairs())
    rate = flops / (median(slowest(small, "ring", "compute")) / 1e9)
    del degree
    limits = {"link": bandwidth} if topology == "mesh" else {"port": bandwidth}
    return Hardware(
        name="hosts",
        title="namespaces",
        topology=topology,
        flops_per_s=rate,
        efficiency=1.0,
        source="measured here",
        latency_s=latency,
        launch_s=0.0,
        memory_bytes_per_s=4e9,
        **limits,
    )


def able(methods: tuple[str, ...], count: int, seq: int, heads: int, kv_heads: int) -> tuple[Method, ...]:
    """Those that can divide the heads."""
    found = []
    for name in methods:
        try:
            make_plan(name, even_lengths(seq, count), heads, kv_heads)
        except BadInput:
            continue
        found.append(Method(name))
    return tuple(found)


def main() -> None:
    """Print a table, and keep it if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", default="2,3,4")
    parser.add_argument("--mbit", default="200", help="of a link in one direction; several with commas")
    parser.add_argument("--seq", default="2048")
    parser.add_argument("--topology", default="mesh,switch")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--rank", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.rank:
        import pickle

        rank_main(pickle.loads(asked.rank.read_bytes()))
        return
    lines: list[dict[str, Any]] = []
    for topology in asked.topology.split(","):
        for mbit in map(float, asked.mbit.split(",")):
            for count in map(int, asked.hosts.split(",")):
                lines += measure(topology, mbit, count, asked)
                if asked.output:
                    with asked.output.open("w", encoding="utf-8", newline="") as file:
                        writer = csv.DictWriter(file, fieldnames=list(lines[0]), lineterminator="\n")
                        writer.writeheader()
                        writer.writerows(lines)
    errors = sorted(abs(line["modelled_ms"] / line["measured_ms"] - 1) for line in lines)
    print(f"model against measured: {len(errors)} points, median {100 * median(errors):.1f} %, worst {100 * errors[-1]:.1f} %")


def measure(topology: str, mbit: float, count: int, asked: argparse.Namespace) -> list[dict[str, Any]]:
    """One set of hosts: every number of heads and length."""
    import tempfile

    random.seed(0)
    methods = tuple(asked.methods.split(","))
    small = AttentionJob(able(("ring",), count, 1024, 4, 4), even_lengths(1024, count), 1, 4, 4, DIM, rounds=10)
    jobs = [
        AttentionJob(
            able(methods, count, seq, *heads), even_lengths(seq, count), 1, *heads, DIM, rounds=asked.rounds
        )
        for seq in map(int, asked.seq.split(","))
        for heads in HEADS
    ]
    with tempfile.TemporaryDirectory() as folder:
        messages, first, *rest = on_hosts(
            count, topology, mbit, [Task(messages=True), Task(small), *map(Task, jobs)], Path(folder)
        )
    machine = calibrate(topology, messages[0], first, small)
    print(
        f"\n{topology}, {count} hosts, {mbit:g} Mbit/s: messages {(machine.link if topology == 'mesh' else machine.port) / 1e6:.1f}"
        f" MB/s after {machine.latency_s * 1e6:.0f} us; attention {machine.flops_per_s / 1e9:.1f} GFLOP/s a rank"
    )
    lines = []
    for job, ranks in zip(jobs, rest, strict=True):
        base = slowest(ranks, "ring")
        sizes = Sizes(job.batch, job.heads, job.kv_heads, job.head_dim, 4)
        modelled = {m.label: model(make_plan(m.name, job.lengths, job.heads, job.kv_heads), sizes, machine) for m in job.methods}
        print(f"  {sum(job.lengths)} tokens, {job.heads}/{job.kv_heads} heads")
        for method in job.methods:
            times = slowest(ranks, method.label)
            against = ratio(times, base)  # ring's time over this one's
            step = estimate(times)
            told = modelled[method.label].seconds
            gain = modelled["ring"].seconds / told
            line = {
                "topology": topology,
                "hosts": count,
                "mbit_per_s": mbit,
                "tokens": sum(job.lengths),
                "heads": job.heads,
                "kv_heads": job.kv_heads,
                "method": method.label,
                "measured_ms": step.value / 1e6,
                "low_ms": (step.low or 0) / 1e6,
                "high_ms": (step.high or 0) / 1e6,
                "modelled_ms": told * 1e3,
                "ring_over_it": against.value,
                "ring_over_it_modelled": gain,
                "compute_ms": median(slowest(ranks, method.label, "compute")) / 1e6,
                "messages_ms": median(slowest(ranks, method.label, "messages")) / 1e6,
                "sent_bytes": max(sum(rank[method.label].sent.values()) for rank in ranks),
                "max_error": max(rank[method.label].max_error for rank in ranks),
            }
            lines.append(line)
            ends = f"{against.low:.2f} to {against.high:.2f}" if against.low and against.high else "no interval"
            print(
                f"    {method.label:22} {line['measured_ms']:8.1f} ms, model {line['modelled_ms']:8.1f};"
                f" ring takes {against.value:5.2f} x as long ({ends}), model {gain:5.2f};"
                f" messages only {line['messages_ms']:.0f} ms, computing only {line['compute_ms']:.0f} ms"
            )
    return lines


if __name__ == "__main__":
    main()
