"""Words for open dimensions mean what they say, and anything can be said by place."""

import pytest
import torch

from mixbench.export.axes import open_dimensions
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
