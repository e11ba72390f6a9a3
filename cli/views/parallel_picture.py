"""A `ParallelRun` as a picture, by matplotlib: PNG or SVG."""

from ...profilers.runs.parallel_run import ParallelRun
from . import picture
from .parallel_lines import curves, gantts, way

_PAINT = {"compute": (0.2, "tab:blue"), "out": (-0.2, "tab:orange"), "back": (-0.2, "tab:green")}


def draw(run: ParallelRun, kind: str) -> bytes:
    """Two pictures one above the other: tokens/s over ranks, measured solid with dots and modelled dashed; and time lines."""
    if run.crossovers:
        return _draw_crossovers(run, kind)
    lines = [*gantts(run.measured), *gantts(run.modelled)]
    with picture.page(kind, width=8, height=4 + 1.6 * len(lines), nrows=2 + len(lines)) as (_, axes, result):
        for place, title, points, style in (
            (axes[0], "measured here" + " (PARTIAL)" * run.partial, run.measured, "o-"),
            (axes[1], f"modelled: {run.hardware.title}", run.modelled, "--"),
        ):
            for name, own in curves(run, points):
                place.plot([degree for degree, _ in own], [rate for _, rate in own], style, label=name)
            place.set_title(title)
            place.set_xlabel("ranks")
            place.set_ylabel("tokens/s")
            if place.get_legend_handles_labels()[0]:
                place.legend(fontsize=7)
        for place, line in zip(axes[2:], lines, strict=True):
            for bar in line.bars:
                if what := way(bar):
                    depth, color = _PAINT[what]
                    width, start = (bar.end - bar.start) * line.scale / 1e6, bar.start * line.scale / 1e6
                    place.barh(bar.rank + depth, width, 0.35, start, color=color)
            place.set_title(f"{line.title}: computing blue, messages out orange, results back green", fontsize=8)
            place.set_xlabel("ms")
            place.set_ylabel("rank")
    return result.getvalue()


def _draw_crossovers(run: ParallelRun, kind: str) -> bytes:
    with picture.page(kind, width=7, height=4) as (_, axes, result):
        for method in dict.fromkeys(item.method for item in run.crossovers):
            own = [item for item in run.crossovers if item.method == method and item.seq_len]
            axes.plot([item.degree for item in own], [item.seq_len for item in own], "--", label=method)
        axes.set_yscale("log", base=2)
        axes.set_xlabel("ranks")
        axes.set_ylabel("tokens")
        axes.set_title(f"Modelled, {run.hardware.title}: below a line, messages take longer than computing", fontsize=8)
        axes.legend(fontsize=7)
    return result.getvalue()
