"""Every shared argument of the commands, named, typed, described and completed once."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..models.errors import BadInput

if TYPE_CHECKING:
    from ..models.spec import TensorSpec

MODEL, WORKLOAD, MEASUREMENT, OUTPUT = "Model", "Workload", "Measurement", "Output"
PRECISION = "Precision"


def _show_version(value: bool) -> None:
    if value:
        from ..models.versions import versions

        typer.echo(", ".join(f"{name} {number}" for name, number in versions("mixbench", "torch").items()))
        raise typer.Exit


def complete_model(incomplete: str) -> list[tuple[str, str]]:
    """Names that begin like this, with what each one is; torch stays unloaded."""
    from ..models.lookup import all_sources
    from ..models.registry import architectures

    found = [
        (source.prefix, source.title) for _, source in all_sources() if source.prefix and source.prefix.startswith(incomplete)
    ]
    for name in architectures.names():
        family = architectures.describe(name)
        names = [name, *(f"{name}-{variant}" for variant in family.variants)]
        found += [(word, family.title) for word in names if word.startswith(incomplete)]
    return found


def complete_hardware(incomplete: str) -> list[tuple[str, str]]:
    """Published devices that begin like this, with what each one is."""
    from ..profilers.peaks_published import known

    return [(name, device.title) for name, device in known().items() if name.startswith(incomplete)]


def complete_format(incomplete: str) -> list[str]:
    """Formats of a check that begin like this."""
    from .views import formats

    return [name for name in formats.names() if name.startswith(incomplete)]


def complete_precision(incomplete: str) -> list[str]:
    """What a file's numbers can be."""
    from ..export.precision.kinds.base import names

    return [name for name in ("fp32", *names()) if name.startswith(incomplete)]


