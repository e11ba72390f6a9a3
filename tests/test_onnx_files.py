"""A file from elsewhere can't make us read other files, and a broken one is named as such."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mixbench.models.errors import BadInput
from mixbench.models.onnx_files import read_onnx
from mixbench.profilers.onnx_session import open_onnx


def write(path: Path, location: str = "", offset: str = "0", inner: bool = False) -> Path:
    """y = x + w, with w in another file; or with w inside the graph of a node."""
    weight = numpy_helper.from_array(np.ones(4, np.float32), "w")
    if location:
        weight.ClearField("raw_data")
        weight.data_location = TensorProto.EXTERNAL
        for key, value in {"location": location, "offset": offset, "length": "16"}.items():
            weight.external_data.add(key=key, value=value)
    x, y, z = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in "xyz")
    if inner:
        flag = helper.make_node("Constant", [], ["flag"], value=numpy_helper.from_array(np.array(True)))
        branch = helper.make_graph([helper.make_node("Add", ["x", "w"], ["z"])], "branch", [], [z], [weight])
        nodes = [flag, helper.make_node("If", ["flag"], ["y"], then_branch=branch, else_branch=branch)]
        graph = helper.make_graph(nodes, "g", [x], [y])
    else:
        graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", [x], [y], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    path.write_bytes(model.SerializeToString())
    return path


def secret(folder: Path) -> None:
    (folder / "secret").write_bytes(np.ones(4, np.float32).tobytes())


def linked(folder: Path) -> None:
    secret(folder)
    (folder / "in").mkdir()
    (folder / "in" / "w").symlink_to(folder / "secret")


def linked_folder(folder: Path) -> None:
    (folder / "else").mkdir()
    secret(folder / "else")
    (folder / "in").mkdir()
    (folder / "in" / "sub").symlink_to(folder / "else")


def nothing(folder: Path) -> None:
    pass


@pytest.mark.parametrize("inner", [False, True])
@pytest.mark.parametrize(
    ("location", "prepare", "fault"),
    [
        ("../secret", secret, "outside its folder"),
        ("sub/../../secret", secret, "outside its folder"),
        ("..\\secret", secret, "outside its folder"),
        ("C:\\secret", nothing, "outside its folder"),
        ("/etc/hostname", nothing, "outside its folder"),
        ("w", linked, "a link out of which"),
        ("sub/secret", linked_folder, "a link out of which"),
        ("missing", nothing, "which is not there"),
    ],
)
def test_weights_outside_the_folder_are_refused(
    location: str, prepare: Callable[[Path], None], fault: str, inner: bool, tmp_path: Path
) -> None:
    prepare(tmp_path)
    (tmp_path / "in").mkdir(exist_ok=True)
    path = write(tmp_path / "in" / "net.onnx", location, inner=inner)
    for read in (read_onnx, open_onnx):
        with pytest.raises(BadInput, match=fault):
            read(path)


def test_weights_beside_the_file_are_read(tmp_path: Path) -> None:
    path = write(tmp_path / "net.onnx", "w.data")
    (tmp_path / "w.data").write_bytes(np.ones(4, np.float32).tobytes())
    assert read_onnx(path).graph.initializer[0].data_location == TensorProto.EXTERNAL  # named, and not loaded
    session, feeds = open_onnx(path)
    np.testing.assert_array_equal(session.run(None, feeds)[0], feeds["x"] + 1)


@pytest.mark.parametrize(("offset", "fault"), [("4", "ends before they do"), ("x", "no number")])
def test_weights_that_are_cut_off_are_named(offset: str, fault: str, tmp_path: Path) -> None:
    path = write(tmp_path / "net.onnx", "w.data", offset)
    (tmp_path / "w.data").write_bytes(np.ones(4, np.float32).tobytes())
    with pytest.raises(BadInput, match=fault):
        read_onnx(path)


@pytest.mark.parametrize("content", [b"", b"no model", b"\x08\x0a", os.urandom(1000)])
def test_what_is_no_model_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=r"net.onnx' is no ONNX model"):
        read_onnx(path)


def test_a_cut_off_model_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "net.onnx")
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(BadInput, match="is no ONNX model"):
        open_onnx(path)


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.onnx", tmp_path):
        with pytest.raises(BadInput, match="there is no file"):
            read_onnx(path)


def test_a_model_with_an_unknown_operator_is_read_but_not_opened(tmp_path: Path) -> None:
    path = write(tmp_path / "net.onnx")
    model = onnx.load(str(path))
    model.graph.node[0].op_type = "Nonsense"
    path.write_bytes(model.SerializeToString())
    assert read_onnx(path).graph.node[0].op_type == "Nonsense"
    with pytest.raises(BadInput, match="is not opened by ONNX Runtime"):
        open_onnx(path)
