"""``mixbench scale``: how throughput grows with the number of processes."""

from typing import Annotated

import typer

from .. import options


def scale(
    model: options.Model,
    gpus: Annotated[
        int | None,
        typer.Option(
            "--gpus",
            metavar="N",
            min=1,
            help="Measure 1, 2, 4, ... N of them; all of a world that torchrun or SLURM has started.",
            rich_help_panel=options.MEASUREMENT,
        ),
    ] = None,
    input: options.Input = None,
    batch: options.Batch = None,
    dtype: options.Dtype = "float32",
    train: options.Train = False,
    kwarg: options.Kwarg = None,
    weak: Annotated[
        bool,
        typer.Option(
            "--weak", metavar="", help="--batch is of each rank, not of all together.", rich_help_panel=options.WORKLOAD
        ),
    ] = False,
    device: options.Device = "auto",
    threads: options.Threads = None,
    compiled: options.Compile = False,
    channels_last: options.ChannelsLast = False,
    seconds: Annotated[
        float,
        typer.Option(
            "--seconds", metavar="S", min=0.01, help="Of rounds in each process.", rich_help_panel=options.MEASUREMENT
        ),
    ] = 2.0,
    repeats: Annotated[
        int,
        typer.Option(
            "--repeats", metavar="N", min=1, help="Fresh processes so many times.", rich_help_panel=options.MEASUREMENT
        ),
    ] = 3,
    timeout: Annotated[
        float,
        typer.Option(
            "--timeout",
            metavar="S",
            min=1,
            help="A rank without progress for so long hangs.",
            rich_help_panel=options.MEASUREMENT,
        ),
    ] = 300.0,
    oversubscribe: Annotated[
        bool,
        typer.Option(
            "--oversubscribe",
            metavar="",
            help="More processes than cores, marked as such.",
            rich_help_panel=options.MEASUREMENT,
        ),
    ] = False,
    json: options.Json = False,
    csv: options.Csv = False,
    output: options.Output = None,
) -> None:
    """Measure how throughput grows with the number of GPUs, or of CPU processes where there are none.

    The batch is split over 1, 2, 4, ... N ranks; with --weak each rank keeps its own. --train measures training steps of
    DistributedDataParallel, else independent replicas infer. A round takes as long as its slowest rank. A CPU process has one
    thread and one core unless --threads gives it more. Under torchrun or srun the ranks that are there are used.

    Examples:
        mixbench scale ghostnetv2 --gpus 2
        mixbench scale ghostnetv2 --gpus 2 --train --batch 8 --json
        mixbench scale affnet --gpus 2 --weak --batch 4
    """
    from ...models.errors import BadInput
    from ...models.lookup import resolve
    from ...profilers.joined import joined
    from ..console import bar, quick_imports, silence
    from ..views import emit, scale_view

    place = joined()
    if place and place.rank:
        silence()  # all ranks run this; one of them speaks
    how = emit.choose(json, csv, output if not place or place.rank == 0 else None)
    settings = options.parse_settings(kwarg)
    resolve(model, settings)
    asked = gpus or (place.degree if place else None)
    if asked is None:
        raise BadInput("--gpus is missing", "say how many: mixbench scale MODEL --gpus 2")
    inputs = options.parse_inputs(input)
    with quick_imports():
        from ...profilers.scaling import Job, plan, sweep

    ranks = plan(asked, device, threads, oversubscribe, place)
    for note in ranks.notes:
        typer.echo(f"note: {note}", err=True)
    job = Job(model, settings, inputs, batch, dtype, train, weak, compiled, channels_last, seconds, None, repeats, timeout)
    with bar("starting processes") as update:
        run, failure = sweep(job, ranks, update)
    if (not place or place.rank == 0) and any(point.step_ns for point in run.points):
        emit.emit(run, how, output, lambda: scale_view.tables(run), lambda: scale_view.rows(run))
    if failure:
        raise failure
