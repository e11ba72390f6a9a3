"""``mixbench doctor``: the machine and the versions, for a bug report or before a measurement."""

import os
import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

from .. import options

if TYPE_CHECKING:
    from ..config import Loaded

SCHEMA = 1
_PACKAGES = ("mixbench", "torch", "typer", "rich", "fvcore", "onnx", "onnxruntime", "torch-tb-profiler", "tensorboard")


@dataclass(frozen=True, slots=True)
class Configured:
    """An option's value that is not its default, and where it stands."""

    command: str
    option: str
    value: str
    origin: str


@dataclass(frozen=True, slots=True)
class Machine:
    """What mixbench runs on. Memory is in bytes; ``accelerator`` is empty when torch sees none.

    Attributes:
        settings_file: the project's, with its folder; empty where there is none.
        settings: what it and the environment set, as it holds: what was overruled is not among them.
        targets: names of what `mixbench check` checks.
    """

    system: str
    processor: str
    logical_cores: int
    usable_cores: int
    memory_bytes: int
    free_memory_bytes: int
    accelerator: str
    threads: int
    versions: dict[str, str]
    settings_file: str
    settings: tuple[Configured, ...]
    targets: tuple[str, ...]
    notes: tuple[str, ...]
    command: str = "doctor"
    schema: int = SCHEMA


def doctor(
    context: typer.Context, form: options.Form = None, json: options.Json = False, output: options.Output = None
) -> None:
    """Show the machine, what torch sees of it, the versions of what mixbench stands on, and where each setting comes from.

    Examples:
        mixbench doctor
        mixbench doctor --json
    """
    from rich.table import Table
    from rich.text import Text

    from ..views import emit

    how = emit.choose(json, None, output, form=form)
    machine = _look(context.obj, context.find_root().command)

    def table() -> list[Table]:
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
        free, whole = machine.free_memory_bytes / 1e9, machine.memory_bytes / 1e9
        rows = [
            ("system", machine.system),
            ("processor", machine.processor),
            ("cores", f"{machine.usable_cores} usable of {machine.logical_cores}, torch uses {machine.threads} threads"),
            ("memory", f"{free:.1f} of {whole:.1f} GB free"),
            ("accelerator", machine.accelerator or "none that torch sees"),
            *machine.versions.items(),
            ("settings", machine.settings_file or "no [tool.mixbench] in pyproject.toml, no mixbench.toml"),
            *((f"{item.command} --{item.option}", f"{item.value}  from {item.origin}") for item in machine.settings),
            *([("targets", ", ".join(machine.targets))] if machine.targets else []),
            *(("note", note) for note in machine.notes),
        ]
        for name, value in rows:
            table.add_row(Text(name, style="dim"), Text(value))
        return [table]

    emit.emit(machine, how, output, table, list)


def _look(loaded: "Loaded", application: Any) -> Machine:
    from contextlib import chdir

    from ..config import TARGETS, strangers
    from ..targets import read

    config = loaded.config
    targets: tuple[str, ...] = ()
    if TARGETS in config.table:
        with chdir(config.folder):
            targets = tuple(target.name for target in read(config))  # before torch: a mistake is answered at once
    import psutil
    import torch

    from ...models.versions import versions

    memory = psutil.virtual_memory()
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return Machine(
        system=platform.platform(),
        processor=_processor(),
        logical_cores=os.cpu_count() or 1,
        usable_cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_bytes=memory.total,
        free_memory_bytes=memory.available,
        accelerator=f"{torch.accelerator.device_count()} x {device.type}" if device else "",
        threads=torch.get_num_threads(),
        versions=versions(*_PACKAGES),
        settings_file=str(config.path or ""),
        settings=tuple(
            Configured(item.command, item.option.replace("_", "-"), str(item.value), item.origin) for item in loaded.settings
        ),
        targets=targets,
        notes=(
            *([f"{config.shadowed} has settings too, which are not read"] if config.shadowed else []),
            *(f"{name} in the environment sets no option" for name in strangers(application.commands, os.environ)),
        ),
    )


def _processor() -> str:
    """The processor's name as the system gives it; Linux keeps it in /proc."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:  # noqa: PTH123
            return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
