"""AFFNet against outputs of the authors' code, the paper's figures, and derivations by hand."""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import mixbench

GOLDEN = json.loads((Path(__file__).parent / "golden" / "affnet.json").read_text())["xx_small"]


# The golden files' rule: tensors from names -----------------------------------------------------------------------------


def drawn(name: str, shape: tuple[int, ...], scale: float = 1.0, shift: float = 0.0) -> Tensor:
    """Uniform in shift +- scale, float64: SplitMix64 seeded by the name's SHA-256."""
    seed = np.uint64(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big"))
    with np.errstate(over="ignore"):
        z = seed + np.arange(1, math.prod(shape) + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = (z ^ (z >> np.uint64(31))) >> np.uint64(11)
    return torch.from_numpy((z / 2.0**53 - 0.5) * 2 * scale + shift).reshape(shape)


def filled(net: nn.Module) -> nn.Module:
    """The network in float64 eval mode; each tensor follows from its key and its shape."""

    def value(key: str, old: Tensor) -> Tensor:
        last, shape = key.rpartition(".")[2], tuple(old.shape)
        if last == "num_batches_tracked":
            return torch.zeros_like(old)
        if last in ("w1", "w2"):
            return drawn(key, shape, math.sqrt(3 / (2 * shape[-2])))
        if last == "weight" and len(shape) > 1:
            return drawn(key, shape, math.sqrt(3 / math.prod(shape[1:])))
        scale, shift = {
            "running_var": (0.5, 1),
            "running_mean": (0.2, 0),
            "b1": (0.1, 0),
            "b2": (0.1, 0),
            "weight": (0.4, 1),
            "bias": (0.2, 0),
        }[last]
        return drawn(key, shape, scale, shift)

    net = net.double().eval()
    net.load_state_dict({key: value(key, old) for key, old in net.state_dict().items()})
    return net


def image(tag: str, shape: tuple[int, ...]) -> Tensor:
    return drawn(f"input:{tag}", shape, 2.0)


@pytest.mark.parametrize("case", GOLDEN["outputs"], ids=lambda case: case["tag"])
@torch.no_grad()
def test_float64_outputs_are_the_originals(case: Any) -> None:
    net = filled(mixbench.build("affnet-et", device="cpu").module)
    logits = net(image(case["tag"], tuple(case["input_shape"])))
    assert logits[0, :16].tolist() == pytest.approx(case["first16"], abs=1e-9)
    assert logits.sum(1).tolist() == pytest.approx(case["row_sums"], abs=1e-9)
