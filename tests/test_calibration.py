"""Where calibration data comes from: what is read, in which order, and what is refused."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from mixbench.export.precision.calibration import collect, digest, inputs_of, of_examples, split
from mixbench.export.precision.sources.check import spread
from mixbench.models.errors import BadInput

EXAMPLE = {"input": np.zeros((1, 3, 8, 8), np.float32)}
SAYS = {
    "input_layout": "NCHW, RGB",
    "input_range": "[0.0, 1.0]",
    "mean": "[0.5, 0.25, 0]",
    "std": "[0.5, 1, 2]",
    "resize": "10",
    "crop": "8",
}


@pytest.fixture
def net(nets: Any) -> onnx.ModelProto:
    made: onnx.ModelProto = nets.conv_net()
    helper.set_model_props(made, SAYS)
    return made


def two_inputs() -> onnx.ModelProto:
    """Token ids (2, 4) and a mask (2, ?), summed."""
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, [2, 4])
    mask = helper.make_tensor_value_info("mask", TensorProto.FLOAT, [2, "n"])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, [2, "n"])
    graph = helper.make_graph([helper.make_node("Relu", ["mask"], ["out"])], "two", [ids, mask], [out])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])


def picture(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (8, 8)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def refusal(words: str, net: onnx.ModelProto) -> BadInput:
    with pytest.raises(BadInput) as caught:
        collect(words, net, EXAMPLE)
    assert caught.value.hint
    return caught.value


def test_images_come_in_the_order_of_their_paths_prepared_as_the_file_says(net: onnx.ModelProto, tmp_path: Path) -> None:
    picture(tmp_path / "b" / "x.png", (255, 0, 0))
    picture(tmp_path / "a" / "y.png", (0, 255, 51))
    (tmp_path / "labels.txt").write_text("no image")
    samples = collect(str(tmp_path), net, EXAMPLE)
    first, second = (item["input"] for item in samples.calibration)
    assert first.shape == (1, 3, 8, 8) and first.dtype == np.float32
    # (value / 255 - mean) / std, by hand
    np.testing.assert_allclose(first[0, :, 4, 4], [(0 - 0.5) / 0.5, (1 - 0.25) / 1, 0.2 / 2], rtol=1e-6)
    np.testing.assert_allclose(second[0, :, 4, 4], [(1 - 0.5) / 0.5, (0 - 0.25) / 1, 0], rtol=1e-6, atol=1e-7)
    assert samples.source.kind == "images" and samples.source.name == tmp_path.name


def test_the_middle_is_cut_from_the_resized_image(net: onnx.ModelProto, tmp_path: Path) -> None:
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:, :12] = 255  # left of what remains: 40 x 20 becomes 20 x 10, of which columns 6 to 14 are kept
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    (found,) = collect(str(tmp_path), net, EXAMPLE).calibration
    red = found["input"][0, 0] * 0.5 + 0.5
    assert red.shape == (8, 8)
    np.testing.assert_allclose(red[:, 2:], 0, atol=1e-6)
    pixels[:, :16] = 255
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    (found,) = collect(str(tmp_path), net, EXAMPLE).calibration
    red = found["input"][0, 0] * 0.5 + 0.5
    assert red[:, 0].min() > 0.9 and red[:, 4:].max() < 1e-6


def test_bgr_last_and_other_ranges_are_heeded(nets: Any, tmp_path: Path) -> None:
    picture(tmp_path / "a.png", (255, 128, 0))
    node = helper.make_node("Relu", ["input"], ["logits"])
    net = nets.model(
        [node], {}, (1, 8, 8, 3), (1, 8, 8, 3), input_layout="NHWC, BGR", input_range="[0, 255]", mean="1,2,3", std="1,1,2"
    )
    (found,) = collect(str(tmp_path), net, {"input": np.zeros((1, 8, 8, 3), np.float32)}).calibration
    np.testing.assert_allclose(found["input"][0, 3, 3], [0 - 1, 128 - 2, (255 - 3) / 2])


def test_an_empty_folder_is_refused(net: onnx.ModelProto, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    assert "no image in the folder" in refusal(str(tmp_path), net).what


def test_an_unreadable_image_is_named(net: onnx.ModelProto, tmp_path: Path) -> None:
    picture(tmp_path / "a.png", (1, 2, 3))
    (tmp_path / "b.jpg").write_bytes(b"\xff\xd8 broken")
    whole = picture(tmp_path / "c.png", (1, 2, 3), (64, 64)).read_bytes()
    assert "b.jpg' can't be read" in refusal(str(tmp_path), net).what
    (tmp_path / "b.jpg").unlink()
    (tmp_path / "c.png").write_bytes(whole[: len(whole) // 2])
    assert "c.png' can't be read" in refusal(str(tmp_path), net).what


def test_images_need_a_model_that_says_how(nets: Any, tmp_path: Path) -> None:
    picture(tmp_path / "a.png", (1, 2, 3))
    assert "no mean and std" in refusal(str(tmp_path), nets.conv_net()).what
    assert "one image" in refusal(str(tmp_path), nets.linear_net(np.ones((4, 2), np.float32))).what
    assert "one image" in refusal(str(tmp_path), two_inputs()).what


def test_arrays_are_cut_into_the_models_batches(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    ids, mask = np.arange(24).reshape(6, 4), np.ones((6, 5), np.float32)
    np.savez(path, ids=ids, mask=mask)
    samples = collect(str(path), two_inputs(), {})
    assert [item["ids"].tolist() for item in samples.calibration] == [ids[at : at + 2].tolist() for at in (0, 2, 4)]
    np.savez(path, ids=ids.reshape(3, 2, 4), mask=mask.reshape(3, 2, 5))  # runs in front of the batch
    assert collect(str(path), two_inputs(), {}).source.sha256 == samples.source.sha256


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"ids": np.zeros((2, 4), int)}, "holds 'ids', and the model takes 'ids', 'mask'"),
        ({}, "holds nothing"),
        (
            {"ids": np.zeros((2, 4), np.int32), "mask": np.zeros((2, 5), np.float32)},
            "is int32, and input 'ids' takes 2x4:int64",
        ),
        ({"ids": np.zeros((2, 5), int), "mask": np.zeros((2, 5), np.float32)}, "has shape 2x5"),
        ({"ids": np.zeros((3, 4), int), "mask": np.zeros((3, 5), np.float32)}, "3 samples, which batches of 2 don't divide"),
        ({"ids": np.zeros((4, 4), int), "mask": np.zeros((2, 5), np.float32)}, "2 runs of 'ids', 1 runs of 'mask'"),
        ({"ids": np.zeros((0, 4), int), "mask": np.zeros((0, 5), np.float32)}, "is empty"),
        ({"ids": np.zeros((2, 4), int), "mask": np.full((2, 5), np.nan, np.float32)}, "infinite or no number"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(arrays: dict[str, np.ndarray], said: str, tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, **arrays)  # type: ignore[arg-type]
    assert said in refusal(str(path), two_inputs()).what


def test_pickled_objects_are_not_loaded(net: onnx.ModelProto, tmp_path: Path) -> None:
    ran = tmp_path / "ran"

    class Bomb:
        def __reduce__(self) -> Any:
            return Path.touch, (ran,)

    np.savez(tmp_path / "x.npz", input=np.array([Bomb()], dtype=object))
    assert "can't be read as arrays" in refusal(str(tmp_path / "x.npz"), net).what
    assert not ran.exists()


def test_broken_and_missing_archives_are_refused(net: onnx.ModelProto, tmp_path: Path) -> None:
    assert "there is no file" in refusal(str(tmp_path / "x.npz"), net).what
    (tmp_path / "x.npz").write_bytes(b"PK\x03\x04 not really")
    assert "can't be read as arrays" in refusal(str(tmp_path / "x.npz"), net).what
    with (tmp_path / "x.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    assert "no archive" in refusal(str(tmp_path / "x.npz"), net).what
    (tmp_path / "x.npz").write_bytes(b"")
    assert "can't be read as arrays" in refusal(str(tmp_path / "x.npz"), net).what


def test_other_words_name_no_data(net: onnx.ModelProto) -> None:
    assert "names no data" in refusal("nowhere", net).what


LOADER = """
import numpy as np, torch

