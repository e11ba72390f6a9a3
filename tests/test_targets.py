"""Formats beside ONNX: delivered as the model, or not at all. Those with a package of their own run under `./dev nightly`."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixbench.export.deliver import deliver
from mixbench.export.graph import Graph, to_graph
from mixbench.export.source import Source
from mixbench.export.targets import base
from mixbench.export.targets._capture import capture
from mixbench.export.verify import Expectation, expect
from mixbench.models.errors import BadInput, CannotMeasure, CheckFailed

Made = tuple[Source, Graph, Expectation]
WITH_PACKAGES = ("executorch", "litert", "coreml", "openvino")


class Gated(nn.Module):
    """What mobile networks do: a convolution, an attention at half the resolution spread over an odd map, a mean, a product."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.gate = nn.Conv2d(8, 8, (1, 5), padding=(0, 2), groups=8)
        self.classifier = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        gate = torch.sigmoid(self.gate(F.avg_pool2d(y, 2, 2)))
        y = y * F.interpolate(gate, size=(y.shape[-2], y.shape[-1]), mode="nearest")
        return self.classifier(F.silu(y).mean((2, 3)))


class Many(nn.Module):
    """Twelve inputs of different weight, one of integers, and two results: an order that is lost shows."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(7, 4)

    def forward(self, ids: Tensor, *others: Tensor) -> tuple[Tensor, Tensor]:
        whole = sum((place + 2) * other for place, other in enumerate(others))
        assert isinstance(whole, Tensor)
        return self.table(ids) + whole, whole * whole


def made(module: nn.Module, inputs: Mapping[str, Tensor], outputs: tuple[str, ...]) -> Made:
    module = module.eval().requires_grad_(False)
    source = Source("net", module, module, inputs, outputs, metadata={"model": "net", "note": "für Füchse"})
    return source, to_graph(source), expect(source)


@pytest.fixture(scope="module")
def gated() -> Made:
    torch.manual_seed(0)
    return made(Gated(), {"input": torch.randn(1, 3, 29, 33)}, ("logits",))


@pytest.fixture(scope="module")
def many() -> Made:
    torch.manual_seed(0)
    inputs = {"ids": torch.tensor([[1, 5, 2]])} | {f"other_{place}": torch.randn(1, 3, 4) for place in range(11)}
    return made(Many(), inputs, ("first", "second"))


def needing(name: str) -> base.Target:
    """The target, where its packages are."""
    target = base.find(name)
    if missing := [package for package in target.needs if find_spec(package) is None]:
        pytest.skip(f"not installed: {', '.join(missing)}; ./dev nightly installs it")
    return target


def test_the_formats_are_the_files_of_the_folder_and_each_says_what_it_is() -> None:
    assert base.names() == ["onnx", "coreml", "executorch", "litert", "openvino", "ort"]
    for name in base.names():
        target = base.find(name)
        assert target.title
        assert target.suffix.startswith(".")
        assert target.portable
        assert (target.open is None) == (name == "coreml")
        assert bool(target.extra) == (name in WITH_PACKAGES)


def test_what_is_not_installed_is_named_with_the_extra_that_brings_it() -> None:
    target = replace(base.find("litert"), needs=("no_such_package_a", "numpy", "no_such_package_b"))
    with pytest.raises(CannotMeasure) as caught:
        base.check_installed("litert", target)
    assert "no_such_package_a, no_such_package_b" in caught.value.what
    assert "mixbench[litert]" in caught.value.hint


def test_ort_is_delivered_verified_with_its_operators_beside_it_under_the_files_name(gated: Made, tmp_path: Path) -> None:
    artifact = deliver("ort", base.find("ort"), *gated, tmp_path / "small.net.ort")
    assert artifact.verification is not None
    assert artifact.verification.passed
    listed = tmp_path / "small.net.required_operators_and_types.config"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small.net.ort", listed.name]
    assert "Conv" in listed.read_text()
    assert artifact.files == {path.name: path.stat().st_size for path in (tmp_path / "small.net.ort", listed)}


def _nothing(source: Source, model: object, folder: Path) -> Path:
    return folder / "model.ort"


def _empty(source: Source, model: object, folder: Path) -> Path:
    (folder / "model.ort").write_bytes(b"")
    return folder / "model.ort"


def _noise(source: Source, model: object, folder: Path) -> Path:
    (folder / "model.ort").write_bytes(b"ORTM" + bytes(range(256)) * 40)
    return folder / "model.ort"


def _another(source: Source, model: object, folder: Path) -> Path:
    """A file that runs and takes and gives the right shapes, of a model with other weights."""
    torch.manual_seed(1)
    other, graph, _ = made(Gated(), source.inputs, source.outputs)
    return base.find("ort").convert(other, graph.model, folder)


def _raises(source: Source, model: object, folder: Path) -> Path:
    raise ZeroDivisionError("inside the converter")


@pytest.mark.parametrize(
    ("convert", "words", "error"),
    [
        (_nothing, "wrote nothing", CheckFailed),
        (_empty, "wrote nothing", CheckFailed),
        (_noise, "does not open it", CheckFailed),
        (_another, "is not the model", CheckFailed),
        (_raises, "inside the converter", BadInput),
    ],
)
def test_a_converter_that_writes_rubbish_is_caught_and_what_was_there_stays(
    gated: Made, tmp_path: Path, convert: Any, words: str, error: type[Exception]
) -> None:
    output = tmp_path / "net.ort"
    output.write_bytes(b"the old file")
    rubbish = replace(base.find("ort"), convert=convert)
    with pytest.raises(error, match=words):
        deliver("ort", rubbish, *gated, output)
    assert output.read_bytes() == b"the old file"
    assert list(tmp_path.iterdir()) == [output]


def test_a_package_without_a_runtime_says_that_nothing_was_verified(gated: Made, tmp_path: Path) -> None:
    def write(source: Source, model: object, folder: Path) -> Path:
        (folder / "model.mlpackage").mkdir()
        (folder / "model.mlpackage" / "Manifest.json").write_text("{}")
        return folder / "model.mlpackage"

    package = replace(base.find("coreml"), convert=write, needs=())
    artifact = deliver("coreml", package, *gated, tmp_path / "net.mlpackage")
    assert artifact.verification is None
    assert artifact.runtime == ""
    assert any("not verified" in note for note in artifact.notes)
    assert "not verified" in package.portable


@pytest.mark.parametrize(("size", "out"), [((3, 3), (7, 7)), ((14, 16), (29, 33)), ((5, 4), (8, 8)), ((9, 7), (4, 3))])
def test_uneven_nearest_up_sampling_becomes_gathers_of_the_same_pixels(size: tuple[int, int], out: tuple[int, int]) -> None:
    class Spread(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.interpolate(x, size=out, mode="nearest") + 1

    x = torch.randn(1, 2, *size)
    module = capture(Source("spread", Spread(), Spread(), {"x": x}, ("y",)))
    called = {node.target for node in module.graph.nodes}
    assert torch.ops.aten.upsample_nearest2d.vec not in called
    assert torch.ops.aten.index_select.default in called
    torch.testing.assert_close(module.eval()(x), Spread()(x), rtol=0, atol=0)


def test_even_nearest_up_sampling_is_left_to_the_converter() -> None:
    up = nn.Upsample(scale_factor=2)
    module = capture(Source("up", up, up, {"x": torch.randn(1, 2, 3, 5)}, ("y",)))
    assert torch.ops.aten.index_select.default not in {node.target for node in module.graph.nodes}


@pytest.mark.parametrize(
    ("axes", "keeps", "means"), [((1, 2, 3), True, 2), ((-1, 1, 2), True, 2), ((2, 3), True, 1), ((1, 2, 3), False, 1)]
)
def test_a_mean_of_whole_maps_is_taken_in_two_steps(axes: tuple[int, ...], keeps: bool, means: int) -> None:
    class Mean(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean(axes, keepdim=keeps)

    x = torch.randn(2, 6, 5, 4, dtype=torch.float64)
    module = capture(Source("mean", Mean(), Mean(), {"x": x}, ("y",)))
    assert [node.target for node in module.graph.nodes].count(torch.ops.aten.mean.dim) == means
    torch.testing.assert_close(module(x), x.mean(axes, keepdim=keeps), rtol=0, atol=1e-15)


@pytest.mark.targets
@pytest.mark.parametrize("name", WITH_PACKAGES)
def test_a_network_is_delivered_as_itself(name: str, gated: Made, tmp_path: Path) -> None:
    target = needing(name)
    output = tmp_path / f"net{target.suffix}"
    artifact = deliver(name, target, *gated, output)
    assert output.exists()
    assert all(path.name.startswith("net.") for path in tmp_path.iterdir())
    if target.open is None:
        assert artifact.verification is None
    else:
        assert artifact.verification is not None
        assert artifact.verification.passed
        assert artifact.verification.max_abs_error < 1e-6


@pytest.mark.targets
@pytest.mark.parametrize("name", WITH_PACKAGES)
def test_inputs_and_results_keep_their_order_beyond_ten_and_integers_go_in(name: str, many: Made, tmp_path: Path) -> None:
    target = needing(name)
    artifact = deliver(name, target, *many, tmp_path / f"net{target.suffix}")
    assert artifact.verification is None or artifact.verification.passed


@pytest.mark.targets
@pytest.mark.parametrize("name", [name for name in WITH_PACKAGES if name != "coreml"])
@pytest.mark.parametrize("rubbish", [b"", b"rubbish", bytes(5000)])
def test_the_formats_own_runtime_refuses_rubbish(name: str, rubbish: bytes, gated: Made, tmp_path: Path) -> None:
    target = needing(name)

    def write(source: Source, model: object, folder: Path) -> Path:
        path = target.convert(source, gated[1].model, folder)
        path.write_bytes(rubbish)
        return path

    with pytest.raises(CheckFailed):
        deliver(name, replace(target, convert=write), *gated, tmp_path / f"net{target.suffix}")
    assert not list(tmp_path.iterdir())


@pytest.mark.targets
def test_a_core_ml_package_holds_the_models_inputs_results_and_words(gated: Made, many: Made, tmp_path: Path) -> None:
    target = needing("coreml")
    import coremltools

    for stem, given in (("gated", gated), ("many", many)):
        source = given[0]
        deliver("coreml", target, *given, tmp_path / f"{stem}.mlpackage")
        described = coremltools.utils.load_spec(str(tmp_path / f"{stem}.mlpackage")).description
        assert [entry.name for entry in described.input] == list(source.inputs)
        assert [entry.name for entry in described.output] == list(source.outputs)
        assert described.metadata.userDefined["note"] == "für Füchse"


@pytest.mark.targets
def test_openvino_keeps_the_metadata_and_reports_to_nobody(gated: Made, tmp_path: Path) -> None:
    target = needing("openvino")
    deliver("openvino", target, *gated, tmp_path / "net.xml")
    code = """
