"""Pictures by matplotlib, opened in one place: no window, no display, the same bytes for the same figures."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ...models.errors import CannotMeasure


@contextmanager
def page(kind: str, width: float, height: float, **grid: Any) -> Iterator[tuple[Any, Any, io.BytesIO]]:
    """Give a figure, its axes and the buffer that holds the picture once the block is left.

    Args:
        kind: "png" or "svg".
        width, height: inches.
        grid: for ``Figure.subplots``: rows and columns of axes.

    Raises:
        CannotMeasure: without matplotlib.
    """
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise CannotMeasure("pictures need matplotlib, which is not installed", "pip install 'mixbench[plot]'") from error
    buffer = io.BytesIO()
    # Text stays text in SVG, and no date or random id goes in.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "mixbench", "font.size": 9}):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots(**grid)
        yield figure, axes, buffer
        figure.savefig(buffer, format=kind, dpi=160, metadata={"Date": None} if kind == "svg" else {})