def tensors():
    for seed in range(3):
        yield torch.full((1, 3, 8, 8), float(seed), requires_grad=True)

def batches():
    return [torch.arange(4.0).reshape(4, 1, 1, 1).expand(4, 3, 8, 8)]

def named():
    import neighbour
    return iter([{"input": np.zeros((1, 3, 8, 8), np.float32)}] * neighbour.COUNT)

def endless():
    while True:
        yield np.ones((1, 3, 8, 8), np.float32)

def labelled():
    yield torch.zeros(1, 3, 8, 8), torch.zeros(1)

def fails():
    yield torch.zeros(1, 3, 8, 8)
    raise RuntimeError("the disk is gone")

def nothing():
    return []

def wide():
    yield torch.zeros(1, 3, 8, 8, dtype=torch.float64)
"""


@pytest.fixture
def loader(tmp_path: Path) -> str:
    path = tmp_path / "load.py"
    path.write_text(LOADER)
    (tmp_path / "neighbour.py").write_text("COUNT = 2")
    return str(path)


def test_a_loader_gives_tensors_batches_or_dicts(net: onnx.ModelProto, loader: str) -> None:
    found = collect(f"{loader}:tensors", net, EXAMPLE)
    assert [float(item["input"][0, 0, 0, 0]) for item in found.calibration] == [0, 1, 2]
    assert found.source.name == "load.py:tensors"
    cut = collect(f"{loader}:batches", net, EXAMPLE)
    assert [float(item["input"].mean()) for item in cut.calibration] == [0, 1, 2, 3]
    assert cut.calibration[0]["input"].shape == (1, 3, 8, 8)
    assert len(collect(f"{loader}:named", net, EXAMPLE).calibration) == 2


def test_an_endless_loader_is_left_after_128_samples(net: onnx.ModelProto, loader: str) -> None:
    source = collect(f"{loader}:endless", net, EXAMPLE).source
    assert source.samples + source.evaluated == 128


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("labelled", "sample 0 of {}:labelled is a list of 2, and the model takes 'input'"),
        ("fails", "raises RuntimeError: the disk is gone"),
        ("nothing", "gives no samples"),
        ("wide", "is float64, and input 'input' takes 1x3x8x8:float32"),
        ("absent", "has no 'absent'"),
    ],
)
def test_a_loader_that_gives_something_else_is_refused(net: onnx.ModelProto, loader: str, name: str, said: str) -> None:
    assert said.format(loader) in refusal(f"{loader}:{name}", net).what


def test_a_loaders_missing_file_is_named(net: onnx.ModelProto) -> None:
    assert "there is no file 'gone.py'" in refusal("gone.py:f", net).what


def test_random_numbers_are_the_same_every_time_and_like_the_example() -> None:
    example = {"ids": np.array([[0, 7, 3, 1]] * 2), "mask": np.zeros((2, 5), np.float32)}
    first, again = (collect("random", two_inputs(), example) for _ in range(2))
    assert first.source == again.source and first.source.kind == "random"
    ids = np.concatenate([item["ids"] for item in (*first.calibration, *first.evaluation)])
    assert ids.min() == 0 and ids.max() == 7
    assert first.calibration[0]["mask"].shape == (2, 5)


def test_a_folder_that_is_called_random_is_reached_by_its_path(
    net: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture(tmp_path / "random" / "a.png", (1, 2, 3))
    monkeypatch.chdir(tmp_path)
    assert collect("random", net, EXAMPLE).source.kind == "random"
    assert collect("./random", net, EXAMPLE).source.kind == "images"


@pytest.mark.parametrize("count", [1, 7, 8, 9, 128])
def test_every_fourth_run_is_held_back_from_eight_on(count: int) -> None:
    feeds = [{"x": np.array([number], np.float32)} for number in range(count)]
    samples = split(feeds, "arrays", "x")
    learnt, measured = ({float(item["x"][0]) for item in part} for part in (samples.calibration, samples.evaluation))
    assert learnt | measured == set(map(float, range(count)))
    assert samples.source.held_out == (count >= 8) == (not learnt & measured)
    if count >= 8:
        assert len(measured) == count // 4


def test_the_sum_is_that_of_the_values_with_their_names_types_and_shapes() -> None:
    one = [{"x": np.array([[1, 2]], np.float32)}]
    by_hand = hashlib.sha256(b"x <f4 (1, 2)\n" + np.array([1, 2], np.float32).tobytes()).hexdigest()
    assert digest(one) == by_hand
    value = one[0]["x"]
    others = [[{"x": value[0]}], [{"y": value}], [{"x": value.astype(np.int32)}], one + one]
    assert len({digest(other) for other in others} | {by_hand}) == 5


def test_many_samples_are_taken_from_all_over() -> None:
    assert spread(3, 128) == [0, 1, 2]
    assert spread(1000, 4) == [0, 250, 500, 750]


def test_constants_are_no_inputs(nets: Any) -> None:
    net = nets.conv_net()
    net.graph.input.append(helper.make_tensor_value_info("w0", TensorProto.FLOAT, [8, 3, 3, 3]))
    assert [item.name for item in inputs_of(net)] == ["input"]
    assert inputs_of(two_inputs())[1].shape == (2, None)


def test_examples_serve_a_precision_that_learns_nothing() -> None:
    assert of_examples([EXAMPLE]).source.kind == "examples"
