"""Words for open dimensions mean what they say, and anything can be said by place."""

import pytest
import torch
from onnx import parser

from mixbench.export.axes import open_dimensions, open_results
from mixbench.models.errors import BadInput

IMAGE, IDS, SETS = torch.zeros(1, 3, 8, 9), torch.zeros(1, 7, dtype=torch.int64), torch.zeros(1, 7, 16)
MASK = torch.zeros(1, 1, 7, 7, dtype=torch.bool)


@pytest.mark.parametrize(
    ("words", "inputs", "found"),
    [
        ([], {"x": IMAGE}, {}),
        (["batch"], {"x": IMAGE}, {"x": {0: "batch"}}),
        (["width", "height"], {"x": IMAGE}, {"x": {2: "height", 3: "width"}}),
        (["batch", "seq"], {"ids": IDS}, {"ids": {0: "batch", 1: "seq"}}),
        (["seq"], {"sets": SETS}, {"sets": {1: "seq"}}),
        (["batch"], {"x": IMAGE, "scale": torch.zeros(()), "bias": torch.zeros(3)}, {"x": {0: "batch"}}),
        (["seq", "mask.2=seq", "mask.3=seq"], {"ids": IDS, "mask": MASK}, {"ids": {1: "seq"}, "mask": {2: "seq", 3: "seq"}}),
        (["x.1=channels"], {"x": IMAGE}, {"x": {1: "channels"}}),
    ],
)
def test_words_name_dimensions(words: list[str], inputs: dict[str, torch.Tensor], found: dict[str, dict[int, str]]) -> None:
    assert open_dimensions(words, inputs) == found


@pytest.mark.parametrize(
    ("word", "fault"),
    [
        ("depth", "knows no 'depth'"),
        ("seq", "no input has a seq"),
        ("y.0=batch", "not INPUT.DIMENSION=NAME"),
        ("x.a=batch", "not INPUT.DIMENSION=NAME"),
        ("x.0=", "not INPUT.DIMENSION=NAME"),
        ("x.4=batch", "has 4 dimensions"),
    ],
)
def test_words_that_fit_nothing_are_refused(word: str, fault: str) -> None:
    with pytest.raises(BadInput, match=fault):
        open_dimensions([word], {"x": IMAGE})


def test_results_are_open_where_they_change_with_an_open_size() -> None:
    """The graph declares 1 x 6 x 8 and 5; runs show batch x seq x 8 and one less than seq."""
    model = parser.parse_model(
        """<ir_version: 10, opset_import: ["": 20]> g (float[batch,seq,8] x) => (float[1,6,8] y, float[5] z, float[N] w)
        {y = Identity(x) z = Identity(x) w = Identity(x)}"""
    )
    sizes = [(1, 6), (3, 6), (1, 5), (2, 5)]
    open_results(model, [({"batch": b, "seq": s}, [(b, s, 8), (s - 1,), (s,)]) for b, s in sizes])
    found = [[d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim] for value in model.graph.output]
    assert found == [["batch", "seq", 8], ["z_0"], ["N"]]
