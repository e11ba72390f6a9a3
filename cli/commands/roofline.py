"""``mixbench roofline``: what bounds a model, and how near to its bound it runs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .. import options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...models.spec import ModelSpec, Workload
    from ...profilers.runs.roofline_run import RooflineRun
    from ...profilers.timing import Timing

_LIST = "list"


def roofline(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL",
            help="A name from `mixbench models`, path/to/file.py:factory, package.module:factory, or an .onnx file; "
            "without one the roofs alone.",
            autocompletion=options.complete_model,
            show_default=False,
        ),
    ] = None,
    input: options.Input = None,
    batch: options.Batch = None,
    dtype: options.Dtype = "float32",
    train: options.Train = False,
    kwarg: options.Kwarg = None,
    weights: options.Weights = None,
    reparameterised: options.Reparameterised = False,
    device: options.Device = "cpu",
    threads: options.Threads = None,
    compiled: options.Compile = False,
    channels_last: options.ChannelsLast = False,
    timed: Annotated[
        bool,
        typer.Option(
            "--time/--no-time", metavar="", help="Time the models beside their floors.", rich_help_panel=options.MEASUREMENT
        ),
    ] = True,
    seconds: options.Seconds = 5.0,
    trace: Annotated[
        bool,
        typer.Option(
            "--trace",
            metavar="",
            help="The time of each operator too, under torch's profiler; implies --by-op.",
            rich_help_panel=options.MEASUREMENT,
        ),
    ] = False,
    measure_again: Annotated[
        bool,
        typer.Option(
            "--measure-again",
            metavar="",
            help="Measure this machine's peaks anew, whatever is kept.",
            rich_help_panel=options.MEASUREMENT,
        ),
    ] = False,
    hardware: options.Hardware = None,
    hardware_file: options.HardwareFile = None,
    by_op: Annotated[
        bool, typer.Option("--by-op", metavar="", help="Show each operator.", rich_help_panel=options.OUTPUT)
    ] = False,
    form: options.Form = None,
    json: options.Json = False,
    csv: options.Csv = False,
    output: options.Output = None,
    save: options.Save = False,
) -> None:
    """Say what bounds a model, arithmetic or bytes, and how near to its bound it runs.

    The peaks of this machine are measured once and kept: contractions by dtype, bandwidths of memory and caches. Under them
    stand two floors: of all operators, each on its own, and of the bytes that no fusion avoids. The measured time is a share
    of both. With --hardware a device that is not at hand is modelled: floors, no times.

    Examples:
        mixbench roofline
        mixbench roofline ghostnetv2 --threads 1 --by-op
        mixbench roofline ghostnetv2 affnet --batch 8 -o roofline.svg
        mixbench roofline ghostnetv2 --dtype float16 --hardware l4 --hardware h100-sxm
        mixbench roofline --hardware list
    """
    from ...models.errors import BadInput
    from ...models.lookup import resolve
    from ...models.spec import Workload
    from ..keeping import begin
    from ..views import emit, roofline_page, roofline_picture, roofline_view

    # Everything that can be wrong is found before torch, a second of import, is needed.
    how = emit.choose(json, csv, output, ("png", "svg", "html"), form)
    keeping = begin(save)
    names = list(dict.fromkeys(models or []))
    settings_given = options.parse_settings(kwarg)
    specs = [Path(model) if model.endswith(".onnx") else resolve(model, settings_given) for model in names]
    workload = Workload(options.parse_inputs(input), batch, dtype, "train" if train else "eval")
    if weights is not None and len(specs) != 1:
        raise BadInput(f"--weights fits one model, and {len(specs)} are named", "name one")
    options.check_weights(weights)
    if hardware_file is not None and not hardware:
        raise BadInput("--hardware-file says of what, but not which", "name one by --hardware, or list them by --hardware list")
    for_here = {
        "--threads": threads,
        "--measure-again": measure_again,
        "--trace": trace,
        "--compile": compiled,
        "--channels-last": channels_last,
        "--device": device != "cpu",
    }
    if hardware and (said := [word for word, given in for_here.items() if given]):
        raise BadInput(f"{said[0]} is for the machine at hand, and --hardware models another", "leave one of them out")
    if trace and (compiled or not specs or any(isinstance(spec, Path) for spec in specs)):
        raise BadInput("--trace is for models of PyTorch that are not compiled", "leave it out; `mixbench trace` takes all")
    for_torch = {"--weights": weights, "--kwarg": kwarg, "--reparameterised": reparameterised, "--compile": compiled}
    if specs and all(isinstance(spec, Path) for spec in specs) and (said := [word for word, on in for_torch.items() if on]):
        raise BadInput(f"{said[0]} is for PyTorch models, and {names[0]!r} is an ONNX file", f"leave {said[0]} out")
    by_op = by_op or trace

    if hardware:
        run = _modelled(hardware, hardware_file, specs, workload, weights, reparameterised)
    else:
        settings = (threads, compiled, channels_last, reparameterised, weights, seconds)
        run = _here(specs, workload, device, settings, timed, trace, measure_again)
    emit.emit(
        run,
        how,
        output,
        lambda: roofline_view.tables(run, by_op),
        lambda: roofline_view.rows(run, by_op),
        lambda kind: roofline_page.page(run, by_op) if kind == "html" else roofline_picture.draw(run, kind),
        keeping,
    )
    if run.partial:
        raise typer.Exit(130)


def _modelled(
    hardware: list[str],
    hardware_file: Path | None,
    specs: "list[ModelSpec | Path]",
    workload: "Workload",
    weights: Path | None,
    reparameterised: bool,
) -> "RooflineRun":
    """Nothing is measured: with no model, torch stays unloaded."""
    from ...models.errors import BadInput
    from ...profilers.peaks_published import known
    from ...profilers.runs.roofline_run import RooflineRun, modelled_place
    from .. import roofs
    from ..console import quick_imports, working

    if _LIST in hardware:
        if specs or len(hardware) > 1:
            raise BadInput("--hardware list only lists devices", "leave the rest out")
        return RooflineRun(tuple(map(modelled_place, known(hardware_file).values())), (), None, ())
    of_torch = not all(isinstance(spec, Path) for spec in specs)
    places = roofs.modelled(hardware, hardware_file, workload.dtype if of_torch else None)
    if not specs:
        return RooflineRun(tuple(places), (), None, ())
    with quick_imports():
        from ...profilers.roofline_session import place_modelled, works
        from ...profilers.timing_session import Settings

    with working("counting"):
        done = works(specs, workload, Settings(weights=weights, reparameterised=reparameterised))
    return place_modelled(places, done)


def _here(
    specs: "list[ModelSpec | Path]",
    workload: "Workload",
    device: str,
    given: "tuple[int | None, bool, bool, bool, Path | None, float]",
    timed: bool,
    trace: bool,
    again: bool,
) -> "RooflineRun":
    """The machine at hand."""
    from ...profilers.machine import pin
    from .. import roofs
    from ..console import bar, quick_imports, working

    threads, compiled, channels_last, reparameterised, weights, seconds = given
    if threads and device == "cpu":
        pin(threads)  # before torch starts its threads
    with quick_imports():
        import torch

        from ...profilers.devices.base import find
        from ...profilers.roofline_session import place_here, time_models, trace_model, works
        from ...profilers.timing_session import Settings

    if threads:
        torch.set_num_threads(threads)
    settings = Settings(
        threads, compiled, channels_last, reparameterised=reparameterised, weights=weights, seconds=seconds, roofline=False
    )
    found = find(device)
    with working("counting"):
        done = works(specs, workload, settings)
    here = roofs.measured(found, done, again)
    times = None
    if timed and specs:
        with bar("warming up") as update:

            def show(timings: "Sequence[Timing]", share: float) -> None:
                update(", ".join(f"{item.subject.name} {item.latency.value / 1e6:.4g} ms" for item in timings), share)

            times = time_models(specs, workload, found, settings, show)
    traces = []
    for spec in specs if trace and not (times and times.partial) else ():
        assert not isinstance(spec, Path), "refused above"
        with working(f"tracing {spec.name}"):
            traces.append(trace_model(spec, workload, found, settings))
    if times is None:
        return place_here(here, done, (), traces)
    return place_here(here, done, [timing.latency for timing in times.timings], traces, times.warnings, times.partial)
