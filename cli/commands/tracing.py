"""``mixbench trace``: where the time of a model goes."""

import contextlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import options

if TYPE_CHECKING:
    from ...profilers.runs.trace_run import Trace

_SEE: Any = {"rich_help_panel": options.OUTPUT}


def trace(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A name or a source from `mixbench models`, such as timm:resnet50 or file.py:factory, or an .onnx file.",
            autocompletion=options.complete_model,
        ),
    ],
    input: options.Input = None,
    batch: options.Batch = None,
    dim: options.Dim = None,
    dtype: options.Dtype = "float32",
    train: options.Train = False,
    kwarg: options.Kwarg = None,
    weights: options.Weights = None,
    reparameterised: options.Reparameterised = False,
    device: options.Device = "cpu",
    threads: options.Threads = None,
    compile: options.Compile = False,
    channels_last: options.ChannelsLast = False,
    steps: Annotated[
        int,
        typer.Option("--steps", metavar="N", min=1, help="Calls to trace, after warm-up.", rich_help_panel=options.MEASUREMENT),
    ] = 5,
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            metavar="MODEL|FILE",
            help="Show the difference to another model, to a file in .onnx, or to a trace saved by -o FILE.json.",
            rich_help_panel=options.MEASUREMENT,
        ),
    ] = None,
    depth: Annotated[int, typer.Option("--depth", metavar="N", min=0, help="Show modules down to this depth.", **_SEE)] = 1,
    top: Annotated[int, typer.Option("--top", metavar="N", min=0, help="Rows of each table; 0 is all.", **_SEE)] = 20,
    trace_file: Annotated[
        Path | None,
        typer.Option("--trace", metavar="FILE", help="Write a Chrome trace, in .json or .json.gz, for Perfetto.", **_SEE),
    ] = None,
    tensorboard_dir: Annotated[
        Path | None,
        typer.Option("--tensorboard-dir", metavar="DIR", help="Write a trace that TensorBoard's profiler shows.", **_SEE),
    ] = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", metavar="", help="Start TensorBoard on it, until Ctrl-C.", **_SEE)
    ] = False,
    port: Annotated[
        int | None,
        typer.Option("--port", metavar="N", min=1, max=65535, help="Of TensorBoard; a free one if not given.", **_SEE),
    ] = None,
    form: options.Form = None,
    json: options.Json = False,
    csv: options.Csv = False,
    output: options.Output = None,
    save: options.Save = False,
) -> None:
    """Show where the time of a model goes: by operator, by module, and as a flame graph.

    A few steady calls run under torch's profiler (or ONNX Runtime's), which lengthens them: the time without it is shown too.
    FLOPs are mixbench's exact count, bytes are the least that each operator has to read and write. A file in .html is a page
    with the flame graph that needs no network.

    Examples:
        mixbench trace ghostnetv2
        mixbench trace ghostnetv2 --train --depth 2 -o page.html
        mixbench trace ghostnetv2 --threads 1 --against ghostnet
        mixbench trace model.onnx --input x=1x3x224x224 --trace trace.json.gz
        mixbench trace ghostnetv2 --tensorboard
    """
    from ...models.lookup import resolve
    from ...models.spec import Workload
    from ...profilers.machine import pin
    from ...profilers.runs.trace_run import TraceRun, compared, read
    from ..console import quick_imports, working
    from ..keeping import begin
    from ..views import emit, flame, trace_view

    # Everything that can be wrong is found before torch, a second of import, is needed.
    how = emit.choose(json, csv, output, drawn=("html",), form=form)
    keeping = begin(save)
    names = [model, *([against] if against is not None else [])]
    own = [name for name in names if not name.endswith((".onnx", ".json"))]
    for_torch = {
        "--train": train,
        "--weights": weights,
        "--kwarg": kwarg,
        "--reparameterised": reparameterised,
        "--compile": compile,
        "--channels-last": channels_last,
        "--dtype": dtype != "float32",
        "--device": device != "cpu",
    }
    _check(names, own, [option for option, given in for_torch.items() if given], weights)
    _check_places(trace_file, tensorboard_dir, (tensorboard or tensorboard_dir is not None) and model not in own)
    specs = {name: resolve(name, options.parse_settings(kwarg)) for name in own}
    workload = Workload(options.parse_inputs(input), batch, dtype, "train" if train else "eval", dims=options.parse_dims(dim))
    saved = read(Path(against)) if against is not None and against.endswith(".json") else None

    if threads and device == "cpu":
        pin(threads)  # before torch starts its threads
    with quick_imports():
        import torch

        from ...models.case import build
        from ...profilers import onnx_tracing, tracing
        from ...profilers import tensorboard as board
        from ...profilers.devices.base import find
        from ...profilers.subject import torch_subject

    place = find(device)
    if threads is not None:
        torch.set_num_threads(threads)

    def traced(name: str, first: bool) -> "Trace":
        keep = trace_file if first else None
        if name.endswith(".onnx"):
            return onnx_tracing.trace_onnx(Path(name), workload, threads, steps, keep)
        on_meta = build(specs[name], workload, weights=weights, reparameterised=reparameterised)
        subject = torch_subject(on_meta.on(device), compile, channels_last)
        recording = tracing.trace_torch(subject, place, on_meta, steps)
        if keep is not None:
            tracing.write_chrome_trace(recording.profiler, keep)
        if first and folder is not None:
            board.write_folder(subject, place, folder, steps)
        return recording.trace

    with _folder(tensorboard_dir, tensorboard) as folder:
        with working(f"tracing {model}"):
            found = traced(model, first=True)
        run = TraceRun(found)
        if against is not None:
            with working(f"tracing {against}"):
                run = compared(found, saved or traced(against, first=False))
        emit.emit(
            run,
            how,
            output,
            lambda: trace_view.tables(run, depth, top),
            lambda: trace_view.rows(run),
            lambda _: flame.page(run),
            keeping,
        )
        if tensorboard and folder is not None:
            _serve(folder, port)


