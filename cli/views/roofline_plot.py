"""A roofline drawn with characters, for the terminal; in ASCII where it shows no more."""

import math
from collections.abc import Iterator

from .roofline_lines import Chart, Dot, peak_rate, rate, ticks
from .table import has_unicode

_WIDTH, _HEIGHT = 66, 15
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def plot(chart: Chart) -> Iterator[str]:
    """Lines of text: title, the plot with its axes, and what the signs mean."""
    flat, rising, faint, spot = ("─", "╱", "·", "•") if has_unicode() else ("-", "/", ".", "*")
    cells = [[" "] * _WIDTH for _ in range(_HEIGHT)]
    for name, bandwidth in chart.slopes:
        for column in range(_WIDTH):
            intensity = _at(column / (_WIDTH - 1), chart.intensities)
            height = chart.roof(intensity, bandwidth)
            row = _row(height, chart)
            if row is not None:
                slope = rising if name == chart.slopes[0][0] else faint
                cells[row][column] = flat if height == chart.peak else slope
    for _, ceiling in chart.ceilings:
        _level(cells, chart, ceiling, faint)
    for kind in ("operator", "floor", "measured"):  # what matters most is drawn last
        for dot in (dot for dot in chart.dots if dot.kind == kind):
            _put(cells, chart, dot, spot)
    marks = {_row(tick, chart): rate(tick, "") for tick in ticks(chart.rates, 5)}
    yield f"{chart.title}: FLOP/s over FLOPs per byte"
    for number, signs in enumerate(cells):
        yield f"{marks.get(number, ''):>7} {'│' if has_unicode() else '|'}{''.join(signs).rstrip()}"
    yield f"{'':8}{('└' if has_unicode() else '+')}{flat * _WIDTH}"
    yield _axis(chart)
    yield from _key(chart, rising, faint, spot)


def _at(share: float, ends: tuple[float, float]) -> float:
    low, high = ends
    return low * (high / low) ** share


def _share(value: float, ends: tuple[float, float]) -> float:
    low, high = ends
    return math.log(value / low) / math.log(high / low)


def _row(flops_per_s: float, chart: Chart) -> int | None:
    row = round((1 - _share(flops_per_s, chart.rates)) * (_HEIGHT - 1))
    return row if 0 <= row < _HEIGHT else None


def _level(cells: list[list[str]], chart: Chart, height: float, sign: str) -> None:
    row = _row(height, chart)
    begin = math.ceil(_share(height / chart.slopes[0][1], chart.intensities) * (_WIDTH - 1))
    for column in range(max(0, begin), _WIDTH) if row is not None else ():
        cells[row][column] = sign if cells[row][column] == " " else cells[row][column]  # type: ignore[index]


def _put(cells: list[list[str]], chart: Chart, dot: Dot, spot: str) -> None:
    letter = _LETTERS[dot.index % len(_LETTERS)]
    sign = {"operator": spot, "floor": letter.lower(), "measured": letter}[dot.kind]
    row, column = _row(dot.flops_per_s, chart), round(_share(dot.intensity, chart.intensities) * (_WIDTH - 1))
    if row is not None and 0 <= column < _WIDTH:
        cells[row][column] = sign


def _axis(chart: Chart) -> str:
    line = [" "] * (_WIDTH + 18)
    for tick in ticks(chart.intensities):
        text = f"{tick:g}"
        begin = 9 + round(_share(tick, chart.intensities) * (_WIDTH - 1)) - len(text) // 2
        line[begin : begin + len(text)] = text
    return "".join(line).rstrip()


def _key(chart: Chart, rising: str, faint: str, spot: str) -> Iterator[str]:
    slopes = [f"{sign} {name} {rate(speed, 'B/s')}" for (name, speed), sign in zip(chart.slopes, (rising, faint), strict=False)]
    yield f"{'':9}{'  '.join(f'{name} {peak_rate(name, peak)}' for name, peak in chart.ceilings)}"
    yield f"{'':9}{'  '.join(slopes)}"
    signs = []
    for index, model in enumerate(chart.models):
        letter = _LETTERS[index % len(_LETTERS)]
        measured = any(dot.kind == "measured" and dot.index == index for dot in chart.dots)
        signs.append(f"{letter.lower()} {model} at its unfused floor" + (f", {letter} as measured" if measured else ""))
    if any(dot.kind == "operator" for dot in chart.dots):
        signs.append(f"{spot} an operator at its floor")
    yield from (f"{'':9}{sign}" for sign in signs)
