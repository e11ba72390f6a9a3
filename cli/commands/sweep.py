"""``mixbench sweep``: how costs grow with the batch, the resolution and the sequence."""

from typing import TYPE_CHECKING, Annotated

import typer

from .. import options

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...models.spec import ModelSpec
    from ...profilers.axes import Axis


def sweep(
    model: options.Exportable,
    batch: Annotated[
        str | None,
        typer.Option(
            "--batch",
            metavar="RANGE",
            help="Of the first side of all inputs, such as 1:64, which doubles.",
            rich_help_panel=options.WORKLOAD,
        ),
    ] = None,
    resolution: Annotated[
        str | None,
        typer.Option(
            "--resolution",
            metavar="RANGE",
            help="Of the last two sides of images, such as 128:320, in steps of 32.",
            rich_help_panel=options.WORKLOAD,
        ),
    ] = None,
    seq: Annotated[
        str | None,
        typer.Option(
            "--seq",
            metavar="RANGE",
            help="Of the last side of ids, or the middle one of (B, S, width), such as 1k:128k.",
            rich_help_panel=options.WORKLOAD,
        ),
    ] = None,
    input: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            metavar="SHAPE",
            help="As for `mixbench flops`; a side may be B, R or S, the sizes of the options above.",
            rich_help_panel=options.WORKLOAD,
        ),
    ] = None,
    dim: options.Dim = None,
    dtype: options.Dtype = "float32",
    train: options.Train = False,
    kwarg: Annotated[
        list[str] | None,
        typer.Option(
            "--kwarg",
            metavar="NAME=VALUE",
            help="A setting of the model; {batch}, {resolution} and {seq} in it are the sizes.",
            rich_help_panel=options.MODEL,
        ),
    ] = None,
    reparameterised: options.Reparameterised = False,
    form: options.Form = None,
    json: options.Json = False,
    csv: options.Csv = False,
    output: options.Output = None,
    save: options.Save = False,
) -> None:
    """Count a model at many sizes, and say how its cost grows.

    A RANGE is START:STOP, START:STOP:STEP or a list; k is 1,024. Each axis is swept by itself, the others stay at the model's
    own size, or at the one size that is given. Nothing is computed: shapes alone are counted, so a model of any size takes
    seconds. Where a cost is a polynomial of the size it is given exactly, else as a power law with its slope at the end.

    Examples:
        mixbench sweep ghostnetv2 --resolution 128:320 --batch 1:64
        mixbench sweep tokenring-llama3-8b --seq 1k:128k
        mixbench sweep path/to/net.py:make --seq 64:1k --input 1xSx256 --kwarg length={seq}
        mixbench sweep affnet --resolution 128:512:64 --output affnet.html
    """
    from ...models.errors import BadInput
    from ...models.lookup import resolve
    from ...profilers.axes import LETTERS, Template, parse_values
    from ..console import bar, quick_imports
    from ..keeping import begin
    from ..views import emit, sweep_page, sweep_view

    how = emit.choose(json, csv, output, drawn=("png", "svg", "html"), form=form)
    keeping = begin(save)
    given: dict[Axis, str | None] = {"batch": batch, "resolution": resolution, "seq": seq}
    values = {axis: parse_values(axis, text) for axis, text in given.items() if text is not None}
    if not any(len(sizes) > 1 for sizes in values.values()):
        alone = ", ".join(f"--{axis} {sizes[0]}" for axis, sizes in values.items())
        what = f"{alone} alone is no range" if alone else "no range is given"
        raise BadInput(what, "add --batch 1:64, --resolution 128:320 or --seq 1k:32k")
    for word in kwarg or []:
        if absent := [axis for axis in LETTERS if f"{{{axis}}}" in word and axis not in values]:
            raise BadInput(f"--kwarg {word!r} takes the size of --{absent[0]}, which is not there", f"add --{absent[0]}")
    sizes = options.parse_dims(dim)
    axes: dict[str, Axis] = {"batch": "batch", "height": "resolution", "width": "resolution", "seq": "seq"}
    if swept := [name for name, _ in sizes if axes.get(name) in values]:
        raise BadInput(f"--dim {swept[0]} and --{axes[swept[0]]} are one side of an input", "give one of them")
    if dim and input:
        raise BadInput("--dim sizes the model's own inputs, and --input gives others", "write the sizes into --input")
    if model.endswith(".onnx"):
        raise BadInput(f"{model!r} is an ONNX file, and sizes are swept of PyTorch models", "name the model it is of")

    def spec(sizes: "Mapping[Axis, int]") -> "ModelSpec":
        words = list(kwarg or [])
        for axis, size in sizes.items():
            words = [word.replace(f"{{{axis}}}", str(size)) for word in words]
        return resolve(model, options.parse_settings(words))

    spec({axis: sizes[0] for axis, sizes in values.items()})  # a wrong name is told before torch is loaded
    templates = tuple(map(Template.parse, input or []))
    with quick_imports():
        from ...profilers.cost_sweep import Asked
        from ...profilers.cost_sweep import sweep as engine

    follows = any(f"{{{axis}}}" in word for word in kwarg or [] for axis in LETTERS)
    asked = Asked(spec, values, templates, dtype, "train" if train else "eval", reparameterised, follows, sizes)
    with bar("counting") as update:
        run = engine(asked, update)
    tables, rows = (lambda: sweep_view.tables(run)), (lambda: sweep_view.rows(run))
    emit.emit(
        run,
        how,
        output,
        tables,
        rows,
        lambda kind: sweep_page.page(run) if kind == "html" else sweep_view.draw(run, kind),
        keeping,
    )