def _check(names: list[str], own: list[str], for_torch: list[str], weights: Path | None) -> None:
    """Refuse options that fit none of the models."""
    from ...models.errors import BadInput

    model = names[0]
    if model.endswith(".json"):
        raise BadInput(f"{model!r} is a saved trace, not a model", "mixbench trace MODEL --against FILE.json compares with it")
    for name in names:
        if name.endswith(".onnx") and not Path(name).is_file():
            raise BadInput(f"there is no file {name!r}", "check the path; it is relative to the folder you are in")
    if for_torch and not own:
        raise BadInput(f"{for_torch[0]} is for PyTorch models, and {model!r} is an ONNX file", "leave it out")
    if weights is not None and len(own) > 1:
        raise BadInput("--weights fits one model, and two are named", "save one trace by -o FILE.json and compare with that")
    options.check_weights(weights)


def _check_places(trace_file: Path | None, folder: Path | None, board_without_torch: bool) -> None:
    """Refuse places that can't be written, and a TensorBoard that would have nothing to show, before any work."""
    from ...models.errors import BadInput
    from ...models.files import check_writable

    if board_without_torch:
        raise BadInput("TensorBoard shows traces of PyTorch models only", "--trace FILE.json writes what Perfetto shows")
    if folder is not None and folder.exists() and not folder.is_dir():
        raise BadInput(f"{str(folder)!r} is a file", "--tensorboard-dir takes a folder")
    if trace_file is not None:
        if not trace_file.name.endswith((".json", ".json.gz")):
            raise BadInput(f"--trace {str(trace_file)!r} is no Chrome trace by its name", "end it in .json or .json.gz")
        check_writable(trace_file)


@contextmanager
def _folder(asked: Path | None, tensorboard: bool) -> Iterator[Path | None]:
    """Where the trace for TensorBoard goes: the folder asked for, one that lasts as long as TensorBoard, or nowhere."""
    if asked is not None or not tensorboard:
        yield asked
    else:
        with TemporaryDirectory(prefix="mixbench-tensorboard-") as folder:
            yield Path(folder)


def _serve(folder: Path, port: int | None) -> None:
    """TensorBoard until Ctrl-C, which ends it well."""
    from ...profilers import tensorboard as board
    from ..console import working

    with board.ended_like_ctrl_c(), contextlib.suppress(KeyboardInterrupt), ExitStack() as stack:
        with working("starting TensorBoard"):
            address, process = stack.enter_context(board.serving(folder, port))
        typer.echo(f"TensorBoard shows it at {address} (its charts need the internet); Ctrl-C ends it", err=True)
        process.wait()