import sys
from pathlib import Path
from mixbench.export.targets import base
base.find("openvino").open(Path(sys.argv[1]), 1)
import openvino
print(openvino.Core().read_model(sys.argv[1]).get_rt_info(["mixbench", "note"]).astype(str))
assert not [name for name in sys.modules if name.startswith("openvino_telemetry.")]
"""
    home = tmp_path / "home"
    home.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "net.xml")],
        capture_output=True,
        text=True,
        env=os.environ | {"HOME": str(home)},
        check=True,
    )
    assert done.stdout.strip() == "für Füchse"
    assert not list(home.iterdir())


@pytest.mark.targets
@pytest.mark.slow
@pytest.mark.parametrize("model", ["ghostnetv2", "affnet-et"])
def test_the_vision_networks_leave_in_every_format(model: str, tmp_path: Path) -> None:
    for name in WITH_PACKAGES:
        needing(name)
    words = [sys.executable, "-m", "mixbench", "export", model, "--to", "all", "-o", str(tmp_path / "net.onnx"), "--json"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # the converters print pages
    record = json.loads(done.stdout)
    assert record["refusals"] == []
    assert [artifact["target"] for artifact in record["artifacts"]] == base.names()
    for artifact in record["artifacts"]:
        assert artifact["target"] == "coreml" or artifact["verification"]["passed"], artifact
