"""Versions of ONNX's operators that can be asked for."""

from ..models.errors import BadInput

DEFAULT_OPSET, OPSETS = 20, range(18, 26)
"""What torch's exporter translates to as asked; where a lower one is asked for, it writes another without a word."""


def check_opset(opset: int) -> None:
    """Refuse what would come out as something else.

    Raises:
        BadInput: outside of `OPSETS`.
    """
    if opset not in OPSETS:
        what = f"opset {opset} can't be exported to; torch would write another without a word"
        raise BadInput(what, f"one from {OPSETS[0]} to {OPSETS[-1]}; {DEFAULT_OPSET} is what most runtimes read")
