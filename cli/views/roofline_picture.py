"""A `RooflineRun` as a picture, by matplotlib: PNG or SVG."""

from typing import Any

from ...models.errors import BadInput
from ...profilers.runs.roofline_run import RooflineRun
from . import picture
from .roofline_lines import Chart, charts, peak_rate, rate

_POINTS = 60


def draw(run: RooflineRun, kind: str) -> bytes:
    """A plot for each place and dtype, one above the other.

    Raises:
        BadInput: when there is nothing to plot, as of a list of devices.
    """
    shown = list(charts(run))
    if not shown:
        raise BadInput("a list of devices is no picture", "write it to a file in .csv or .json, or name one device")
    with picture.page(kind, width=7.5, height=4.6 * len(shown), nrows=len(shown), squeeze=False) as (_, axes, result):
        for place, chart in zip(axes[:, 0], shown, strict=True):
            _plot(place, chart)
    return result.getvalue()


def _plot(axes: Any, chart: Chart) -> None:
    low, high = chart.intensities
    line = [low * (high / low) ** (index / (_POINTS - 1)) for index in range(_POINTS)]
    for name, bandwidth in chart.slopes:
        ridge = chart.peak / bandwidth
        places = sorted([*line, ridge])
        style = "-" if name == "memory" else "--"
        axes.plot(
            places, [chart.roof(x, bandwidth) for x in places], style, color="0.3", label=f"{name} {rate(bandwidth, 'B/s')}"
        )
    for name, peak in chart.ceilings:
        axes.hlines(peak, peak / chart.slopes[0][1], high, color="0.3", linewidth=1)
        axes.annotate(
            f"{name} {peak_rate(name, peak)}", (high, peak), (0, 3), textcoords="offset points", ha="right", fontsize=7
        )
    for dot in chart.dots:
        color = f"C{dot.index % 10}"
        if dot.kind == "operator":
            axes.plot(dot.intensity, dot.flops_per_s, ".", color="0.6", zorder=1)
        else:
            measured = dot.kind == "measured"
            said = f"{dot.name} {'as measured' if measured else 'at its unfused floor'}"
            face = color if measured else "none"
            axes.plot(dot.intensity, dot.flops_per_s, "o", color=color, markerfacecolor=face, label=said)
    axes.set(xscale="log", yscale="log", xlim=chart.intensities, ylim=chart.rates)
    axes.set(xlabel="FLOPs of contractions per byte, unfused; operators in grey at their floors", ylabel="FLOP/s")
    axes.set_title(chart.title, fontsize=9)
    axes.legend(fontsize=7, loc="lower right")
