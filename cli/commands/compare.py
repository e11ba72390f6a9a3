"""``mixbench compare``: several models in one table, two part by part, or many in the plane of cost and quality."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .. import options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ...models.spec import ModelSpec, Workload
    from ...profilers.compared import Counted
    from ...profilers.runs.compare_run import Compared
    from ...profilers.runs.roofline_run import Place, RooflineRun
    from ...profilers.runs.timing_run import TimeRun

_SHOWN = 40
"""Lines of differences on a screen; a file has all."""


def _complete_metric(incomplete: str) -> list[tuple[str, str]]:
    """Metrics that begin like this, with what each one is."""
    from ...profilers.runs.compare_run import METRICS

    return [(name, item.label) for name, item in METRICS.items() if name.startswith(incomplete)]


def compare(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="As for `mixbench flops`, the first is the reference; 'ghostnetv2-*' in quotes means all variants.",
            autocompletion=options.complete_model,
            show_default=False,
        ),
    ],
    input: options.Input = None,
    batch: options.Batch = None,
    dim: options.Dim = None,
    dtype: options.Dtype = "float32",
    train: options.Train = False,
    kwarg: options.Kwarg = None,
    reparameterised: options.Reparameterised = False,
    by_module: Annotated[
        bool,
        typer.Option("--by-module", metavar="", help="Where two models differ, by module.", rich_help_panel=options.OUTPUT),
    ] = False,
    by_op: Annotated[
        bool, typer.Option("--by-op", metavar="", help="Where two models differ, by operator.", rich_help_panel=options.OUTPUT)
    ] = False,
    depth: Annotated[
        int | None,
        typer.Option(
            "--depth",
            metavar="N",
            min=0,
            help="With --by-module: what lies deeper belongs to the module there.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = None,
    x: Annotated[
        str | None,
        typer.Option(
            "--x",
            metavar="METRIC",
            help="Plot over this cost, and mark the Pareto front; macs if only --y is given.",
            rich_help_panel=options.OUTPUT,
            autocompletion=_complete_metric,
        ),
    ] = None,
    y: Annotated[
        str | None,
        typer.Option(
            "--y",
            metavar="METRIC",
            help="What is plotted; top1 if only --x is given.",
            rich_help_panel=options.OUTPUT,
            autocompletion=_complete_metric,
        ),
    ] = None,
    timed: Annotated[
        bool,
        typer.Option(
            "--time",
            metavar="",
            help="Measure latency too, side by side, as `mixbench time` does.",
            rich_help_panel=options.MEASUREMENT,
        ),
    ] = False,
    roofline: Annotated[
        bool,
        typer.Option(
            "--roofline",
            metavar="",
            help="Under the measured peaks of this machine too, as `mixbench roofline` does.",
            rich_help_panel=options.MEASUREMENT,
        ),
    ] = False,
    hardware: options.Hardware = None,
    hardware_file: options.HardwareFile = None,
    device: options.Device = "cpu",
    threads: options.Threads = None,
    seconds: options.Seconds = 5.0,
    form: options.Form = None,
    json: options.Json = False,
    csv: options.Csv = False,
    output: options.Output = None,
    save: options.Save = False,
) -> None:
    """Compare models: what each costs, and what accuracy is published for it.

    With --time also how long a call takes, with --roofline what bounds it. --by-module and --by-op say where two models differ.
    --x and --y plot one figure over another and mark the Pareto front. An .onnx file may stand beside PyTorch models, so that
    one command shows what an export changed. A file in .html is one page of all this, with each model's modules and operators.

    Examples:
        mixbench compare ghostnetv2 ghostnet
        mixbench compare ghostnetv2 ghostnet --by-module --depth 2
        mixbench compare ghostnetv2 ghostnetv2.onnx --time --threads 1
        mixbench compare 'ghostnet*-*' 'affnet-*' --x macs --y top1 --output front.svg
        mixbench compare ghostnetv2 affnet --roofline --hardware t4 -o report.html
    """
    from ...models.errors import BadInput
    from ...models.spec import Workload
    from ...profilers.machine import pin
    from ...profilers.runs.compare_run import CompareRun, check_front, front_of
    from .. import roofs
    from ..console import bar, quick_imports
    from ..keeping import begin
    from ..views import compare_page, compare_view, emit, pareto_chart

    how = emit.choose(json, csv, output, drawn=("png", "svg", "html"), form=form)
    keeping = begin(save)
    specs = _resolve(models, kwarg)
    of_two = [word for word, on in (("--by-module", by_module), ("--by-op", by_op)) if on]
    if of_two and len(specs) != 2:
        raise BadInput(f"{of_two[0]} takes two models, and {len(specs)} are named", "name two")
    _check_leading(
        ("--depth", depth is not None, "--by-module", by_module),
        ("--hardware", bool(hardware), "--roofline", roofline),
        ("--hardware-file", hardware_file is not None, "--hardware", bool(hardware)),
    )
    files = [spec for _, spec in specs if isinstance(spec, Path)]
    if how in ("png", "svg") and not (x or y):
        raise BadInput("a picture shows one figure over another, and neither is named", "add --x macs --y top1")
    axes = _axes(x, y, timed, bool(files))
    for word, on in (("--kwarg", kwarg), ("--reparameterised", reparameterised), ("--train", train)):
        if on and files and (word == "--train" or len(files) == len(specs)):
            raise BadInput(f"{word} is for PyTorch models, and {str(files[0])!r} is an ONNX file", f"leave {word} out")
    workload = Workload(options.parse_inputs(input), batch, dtype, "train" if train else "eval", dims=options.parse_dims(dim))
    places = roofs.modelled(hardware or (), hardware_file, dtype if len(files) < len(specs) else None)
    if (timed or (roofline and not places)) and threads and device == "cpu":
        pin(threads)  # before torch starts its threads
    with quick_imports():
        from ...profilers import compared

    counted = []
    with bar("counting") as update:
        for place, (word, spec) in enumerate(specs):
            update(f"counting {word}", place / len(specs))
            counted.append(compared.count_one(spec, workload, reparameterised))
    found = list(compared.told_apart(counted))
    differences = [compared.by_module(found[0], found[1], depth)] if by_module else []
    differences += [compared.by_operator(found[0], found[1])] if by_op else []
    if axes:
        check_front([item.compared for item in found], *axes)
    placed = _roofs(found, places, device, threads) if roofline else None
    time = _time([spec for _, spec in specs], workload, device, threads, seconds, reparameterised) if timed else None
    weighed = tuple(compared.with_latencies([item.compared for item in found], time))
    front = front_of(weighed, *axes) if axes else None
    run = CompareRun(weighed, tuple(differences), front, time, placed(weighed, time) if placed else None)
    most = None if output is not None else _SHOWN
    tables, rows = (lambda: compare_view.tables(run, most)), (lambda: compare_view.rows(run))
    emit.emit(
        run,
        how,
        output,
        tables,
        rows,
        lambda kind: compare_page.page(run) if kind == "html" else pareto_chart.draw(run, kind),
        keeping,
    )
    if run.partial:
        raise typer.Exit(130)


def _check_leading(*pairs: tuple[str, bool, str, bool]) -> None:
    """Refuse an option without the one that it is for: each with whether it was given."""
    from ...models.errors import BadInput

    for word, given, leading, leads in pairs:
        if given and not leads:
            raise BadInput(f"{word} is for {leading}, which is not there", f"add {leading}")


def _resolve(models: "Sequence[str]", kwarg: list[str] | None) -> "list[tuple[str, ModelSpec | Path]]":
    """The models in order; one that a wildcard names again is left out.

    Raises:
        BadInput: when nothing has a name, or there are fewer than two.
    """
    from ...models.errors import BadInput
    from ...models.lookup import resolve
    from ..targets import models_named

    settings = options.parse_settings(kwarg)
    found: list[tuple[str, ModelSpec | Path]] = []
    for given in models:
        for word in [given] if given.endswith(".onnx") else models_named(given):
            spec = Path(word) if word.endswith(".onnx") else resolve(word, settings)
            name = word if isinstance(spec, Path) else spec.name
            if isinstance(spec, Path) and not spec.is_file():
                raise BadInput(f"there is no file {word!r}", "check the path; it is relative to the folder you are in")
            if word == given or name not in (known for known, _ in found):
                found.append((name, spec))
    if len(found) < 2:
        raise BadInput(f"only {found[0][0]} is named, with nothing to compare it with", "`mixbench flops` shows one model")
    return found


def _axes(x: str | None, y: str | None, timed: bool, files: bool) -> tuple[str, str] | None:
    """The metrics of the plot; None where none is asked for.

    Raises:
        BadInput: when one is unknown, or no model will have it.
    """
    from ...models.errors import BadInput
    from ...profilers.runs.compare_run import metric

    if not (x or y):
        return None
    found = (x or "macs", y or "top1")
    for name, option in zip(found, ("--x", "--y"), strict=True):
        metric(name, option)
        if name == "latency" and not timed:
            raise BadInput(f"{option} latency is not measured", "add --time")
        if name == "file_bytes" and not files:
            raise BadInput(f"{option} file_bytes is of .onnx files, and none is named", "`mixbench export` makes one")
    return found


def _time(
    specs: "Iterable[ModelSpec | Path]",
    workload: "Workload",
    device: str,
    threads: int | None,
    seconds: float,
    reparameterised: bool,
) -> "TimeRun":
    """All models side by side, without what only `mixbench time` shows."""
    from dataclasses import replace

    from ...profilers.devices.base import find
    from ...profilers.timing_session import Settings, onnx_maker, time_models, torch_maker
    from .timing import timing_bar

    settings = Settings(threads, reparameterised=reparameterised, seconds=seconds, roofline=False)
    found = find(device)
    makers = [onnx_maker(s, found, settings) if isinstance(s, Path) else torch_maker(s, found, settings) for s in specs]
    with timing_bar() as progress:
        return time_models(makers, replace(workload, batch=None), [workload.batch], found, settings, progress)


def _roofs(
    found: "Sequence[Counted]", places: "Sequence[Place]", device: str, threads: int | None
) -> "Callable[[Sequence[Compared], TimeRun | None], RooflineRun]":
    """What places the models under roofs once their times are known: peaks are measured, and refused, before the models are.

    Args:
        places: modelled devices; none for this machine.
    """
    import torch

    from ...profilers.compared import works
    from ...profilers.devices.base import find
    from ...profilers.roofline_session import place_here, place_modelled
    from .. import roofs

    done = works(found)
    if places:
        under = place_modelled(places, done)
        return lambda models, time: under
    if threads:
        torch.set_num_threads(threads)
    here = roofs.measured(find(device), done)
    return lambda models, time: place_here(
        here, done, [item.latency_ns for item in models], partial=time is not None and time.partial
    )
