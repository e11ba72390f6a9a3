"""Models of other libraries: by what name, on which inputs, and that nothing of them is fetched or run unasked."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

import mixbench
from mixbench.models.errors import BadInput, CannotMeasure
from mixbench.models.lookup import all_sources, resolve
from mixbench.models.registry import sources
from mixbench.models.spec import TensorSpec, Workload

SCRIPT = Path(sys.executable).with_name("mixbench")
LIBRARIES = {
    "timm": """
from types import SimpleNamespace
from torch import nn
__version__ = "1.2.3"
def list_models(): return ["tiny50", "tiny18"]
def is_model(name): return name.partition(".")[0] in list_models()
def get_pretrained_cfg(name):
    return SimpleNamespace(input_size=(3, 24, 24), crop_pct=0.75, mean=(0.5, 0.4, 0.3), std=(0.1, 0.2, 0.3),
                           interpolation="bicubic", architecture="tiny50", tag="a1")
def create_model(name, pretrained=False, num_classes=10, in_chans=3, **others):
    assert not pretrained
    net = nn.Sequential(nn.Conv2d(in_chans, 4, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes))
    net.pretrained_cfg = {"input_size": (3, 24, 24)}
    return net
""",
    "torchvision": '__version__ = "4.5.6"\n',
    "torchvision/models": """
from functools import partial
from types import SimpleNamespace
from torch import nn
def tiny(weights="default", weights_backbone="default", num_classes=7):
    assert weights is None and weights_backbone is None, "would be fetched"
    return nn.Sequential(nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, num_classes))
def list_models(): return ["tiny", "clip"]
def get_model_builder(name): return tiny
def get_model_weights(name):
    steps = {"tiny": {"crop_size": 40}, "clip": {"crop_size": (8, 6)}}[name]
    return SimpleNamespace(DEFAULT=SimpleNamespace(transforms=partial(dict, **steps)))
""",
}


@pytest.fixture
def libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Stand-ins with the few functions that are used: the libraries themselves are large, and are tested nightly."""
    for name, text in LIBRARIES.items():
        folder = tmp_path / "libraries" / name
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text(text)
    for name in [name for name in sys.modules if name.partition(".")[0] in ("timm", "torchvision")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path / "libraries")
    yield tmp_path / "libraries"
    for name in [name for name in sys.modules if name.partition(".")[0] in ("timm", "torchvision")]:
        del sys.modules[name]


def run(*words: str, path: Path | None = None, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = dict(os.environ)
    if path is not None:
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(path), environment.get("PYTHONPATH", ""))))
    return subprocess.run([SCRIPT, *words], capture_output=True, text=True, env=environment, cwd=cwd, timeout=120)


def test_every_source_says_how_its_models_are_named() -> None:
    found = dict(all_sources())
    assert set(found) == {"code", "hf", "pt2", "timm", "torchvision"} == set(sources.names())
    assert {source.prefix for source in found.values()} == {"", "hf:", "timm:", "torchvision:"}


def test_of_patterns_that_fit_the_longest_decides(tmp_path: Path) -> None:
    assert resolve("json:loads").source == ""  # a module of one's own, or of Python's
    with pytest.raises(BadInput, match=r"there is no file 'a:b\.pt2'"):
        resolve("a:b.pt2")


def test_a_missing_package_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mixbench.models.lookup.find_spec", lambda name: None)
    for words, package, extra in (("timm:resnet50", "timm", "timm"), ("hf:x", "transformers", "hf")):
        with pytest.raises(CannotMeasure, match=f"{words} needs the package {package}") as caught:
            resolve(words)
        assert (caught.value.hint, caught.value.exit_code) == (f"pip install 'mixbench[{extra}]'", 3)


