"""The part of ``mixbench scale`` that is about TokenRing: attention over a sequence that is spread over ranks."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ..views import emit

if TYPE_CHECKING:
    from ...models.spec import ModelSpec
    from ...profilers.runs.parallel_run import ParallelRun
    from ..keeping import Keeping

_MULTIPLES = {"k": 1024, "m": 1024**2}


@dataclass(frozen=True, slots=True)
class Asked:
    """The options of ``mixbench scale`` that only sequence-parallel attention has."""

    seq: str | None
    methods: str
    heads: int | None
    kv_heads: int | None
    head_dim: int | None
    causal: bool
    backward: bool
    hardware: str
    hardware_file: Path | None
    calibrate: bool
    crossover: bool
    slow: bool


def parse_lengths(text: str) -> tuple[int, ...]:
    """``8k,32k,128k`` as numbers of tokens; k is 1,024.

    Raises:
        BadInput: when it is no list of lengths.
    """
    from ...models.errors import BadInput

    found = []
    for word in text.lower().split(","):
        number, factor = (word[:-1], _MULTIPLES[word[-1]]) if word[-1:] in _MULTIPLES else (word, 1)
        if not number.isdecimal() or not int(number):
            raise BadInput(f"--seq {text!r} is no list of lengths", "write tokens with commas: --seq 8k,32k,131072")
        found.append(int(number) * factor)
    return tuple(dict.fromkeys(found))


def scale_attention(
    spec: "ModelSpec",
    asked: Asked,
    gpus: int,
    batch: int,
    dtype: str,
    weak: bool,
    device: str,
    threads: int | None,
    seconds: float,
    repeats: int,
    timeout: float,
    oversubscribe: bool,
    how: emit.Format,
    output: Path | None,
    keeping: "Keeping | None" = None,
) -> None:
    """Sweep methods of sequence-parallel attention over degrees and lengths, measured here and modelled beside it."""
    from ...models.errors import BadInput
    from ...profilers.joined import joined
    from ...profilers.links import hardware
    from ..console import bar, quick_imports
    from ..views import parallel_page, parallel_picture, parallel_view

    lengths = parse_lengths(asked.seq or "4k")
    machine = hardware(asked.hardware, asked.hardware_file)
    heads = asked.heads or spec.settings["heads"]
    kv_heads = asked.kv_heads or (heads if asked.heads else spec.settings["kv_heads"])
    if heads % kv_heads:
        raise BadInput(f"{heads} heads can't share {kv_heads} for keys and values", "the second has to divide the first")
    with quick_imports():
        from ...profilers.calibration import calibrate
        from ...profilers.parallel_job import Sweep, parse_methods
        from ...profilers.parallel_modelled import crossovers
        from ...profilers.parallel_sweep import record, sweep
        from ...profilers.runs.parallel_run import Workload
        from ...profilers.scaling import plan

    head_dim = asked.head_dim or spec.settings["width"] // spec.settings["heads"]
    work = Workload(batch, heads, kv_heads, head_dim, dtype, asked.causal, asked.backward)
    job = Sweep(parse_methods(asked.methods, asked.causal), lengths, work, weak, seconds, None, timeout, asked.slow, repeats)
    place = plan(gpus, device, threads, oversubscribe, joined())
    for note in () if asked.crossover else place.notes:
        typer.echo(f"note: {note}", err=True)
    ended: BaseException | None = None

    def show(run: "ParallelRun") -> None:
        tables, rows = (lambda: parallel_view.tables(run)), (lambda: parallel_view.rows(run))
        draw = lambda kind: parallel_page.page(run) if kind == "html" else parallel_picture.draw(run, kind)  # noqa: E731
        emit.emit(run, how, output, tables, rows, draw, keeping)

    with bar("starting processes") as update:
        if asked.calibrate:
            update("calibrating", 0.0)
            machine = calibrate(place, work, timeout_s=timeout)
        if asked.crossover:
            run = replace(record(job, place, machine), crossovers=tuple(crossovers(job, gpus, machine, update)))
        else:
            run, ended = sweep(job, place, machine, update, show)
    world = joined()
    if not world or world.rank == 0:
        show(run)
    if ended:
        raise ended
