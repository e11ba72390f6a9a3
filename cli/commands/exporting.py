"""``mixbench export``: a model as a file that runs elsewhere, verified."""

import json as json_format
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ...export.opset import DEFAULT_OPSET
from ...models.errors import BadInput, MixbenchError
from .. import options

if TYPE_CHECKING:
    from ...export.artifact import Artifact, ExportRun, Latency, Refusal
    from ...export.source import Source
    from ...export.targets.base import Target
    from ...models.case import Case
    from ...models.spec import ModelSpec, Workload
    from ..keeping import Keeping
    from ..views.emit import Format

FILE, FORM = "File", "Form"


@dataclass(frozen=True, slots=True)
class Asked:
    """What the user asks for, checked as far as it can be without torch.

    Attributes:
        said: words for the file's metadata; ``labels``, the names of classes among them.
        every: whether all formats are asked for, of which one may fail.
    """

    spec: "ModelSpec"
    workload: "Workload"
    weights: Path | None
    keep: list[str]
    dynamic: list[str]
    opset: int
    said: dict[str, str]
    labels: list[str]
    precision: str
    calibrate: str | None
    min_snr: float | None
    every: bool
    report: bool


def complete_target(incomplete: str) -> list[str]:
    """Formats that begin like this."""
    from ...export.targets.base import names

    return [name for name in (*names(), "all") if name.startswith(incomplete)]


def export(
    model: options.Exportable,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="MODEL with the format's ending if not given.", rich_help_panel=FILE
        ),
    ] = None,
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="FORMAT[,FORMAT...]",
            help="onnx, another format that is installed, or all.",
            rich_help_panel=FILE,
            autocompletion=complete_target,
        ),
    ] = "onnx",
    labels: Annotated[
        Path | None,
        typer.Option("--labels", metavar="FILE", help="Names of the classes, to go into the file.", rich_help_panel=FILE),
    ] = None,
    licence: Annotated[
        str, typer.Option("--licence", metavar="WORDS", help="Of the weights, to go into the file.", rich_help_panel=FILE)
    ] = "",
    opset: Annotated[
        int, typer.Option("--opset", metavar="N", help="Of ONNX, 18 to 25.", rich_help_panel=FORM)
    ] = DEFAULT_OPSET,
    dynamic: Annotated[
        str | None,
        typer.Option(
            "--dynamic",
            metavar="NAME[,NAME...]",
            help="Leave open: batch, height, width, seq, or INPUT.DIMENSION=NAME.",
            rich_help_panel=FORM,
        ),
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option("--keep", metavar="NAME[,NAME...]", help="Rewrites to leave out.", rich_help_panel=FORM),
    ] = None,
    precision: options.Precision = "fp32",
    calibrate: options.Calibrate = None,
    min_snr: options.MinSnr = None,
    report: Annotated[
        bool,
        typer.Option(
            "--report",
            metavar="",
            help="Say what phones' runtimes make of the file; MODEL may be an .onnx file then.",
            rich_help_panel=FILE,
        ),
    ] = False,
    input: options.Input = None,
    batch: options.Batch = None,
    dim: options.Dim = None,
    kwarg: options.Kwarg = None,
    weights: options.Weights = None,
    form: options.Form = None,
    json: options.Json = False,
    save: options.Save = False,
) -> None:
    """Export a model to a file for on-device runtimes; only a file that was run beside PyTorch and agrees is written.

    By default one ONNX file with fixed sizes: batch norms folded, nothing in it that tells of this machine, the same bytes for
    the same weights. Exit code 1 means that a file was made and is not the model: a file that was there before is kept.

    Examples:
        mixbench export ghostnetv2 -o ghostnetv2.onnx
        mixbench export ghostnetv2 --weights ghostnetv2.pth --labels imagenet.txt --dynamic batch
        mixbench export path/to/net.py:make --input 1x3x64x64 --json
        mixbench export affnet-et --to all
        mixbench export ghostnetv2.onnx --report
        mixbench export ghostnetv2 --weights ghostnetv2.pth --precision int8 --calibrate photos/ --min-snr 25
    """
    from ...export.artifact import ExportRun
    from ...export.labels import read_labels
    from ...export.opset import check_opset
    from ...export.precision.asked import check_asked
    from ...export.rewrites.base import check_known
    from ...models.lookup import resolve
    from ...models.spec import Workload
    from ..console import stages
    from ..keeping import begin
    from ..portability import portability_of
    from ..views import emit

    # Everything that can be wrong is found before torch is loaded and work begins.
    how = emit.choose(json, None, None, form=form)
    workload = Workload(options.parse_inputs(input), batch, dims=options.parse_dims(dim))
    if model.endswith(".onnx"):
        if not report:
            raise BadInput(f"{model!r} is an ONNX file already", "name the model that it was made from, or add --report")
        _emit(ExportRun(model, (), portability=portability_of(Path(model), workload)), how, None)
        return
    spec = resolve(model, options.parse_settings(kwarg))
    check_opset(opset)
    kept, opened = _split(keep), _split(dynamic)
    check_known(kept)
    places = _places(to, output, spec.label or spec.name)
    check_asked(precision, calibrate, min_snr, list(places))
    options.check_weights(weights)
    if report and "onnx" not in places:
        raise BadInput("--report reads ONNX files, and --to makes none", "add onnx to --to")
    words = read_labels(labels) if labels is not None else []
    keeping = begin(save)

    said = ({"labels": json_format.dumps(words)} if words else {}) | ({"licence": licence} if licence else {})
    asked = Asked(spec, workload, weights, kept, opened, opset, said, words, precision, calibrate, min_snr, to == "all", report)
    with stages(f"building {spec.name}") as stage:
        run = _made(asked, places, stage)
    _emit(run, how, keeping)


