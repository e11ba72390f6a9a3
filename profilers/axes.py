"""Which sizes a sweep goes through, and where in a model's inputs they stand. No torch here.

Three axes, each with a letter that may stand for it in an input's shape, such as ``--input ids=BxS:int64``. Where no letter
says it, a rule does: the batch is the first dimension of every input; the resolution the last two sides of images, that is of
four-dimensional floating inputs; the sequence the last side of whole-number ids (B, S), and of other whole-number or boolean
inputs each side that is as long, or without ids the middle side of (B, S, width).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from ..models.errors import BadInput
from ..models.spec import TensorSpec

Axis = Literal["batch", "resolution", "seq"]
AXES: tuple[Axis, ...] = get_args(Axis)
LETTERS: Mapping[Axis, str] = {"batch": "B", "resolution": "R", "seq": "S"}
_MULTIPLES = {"k": 1024, "m": 1024**2}
_RESOLUTION_STEP = 32
"""By what most vision models divide an image's sides."""
_MOST = 256


def parse_values(axis: Axis, text: str) -> tuple[int, ...]:
    """``START:STOP``, ``START:STOP:STEP``, a list, or one size, as rising numbers; k is 1,024 and M its square.

    Without a step a range doubles, and a resolution rises by 32; its STOP is always the last.

    Raises:
        BadInput: when it is none of these.
    """
    hint = f"write a range or a list: --{axis} " + {"batch": "1:64", "resolution": "128:320:32", "seq": "1k:32k"}[axis]
    wrong = BadInput(f"--{axis} {text!r} is no range of sizes", hint)
    words = text.split(":")
    if len(words) == 1:
        return tuple(sorted({_size(word, wrong) for word in text.split(",")}))
    start, stop, *steps = (_size(word, wrong) for word in words)
    if len(steps) > 1:
        raise wrong
    if stop < start:
        raise BadInput(f"--{axis} {text!r} ends below its start", hint)
    step = steps[0] if steps else _RESOLUTION_STEP if axis == "resolution" else None
    if step and (stop - start) // step >= _MOST:
        raise BadInput(f"--{axis} {text!r} has more than {_MOST} sizes", "take a longer step")
    found = []
    while start < stop:
        found.append(start)
        start = start + step if step else 2 * start
    return (*found, stop)


def _size(word: str, wrong: BadInput) -> int:
    word = word.strip().lower()
    number, factor = (word[:-1], _MULTIPLES[word[-1]]) if word[-1:] in _MULTIPLES else (word, 1)
    if not (number.isascii() and number.isdecimal() and int(number)):
        raise wrong
    return int(number) * factor


@dataclass(frozen=True, slots=True)
class Template:
    """An input some of whose sides are letters of axes."""

    spec: TensorSpec
    sides: tuple[int | str, ...]

    @classmethod
    def parse(cls, text: str) -> "Template":
        """Read an input's shape as ``TensorSpec.parse`` does, with letters among its sides.

        Raises:
            BadInput: when it has another form.
        """
        name, named, rest = text.rpartition("=")
        shape, typed, dtype = rest.partition(":")
        words = shape.replace("×", "x").split("x")
        numbers = "x".join("1" if word in LETTERS.values() else word for word in words)
        try:
            spec = TensorSpec.parse(f"{name}{named}{numbers}{typed}{dtype}")
        except BadInput as error:
            letters = ", ".join(f"{letter} for --{axis}" for axis, letter in LETTERS.items())
            raise BadInput(error.what.replace(numbers, shape), f"{error.hint}; a side may be a letter: {letters}") from error
        return cls(spec, tuple(word if word in LETTERS.values() else int(word) for word in words))

    def at(self, sizes: Mapping[Axis, int]) -> TensorSpec:
        """The input at these sizes."""
        of = {LETTERS[axis]: size for axis, size in sizes.items()}
        return replace(self.spec, shape=tuple(of[side] if isinstance(side, str) else side for side in self.sides))

    def __str__(self) -> str:
        shape, _, rest = str(replace(self.spec, name="")).partition(":")
        sides = "x".join(map(str, self.sides)) or shape
        return (f"{self.spec.name}=" if self.spec.name else "") + sides + (f":{rest}" if rest else "")


def letters_in(templates: Iterable[Template]) -> set[Axis]:
    """The axes whose letters stand among the inputs' sides."""
    found = {side for template in templates for side in template.sides}
    return {axis for axis, letter in LETTERS.items() if letter in found}


def mark(templates: Sequence[Template], axis: Axis, model: str) -> tuple[tuple[Template, ...], int]:
    """Put the axis's letter where the rule says it belongs, and tell the size that stood there.

    Raises:
        BadInput: when the rule finds no place, or several that differ in size.
    """
    places = {"batch": _batch, "resolution": _resolution, "seq": _sequence}[axis](templates)
    shown = ", ".join(map(str, templates)) or "nothing"
    letter = LETTERS[axis]
    say = f"say it with the letter {letter} in --input, such as --input {_EXAMPLES[axis]}"
    if not places:
        raise BadInput(f"{_WANTED[axis]} is among the inputs of {model}, {shown}", say)
    values = {template.sides[side] for template, sides in zip(templates, places, strict=True) for side in sides}
    sizes = {value for value in values if isinstance(value, int)}
    if len(sizes) != 1 and axis == "seq":
        raise BadInput(f"which side of the inputs of {model}, {shown}, is --{axis} can't be told", say)
    marked = tuple(
        replace(template, sides=tuple(letter if side in found else value for side, value in enumerate(template.sides)))
        for template, found in zip(templates, places, strict=True)
    )
    return marked, max(sizes)


_WANTED = {"batch": "no batch", "resolution": "no image (B, C, H, W)", "seq": "no sequence, ids (B, S) or (B, S, width),"}
_EXAMPLES = {"batch": "Bx3x224x224", "resolution": "1x3xRxR", "seq": "ids=1xS:int64"}


def _batch(templates: Sequence[Template]) -> list[set[int]]:
    found = [{0} if template.sides and isinstance(template.sides[0], int) else set[int]() for template in templates]
    return found if any(found) else []


def _resolution(templates: Sequence[Template]) -> list[set[int]]:
    found = [{2, 3} if _is_float(template) and len(template.sides) == 4 else set[int]() for template in templates]
    return found if any(found) else []


def _sequence(templates: Sequence[Template]) -> list[set[int]]:
    """Of ids and what is as long as they are; without ids of (B, S, width)."""
    ids = [template for template in templates if not _is_float(template) and len(template.sides) == 2]
    if ids:
        lengths = {template.sides[1] for template in ids}  # several can't be told apart, which the caller says
        return [
            set() if _is_float(template) else {side for side, size in enumerate(template.sides) if side and size in lengths}
            for template in templates
        ]
    found = [{1} if _is_float(template) and len(template.sides) == 3 else set[int]() for template in templates]
    return found if any(found) else []


def _is_float(template: Template) -> bool:
    return not template.spec.dtype or "float" in template.spec.dtype
