"""Plain data about models: what is built, on which inputs, and what was published about it. No torch here."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, Literal

from .errors import BadInput

Mode = Literal["eval", "train"]
DTYPES = ("float32", "float64", "float16", "bfloat16")
INPUT_DTYPES = (*DTYPES, "int64", "int32", "int16", "int8", "uint8", "bool", "complex64", "complex128")
_SUFFIXES = {"k": 3, "M": 6, "G": 9}


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input tensor: its full shape, batch included; an empty ``dtype`` means the model's own.

    An empty ``name`` means a positional argument of ``forward``, any other a keyword argument. ``below`` is what integers stay
    below, or names the factory's setting that is, such as ``vocabulary``: then an example has random ones, else zeros, which
    index every table. It describes the values, so specs that differ in it alone are equal.
    """

    shape: tuple[int, ...]
    dtype: str = ""
    name: str = ""
    below: str | int = field(default="", compare=False)

    @classmethod
    def parse(cls, text: str) -> "TensorSpec":
        """Read ``[NAME=]SHAPE[:DTYPE]``, such as ``1x3x224x224`` or ``ids=1x128:int64``.

        Raises:
            BadInput: when the text has another form.
        """
        name, named, rest = text.rpartition("=")
        shape, typed, dtype = rest.partition(":")
        if named and not name.isidentifier():
            raise BadInput(f"input {text!r} has no parameter's name before its '='", "write NAME=SHAPE, or the shape alone")
        sizes = shape.replace("×", "x").split("x")
        if not all(size.isascii() and size.isdigit() for size in sizes):
            raise BadInput(f"input {text!r} is not a shape", "write sizes joined by x, such as 1x3x224x224 or 1x128:int64")
        if any(int(size) == 0 for size in sizes):
            raise BadInput(f"input {text!r} has a side of 0", "every size has to be at least 1")
        if typed and dtype not in INPUT_DTYPES:
            raise BadInput(f"input {text!r} has no known dtype", f"one of {', '.join(INPUT_DTYPES)}")
        return cls(tuple(map(int, sizes)), dtype, name)

    def __str__(self) -> str:
        sizes = "x".join(map(str, self.shape)) or "scalar"
        return (f"{self.name}=" if self.name else "") + sizes + (f":{self.dtype}" if self.dtype else "")


@dataclass(frozen=True, slots=True)
class Workload:
    """On what a model runs.

    Without ``inputs`` the model's own example is used; ``batch`` resizes dimension 0, ``dims`` dimensions by their names, see
    `dims`.
    """

    inputs: tuple[TensorSpec, ...] = ()
    batch: int | None = None
    dtype: str = "float32"
    mode: Mode = "eval"
    seed: int = 0
    dims: tuple[tuple[str, int], ...] = ()

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise BadInput(f"no dtype named {self.dtype!r} for a model", f"one of {', '.join(DTYPES)}")
        if self.batch is not None and self.batch < 1:
            raise BadInput(f"a batch of {self.batch} holds nothing", "give --batch a number from 1 up")
        if self.batch is not None and dict(self.dims).get("batch", self.batch) != self.batch:
            raise BadInput(f"a batch can't be {dict(self.dims)['batch']} and {self.batch}", "give --batch or --dim batch=N")

    @property
    def key(self) -> str:
        """A stable word for this workload, such as ``1x3x224x224-float32-eval``."""
        return "-".join([*map(str, self.inputs), self.dtype, self.mode])

    def resolved(self, inputs: tuple[TensorSpec, ...]) -> "Workload":
        """The same workload with the inputs that are really used, the batch and named sizes applied."""
        return replace(self, inputs=inputs, batch=None, dims=())


