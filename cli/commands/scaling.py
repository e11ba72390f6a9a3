"""``mixbench scale``: how throughput grows with the number of processes."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .. import options
from .scaling_attention import Asked, scale_attention

if TYPE_CHECKING:
    from ...profilers.runs.scale_run import ScaleRun

ATTENTION = "Sequence-parallel attention (tokenring)"


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
            "--weak",
            metavar="",
            help="--batch, or --seq, is of each rank, not of all together.",
            rich_help_panel=options.WORKLOAD,
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
    seq: Annotated[
        str | None,
        typer.Option("--seq", metavar="N[,N...]", help="Tokens in all, such as 8k,32k.", rich_help_panel=ATTENTION),
    ] = None,
    methods: Annotated[
        str,
        typer.Option("--methods", metavar="NAME[,...]", help="NAME or NAME:LAYOUT, or all.", rich_help_panel=ATTENTION),
    ] = "tokenring,ring,ulysses",
    heads: Annotated[
        int | None, typer.Option("--heads", metavar="N", min=1, help="Query heads.", rich_help_panel=ATTENTION)
    ] = None,
    kv_heads: Annotated[
        int | None, typer.Option("--kv-heads", metavar="N", min=1, help="Heads of keys and values.", rich_help_panel=ATTENTION)
    ] = None,
    head_dim: Annotated[
        int | None, typer.Option("--head-dim", metavar="N", min=1, help="Size of a head.", rich_help_panel=ATTENTION)
    ] = None,
    causal: Annotated[
        bool, typer.Option("--causal/--full", metavar="", help="Mask what comes later, or nothing.", rich_help_panel=ATTENTION)
    ] = False,
    backward: Annotated[
        bool, typer.Option("--backward", metavar="", help="The backward pass too.", rich_help_panel=ATTENTION)
    ] = False,
    hardware: Annotated[
        str, typer.Option("--hardware", metavar="NAME", help="The machine to model.", rich_help_panel=ATTENTION)
    ] = "a100-nvlink",
    hardware_file: Annotated[
        Path | None,
        typer.Option("--hardware-file", metavar="FILE", help="Machines of your own, in TOML.", rich_help_panel=ATTENTION),
    ] = None,
    calibrate: Annotated[
        bool,
        typer.Option("--calibrate", metavar="", help="Model the machine at hand, measured first.", rich_help_panel=ATTENTION),
    ] = False,
    crossover: Annotated[
        bool,
        typer.Option(
            "--crossover",
            metavar="",
            help="Model from which length on messages are hidden.",
            rich_help_panel=ATTENTION,
        ),
    ] = False,
    slow: Annotated[
        bool,
        typer.Option("--slow", metavar="", help="Measure steps too that take over 3 s.", rich_help_panel=ATTENTION),
    ] = False,
    form: options.Form = None,
    json: options.Json = False,
    csv: options.Csv = False,
    output: options.Output = None,
    save: options.Save = False,
) -> None:
    """Measure how throughput grows with the number of GPUs, or of CPU processes where there are none.

    The batch is split over 1, 2, 4, ... N ranks; with --weak each rank keeps its own. --train measures training steps of
    DistributedDataParallel, else independent replicas infer. A round takes as long as its slowest rank. A CPU process has one
    thread and one core unless --threads gives it more. Under torchrun or srun the ranks that are there are used.

    tokenring is spread over the sequence instead: its attention is measured beside ring attention, Ulysses and others at each
    degree that this machine can run, and modelled up to N for the hardware that is named.

    Examples:
        mixbench scale ghostnetv2 --gpus 2
        mixbench scale ghostnetv2 --gpus 2 --train --batch 8 --json
        mixbench scale affnet --gpus 2 --weak --batch 4
        mixbench scale tokenring --gpus 8 --seq 2k
        mixbench scale tokenring-llama3-8b --gpus 8 --seq 32k --crossover
    """
    from ...models.errors import BadInput
    from ...models.lookup import resolve
    from ...profilers.joined import joined
    from ..console import bar, quick_imports, silence
    from ..keeping import begin
    from ..views import emit, scale_page, scale_view

    place = joined()
    if place and place.rank:
        silence()  # all ranks run this; one of them speaks
    settings = options.parse_settings(kwarg)
    spec = resolve(model, settings)
    spread = spec.entry == "tokenring"
    own: tuple[emit.Format, ...] = ("png", "svg", "html") if spread else ("html",)
    how = emit.choose(json, csv, output if not place or place.rank == 0 else None, own, form)
    keeping = begin(save and (not place or place.rank == 0))
    asked = gpus or (place.degree if place else None)
    if asked is None:
        raise BadInput("--gpus is missing", "say how many: mixbench scale MODEL --gpus 2")
    given = (
        {
            "--input": input,
            "--train": train,
            "--compile": compiled,
            "--channels-last": channels_last,
        }
        if spread
        else {
            "--seq": seq,
            "--heads": heads,
            "--kv-heads": kv_heads,
            "--head-dim": head_dim,
            "--causal": causal,
            "--backward": backward,
            "--hardware-file": hardware_file,
            "--calibrate": calibrate,
            "--crossover": crossover,
            "--slow": slow,
        }
    )
    for name in (name for name, value in given.items() if value):
        is_it, hint = ("a", "it measures its attention only") if spread else ("no", "that is for tokenring")
        raise BadInput(f"{name} for {model}, which is {is_it} sequence-parallel attention", hint)
    if spread:
        of_attention = Asked(
            seq, methods, heads, kv_heads, head_dim, causal, backward, hardware, hardware_file, calibrate, crossover, slow
        )
        scale_attention(
            spec,
            of_attention,
            asked,
            batch or 1,
            dtype,
            weak,
            device,
            threads,
            seconds,
            repeats,
            timeout,
            oversubscribe,
            how,
            output,
            keeping,
        )
        return
    inputs = options.parse_inputs(input)
    with quick_imports():
        from ...profilers.scaling import Job, plan, sweep

    ranks = plan(asked, device, threads, oversubscribe, place)
    for note in ranks.notes:
        typer.echo(f"note: {note}", err=True)
    job = Job(model, settings, inputs, batch, dtype, train, weak, compiled, channels_last, seconds, None, repeats, timeout)

    def show(run: "ScaleRun") -> None:
        if any(point.step_ns for point in run.points):
            tables, rows = (lambda: scale_view.tables(run)), (lambda: scale_view.rows(run))
            emit.emit(run, how, output, tables, rows, lambda _: scale_page.page(run), keeping)

    with bar("starting processes") as update:
        run, ended = sweep(job, ranks, update, last_words=show)
    if not place or place.rank == 0:
        show(run)
    if ended:
        raise ended
