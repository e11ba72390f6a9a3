"""Look-ups: gathers and scatters move data and compute nothing, unless they add up what they find."""

from ..cost import FREE, Cost
from ..onnx_graph import Call
from .table import free, per_element, rule

free("Gather GatherElements GatherND NonZero OneHot Compress ArrayFeatureExtractor ReverseSequence", family="lookup")


@rule("ScatterElements ScatterND Scatter")
def scatter(call: Call) -> Cost:
    """A step for each element of the updates, where they are combined with what is there."""
    reduction = call.attributes.get("reduction", b"none")
    return FREE if reduction == b"none" else per_element(1, call.input(2))