@dataclass(frozen=True, slots=True)
class Published:
    """A figure as it was printed, such as ``167M`` MACs, with its source.

    ``metric`` says which of our figures answers it (``params``, ``params_bn_folded``, ``macs``) or names a figure that is
    only reported (``top1_percent``). ``note`` explains the difference where rounding does not.
    """

    metric: str
    figure: str
    source: str
    note: str = ""

    @property
    def value(self) -> float:
        """The figure as a number: ``167M`` is 167,000,000."""
        return float(self._scaled()[0])

    def agrees(self, ours: int) -> bool:
        """Whether our figure, rounded to the digits that were printed, is the printed one."""
        value, unit = self._scaled()
        return abs(Decimal(ours) - value) <= unit / 2

    def _scaled(self) -> tuple[Decimal, Decimal]:
        digits, power = (self.figure[:-1], _SUFFIXES[self.figure[-1]]) if self.figure[-1] in _SUFFIXES else (self.figure, 0)
        number = Decimal(digits)
        exponent = number.as_tuple().exponent
        assert isinstance(exponent, int), "a published figure is finite"
        return number.scaleb(power), Decimal(1).scaleb(exponent + power)


@dataclass(frozen=True, slots=True)
class Variant:
    """A published size of an architecture: the settings that build it, its figures, and its inputs if not the family's."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    published: tuple[Published, ...] = ()
    inputs: tuple[TensorSpec, ...] = ()


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How the published accuracy's images became inputs; the file that a model is exported to says so.

    Attributes:
        layout: of the input, such as ``NCHW, RGB``.
        range: of a pixel before ``mean`` is taken off and ``std`` divided by, one number for each channel.
        resize: the shorter side in pixels, and ``crop`` the side of the middle that is kept.
    """

    layout: str
    range: tuple[float, float]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: int
    crop: int
    interpolation: str
    source: str


@dataclass(frozen=True, slots=True)
class Family:
    """An architecture: what it is, where it comes from, and its variants. Built by ``build`` in the same file."""

    title: str
    summary: str
    task: str
    paper: str
    paper_url: str
    repository: str
    inputs: tuple[TensorSpec, ...]
    variants: Mapping[str, Variant]
    default: str
    supports: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    preprocessing: Preprocessing | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """Where models come from that are not mixbench's own: what a file of ``sources/`` assigns to ``SOURCE``.

    Attributes:
        form: how a model of it is named, such as ``timm:NAME``.
        title: what it is, in words.
        patterns: wildcards for its names; of several that fit a name, the longest decides.
        needs: modules that have to be importable, and ``extra``, the extra of mixbench that installs them ("" for none).
    """

    form: str
    title: str
    patterns: tuple[str, ...]
    needs: tuple[str, ...] = ()
    extra: str = ""

    @property
    def prefix(self) -> str:
        """What its names begin with, such as ``timm:``; empty where they have no common beginning."""
        return self.patterns[0].partition("*")[0]


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What the user's words name: a way to the factory (which may cost an import of torch), and its settings."""

    name: str
    factory: Callable[[], Callable[..., Any]]
    settings: Mapping[str, Any] = field(default_factory=dict)
    entry: str = ""
    """The family's name in the registry; empty for a user's own model."""
    changed: bool = False
    """Whether the user changed a setting, so that published figures no longer apply."""
    family: Family | None = None
    variant: Variant | None = None
    companion_inputs: Callable[[], Any] | None = None
    """A user's ``<factory>_inputs`` function, when there is one."""
    source: str = ""
    """The library whose weights are random until some are loaded, such as ``timm``; empty for all else."""
    label: str = ""
    """The name for others' eyes, without the path to a file of the user's; ``name`` itself if empty."""
    preprocessing: Callable[[], Preprocessing | None] | None = None
    """How images became inputs, where a library says so; a family says it itself."""

    @property
    def example_inputs(self) -> tuple[TensorSpec, ...]:
        """The inputs that the variant or else its family is published with; empty for a user's own model."""
        variant = self.variant.inputs if self.variant else ()
        return variant or (self.family.inputs if self.family else ())
