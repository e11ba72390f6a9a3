"""``mixbench time``: how long models take, side by side."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .. import options

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...profilers.timing import Progress, Timing


def time(
    models: options.Models,
    input: options.Input = None,
    batch: options.Batches = None,
    dim: options.Dim = None,
    dtype: options.Dtype = "float32",
    train: options.Train = False,
    kwarg: options.Kwarg = None,
    weights: options.Weights = None,
    reparameterised: options.Reparameterised = False,
    device: options.Device = "cpu",
    threads: options.Threads = None,
    compiled: options.Compile = False,
    channels_last: options.ChannelsLast = False,
    cuda_graph: Annotated[
        bool, typer.Option("--cuda-graph", metavar="", help="Replay a CUDA graph.", rich_help_panel=options.MEASUREMENT)
    ] = False,
    seconds: Annotated[
        float,
        typer.Option("--seconds", metavar="S", min=0.01, help="At most so long for each.", rich_help_panel=options.MEASUREMENT),
    ] = 5.0,
    precision: Annotated[
        float,
        typer.Option(
            "--precision",
            metavar="PERCENT",
            min=0.01,
            help="Stop early when intervals reach no further to either side.",
            rich_help_panel=options.MEASUREMENT,
        ),
    ] = 1.0,
    samples: Annotated[
        int | None,
        typer.Option("--samples", metavar="N", min=1, help="So many calls instead.", rich_help_panel=options.MEASUREMENT),
    ] = None,
    roofline: Annotated[
        bool, typer.Option(metavar="", help="Measure what the machine could do as well.", rich_help_panel=options.MEASUREMENT)
    ] = True,
    form: options.Form = None,
    json: options.Json = False,
    csv: options.Csv = False,
    output: options.Output = None,
    save: options.Save = False,
) -> None:
    """Measure latency, throughput and peak memory; several models are measured side by side and compared.

    Medians come with a 99 % interval that assumes no distribution. Rounds take one call of each model, in random order. The
    first call is shown apart. With --train a call is a training step: forward, backward, SGD. An .onnx file runs in ONNX
    Runtime.

    Examples:
        mixbench time ghostnetv2 ghostnet --threads 1
        mixbench time ghostnetv2 --batch 1,8 --dtype bfloat16 --channels-last
        mixbench time affnet --train --seconds 10 --json
        mixbench time ghostnetv2 --output latency.svg
    """
    from ...models.errors import BadInput
    from ...models.lookup import resolve
    from ...models.spec import Workload
    from ...profilers.machine import pin
    from ..console import quick_imports
    from ..keeping import begin
    from ..views import emit, timing_view

    how = emit.choose(json, csv, output, drawn=("png", "svg"), form=form)
    keeping = begin(save)
    settings_given = options.parse_settings(kwarg)
    specs = [Path(model) if model.endswith(".onnx") else resolve(model, settings_given) for model in models]
    workload = Workload(options.parse_inputs(input), None, dtype, "train" if train else "eval", dims=options.parse_dims(dim))
    batches = options.parse_batches(batch)
    if weights is not None and len(specs) > 1:
        raise BadInput("--weights fits one model, and several are named", "time them one by one")
    options.check_weights(weights)
    if threads and device == "cpu":
        pin(threads)  # before torch starts its threads
    with quick_imports():
        from ...profilers.devices.base import find
        from ...profilers.timing_session import Settings, onnx_maker, time_models, torch_maker

    settings = Settings(
        threads, compiled, channels_last, cuda_graph, reparameterised, weights, seconds, samples, precision / 100, roofline
    )
    found = find(device)
    makers = [
        onnx_maker(spec, found, settings) if isinstance(spec, Path) else torch_maker(spec, found, settings) for spec in specs
    ]
    with timing_bar() as progress:
        run = time_models(makers, workload, batches, found, settings, progress, _tell)
    tables, rows = (lambda: timing_view.tables(run)), (lambda: timing_view.rows(run))
    emit.emit(run, how, output, tables, rows, lambda kind: timing_view.draw(run, kind), keeping)
    if run.partial:
        raise typer.Exit(130)


def _tell(text: str) -> None:
    typer.echo(f"note: {text}", err=True)


@contextmanager
def timing_bar() -> "Iterator[Callable[[str], Progress]]":
    """A bar with the running medians, on a terminal."""
    from ..console import bar
    from ..views.table import ns

    with bar("warming up") as update:

        def start(label: str) -> "Progress":
            def show(timings: "Sequence[Timing]", share: float) -> None:
                medians = (f"{timing.subject.name} {ns(timing.latency.value)}" for timing in timings)
                update(label + ", ".join(medians), share)

            update(f"{label}warming up", 0.0)
            return show

        yield start