def _made(asked: Asked, places: "dict[str, tuple[Target, Path]]", stage: "Callable[[str], None]") -> "ExportRun":
    """Build, capture, convert, verify and write; the record of it."""
    from ..console import quick_imports

    with quick_imports():
        from ...export.artifact import ExportRun
        from ...export.capture import capture
        from ...export.deliver import deliver
        from ...export.graph import to_graph
        from ...export.graph_checks import decides
        from ...export.labels import check_labels
        from ...export.precision.apply import apply, least_snr_db
        from ...export.verify import expect
        from ...models.case import build
        from ..portability import portability_of

    case = build(asked.spec, asked.workload, "cpu", asked.weights)
    source = capture(case, asked.keep, asked.dynamic, _costs(case) | asked.said)
    stage(f"capturing {asked.spec.name}")
    graph = to_graph(source, asked.opset)
    stage("running PyTorch in float32 and float64")
    expectation = expect(source, decides(graph.model))
    if asked.labels:
        check_labels(asked.labels, expectation.samples[0].expected[0].shape)
    source, graph, expectation, reduced = apply(
        source, graph, expectation, asked.precision, asked.calibrate, asked.min_snr, stage
    )
    artifacts: list[Artifact] = []
    refusals: list[Refusal] = []
    for name, (target, path) in places.items():
        with _all_or_this(not asked.every or name == "onnx", name, refusals):
            artifacts.append(deliver(name, target, source, graph, expectation, path, stage, least_snr_db(reduced)))
    if asked.every:
        stage("timing")
        artifacts = [replace(made, latency=_latency(made, places[made.target][0], source)) for made in artifacts]
    found = portability_of(places["onnx"][1], _filled(source)) if asked.report else ()
    return ExportRun(asked.spec.name, tuple(artifacts), tuple(refusals), reduced, found)


@contextmanager
def _all_or_this(needed: bool, name: str, refusals: "list[Refusal]") -> Iterator[None]:
    """Note a format that fails and go on, unless it is needed."""
    from ...export.artifact import Refusal

    try:
        yield
    except MixbenchError as error:
        if needed:
            raise
        refusals.append(Refusal(name, error.what, error.hint))


def _emit(run: "ExportRun", how: "Format", keeping: "Keeping | None") -> None:
    from ..views import emit, export_view

    emit.emit(run, how, None, lambda: export_view.tables(run), lambda: (), keeping=keeping)


def _filled(source: "Source") -> "Workload":
    """The example's sizes, for dimensions that the file leaves open."""
    from ...models.spec import TensorSpec, Workload

    return Workload(tuple(TensorSpec(tuple(tensor.shape), "", name) for name, tensor in source.inputs.items()))


def _split(words: str | None) -> list[str]:
    return [word.strip() for word in words.split(",") if word.strip()] if words else []


def _places(to: str, output: Path | None, model: str) -> "dict[str, tuple[Target, Path]]":
    """The formats that are asked for and where each goes; what can't be written is refused."""
    from ...export.targets.base import check_installed, find, names
    from ...models.files import check_writable

    chosen = names() if to == "all" else list(dict.fromkeys(_split(to)))
    if not chosen:
        raise BadInput("--to names no format", f"one of {', '.join(names())}, or all")
    named = output or Path(model.rpartition(":")[2])
    places = {}
    for name in chosen:
        target = find(name)
        alone = output is not None and len(chosen) == 1
        # A variant such as 1.0x looks like an ending, but is none.
        ending = named.suffix if output is not None else ""
        path = named if alone else named.with_name(named.name.removesuffix(ending) + target.suffix)
        if not (target.folder and path.is_dir()):
            check_writable(path)
        if to != "all":
            check_installed(name, target)
        places[name] = target, path
    return places


def _costs(case: "Case") -> dict[str, str]:
    """Exact costs on the example inputs, for the file's metadata."""
    from ...profilers.counter import count

    counted = count(case.on("meta"))
    return {"params": str(counted.params), "macs": str(counted.totals.macs), "flops": str(counted.totals.flops)}


def _latency(artifact: "Artifact", target: "Target", source: "Source") -> "Latency | None":
    """One call of a file here, by the method of `mixbench time`; None where nothing here runs it."""
    from ...export.artifact import Latency
    from ...export.quiet import quiet
    from ...profilers.devices.base import find as find_device
    from ...profilers.subject import Subject
    from ...profilers.timing import measure

    if target.open is None:
        return None
    with quiet():
        runner = target.open(Path(artifact.path), 1)
    feeds = {name: tensor.numpy() for name, tensor in source.inputs.items()}
    found = measure([Subject(artifact.target, lambda: runner(feeds))], find_device("cpu"), seconds=1.0).timings[0].latency
    return Latency(found.value, found.low, found.high, found.samples)
