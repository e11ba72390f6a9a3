"""Plots of characters put each sign where its values are, lose none, and write the ends of their axes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixbench.cli.views import table
from mixbench.cli.views.figures import exact, short, signed
from mixbench.cli.views.sketch import Mark, Scale, sketch, wide

PLAIN = Scale("size", lambda value: f"{value:g}")
LOG = Scale("cost", lambda value: f"{value:g}", log=True)


def field(lines: list[str]) -> list[str]:
    """The plane itself, without labels."""
    return [line.partition("│")[2].ljust(64) for line in lines if "│" in line]


@pytest.fixture(autouse=True)
def unicode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mixbench.cli.views.sketch.has_unicode", lambda: True)


def test_the_ends_stand_in_the_corners_and_the_middle_of_a_logarithm_in_the_middle() -> None:
    lines = list(sketch([Mark(1, 1, "a"), Mark(50, 10, "b"), Mark(99, 100, "c")], PLAIN, LOG))
    plane = field(lines)
    assert plane[0][63] == "c"
    assert plane[15][0] == "a"
    assert any("b" in plane[row][31:33] for row in (7, 8)), "10 lies half-way between 1 and 100"
    assert lines[0] == "cost, logarithmic"
    assert lines[1].startswith("100 │")
    assert lines[-1].split() == ["1", "size", "99"]


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(1, 50)), min_size=1, max_size=26))
def test_no_sign_is_lost_even_where_many_meet(points: list[tuple[int, int]]) -> None:
    signs = [chr(ord("a") + place) for place in range(len(points))]
    marks = [Mark(x, y, sign) for (x, y), sign in zip(points, signs, strict=True)]
    assert sorted("".join(field(list(sketch(marks, PLAIN, LOG)))).replace(" ", "")) == signs


def test_nothing_is_drawn_of_nothing_and_ascii_where_there_is_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(sketch([], PLAIN, LOG)) == []
    monkeypatch.setattr("mixbench.cli.views.sketch.has_unicode", lambda: False)
    assert all(line.isascii() for line in sketch([Mark(1, 1, "a")], PLAIN, LOG))


def test_a_logarithm_is_for_positive_values_that_lie_far_apart() -> None:
    assert wide([1, 9])
    assert not wide([1, 8])
    assert not wide([0, 1000])


def test_figures_are_written_by_their_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "has_unicode", lambda: True)
    assert [exact(value, unit) for value, unit in ((1234567, ""), (1.5e6, "ns"), (73.0, "%"), (None, ""), (2.5, ""))] == [
        "1,234,567", "1.5 ms", "73.0 %", "n/a", "2.5"
    ]  # fmt: skip
    assert [short(value, unit) for value, unit in ((167e6, ""), (4.4e6, "bytes"), (12, "bytes"), (75.3, "%"), (3, ""))] == [
        "167 M", "4.4 MB", "12 B", "75.3 %", "3"
    ]  # fmt: skip
    assert [signed(value) for value in (1234, 0, -5)] == ["+1,234", "0", "-5"]
