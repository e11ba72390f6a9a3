"""A model of machines joined by links: what each transfer gets of the bandwidth when several run at once. No torch.

Three limits hold a transfer (tokenring's profiler pictures need all three, see hardware.toml): what one flow can use, what a
directed link carries, and what a rank's port carries in one direction. Flows share each limit max-min fairly (Bertsekas and
Gallager, Data Networks, section 6.5.2): no flow can get more without taking it from one that has no more.
"""

import math
import tomllib
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from ..models.errors import BadInput

TABLE = Path(__file__).with_name("hardware.toml")
Topology = Literal["mesh", "switch", "ring", "uplink"]


@dataclass(frozen=True, slots=True)
class Hardware:
    """One entry of hardware.toml: rates per second, bytes, seconds; an infinite limit limits nothing.

    ``tagged``: the backend tells messages apart by tags, as gloo does, so that receives are posted early
    (`models.strategies.buffers.early`).
    """

    name: str
    title: str
    topology: Topology
    flops_per_s: float
    efficiency: float
    source: str
    flow: float = math.inf
    link: float = math.inf
    port: float = math.inf
    latency_s: float = 0.0
    launch_s: float = 0.0
    memory_bytes_per_s: float = math.inf
    tagged: bool = False
    verified: bool = False

    def __post_init__(self) -> None:
        if self.topology not in ("mesh", "switch", "ring", "uplink"):
            raise BadInput(f"hardware {self.name!r} has no topology {self.topology!r}", "one of mesh, switch, ring, uplink")
        for name in ("flops_per_s", "efficiency", "flow", "link", "port", "memory_bytes_per_s"):
            if not getattr(self, name) > 0:
                raise BadInput(f"hardware {self.name!r}: {name} has to be above 0", "leave out a limit that is none")
        if math.isinf(min(self.flow, self.link, self.port)):
            raise BadInput(f"hardware {self.name!r} has no limit of bandwidth", "give it at least one of flow, link and port")

    def limits(self, source: int, target: int, ranks: int) -> list[tuple[Hashable, float]]:
        """What a transfer from one rank to another passes: resources by key, with what each carries."""
        found: list[tuple[Hashable, float]] = [(("flow", source, target, object()), self.flow)]
        if self.topology == "uplink":  # one port for both directions
            found += [(("port", source), self.port), (("port", target), self.port)]
        else:
            found += [(("out", source), self.port), (("in", target), self.port)]
        if self.topology == "ring":
            found += [(("link", *hop), self.link) for hop in _hops(source, target, ranks)]
        elif self.topology == "mesh":
            found.append((("link", source, target), self.link))
        return [(key, rate) for key, rate in found if math.isfinite(rate)]


def _hops(source: int, target: int, ranks: int) -> list[tuple[int, int]]:
    """The directed links on the shorter way round a ring."""
    ahead = (target - source) % ranks
    step = 1 if ahead <= ranks - ahead else -1
    hops, here = [], source
    while here != target:
        hops.append((here, (here + step) % ranks))
        here = (here + step) % ranks
    return hops


def share(transfers: Sequence[Sequence[tuple[Hashable, float]]]) -> list[float]:
    """Max-min fair rates of transfers that run at once, by progressive filling.

    Args:
        transfers: for each the resources that it passes, with what each carries.
    """
    room: dict[Hashable, float] = {}
    users: dict[Hashable, set[int]] = {}
    for index, limits in enumerate(transfers):
        for key, capacity in limits:
            room[key] = capacity
            users.setdefault(key, set()).add(index)
    rates = [math.inf] * len(transfers)
    open_ = {index for index, limits in enumerate(transfers) if limits}
    while open_:
        # The tightest resource settles the rate of all that pass it.
        tightest = min((key for key in room if users[key] & open_), key=lambda key: room[key] / len(users[key] & open_))
        settled = users[tightest] & open_
        rate = room[tightest] / len(settled)
        for index in settled:
            rates[index] = rate
            for key, _ in transfers[index]:
                room[key] = max(0.0, room[key] - rate)
        open_ -= settled
    return rates


def hardware(name: str, extra: Path | None = None) -> Hardware:
    """A machine by its name in mixbench's table or in the user's file.

    Raises:
        BadInput: for an unknown name, with near ones; for a file that is no such table.
    """
    entries = known(extra)
    if name not in entries:
        import difflib

        near = difflib.get_close_matches(name, entries, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"one of {', '.join(entries)}"
        raise BadInput(f"no hardware named {name!r}", hint)
    return entries[name]


def known(extra: Path | None = None) -> dict[str, Hardware]:
    """All machines: mixbench's, and the user's over them."""
    entries = _read(TABLE)
    return entries | _read(extra) if extra else entries


def _read(path: Path) -> dict[str, Hardware]:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadInput(f"{str(path)!r} can't be read as TOML: {error}", "see mixbench's hardware.toml for the form") from error
    return {name: _entry(path, name, values) for name, values in table.items()}


def _entry(path: Path, name: str, values: Any) -> Hardware:
    keys = {field.name for field in fields(Hardware)} - {"name"}
    if not isinstance(values, dict):
        raise BadInput(f"{str(path)!r}: {name} is no table", f"write [{name}] and its keys below")
    if unknown := sorted(set(values) - keys):
        raise BadInput(f"{str(path)!r}: [{name}] has an unknown key {unknown[0]!r}", f"known keys: {', '.join(sorted(keys))}")
    try:
        return Hardware(name=name, **values)
    except TypeError as error:
        raise BadInput(
            f"{str(path)!r}: [{name}] is incomplete: {error}", "see mixbench's hardware.toml for the form"
        ) from error
