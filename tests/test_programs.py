"""Programs of ``torch.export``: what they run on, what they ask for, and that a file from a stranger runs nothing."""

import io
import json
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import mixbench
from mixbench.models.errors import BadInput
from mixbench.models.lookup import resolve
from mixbench.models.spec import Workload

SCRIPT = Path(sys.executable).with_name("mixbench")


def run(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([SCRIPT, *words], capture_output=True, text=True, cwd=cwd, timeout=120)


class Reader(nn.Module):
    """Token ids to numbers, with a constant that is no buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.out = nn.Embedding(50, 16), nn.Linear(16, 8)
        self.shift = torch.arange(8.0)

    def forward(self, ids: Tensor, scale: Tensor) -> Tensor:
        return (self.out(self.table(ids)) + self.shift) * scale[:, :, None]


class Joined(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.cat([x, y], 1).relu() @ torch.ones(x.shape[1] + y.shape[1], 3)


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with programs whose sizes are fixed, open, and computed from each other."""
    folder = tmp_path_factory.mktemp("programs")
    batch, seq, length = torch.export.Dim("b"), torch.export.Dim("s", max=64), torch.export.Dim("n")
    ids, scale = torch.randint(50, (2, 12)), torch.rand(2, 12)
    sizes = {0: batch, 1: seq}
    net = Reader().eval()
    torch.export.save(torch.export.export(net, (ids,), {"scale": scale}), folder / "fixed.pt2")
    dynamic = torch.export.export(net, (ids,), {"scale": scale}, dynamic_shapes={"ids": sizes, "scale": sizes})
    torch.export.save(dynamic, folder / "open.pt2")
    pair = (torch.rand(2, 4), torch.rand(2, 5))
    joined = torch.export.export(Joined(), pair, dynamic_shapes={"x": {1: length}, "y": {1: length + 1}})
    torch.export.save(joined, folder / "joined.pt2")
    return folder


def test_a_program_runs_on_its_own_example(programs: Path) -> None:
    case = mixbench.build(str(programs / "fixed.pt2"))
    assert tuple(map(str, case.workload.inputs)) == ("2x12:int64", "scale=2x12")
    counted = mixbench.count(case)
    assert (counted.device, counted.totals.macs, counted.params) == ("meta", 2 * 12 * 16 * 8, 50 * 16 + 16 * 8 + 8)


def test_open_dimensions_of_a_program_are_asked_for_by_name(programs: Path) -> None:
    done = run("flops", "open.pt2", cwd=programs)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        "error: open.pt2 leaves batch and seq open",
        "hint: give their sizes: --dim batch=2 --dim seq=12",
    ]
    done = run("flops", "open.pt2", "--batch", "3", "--dim", "seq=7", "--json", cwd=programs)
    assert done.returncode == 0, done.stderr
    (result,) = json.loads(done.stdout)["models"]
    assert (result["inputs"], result["totals"]["macs"]) == (["3x7:int64", "scale=3x7"], 3 * 7 * 16 * 8)


def test_a_program_computes_what_its_model_does(programs: Path) -> None:
    case = mixbench.build(str(programs / "open.pt2"), Workload(batch=3, dims=(("seq", 5),)), "cpu")
    ids = case.args[0]
    assert int(ids.min()) >= 0 and int(ids.max()) < 50 and len(ids.unique()) > 1
    weights = {name: tensor for name, tensor in case.module.state_dict().items() if "shift" not in name}
    net = Reader().eval()
    net.load_state_dict(weights)
    assert torch.equal(case.module(*case.args, **case.kwargs), net(ids, **case.kwargs))


def test_sizes_that_depend_on_one_another_are_asked_for_once(programs: Path) -> None:
    path = str(programs / "joined.pt2")
    with pytest.raises(BadInput, match=r"leaves x\.1 open"):
        mixbench.build(path)
    case = mixbench.build(path, Workload(dims=(("x.1", 9),)))
    assert [item.shape for item in case.workload.inputs] == [(2, 9), (2, 10)]


def test_what_a_program_was_not_exported_for_is_refused(programs: Path) -> None:
    with pytest.raises(BadInput, match="takes no seq of 65"):
        mixbench.build(str(programs / "open.pt2"), Workload(batch=1, dims=(("seq", 65),)))
    with pytest.raises(BadInput, match="no open dimension 'batch'"):
        mixbench.build(str(programs / "fixed.pt2"), Workload(batch=4))
    with pytest.raises(BadInput, match="has no setting 'width'"):
        resolve(str(programs / "fixed.pt2"), {"width": 2})


Change = Callable[[dict[str, bytes]], None]


def forged(source: Path, place: Path, change: Change) -> Path:
    """A copy of a program whose parts were changed; their names are without the archive's own."""
    with zipfile.ZipFile(source) as archive:
        parts = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    change(parts)
    with zipfile.ZipFile(place, "w") as archive:
        for name, content in parts.items():
            archive.writestr(f"{source.stem}/{name}", content)
    return place


def in_text(old: str, new: str) -> Change:
    def change(parts: dict[str, bytes]) -> None:
        text = parts["models/model.json"].decode()
        assert old in text
        parts["models/model.json"] = text.replace(old, new).encode()

    return change


