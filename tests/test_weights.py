"""Checkpoints: which files load, what is said about the others, and that none of them runs code."""

import argparse
import os
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import mixbench
from mixbench.models import GhostNet
from mixbench.models.errors import BadInput


def net() -> nn.Module:
    """A small model with parameters, buffers and nesting."""
    return nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4), nn.Sequential(nn.Conv2d(4, 2, 3)))


@pytest.fixture
def state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {key: torch.rand_like(value.float()).to(value.dtype) for key, value in net().state_dict().items()}


def assert_holds(module: nn.Module, state: dict[str, Tensor]) -> None:
    own = module.state_dict()
    assert list(own) == list(state)
    for key, tensor in own.items():
        assert torch.equal(tensor, state[key]), key


def refusal(path: Path | str, module: nn.Module | None = None) -> BadInput:
    """The error for a file that must not load; the module is left as it was."""
    module = net() if module is None else module
    before = {key: value.clone() for key, value in module.state_dict().items()}
    with pytest.raises(BadInput) as caught:
        mixbench.load_weights(module, path)
    assert Path(path).name in caught.value.what
    assert caught.value.hint
    if not any(tensor.is_meta for tensor in before.values()):
        assert_holds(module, before)
    return caught.value


# Files that load -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["net.pth", "net.pt", "ck_net_10.pth.tar", "pytorch_model.bin"])
def test_a_plain_state_dict_loads_whatever_its_file_is_called(name: str, state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(state, tmp_path / name)
    module = net()
    assert mixbench.load_weights(module, tmp_path / name) == ""
    assert_holds(module, state)


@pytest.mark.parametrize("protocol", [2, 3])
def test_the_pickle_protocol_makes_no_noise(protocol: int, state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(state, tmp_path / "net.pth", pickle_protocol=protocol)
    module = net()
    mixbench.load_weights(module, tmp_path / "net.pth")  # a warning would be an error here
    assert_holds(module, state)


def test_the_old_format_of_torch_loads(state: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "old.pth.tar"
    torch.save(state, path, _use_new_zipfile_serialization=False)
    assert not zipfile.is_zipfile(path)
    module = net()
    mixbench.load_weights(module, str(path))
    assert_holds(module, state)


def test_safetensors_load(state: dict[str, Tensor], tmp_path: Path) -> None:
    save_file(state, tmp_path / "net.safetensors")
    module = net()
    assert mixbench.load_weights(module, tmp_path / "net.safetensors") == ""
    assert_holds(module, state)


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "state_dict_ema", "model_ema", "module"])
def test_wrapped_state_dicts_are_taken_out_and_said(wrapper: str, state: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "wrapped.pth"
    torch.save({"epoch": 450, "arch": "net", wrapper: state, "metric": 0.753, "loss": torch.tensor(0.5)}, path)
    module = net()
    assert wrapper in mixbench.load_weights(module, path)
    assert_holds(module, state)


def test_the_averaged_weights_win_over_the_last_ones(state: dict[str, Tensor], tmp_path: Path) -> None:
    last = {key: torch.zeros_like(value) for key, value in state.items()}
    torch.save({"state_dict": last, "state_dict_ema": state}, tmp_path / "both.pth")
    module = net()
    assert "state_dict_ema" in mixbench.load_weights(module, tmp_path / "both.pth")
    assert_holds(module, state)


def test_wrappers_nest_and_the_prefix_of_distributed_training_goes(state: dict[str, Tensor], tmp_path: Path) -> None:
    prefixed = {f"module.{key}": value for key, value in state.items()}
    torch.save({"model": {"state_dict": prefixed}}, tmp_path / "nested.pth")
    module = net()
    said = mixbench.load_weights(module, tmp_path / "nested.pth")
    assert all(word in said for word in ("'model'", "'state_dict'", "'module.'"))
    assert_holds(module, state)


def test_training_arguments_beside_the_weights_are_harmless(state: dict[str, Tensor], tmp_path: Path) -> None:
    arguments = argparse.Namespace(lr=0.064, model="ghostnetv2", mean=(0.485, 0.456, 0.406))
    optimizer = torch.optim.SGD(net().parameters(), lr=0.1, momentum=0.9).state_dict()
    torch.save({"state_dict": state, "args": arguments, "optimizer": optimizer, "epoch": 3}, tmp_path / "trained.pth")
    module = net()
    mixbench.load_weights(module, tmp_path / "trained.pth")
    assert_holds(module, state)
    # The permission ends with the call.
    assert argparse.Namespace not in torch.serialization.get_safe_globals()


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_weights_fill_a_model_on_meta(ending: str, state: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / f"net.{ending}"
    save_file(state, path) if ending == "safetensors" else torch.save(state, path)
    with torch.device("meta"):
        module = net()
    mixbench.load_weights(module, path)
    assert not any(tensor.is_meta for tensor in module.state_dict().values())
    assert_holds(module, state)
    assert module.eval()(torch.zeros(1, 3, 4, 4)).shape == (1, 2, 2, 2)


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.int8])
def test_values_take_the_models_dtype(dtype: torch.dtype, device: str, tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(2, 3, dtype=dtype), "bias": torch.zeros(2)}, tmp_path / "half.pth")
    module = nn.Linear(3, 2, device=device)
    mixbench.load_weights(module, tmp_path / "half.pth")
    assert torch.equal(module.weight, torch.ones(2, 3))
    assert module.weight.requires_grad


