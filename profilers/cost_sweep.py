"""What a model costs at many sizes of its inputs: each axis by itself, the others held, all on the meta device."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ..models.case import build
from ..models.errors import BadInput, MixbenchError
from ..models.spec import Mode, ModelSpec, Workload
from .axes import AXES, LETTERS, Axis, Template, letters_in, mark
from .counter import count
from .runs.run import result_of
from .runs.sweep_run import Refused, SweepPoint, SweepRun, growth_of, point_of

Sizes = Mapping[Axis, int]


@dataclass(frozen=True, slots=True)
class Asked:
    """What to sweep.

    Attributes:
        spec: the model for some sizes. It is built anew for each, on the meta device in some hundredths of a second, so that
            nothing that it keeps from one size is left at the next.
        values: for each axis; an axis with one size is not swept but held there.
        inputs: with letters, as `axes.Template` reads them; empty for the model's own.
        rebuilt: whether settings follow the sizes.
        dims: sizes of the model's own inputs by name, where none are given.
    """

    spec: Callable[[Sizes], ModelSpec]
    values: Mapping[Axis, tuple[int, ...]]
    inputs: tuple[Template, ...] = ()
    dtype: str = "float32"
    mode: Mode = "eval"
    reparameterised: bool = False
    rebuilt: bool = False
    dims: tuple[tuple[str, int], ...] = ()


def sweep(asked: Asked, progress: Callable[[str, float], None] = lambda text, share: None) -> SweepRun:
    """Count at each size of each axis.

    A size at which the model fails is recorded with its error, and the others go on.

    Raises:
        BadInput: when it can't be told which side of which input an axis is, or no size works.
    """
    first = {axis: sizes[0] for axis, sizes in asked.values.items()}
    templates, held = _placed(asked, first)
    points: list[SweepPoint] = []
    refused: list[Refused] = []
    notes: dict[str, None] = {}
    jobs = [(axis, size) for axis, sizes in asked.values.items() if len(sizes) > 1 for size in sizes]
    last: MixbenchError | None = None
    for done, (axis, size) in enumerate(jobs):
        progress(f"{axis} {size:,}", done / len(jobs))
        sizes: dict[Axis, int] = {**held, axis: size}
        workload = Workload(tuple(template.at(sizes) for template in templates), None, asked.dtype, asked.mode)
        try:
            case = build(asked.spec(sizes), workload, reparameterised=asked.reparameterised)
            result = result_of(case, count(case))
        except MixbenchError as error:
            last = error
            refused.append(Refused(axis, size, error.what))
            continue
        points.append(point_of(axis, size, result))
        notes |= dict.fromkeys(result.notes)
    if not points and last:
        axis = jobs[0][0]
        fixed = "" if asked.rebuilt else f"; if a setting fixes the size, --kwarg NAME={{{axis}}} makes it follow"
        raise BadInput(f"no size works: {last.what}", f"{last.hint}{fixed}")
    return SweepRun(
        model=asked.spec(first).name,
        inputs=tuple(map(str, templates)),
        dtype=asked.dtype,
        mode=asked.mode,
        held={axis: held[axis] for axis in AXES if axis in held},
        rebuilt=asked.rebuilt,
        points=tuple(points),
        growth=tuple(found for axis in asked.values for found in growth_of(axis, [p for p in points if p.axis == axis])),
        refused=tuple(refused),
        notes=tuple(notes),
    )


def _placed(asked: Asked, first: Sizes) -> tuple[tuple[Template, ...], dict[Axis, int]]:
    """The inputs with letters where the axes are, and the size of each axis while another is swept."""
    lettered = letters_in(asked.inputs)
    if unknown := [axis for axis in AXES if axis in lettered and axis not in asked.values]:
        letter = LETTERS[unknown[0]]
        raise BadInput(f"--input has the letter {letter}, and there is no --{unknown[0]}", f"give --{unknown[0]}, or a number")
    held: dict[Axis, int] = {axis: first[axis] for axis in lettered}
    templates = asked.inputs or _own(asked, first)
    name = asked.spec(first).name
    for axis, sizes in asked.values.items():
        if axis not in lettered:
            templates, own = mark(templates, axis, name)
            held[axis] = sizes[0] if len(sizes) == 1 else own
    return templates, held


def _own(asked: Asked, first: Sizes) -> tuple[Template, ...]:
    """The model's own example inputs."""
    spec = asked.spec(first)
    workload = Workload(dtype=asked.dtype, mode=asked.mode, dims=asked.dims)
    case = build(spec, workload, reparameterised=asked.reparameterised)
    if len(case.args) + len(case.kwargs) != len(case.workload.inputs) or not _flat(case.args, case.kwargs):
        raise BadInput(f"the inputs of {spec.name} are nested, and can't be resized one by one", "give them by --input")
    return tuple(Template(item, item.shape) for item in case.workload.inputs)


def _flat(args: Sequence[object], kwargs: Mapping[str, object]) -> bool:
    return all(hasattr(value, "shape") for value in (*args, *kwargs.values()))