def test_a_library_that_does_not_fit_torch_is_explained(tmp_path: Path, libraries: Path) -> None:
    (libraries / "torchvision" / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    with pytest.raises(CannotMeasure, match="torchvision fails to import: RuntimeError: operator") as caught:
        mixbench.build("torchvision:tiny")
    assert f"torch {torch.__version__}" in caught.value.hint


def test_a_timm_model_comes_with_its_input_and_takes_settings(libraries: Path) -> None:
    case = mixbench.build("timm:tiny50.a1", in_chans=1, num_classes=5)
    assert case.workload.inputs == (TensorSpec((1, 1, 24, 24)),)
    assert mixbench.count(case).totals.macs == 24 * 24 * 9 * 4 + 4 * 5
    assert all(parameter.is_meta for parameter in case.module.parameters())


def test_heights_widths_and_batches_are_given_by_name(libraries: Path) -> None:
    work = Workload(dims=(("height", 8), ("width", 6), ("batch", 2)))
    assert mixbench.build("timm:tiny50", work).workload.inputs == (TensorSpec((2, 3, 8, 6)),)
    with pytest.raises(BadInput, match="timm:tiny50 has no open dimension 'seq'") as caught:
        mixbench.build("timm:tiny50", Workload(dims=(("seq", 8),)))
    assert "batch, height, width" in caught.value.hint


def test_dimensions_of_an_architecture_have_names_too() -> None:
    case = mixbench.build("ghostnetv2", Workload(dims=(("height", 64), ("width", 96))))
    assert case.workload.inputs == (TensorSpec((1, 3, 64, 96)),)


@pytest.mark.parametrize("words", ["timm:tiny", "torchvision:tin", "timm:"])
def test_an_unknown_model_of_a_library_is_explained(libraries: Path, words: str) -> None:
    with pytest.raises(BadInput) as caught:
        mixbench.build(words)
    assert "tiny" in caught.value.hint or "timm:resnet50" in caught.value.hint


@pytest.mark.parametrize(
    ("words", "settings"),
    [
        ("timm:tiny50", {"pretrained": True}),
        ("timm:tiny50", {"checkpoint_path": "x.pth"}),
        ("torchvision:tiny", {"weights": "DEFAULT"}),
        ("torchvision:tiny", {"weights_backbone": "DEFAULT"}),
    ],
)
def test_no_setting_fetches_weights(libraries: Path, words: str, settings: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="is built without weights"):
        resolve(words, settings)


def test_timms_names_of_hubs_and_folders_are_refused(libraries: Path) -> None:
    for words in ("timm:hf-hub:someone/net", "timm:local-dir:/tmp", "timm:someone/net"):
        with pytest.raises(BadInput, match="is not timm:NAME"):
            resolve(words)


def test_a_torchvision_model_has_the_crop_of_its_weights_as_input(libraries: Path) -> None:
    assert mixbench.build("torchvision:tiny").workload.inputs == (TensorSpec((1, 3, 40, 40)),)
    spec = resolve("torchvision:clip").factory()
    assert spec(num_classes=2)[1] == (TensorSpec((1, 3, 16, 8, 6)),)


def test_the_command_counts_a_model_of_a_library(libraries: Path) -> None:
    done = run("flops", "timm:tiny50", "--dim", "height=12", "--kwarg", "num_classes=3", "--json", path=libraries)
    assert done.returncode == 0, done.stderr
    (result,) = json.loads(done.stdout)["models"]
    assert result["inputs"] == ["1x3x12x24"]
    assert result["totals"]["macs"] == 12 * 24 * 27 * 4 + 4 * 3


def test_an_exported_file_says_how_its_images_were_prepared(libraries: Path) -> None:
    from mixbench.export.capture import describe

    case = mixbench.build("timm:tiny50.a1", device="cpu")
    said = describe(case, case.module, {"x": torch.zeros(1, 3, 24, 24)})
    assert json.loads(said["mean"]) == [0.5, 0.4, 0.3] and json.loads(said["std"]) == [0.1, 0.2, 0.3]
    assert (said["resize"], said["crop"], said["weights"]) == ("32", "24", "random")
    assert said["preprocessing_source"] == "timm 1.2.3, tiny50.a1"


def test_sources_are_listed_and_completed() -> None:
    done = run("models", "--json")
    assert {place["form"] for place in json.loads(done.stdout)["sources"]} >= {"timm:NAME", "torchvision:NAME", "FILE.pt2"}
    from mixbench.cli.options import complete_model

    assert [word for word, _ in complete_model("t")][:2] == ["timm:", "torchvision:"]


def test_another_distribution_adds_a_source_by_an_entry_point(tmp_path: Path) -> None:
    described = tmp_path / "zoo-1.0.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: zoo\nVersion: 1.0\n")
    (described / "entry_points.txt").write_text("[mixbench.sources]\nzoo = zoo\nbroken = no_such_module\n")
    (tmp_path / "zoo.py").write_text("""
from mixbench.models.spec import ModelSpec, Source
SOURCE = Source(form="zoo:WIDTH", title="a layer", patterns=("zoo:*",))
def find(words, settings):
    return ModelSpec(words, lambda: make(int(words.removeprefix("zoo:"))), settings)
def make(width):
    import torch
    return lambda: (torch.nn.Linear(4, width), torch.zeros(1, 4))
""")
    done = run("flops", "zoo:6", "--json", path=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["models"][0]["totals"]["macs"] == 24
    assert "zoo:WIDTH" in run("models", path=tmp_path).stdout


def test_an_onnx_file_speaks_of_open_dimensions_as_a_program_does(tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    shapes: dict[str, list[str | int | None]] = {"x": ["batch", "length", None], "y": ["batch", "length", 4]}
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items())
    weight = helper.make_tensor("w", TensorProto.FLOAT, [3, 4], [0.5] * 12)
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "net", [x], [y], [weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), tmp_path / "net.onnx")
    done = run("flops", "net.onnx", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "error: net.onnx leaves batch, length and x.2 open",
        "hint: give their sizes: --dim batch=N --dim length=N --dim x.2=N",
    ]
    words = ("net.onnx", "--dim", "length=5", "--dim", "x.2=3", "--batch", "2", "--json")
    done = run("flops", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["models"][0]["totals"]["macs"] == 2 * 5 * 3 * 4
    done = run("time", "net.onnx", "--dim", "length=5", cwd=tmp_path)
    assert (done.returncode, done.stderr.splitlines()[0]) == (2, "error: net.onnx leaves x.2 open")
    done = run("time", "net.onnx", "--samples", "3", "--no-roofline", *words[1:], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["models"][0]["inputs"] == ["x=2x5x3:float32"]
    done = run("flops", "net.onnx", "--dim", "seq=5", cwd=tmp_path)
    assert "net.onnx has no open dimension 'seq'" in done.stderr and "batch, length, x.2" in done.stderr


def test_dim_wants_a_name_and_a_number() -> None:
    for words in (["--dim", "seq"], ["--dim", "seq=0"], ["--dim", "=4"], ["--dim", "seq=4", "--dim", "seq=5"]):
        done = run("flops", "ghostnetv2", *words)
        assert done.returncode == 2 and done.stderr.startswith("error: --dim"), done.stderr
    done = run("flops", "ghostnetv2", "--dim", "batch=4", "--batch", "5")
    assert done.returncode == 2 and "a batch can't be 4 and 5" in done.stderr


LLAMA_70B = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "num_hidden_layers": 80,
    "hidden_size": 8192,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "intermediate_size": 28672,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "tie_word_embeddings": False,
}
BERT = {
    "architectures": ["BertForMaskedLM"],
    "model_type": "bert",
    "num_hidden_layers": 2,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "vocab_size": 100,
    "max_position_embeddings": 48,
}


def real(name: str) -> None:
    """Skip where the library is missing, or was made for another torch than this one."""
    try:
        import_module(name)
    except Exception as error:  # noqa: BLE001 - a binary for another torch raises whatever it likes
        pytest.skip(f"{name}: {error}")


def config(folder: Path, entries: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(entries))
    return folder


@pytest.mark.targets
@pytest.mark.parametrize("tokens", [128, 4096])
def test_a_llama_of_70b_is_counted_without_its_weights(tmp_path: Path, tokens: int) -> None:
    real("transformers")
    case = mixbench.build(f"hf:{config(tmp_path / 'llama', LLAMA_70B)}", Workload(dims=(("seq", tokens),)))
    counted = mixbench.count(case)
    width, kv, inner, words, layers = 8192, 8 * 128, 28672, 128256, 80
    weights = 2 * width * width + 2 * width * kv + 3 * width * inner  # of a layer: q and o, k and v, the gated MLP
    scores = 2 * tokens * tokens * width  # q k^T and its product with v, of all heads; the causal half is computed too
    assert counted.totals.macs == tokens * (layers * weights + width * words) + layers * scores
    assert counted.params == layers * (weights + 2 * width) + 2 * words * width + width
    assert counted.device == "meta" and all(parameter.is_meta for parameter in case.module.parameters())


@pytest.mark.targets
def test_the_head_of_a_transformers_model_is_chosen(tmp_path: Path) -> None:
    real("transformers")
    words = f"hf:{config(tmp_path / 'bert', BERT)}"
    assert type(mixbench.build(words).module).__name__ == "BertForMaskedLM"
    assert type(mixbench.build(words, task="base").module).__name__ == "BertModel"
    assert type(mixbench.build(words, task="sequence-classification").module).__name__ == "BertForSequenceClassification"
    case = mixbench.build(f"{words}/config.json", num_hidden_layers=1, device="cpu")
    assert case.workload.inputs == (TensorSpec((1, 48), "int64", "input_ids"),)
    assert 50 < int(case.kwargs["input_ids"].max()) < 100
    for settings, what in (
        ({"task": "speech"}, "no task 'speech'"),
        ({"task": "image-classification"}, "a bert has no head"),
        ({"depth": 2}, "has no entry 'depth'"),
    ):
        with pytest.raises(BadInput, match=what):
            mixbench.build(words, **settings)


@pytest.mark.targets
def test_nothing_of_a_hub_is_fetched_and_no_code_of_a_folder_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real("transformers")
    import socket

    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("it looked for a host"))
    with pytest.raises(BadInput, match="is no folder or file here") as caught:
        mixbench.build("hf:someone/some-net")
    assert "--kwarg download=true" in caught.value.hint
    folder = config(tmp_path / "own", {"model_type": "own", "auto_map": {"AutoConfig": "own.Config", "AutoModel": "own.Model"}})
    (folder / "own.py").write_text(f"import os; os.mkdir({str(tmp_path / 'mark')!r})")
    with pytest.raises(BadInput, match="no configuration is read"):
        mixbench.build(f"hf:{folder}")
    assert not (tmp_path / "mark").exists()


@pytest.mark.targets
@pytest.mark.parametrize(
    ("library", "name", "params", "gigamacs"),
    [
        ("timm", "resnet50", 25_557_032, 4.09),
        ("torchvision", "resnet50", 25_557_032, 4.09),
        ("torchvision", "vit_b_16", 86_567_656, 17.56),
        ("torchvision", "swin_t", 28_288_354, 4.49),
    ],
)
def test_well_known_models_cost_what_is_known_of_them(library: str, name: str, params: int, gigamacs: float) -> None:
    real(library)
    counted = mixbench.count(mixbench.build(f"{library}:{name}"))
    assert (counted.params, round(counted.totals.macs / 1e9, 2), counted.device) == (params, gigamacs, "meta")
