"""``mixbench flops``: count what models compute."""

from typing import Annotated

import typer

from .. import options

COUNTERS = ("fvcore", "torch")


def flops(
    models: options.Models,
    input: options.Input = None,
    batch: options.Batch = None,
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
    json: options.Json = False,
    csv: options.Csv = False,
    output: options.Output = None,
    save: options.Save = False,
) -> None:
    """Count parameters, MACs, FLOPs and activations, exactly.

    MACs are multiply-accumulates of convolutions, matrix products and attention; FLOPs are 2 x MACs. Fourier transforms and
    elementwise work have buckets of their own. An operator without a rule is named, never a silent zero.

    Examples:
        mixbench flops ghostnetv2
        mixbench flops ghostnetv2-1.3x --input 1x3x192x192 --depth 2 --by-op
        mixbench flops path/to/net.py:make --kwarg width=64 --json
        mixbench flops ghostnetv2 ghostnet --verify fvcore
    """
    from ...models.errors import BadInput
    from ...models.lookup import resolve
    from ...models.spec import Workload
    from ..console import quick_imports, working
    from ..keeping import begin
    from ..views import emit, flops_view

    # Everything that can be wrong is found before torch, a second of import, is needed.
    how = emit.choose(json, csv, output)
    keeping = begin(save)
    specs = [resolve(model, options.parse_settings(kwarg)) for model in models]
    inputs = options.parse_inputs(input)
    workload = Workload(inputs, batch, dtype, "train" if train else "eval")
    for name in verify or []:
        if name not in COUNTERS:
            raise BadInput(f"no counter named {name!r} for --verify", f"one of {', '.join(COUNTERS)}")
    if weights is not None and len(specs) > 1:
        raise BadInput("--weights fits one model, and several are named", "count them one by one")
    if weights is not None and not weights.is_file():
        raise BadInput(f"there is no file {str(weights)!r}", "check the path of --weights")

    with quick_imports():
        from ...models.case import build
        from ...profilers.counter import count
        from ...profilers.runs.run import Run, result_of
        from ...profilers.second_opinion import second_opinion

    results = []
    for spec in specs:
        with working(f"counting {spec.name}"):
            case = build(spec, workload, weights=weights, reparameterised=reparameterised)
            counted = count(case)
            opinions = tuple(second_opinion(case, counted, name) for name in dict.fromkeys(verify or []))
            results.append(result_of(case, counted, opinions))
    run = Run(tuple(results))
    tables, rows = (lambda: flops_view.tables(run, depth, by_op)), (lambda: flops_view.rows(run, depth, by_op))
    emit.emit(run, how, output, tables, rows, keeping=keeping)