class Payload:
    def __init__(self, mark: Path) -> None:
        self.mark = str(mark)

    def __reduce__(self) -> Any:
        return os.mkdir, (self.mark,)


def pickled(mark: Path) -> Change:
    buffer = io.BytesIO()
    torch.save(((Payload(mark),), {}), buffer)
    return lambda parts: parts.update({"data/sample_inputs/model.pt": buffer.getvalue()})


def a_pickled_weight(parts: dict[str, bytes]) -> None:
    config = json.loads(parts["data/weights/model_weights_config.json"])
    entry = config["config"]["out.bias"]
    entry["use_pickle"] = True
    parts["data/weights/model_weights_config.json"] = json.dumps(config).encode()
    parts[f"data/weights/{entry['path_name']}"] = pickle.dumps(1)


def a_hidden_size(parts: dict[str, bytes]) -> None:
    """A tensor that bears the name of an entry that is not looked into."""
    program = json.loads(parts["models/model.json"])
    values = program["graph_module"]["graph"]["tensor_values"]
    values["metadata"] = json.loads(json.dumps(values["ids"]).replace("Symbol(", "exit("))
    parts["models/model.json"] = json.dumps(program).encode()


def test_a_forged_copy_without_a_change_is_read(programs: Path, tmp_path: Path) -> None:
    """So that what is refused below is refused for its change."""
    path = forged(programs / "open.pt2", tmp_path / "same.pt2", lambda parts: None)
    assert mixbench.build(str(path), Workload(batch=1, dims=(("seq", 2),))).workload.inputs[0].shape == (1, 2)


def test_a_program_cannot_smuggle_a_pickle(programs: Path, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    path = forged(programs / "fixed.pt2", tmp_path / "bad.pt2", pickled(mark))
    with pytest.raises(BadInput, match="example inputs that are more than tensors"):
        mixbench.build(str(path))
    assert not mark.exists()


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (in_text("torch.ops.aten.mul.Tensor", "torch.os.system"), "'torch.os.system' as its target"),
        (in_text("torch.ops.aten.mul.Tensor", "torch.ops.load_library"), "as its target"),
        (in_text("torch.ops.aten.mul.Tensor", "torch.ops.aten.from_file.default"), "as its target"),
        (in_text('"arg": {"as_int": 2}', '"arg": {"as_operator": "torch.os.system"}'), "as its as operator"),
        (a_hidden_size, "as its expr str"),
        (lambda parts: parts.update({"data/weights/model_weights_config.json": b"[]"}), "is no program of torch.export"),
        (in_text("torch.ops.aten.mul.Tensor", "torch.ops.aten.__class__.mro"), "as its target"),
        (in_text("torch.ops.aten.mul.Tensor", "torch.ops.mine.op.default"), "as its target"),
        (in_text("Mul(Integer(16)", "Mul(__import__('os').mkdir('mark')"), "as its expr str"),
        (in_text("Mul(Integer(16)", "Mul(Integer.__class__(16)"), "as its expr str"),
        (in_text('"forward_arg_names": ["ids"', '"forward_arg_names": ["ids=exit(3)"'), "as its forward arg names"),
        (lambda parts: parts.update({"data/aotinductor/model/lib.so": b""}), "the file 'data/aotinductor/model/lib.so'"),
        (lambda parts: parts.update({"data/constants/opaque_obj_0": b""}), "the file 'data/constants/opaque_obj_0'"),
        (a_pickled_weight, "'out.bias', which is no plain tensor"),
    ],
)
def test_a_program_that_would_have_to_be_trusted_is_refused(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Change, what: str
) -> None:
    path = forged(programs / "open.pt2", tmp_path / "bad.pt2", change)
    monkeypatch.setattr(torch.export, "load", lambda *_: pytest.fail("it was loaded"))
    with pytest.raises(BadInput) as caught:
        mixbench.build(str(path), Workload(batch=1, dims=(("seq", 2),)))
    assert what in caught.value.what


def test_guards_of_a_program_are_not_run(programs: Path, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    guard = f"[\"__import__('os').mkdir({str(mark)!r})\", "
    path = forged(programs / "open.pt2", tmp_path / "bad.pt2", in_text('"guards_code": [', f'"guards_code": {guard}'))
    case = mixbench.build(str(path), Workload(batch=1, dims=(("seq", 2),)), "cpu")
    case.module(*case.args, **case.kwargs)
    assert not mark.exists()


def test_what_is_no_program_is_explained(programs: Path, tmp_path: Path) -> None:
    (tmp_path / "text.pt2").write_text("no program")
    torch.save({"a": torch.zeros(1)}, tmp_path / "weights.pt2")
    whole = (programs / "fixed.pt2").read_bytes()
    (tmp_path / "cut.pt2").write_bytes(whole[: len(whole) // 2])
    for name in ("text", "weights", "cut"):
        with pytest.raises(BadInput, match=r"is no program of torch\.export"):
            mixbench.build(str(tmp_path / f"{name}.pt2"))
