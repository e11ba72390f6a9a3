"""Ranges of sizes are read as written, and an axis is found in a model's inputs or the error says how to say it."""

import pytest

from mixbench.models.errors import BadInput
from mixbench.models.spec import TensorSpec
from mixbench.profilers.axes import Axis, Template, letters_in, mark, parse_values


@pytest.mark.parametrize(
    ("axis", "text", "values"),
    [
        ("batch", "1:64", (1, 2, 4, 8, 16, 32, 64)),
        ("batch", "3:20", (3, 6, 12, 20)),
        ("batch", "1:5:2", (1, 3, 5)),
        ("batch", "1:6:2", (1, 3, 5, 6)),
        ("batch", "8,1,2,8", (1, 2, 8)),
        ("batch", "4", (4,)),
        ("batch", "4:4", (4,)),
        ("resolution", "128:320", (128, 160, 192, 224, 256, 288, 320)),
        ("resolution", "128:512:128", (128, 256, 384, 512)),
        ("seq", "1k:8k", (1024, 2048, 4096, 8192)),
        ("seq", "1k:1M:512K", (1024, 525312, 1048576)),
    ],
)
def test_a_range_is_read(axis: Axis, text: str, values: tuple[int, ...]) -> None:
    assert parse_values(axis, text) == values


@pytest.mark.parametrize(
    "text", ["", "0", "0:4", "a", "1:", ":8", "1:2:3:4", "1:8:0", "-1:4", "1.5:3", "1,,2", "8:4", "k", "²"]
)
def test_what_is_no_range_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="--seq"):
        parse_values("seq", text)


def test_a_range_of_too_many_sizes_is_refused_before_it_is_made() -> None:
    with pytest.raises(BadInput, match="more than 256"):
        parse_values("seq", "1:1000000000000:1")


def templates(*texts: str) -> tuple[Template, ...]:
    return tuple(map(Template.parse, texts))


@pytest.mark.parametrize(
    ("inputs", "axis", "marked", "size"),
    [
        (("1x3x224x224",), "batch", ("Bx3x224x224",), 1),
        (("1x3x224x224",), "resolution", ("1x3xRxR",), 224),
        (("1x3x192x256",), "resolution", ("1x3xRxR",), 256),
        (("2x3x8x8", "2x4"), "batch", ("Bx3x8x8", "Bx4"), 2),
        (("1x128:int64",), "seq", ("1xS:int64",), 128),
        (("ids=1x77:int64", "mask=1x1x77x77:bool"), "seq", ("ids=1xS:int64", "mask=1x1xSxS:bool"), 77),
        (("ids=1x77:int64", "image=1x77x768"), "seq", ("ids=1xS:int64", "image=1x77x768"), 77),
        (("1x128x256",), "seq", ("1xSx256",), 128),
        (("1x64x32", "1x64x16", "1x9"), "seq", ("1xSx32", "1xSx16", "1x9"), 64),
    ],
)
def test_an_axis_is_found(inputs: tuple[str, ...], axis: Axis, marked: tuple[str, ...], size: int) -> None:
    found, own = mark(templates(*inputs), axis, "net")
    assert (tuple(map(str, found)), own) == (marked, size)


@pytest.mark.parametrize(
    ("inputs", "axis"),
    [
        (("1x3x224x224",), "seq"),
        (("1x128:int64",), "resolution"),
        (("1x3x8x8:uint8",), "resolution"),
        (("source=1x10:int64", "target=1x20:int64"), "seq"),
        (("1x64x32", "1x100x32"), "seq"),
        ((), "batch"),
    ],
)
def test_what_cannot_be_told_says_how_to_say_it(inputs: tuple[str, ...], axis: Axis) -> None:
    with pytest.raises(BadInput) as caught:
        mark(templates(*inputs), axis, "net")
    assert "letter" in caught.value.hint
    assert "--input" in caught.value.hint
    assert all(text in caught.value.what for text in inputs)


def test_letters_become_sizes_and_keep_names_and_dtypes() -> None:
    (found,) = templates("mask=BxSxS:bool")
    assert letters_in([found]) == {"batch", "seq"}
    assert found.at({"batch": 2, "seq": 5}) == TensorSpec((2, 5, 5), "bool", "mask")
    assert str(found) == "mask=BxSxS:bool"


def test_an_unknown_letter_is_told_with_the_known_ones() -> None:
    with pytest.raises(BadInput) as caught:
        Template.parse("1xQ")
    assert "1xQ" in caught.value.what
    assert all(word in caught.value.hint for word in ("B for --batch", "R for --resolution", "S for --seq"))