def parse_settings(words: list[str] | None) -> dict[str, Any]:
    """``name=value`` pairs; a value is a Python literal, or else the text itself.

    Raises:
        BadInput: when a pair has no name or no ``=``.
    """
    import ast

    settings: dict[str, Any] = {}
    for word in words or []:
        name, equals, text = word.partition("=")
        if not equals or not name.isidentifier():
            raise BadInput(f"--kwarg {word!r} is not NAME=VALUE", "write for example --kwarg width=0.75")
        try:
            settings[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            settings[name] = text
    return settings


def check_weights(file: Path | None) -> None:
    """Refuse a checkpoint that is not there, before torch is loaded.

    Raises:
        BadInput: when there is no such file.
    """
    if file is not None and not file.is_file():
        raise BadInput(f"there is no file {str(file)!r}", "check the path of --weights")


def parse_batches(text: str | None) -> list[int | None]:
    """``1,8,32`` as numbers; None, the model's own batch, where nothing is asked for.

    Raises:
        BadInput: when it is no list of positive numbers.
    """
    if text is None:
        return [None]
    words = text.split(",")
    if not all(word.strip().isdecimal() and int(word) for word in words):
        raise BadInput(f"--batch {text!r} is no list of sizes", "write one, or several with commas: --batch 1,8,32")
    return list(dict.fromkeys(int(word) for word in words))


def parse_dims(words: list[str] | None) -> tuple[tuple[str, int], ...]:
    """The sizes that ``--dim`` gives, by name.

    Raises:
        BadInput: when a pair has another form, or a name has two sizes.
    """
    sizes: dict[str, int] = {}
    for word in words or []:
        name, _, text = word.rpartition("=")
        if not name or not text.isdecimal() or not int(text):
            raise BadInput(f"--dim {word!r} is not NAME=N", "write for example --dim seq=128")
        if sizes.setdefault(name, int(text)) != int(text):
            raise BadInput(f"--dim gives {name} the sizes {sizes[name]} and {text}", "give one")
    return tuple(sizes.items())


def parse_inputs(words: list[str] | None) -> tuple["TensorSpec", ...]:
    """The shapes that ``--input`` gives, in order."""
    from ..models.spec import TensorSpec

    return tuple(TensorSpec.parse(word) for word in words or [])


Version = Annotated[
    bool,
    typer.Option("--version", "-V", callback=_show_version, is_eager=True, metavar="", help="Show versions and exit."),
]
Debug = Annotated[bool, typer.Option("--debug", metavar="", help="Show the traceback of an error.")]
Models = Annotated[
    list[str],
    typer.Argument(
        metavar="MODEL",
        help="A name or a source from `mixbench models`, such as timm:resnet50 or file.py:factory, or an .onnx file.",
        autocompletion=complete_model,
        show_default=False,
    ),
]
Model = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="A name from `mixbench models`.", autocompletion=complete_model),
]
Exportable = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A name or a source from `mixbench models`, such as timm:resnet50, model.pt2 or file.py:factory.",
        autocompletion=complete_model,
        show_default=False,
    ),
]
Kwarg = Annotated[
    list[str] | None,
    typer.Option("--kwarg", metavar="NAME=VALUE", help="A setting of the model, such as width=0.75.", rich_help_panel=MODEL),
]
Weights = Annotated[
    Path | None,
    typer.Option("--weights", metavar="FILE", help="Load this checkpoint: .pth or .safetensors.", rich_help_panel=MODEL),
]
Reparameterised = Annotated[
    bool,
    typer.Option("--reparameterised", metavar="", help="The inference form: norms folded, where exact.", rich_help_panel=MODEL),
]
Input = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        metavar="SHAPE",
        help="An input, such as 1x3x192x192 or ids=1x128:int64; once for each.",
        rich_help_panel=WORKLOAD,
    ),
]
Dim = Annotated[
    list[str] | None,
    typer.Option(
        "--dim",
        metavar="NAME=N",
        help="Size of a dimension: batch, height, width, seq, or as the file calls it; once for each.",
        rich_help_panel=WORKLOAD,
    ),
]
Batch = Annotated[
    int | None,
    typer.Option("--batch", metavar="N", help="Size of the first dimension of the inputs.", rich_help_panel=WORKLOAD),
]
Dtype = Annotated[
    Literal["float32", "float64", "float16", "bfloat16"],
    typer.Option("--dtype", help="Of weights and inputs.", rich_help_panel=WORKLOAD),
]
Train = Annotated[
    bool,
    typer.Option("--train", metavar="", help="Forward and backward in train mode.", rich_help_panel=WORKLOAD),
]
Batches = Annotated[
    str | None,
    typer.Option(
        "--batch", metavar="N[,N...]", help="Sizes of the first dimension, one after the other.", rich_help_panel=WORKLOAD
    ),
]
Device = Annotated[
    str,
    typer.Option("--device", metavar="NAME", help="cpu, cuda, mps, xpu, or what torch has.", rich_help_panel=MEASUREMENT),
]
Threads = Annotated[
    int | None,
    typer.Option(
        "--threads",
        metavar="N",
        min=1,
        help="Threads of one operator, on as many cores; torch's own number if not given.",
        rich_help_panel=MEASUREMENT,
    ),
]
Seconds = Annotated[
    float, typer.Option("--seconds", metavar="S", min=0.01, help="At most so long for each.", rich_help_panel=MEASUREMENT)
]
Hardware = Annotated[
    list[str] | None,
    typer.Option(
        "--hardware",
        metavar="NAME",
        help="Model a device by its maker's peaks instead; may be repeated; `mixbench roofline --hardware list` names them.",
        rich_help_panel=MEASUREMENT,
        autocompletion=complete_hardware,
    ),
]
HardwareFile = Annotated[
    Path | None,
    typer.Option("--hardware-file", metavar="FILE", help="Devices of your own, in TOML.", rich_help_panel=MEASUREMENT),
]
Compile = Annotated[bool, typer.Option("--compile", metavar="", help="Through torch.compile.", rich_help_panel=MEASUREMENT)]
ChannelsLast = Annotated[
    bool,
    typer.Option("--channels-last", metavar="", help="That memory format for weights and images.", rich_help_panel=MEASUREMENT),
]
Precision = Annotated[
    str,
    typer.Option(
        "--precision",
        metavar="NAME",
        help="What the file's numbers are: fp32, fp16, int8 or w8a16 (8-bit weights, 16-bit activations).",
        rich_help_panel=PRECISION,
        autocompletion=complete_precision,
    ),
]
Calibrate = Annotated[
    str | None,
    typer.Option(
        "--calibrate",
        metavar="DATA",
        help="Learn ranges from a folder of images, a file.npz, file.py:loader, or random, which is marked in the file.",
        rich_help_panel=PRECISION,
        show_default=False,
    ),
]
MinSnr = Annotated[
    float | None,
    typer.Option(
        "--min-snr",
        metavar="DB",
        help="At least so near to float32: layers that hurt most stay float32, as few as it takes.",
        rich_help_panel=PRECISION,
        show_default=False,
    ),
]
Json = Annotated[
    bool, typer.Option("--json", metavar="", help="Print one JSON document and nothing else.", rich_help_panel=OUTPUT)
]
Csv = Annotated[bool, typer.Option("--csv", metavar="", help="Print comma-separated values.", rich_help_panel=OUTPUT)]
Form = Annotated[
    Literal["table", "json", "csv", "markdown", "html"] | None,
    typer.Option(
        "--format",
        metavar="NAME",
        help="table, json, csv, markdown or html; --json and --csv are short for two of them.",
        rich_help_panel=OUTPUT,
    ),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help="Write to a file; .json, .csv, .md, .html, .txt, or .png and .svg for a picture, say the format; - is the screen.",
        rich_help_panel=OUTPUT,
    ),
]
Save = Annotated[
    bool,
    typer.Option("--save", metavar="", help="Keep the run in .mixbench/history.db.", rich_help_panel=OUTPUT),
]
