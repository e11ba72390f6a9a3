"""Sequence-parallel methods between hosts, measured beside what the model says: full mesh and switch, MHA and GQA.

Hosts are network namespaces joined by links of limited speed (`hosts`), ranks are processes on this machine's cores. The
model's constants are calibrated between the same hosts, on other messages and sizes (`mixbench.profilers.calibration`). Every
line shows the measured time, the modelled one, and how many times as long one-way ring attention takes, by both.

Run as root: python benchmarks/tokenring_hosts.py [--hosts 2,3,4] [--mbit 200] [--seq 2048] [--topology mesh,switch]
"""

import argparse
import csv
import os
import pickle
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import torch
from torch import distributed

from hosts import command, hosts
from mixbench.models.errors import BadInput
from mixbench.models.strategies import make_plan
from mixbench.models.strategies.layout import even_lengths
from mixbench.models.strategies.plan import Sizes
from mixbench.profilers.calibration import constants, time_rank
from mixbench.profilers.parallel import AttentionJob, Method, MethodTimes, time_methods
from mixbench.profilers.runs.parallel_run import Workload
from mixbench.profilers.schedule_model import model
from mixbench.profilers.stats import estimate, median, ratio
from mixbench.profilers.workers import World

METHODS = ("ring", "ring_bidirectional", "tokenring_paper", "tokenring", "ulysses", "allgather_kv")
HEADS = ((8, 8), (8, 1))
DIM = 64
MESSAGES = (2**12, 2**16, 2**19, 2**20, 2**22)


@dataclass(frozen=True, slots=True)
class Task:
    """An attention job, or the calibration."""

    job: AttentionJob | None = None
    calibration: Workload | None = None


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
        mine: Any = time_methods(world, task.job) if task.job else None
        if task.calibration:
            mine = time_rank(world, task.calibration)
        everybody: list[Any] = [None] * degree
        distributed.all_gather_object(everybody, mine)
        found.append(everybody)
    if rank == 0:
        torch.save(found, os.environ["RESULT"])
    world.barrier()
    distributed.destroy_process_group()


def on_hosts(count: int, topology: Any, mbit: float, tasks: list[Task], folder: Path) -> list[Any]:
    """Run tasks on that many hosts; what every rank found, task by task."""
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
    return pickle.dumps(tasks)


def slowest(ranks: list[dict[str, MethodTimes]], label: str, mode: str = "whole") -> list[float]:
    """Of every round, in ns."""
    return [max(times) for times in zip(*(rank[label].samples_ns[mode] for rank in ranks), strict=True)]


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
        rank_main(pickle.loads(asked.rank.read_bytes()))
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a time limit too takes the hosts down
    lines: list[dict[str, Any]] = []
    topologies: tuple[Literal["mesh", "switch"], ...] = ("mesh", "switch")
    for topology in (name for name in topologies if name in asked.topology.split(",")):
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


def measure(topology: Literal["mesh", "switch"], mbit: float, count: int, asked: argparse.Namespace) -> list[dict[str, Any]]:
    """One set of hosts: every number of heads and length."""
    methods = tuple(asked.methods.split(","))
    jobs = [
        AttentionJob(able(methods, count, seq, *heads), even_lengths(seq, count), 1, *heads, DIM, rounds=asked.rounds)
        for seq in map(int, asked.seq.split(","))
        for heads in HEADS
    ]
    calibrations = [Task(calibration=Workload(1, *heads, DIM, "float32", False, False)) for heads in HEADS]
    with tempfile.TemporaryDirectory() as folder:
        found = on_hosts(count, topology, mbit, [*calibrations, *map(Task, jobs)], Path(folder))
    machines = {heads: constants(ranks, topology, tagged=True) for heads, ranks in zip(HEADS, found, strict=False)}
    one = machines[HEADS[0]]
    rate = min(one.link, one.port) / 1e6
    print(f"\n{topology}, {count} hosts, {mbit:g} Mbit/s: {rate:.1f} MB/s after {one.latency_s * 1e6:.0f} us;", end=" ")
    print(f"attention at {one.flops_per_s / 1e9:.1f} GFLOP/s a rank")
    lines = []
    for job, ranks in zip(jobs, found[len(HEADS) :], strict=True):
        base = slowest(ranks, "ring")
        sizes, machine = Sizes(job.batch, job.heads, job.kv_heads, job.head_dim, 4), machines[job.heads, job.kv_heads]
        plans = {method.label: make_plan(method.name, job.lengths, job.heads, job.kv_heads) for method in job.methods}
        modelled = {label: model(plan, sizes, machine) for label, plan in plans.items()}
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
