"""``mixbench flops``: count what models compute."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .. import options

if TYPE_CHECKING:
    from ...models.spec import ModelSpec, Workload
    from ...profilers.runs.run import ModelResult

COUNTERS = ("fvcore", "torch")


def flops(
    models: options.Models,
    input: options.Input = None,
    batch: options.Batch = None,
    dim: options.Dim = None,
    dtype: options.Dtype = "float32",
    train: options.Train = False,
    kwarg: options.Kwarg = None,
    weights: options.Weights = None,
    reparameterised: options.Reparameterised = False,
    depth: Annotated[
        int | None,
        typer.Option("--depth", metavar="N", min=0, help="Show modules down to this depth.", rich_help_panel=options.OUTPUT),
    ] = None,
    by_op: Annotated[
        bool, typer.Option("--by-op", metavar="", help="Show each operator.", rich_help_panel=options.OUTPUT)
    ] = False,
    verify: Annotated[
        list[str] | None,
        typer.Option(
            "--verify",
            metavar="fvcore|torch",
            help="Another counter's word beside ours; may be repeated.",
            rich_help_panel=options.OUTPUT,
            autocompletion=lambda incomplete: [name for name in COUNTERS if name.startswith(incomplete)],
        ),
    ] = None,
    form: options.Form = None,
    json: options.Json = False,
    csv: options.Csv = False,
    output: options.Output = None,
    save: options.Save = False,
) -> None:
    """Count parameters, MACs, FLOPs and activations, exactly.

    MACs are multiply-accumulates of convolutions, matrix products and attention; FLOPs are 2 x MACs. Fourier transforms and
    elementwise work have buckets of their own. An operator without a rule is named, never a silent zero.

    An .onnx file is counted from its graph, at the sizes that its inputs have or are given by --input and --batch. A file in
    .html is a page with all modules and operators that needs no network.

    Examples:
        mixbench flops ghostnetv2
        mixbench flops ghostnetv2-1.3x --input 1x3x192x192 --depth 2 --by-op
        mixbench flops path/to/net.py:make --kwarg width=64 --json
        mixbench flops ghostnetv2 ghostnet --verify fvcore
        mixbench flops ghostnetv2 ghostnetv2.onnx --by-op
        mixbench flops ghostnetv2 affnet -o report.html
    """
    from ...models.errors import BadInput
    from ...models.lookup import resolve
    from ...models.spec import Workload
    from ..console import quick_imports, working
    from ..keeping import begin
    from ..views import emit, flops_view, report_page

    # Everything that can be wrong is found before torch, a second of import, is needed.
    how = emit.choose(json, csv, output, drawn=("html",), form=form)
    keeping = begin(save)
    settings = options.parse_settings(kwarg)
    specs = [Path(model) if model.endswith(".onnx") else resolve(model, settings) for model in models]
    workload = Workload(options.parse_inputs(input), batch, dtype, "train" if train else "eval", dims=options.parse_dims(dim))
    for name in verify or []:
        if name not in COUNTERS:
            raise BadInput(f"no counter named {name!r} for --verify", f"one of {', '.join(COUNTERS)}")
    if weights is not None and len(specs) > 1:
        raise BadInput("--weights fits one model, and several are named", "count them one by one")
    for_torch = {"--weights": weights, "--kwarg": kwarg, "--reparameterised": reparameterised, "--verify": verify}
    if (said := [word for word, on in for_torch.items() if on]) and all(isinstance(spec, Path) for spec in specs):
        raise BadInput(f"{said[0]} is for PyTorch models, and {str(specs[0])!r} is an ONNX file", f"leave {said[0]} out")
    options.check_weights(weights)

    with quick_imports():
        from ...profilers.runs.run import Run

    results = []
    for model, spec in zip(models, specs, strict=True):
        with working(f"counting {model}"):
            if isinstance(spec, Path):
                results.append(_count_file(spec, workload))
            else:
                results.append(_count_torch(spec, workload, weights, reparameterised, dict.fromkeys(verify or [])))
    run = Run(tuple(results))
    tables, rows = (lambda: flops_view.tables(run, depth, by_op)), (lambda: flops_view.rows(run, depth, by_op))
    emit.emit(run, how, output, tables, rows, lambda _: report_page.page(run), keeping)


def _count_file(path: Path, workload: "Workload") -> "ModelResult":
    """Of an ONNX file; torch stays unloaded."""
    from ...profilers.onnx_counter import count_onnx
    from ...profilers.runs.run import plain_result

    found = count_onnx(path, workload)
    return plain_result(str(path), found.workload, found.count)


def _count_torch(
    spec: "ModelSpec", workload: "Workload", weights: Path | None, reparameterised: bool, verify: Iterable[str]
) -> "ModelResult":
    from ..console import quick_imports

    with quick_imports():
        from ...models.case import build
        from ...profilers.counter import count
        from ...profilers.runs.run import result_of
        from ...profilers.second_opinion import second_opinion

    case = build(spec, workload, weights=weights, reparameterised=reparameterised)
    counted = count(case)
    return result_of(case, counted, tuple(second_opinion(case, counted, name) for name in verify))
