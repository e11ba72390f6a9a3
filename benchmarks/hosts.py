"""N hosts on one machine: network namespaces joined by links of limited speed, so that schedules differ as in a cluster.

``mesh``: a duplex link of its own between each pair, as peers of a full mesh have. ``switch``: one duplex uplink per host to a
bridge, as hosts behind a switch have. The token bucket filter of the kernel (tc tbf) limits each direction. Needs Linux, root,
iproute2, procps; leaves nothing behind.
"""

import itertools
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Literal

BURST = "64kb"
"""What may pass at once: the size of the largest segment that the kernel hands down in one piece."""


def _run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, text=True)


def address(host: int) -> str:
    """A host's only address."""
    return f"10.77.0.{host + 1}"


def name(host: int | str) -> str:
    """The namespace of a host, told from others' by this process's number."""
    return f"mixbench-{os.getpid()}-{host}"


@contextmanager
def hosts(count: int, topology: Literal["mesh", "switch"], mbit_per_s: float) -> Iterator[list[Mapping[str, str]]]:
    """Build them, give each host's environment for torch.distributed, and take them down again."""
    made: list[str] = []
    try:
        for host in [*range(count), *(["switch"] if topology == "switch" else [])]:
            _run("ip", "netns", "add", name(host))
            made.append(name(host))
            _in(host, "ip", "link", "set", "lo", "up")
            # A connection that rested keeps its rate, as where such jobs run: a schedule is to be seen, not its first packets.
            _in(host, "sysctl", "-qw", "net.ipv4.tcp_slow_start_after_idle=0")
        (_mesh if topology == "mesh" else _switch)(count, mbit_per_s)
        yield [_environment(host, count, topology) for host in range(count)]
    finally:
        for namespace in made:
            with suppress(subprocess.CalledProcessError):
                _run("ip", "netns", "del", namespace)


def _in(host: int | str, *words: str) -> None:
    _run("ip", "netns", "exec", name(host), *words)


def _limit(host: int | str, device: str, mbit_per_s: float) -> None:
    bucket = ("tbf", "rate", f"{mbit_per_s}mbit", "burst", BURST, "latency", "20ms")
    _in(host, "tc", "qdisc", "add", "dev", device, "root", *bucket)


def _mesh(count: int, mbit_per_s: float) -> None:
    for one, other in itertools.combinations(range(count), 2):
        first, second = (("name", f"to{peer}", "netns", name(host)) for host, peer in ((one, other), (other, one)))
        _run("ip", "link", "add", *first, "type", "veth", "peer", *second)
    for host in range(count):
        for index, peer in enumerate(peer for peer in range(count) if peer != host):
            device = f"to{peer}"
            if index == 0:  # gloo finds a host's address by its device
                _in(host, "ip", "addr", "add", f"{address(host)}/32", "dev", device)
            _in(host, "ip", "link", "set", device, "up")
            _limit(host, device, mbit_per_s)
    for host in range(count):
        for peer in (peer for peer in range(count) if peer != host):
            _in(host, "ip", "route", "add", f"{address(peer)}/32", "dev", f"to{peer}", "src", address(host))


def _switch(count: int, mbit_per_s: float) -> None:
    _in("switch", "ip", "link", "add", "bridge", "type", "bridge")
    _in("switch", "ip", "link", "set", "bridge", "up")
    for host in range(count):
        port = f"port{host}"
        _run("ip", "link", "add", "up0", "netns", name(host), "type", "veth", "peer", "name", port, "netns", name("switch"))
        _in("switch", "ip", "link", "set", port, "master", "bridge", "up")
        _in(host, "ip", "addr", "add", f"{address(host)}/24", "dev", "up0")
        _in(host, "ip", "link", "set", "up0", "up")
        _limit(host, "up0", mbit_per_s)
        _limit("switch", port, mbit_per_s)


def _environment(host: int, count: int, topology: str) -> Mapping[str, str]:
    device = "up0" if topology == "switch" else f"to{1 if host == 0 else 0}"
    return {
        **os.environ,
        "RANK": str(host),
        "LOCAL_RANK": "0",
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": "1",
        "MASTER_ADDR": address(0),
        "MASTER_PORT": "29400",
        "GLOO_SOCKET_IFNAME": device,
        "OMP_NUM_THREADS": "1",
        "TORCH_CPP_LOG_LEVEL": "ERROR",
    }


def command(host: int, *words: str) -> list[str]:
    """Words that run on a host."""
    return ["ip", "netns", "exec", name(host), *words]
