"""Roofs to place models under, for the commands that do: a maker's, or those of this machine."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..profilers.devices.base import Device
    from ..profilers.roofline_session import Here
    from ..profilers.runs.roofline_run import Place, Work


def modelled(names: Iterable[str], file: Path | None, dtype: str | None) -> "list[Place]":
    """Devices by their published peaks, each once; torch stays unloaded.

    Args:
        file: of the user's own devices.
        dtype: what they must have a peak for; None where nobody knows yet.

    Raises:
        BadInput: when one is unknown, or has no such peak.
    """
    from ..profilers.peaks_published import published
    from ..profilers.runs.roofline_run import modelled_place

    places = [modelled_place(published(name, file)) for name in dict.fromkeys(names)]
    for place in places if dtype else ():
        place.roof(dtype or "")
    return places


def measured(device: "Device", done: "Iterable[Work]", again: bool = False) -> "Here":
    """This machine's peaks, with what happens on the way told on stderr.

    Args:
        done: what will be placed; refused, before anything is timed, where there is no peak for it.
        again: whatever is kept.
    """
    import typer

    from ..profilers.roofline_session import measure_here
    from .console import bar

    with bar("measuring peaks") as update:
        here = measure_here(device, again, update, lambda text: typer.echo(f"note: {text}", err=True))
    for work in done:
        here.place.roof(work.dtype)
    return here