def test_a_lazy_layer_takes_its_size_from_the_file(tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(2, 3), "bias": torch.zeros(2)}, tmp_path / "linear.pth")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls lazy modules a new feature
        module = nn.LazyLinear(2)
    mixbench.load_weights(module, tmp_path / "linear.pth")
    assert torch.equal(module.weight, torch.ones(2, 3))


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_built_case_holds_the_weights(device: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = GhostNet(width=0.25).eval()
    torch.save({"state_dict": {f"module.{key}": value for key, value in source.state_dict().items()}}, tmp_path / "g.pth.tar")
    case = mixbench.build("ghostnet", device=device, weights=tmp_path / "g.pth.tar", width=0.25)
    assert case.weights == tmp_path / "g.pth.tar"
    assert any("'state_dict'" in note and "'module.'" in note for note in case.notes)
    assert {parameter.device.type for parameter in case.module.parameters()} == {device}
    real = case.on("cpu")
    assert_holds(real.module, source.state_dict())
    assert mixbench.count(case).totals == mixbench.count(mixbench.build("ghostnet", width=0.25)).totals
    with torch.no_grad():
        assert torch.equal(real.module(*real.args), source(*real.args))


# Files that don't fit ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_weights_of_another_model_are_refused_by_their_keys(device: str, tmp_path: Path) -> None:
    torch.save(nn.Sequential(nn.Linear(3, 4)).state_dict(), tmp_path / "other.pth")
    with torch.device(device):
        module = net()
    error = refusal(tmp_path / "other.pth", module)
    for words in ("missing 1.weight", "does not fit Sequential", "and 4 more"):
        assert words in error.what
    assert "width" in error.hint


def test_every_kind_of_misfit_is_named(state: dict[str, Tensor], tmp_path: Path) -> None:
    del state["1.bias"]
    state["extra.weight"] = torch.zeros(2)
    state["0.weight"] = torch.zeros(4, 1, 1, 1)
    torch.save(state, tmp_path / "near.pth")
    what = refusal(tmp_path / "near.pth").what
    for words in (
        "missing 1.bias",
        "unexpected extra.weight",
        "0.weight is 4x1x1x1 in the file and 4x3x1x1 in the model",
    ):
        assert words in what


def test_another_width_is_told_by_its_shapes(tmp_path: Path) -> None:
    torch.save(GhostNet(width=0.5).state_dict(), tmp_path / "half.pth")
    with pytest.raises(BadInput, match=r"conv_stem.weight is 8x3x3x3 in the file and 16x3x3x3 in the model"):
        mixbench.build("ghostnet", weights=tmp_path / "half.pth")


@pytest.mark.parametrize(
    "content",
    [{}, [], 3, "text", {"epoch": 3}, {"state_dict": {}}, {"state_dict": {"a": 1}}, [torch.zeros(2)], torch.zeros(2)],
    ids=repr,
)
def test_a_file_without_a_state_dict_says_so(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "empty.pth")
    assert "holds no state dict" in refusal(tmp_path / "empty.pth").what


# Files that are broken or evil ---------------------------------------------------------------------------------------


class Touch:
    """A pickle that creates a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.path),)


def save_pickle(content: Any, path: Path) -> None:
    with path.open("wb") as file:
        pickle.dump(content, file)


@pytest.mark.parametrize("save", [torch.save, save_pickle], ids=["torch", "pickle"])
@pytest.mark.parametrize("name", ["evil.pth", "evil.safetensors", "evil"])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_pickle_that_runs_code_is_refused_and_runs_nothing(
    device: str, name: str, save: Callable[[Any, Path], None], state: dict[str, Tensor], tmp_path: Path
) -> None:
    made = tmp_path / "made"
    save({"state_dict": state, "args": Touch(made)}, tmp_path / name)
    with torch.device(device):
        module = net()
    error = refusal(tmp_path / name, module)
    assert isinstance(error, mixbench.MixbenchError)
    assert not made.exists()
    if save is torch.save and name != "evil.safetensors":
        assert f"would run code: it asks for {os.mkdir.__module__}.mkdir" in error.what


def test_the_trap_would_have_sprung(tmp_path: Path) -> None:
    save_pickle(Touch(tmp_path / "made"), tmp_path / "evil.pkl")
    with (tmp_path / "evil.pkl").open("rb") as file:
        pickle.load(file)
    assert (tmp_path / "made").exists()


def test_a_whole_pickled_module_is_refused_with_its_culprit(tmp_path: Path) -> None:
    torch.save(net(), tmp_path / "module.pth")
    error = refusal(tmp_path / "module.pth")
    assert "would run code" in error.what
    assert "Sequential" in error.what
    assert "state_dict" in error.hint


@pytest.mark.parametrize("part", [0, 1, 40, 0.5, 0.99])
@pytest.mark.parametrize("kind", ["zip", "old", "safetensors"])
def test_truncated_files_are_refused(kind: str, part: float, state: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / ("cut.safetensors" if kind == "safetensors" else "cut.pth")
    if kind == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "zip")
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content)) if 0 < part < 1 else int(part)])
    refusal(path)


@pytest.mark.parametrize("name", ["page.pth", "page.safetensors"])
@pytest.mark.parametrize(
    "content",
    [b"<!DOCTYPE html><html>404</html>", b"version https://git-lfs", bytes(4096), b"\x80\x02", b"PK\x03\x04rest"],
)
def test_garbage_is_refused(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    assert "is not a" in refusal(tmp_path / name).what


def test_a_zip_file_of_something_else_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "other.pth", "w") as archive:
        archive.writestr("readme.txt", "hello")
    refusal(tmp_path / "other.pth")


@pytest.mark.parametrize("name", ["nowhere.pth", "nowhere.safetensors", "folder", "folder.safetensors"])
def test_missing_files_and_folders_are_refused(name: str, tmp_path: Path) -> None:
    if name.startswith("folder"):
        (tmp_path / name).mkdir()
    error = refusal(tmp_path / name)
    assert "there is no file" in error.what
    assert "path" in error.hint


@pytest.mark.skipif(os.geteuid() == 0 if hasattr(os, "geteuid") else True, reason="this user may read every file")
def test_an_unreadable_file_is_refused(state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(state, tmp_path / "secret.pth")
    (tmp_path / "secret.pth").chmod(0)
    refusal(tmp_path / "secret.pth")
