"""Every registered architecture leaves as a verified ONNX file; full size where it fits, so these are slow."""

from pathlib import Path
from typing import Any

import pytest

from mixbench.export.artifact import Artifact
from mixbench.export.capture import capture
from mixbench.export.deliver import deliver
from mixbench.export.graph import to_graph
from mixbench.export.graph_checks import decides
from mixbench.export.targets.base import find
from mixbench.export.verify import expect
from mixbench.models.case import build
from mixbench.models.spec import TensorSpec, Workload

MODELS: list[tuple[str, dict[str, Any]]] = [
    ("ghostnetv2-1.0x", {}),
    ("ghostnetv2-1.3x", {}),
    ("ghostnetv2-1.6x", {}),
    ("ghostnet", {}),
    ("affnet-et", {}),
    ("affnet-t", {}),
    ("affnet-small", {}),
    ("hopfield-layer", {}),
    ("hopfield-pooling", {}),
    ("hopfield-lookup", {}),
    ("memoryformer-tiny", {"depth": 2, "width": 256, "heads": 4, "tables": 32, "vocabulary": 1024}),
    ("graphwindow-small", {}),
    ("tokenring-small", {}),
]


def ship(model: str, output: Path, dynamic: tuple[str, ...] = (), inputs: Any = (), **settings: Any) -> Artifact:
    source = capture(build(model, Workload(inputs), "cpu", **settings), dynamic=dynamic)
    graph = to_graph(source)
    return deliver("onnx", find("onnx"), source, graph, expect(source, decides(graph.model)), output)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "settings"), MODELS, ids=[name for name, _ in MODELS])
def test_an_architecture_leaves_verified(model: str, settings: dict[str, Any], tmp_path: Path) -> None:
    made = ship(model, tmp_path / "model.onnx", **settings)
    assert made.verification is not None and made.verification.passed
    assert made.verification.snr_db is None or made.verification.snr_db > 100
    assert "BatchNormalization" not in made.operators and "DFT" not in made.operators and "Loop" not in made.operators
    assert not made.dynamic and made.files.keys() == {"model.onnx"}


@pytest.mark.slow
def test_open_sizes_of_an_image_network_hold_at_others(tmp_path: Path) -> None:
    made = ship("ghostnetv2-0.5x", tmp_path / "model.onnx", ("batch", "height", "width"))
    assert made.inputs[0].shape == ("batch", 3, "height", "width") and made.outputs[0].shape == ("batch", 1000)
    assert made.verification is not None
    sizes = [check.sizes for check in made.verification.checks]
    assert {"batch": 3} in sizes and {"batch": 2, "height": 168, "width": 168} in sizes


def test_a_decoder_leaves_with_open_batch_and_length(tmp_path: Path) -> None:
    """A language model takes tokens from its whole vocabulary, and other lengths than the example's."""
    tiny = {"layers": 1, "width": 16, "heads": 2, "kv_heads": 1, "hidden": 24, "vocabulary": 40}
    ids = (TensorSpec((1, 12), "int64", below="vocabulary"),)
    made = ship("tokenring", tmp_path / "model.onnx", ("batch", "seq"), ids, **tiny)
    assert made.inputs[0].shape == ("batch", "seq") and made.outputs[0].shape == ("batch", "seq", 40)
    assert made.verification is not None and made.verification.dependence is not None
    assert {"batch": 2, "seq": 9} in [check.sizes for check in made.verification.checks]
