"""`mixbench sweep`: costs follow closed forms, each point is what `flops` counts there, and what is refused is named."""

import json
import math
import os
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import jsonschema
import pytest

from mixbench import build, count
from mixbench.cli.views import sweep_page, sweep_view
from mixbench.models.errors import BadInput
from mixbench.models.lookup import resolve
from mixbench.models.spec import TensorSpec, Workload
from mixbench.profilers.axes import Axis, Template
from mixbench.profilers.cost_sweep import Asked, sweep
from mixbench.profilers.runs.metrics import metrics_of
from mixbench.profilers.runs.sweep_run import Growth, SweepRun, Term, formula, value

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = Path(sys.executable).with_name("mixbench")
NETS = """
import torch
import torch.nn.functional as F
from torch import nn

class Attention(nn.Module):
    example_inputs = torch.zeros(1, 16, 8)
    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(8, 24, bias=False)
    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, -1)
        return F.scaled_dot_product_attention(q, k, v)

class Positions(nn.Module):
    def __init__(self, length=16):
        super().__init__()
        self.table = nn.Parameter(torch.zeros(length, 8))
        self.out = nn.Linear(8, 8)
    def forward(self, x):
        return self.out(x + self.table)

class Pair(nn.Module):
    def forward(self, x):
        return x[0] @ x[1]

def linear():
    return nn.Linear(8, 4), torch.zeros(2, 8)

def convolution():
    return nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=False), torch.zeros(1, 3, 32, 32)

def positions(length=16):
    return Positions(length), torch.zeros(1, 16, 8)

def pair():
    return Pair(), ((torch.zeros(1, 4, 4), torch.zeros(1, 4, 4)),)
"""


@pytest.fixture(scope="module")
def nets(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("sweep") / "nets.py"
    path.write_text(NETS)
    return str(path)


def swept(model: str, axis: Axis, *sizes: int, inputs: tuple[str, ...] = (), **others: tuple[int, ...]) -> SweepRun:
    spec = resolve(model)
    values = {axis: sizes, **others}
    return sweep(Asked(lambda _: spec, values, tuple(map(Template.parse, inputs))))  # type: ignore[arg-type]


def grown(run: SweepRun, metric: str = "macs") -> Growth:
    return next(item for item in run.growth if item.metric == metric)


def test_a_linear_layer_grows_with_the_batch(nets: str) -> None:
    found = grown(swept(f"{nets}:linear", "batch", 1, 2, 4, 8, 64))
    assert formula(found) == "32 B"
    assert found.exponent == pytest.approx(1, abs=1e-9)
    assert [slope.exponent for slope in found.slopes] == pytest.approx([1] * 4)


def test_attention_comes_to_the_square_of_the_sequence(nets: str) -> None:
    found = grown(swept(f"{nets}:Attention", "seq", *(2**power for power in range(4, 16))))
    # Projections 8 x 24 a token; scores and their sum with the values 8 a pair each.
    assert formula(found) == "16 S^2 + 192 S"
    assert found.slopes[0].exponent < 1.7
    assert found.slopes[-1].exponent == pytest.approx(2, abs=0.001)


def test_intensity_is_all_flops_over_all_bytes_and_rises_with_the_batch(nets: str) -> None:
    run = swept(f"{nets}:linear", "batch", 1, 2, 4)
    # Of n rows 2 x 32 n FLOPs and 4 n for the bias; 8 n + 36 + 4 n numbers of four bytes are read and written.
    assert [value(point, "intensity") for point in run.points] == [68 * n / (4 * (12 * n + 36)) for n in (1, 2, 4)]
    assert formula(grown(run, "bytes")) == "48 B + 144"
    assert formula(grown(run, "peak_memory")) == "16 B"
    assert "exactly" not in grown(run, "intensity").sentence


def test_a_convolution_grows_with_the_square_of_the_side(nets: str) -> None:
    found = grown(swept(f"{nets}:convolution", "resolution", 32, 64, 96, 128))
    # A stride of 2 leaves a quarter of the places, each of 3 x 4 x 9 MACs.
    assert formula(found) == "27 R^2"
    odd = swept(f"{nets}:convolution", "resolution", 31, 32, 33, 35)
    assert [point.totals.macs for point in odd.points] == [108 * ((side + 1) // 2) ** 2 for side in (31, 32, 33, 35)]


def test_the_decoder_of_seven_billion_follows_its_formula_by_hand() -> None:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        from decoder import macs_by_hand
    finally:
        sys.path.pop(0)
    lengths = (1024, 4096, 16384, 131072)
    run = swept(f"{ROOT / 'benchmarks' / 'decoder.py'}:seven_billion", "seq", *lengths)
    assert [point.totals.macs for point in run.points] == [macs_by_hand(tokens=length) for length in lengths]
    assert grown(run).terms == (
        Term(2, 2 * 32 * 4096, 1),
        Term(1, 32 * (4 * 4096**2 + 3 * 4096 * 11008) + 4096 * 32000, 1),
    )


def test_each_point_is_what_flops_counts_there() -> None:
    from mixbench.models.case import build
    from mixbench.profilers.counter import count

    run = swept("tokenring", "seq", 64, 96)
    for point in run.points:
        case = build("tokenring", Workload(tuple(Template.parse(text).spec for text in point.inputs)))
        assert count(case).totals.macs == point.totals.macs
    assert [point.inputs for point in run.points] == [("1x64:int64",), ("1x96:int64",)]


def test_an_axis_of_one_size_is_held_and_the_others_keep_the_models_own(nets: str) -> None:
    run = swept(f"{nets}:Attention", "seq", 8, 16, batch=(4,))
    assert run.held == {"batch": 4, "seq": 16}
    assert [point.inputs for point in run.points] == [("4x8x8",), ("4x16x8",)]
    both = swept(f"{nets}:Attention", "seq", 8, 32, batch=(2, 4))
    assert {(point.axis, point.size, point.inputs[0]) for point in both.points} == {
        ("seq", 8, "1x8x8"), ("seq", 32, "1x32x8"), ("batch", 2, "2x16x8"), ("batch", 4, "4x16x8")
    }  # fmt: skip


def test_named_sizes_hold_the_sides_that_are_not_swept() -> None:
    asked = Asked(lambda sizes: resolve("ghostnetv2"), {"batch": (1, 2)}, dims=(("height", 96), ("width", 64)))
    run = sweep(asked)
    assert run.inputs == ("Bx3x96x64",)
    case = build("ghostnetv2", Workload((TensorSpec((2, 3, 96, 64)),)))
    assert run.points[1].totals.macs == count(case).totals.macs


def test_letters_say_which_side_is_meant(nets: str) -> None:
    run = swept(f"{nets}:linear", "seq", 3, 5, inputs=("1xSx8",))
    assert [point.totals.macs for point in run.points] == [3 * 32, 5 * 32]
    with pytest.raises(BadInput, match="letter R, and there is no --resolution"):
        swept(f"{nets}:linear", "seq", 3, 5, inputs=("RxSx8",))


def test_a_refused_size_is_named_and_the_others_go_on(nets: str) -> None:
    run = swept(f"{nets}:positions", "seq", 8, 16)
    assert [point.size for point in run.points] == [16]
    (refused,) = run.refused
    assert refused.size == 8
    assert "1x8x8" in refused.why
    words = "\n".join(sweep_view.warnings(run))
    assert "refused: sequence length 8" in words
    assert "--kwarg NAME={seq}" in words
    assert sweep_page.page(run).count("refused") == 1
    with pytest.raises(BadInput, match="no size works") as caught:
        swept(f"{nets}:positions", "seq", 8, 9)
    assert "--kwarg NAME={seq}" in caught.value.hint


def test_settings_follow_the_sizes(nets: str) -> None:
    def spec(sizes: object) -> object:
        assert isinstance(sizes, dict)
        return resolve(f"{nets}:positions", {"length": sizes["seq"]})

    run = sweep(Asked(spec, {"seq": (8, 16, 32)}, rebuilt=True))  # type: ignore[arg-type]
    assert [point.totals.params for point in run.points] == [8 * n + 72 for n in (8, 16, 32)]
    assert formula(grown(run, "params")) == "8 S + 72"
    assert formula(grown(run)) == "64 S"


def test_nested_inputs_are_asked_for(nets: str) -> None:
    with pytest.raises(BadInput, match="nested") as caught:
        swept(f"{nets}:pair", "batch", 1, 2)
    assert "--input" in caught.value.hint


def test_a_run_is_kept_once_for_each_workload(nets: str) -> None:
    run = swept(f"{nets}:Attention", "seq", 16, 32, batch=(1, 2))
    figures = metrics_of(run)
    assert len(figures) == len({(item.workload, item.name) for item in figures})
    assert len({item.workload for item in figures}) == 3, "both axes start from the same"


@pytest.mark.parametrize("model", ["ghostnetv2-0.5x", "affnet-et", "graphwindow", "hopfield", "memoryformer", "tokenring"])
def test_each_architecture_can_be_swept_by_batch(model: str) -> None:
    run = swept(model, "batch", 1, 2, 3)
    assert run.refused == ()
    assert grown(run).slopes[-1].exponent == pytest.approx(1, abs=1e-9)


def mixbench(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    plain = {name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "MIXBENCH_DEBUG")}
    return subprocess.run([SCRIPT, *words], capture_output=True, text=True, cwd=cwd, env=plain, timeout=120, encoding="utf-8")


def test_json_keeps_its_shipped_schema_and_follows_settings(nets: str) -> None:
    done = mixbench("sweep", f"{nets}:positions", "--seq", "8:64", "--kwarg", "length={seq}", "--json")
    assert done.returncode == 0, done.stderr
    run = json.loads(done.stdout)
    schema = json.loads((files("mixbench.profilers.runs") / "sweep-1.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(run, schema)
    assert [point["totals"]["params"] for point in run["points"]] == [8 * n + 72 for n in (8, 16, 32, 64)]
    assert run["inputs"] == ["1xSx8"]
    assert run["rebuilt"]


def test_the_table_tells_sizes_costs_and_growth(nets: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    done = mixbench("sweep", f"{nets}:Attention", "--seq", "16,32,64,128", "-o", "curves.svg", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    row = next(line.split() for line in lines if line.startswith(" 32"))
    assert row[:2] == ["32", f"{16 * 32**2 + 192 * 32:,}"]
    assert "parameters: 192 at every size" in lines
    growth = next(line for line in lines if line.startswith("MACs = "))
    assert growth.startswith("MACs = 16 S^2 + 192 S, exactly at the 4 sizes from 16 up; ~ S^1.")
    # Doubling S from 64 multiplies the cost by 2 (192 + 32 x 64) / (192 + 16 x 64).
    assert growth.endswith(f"between 16 and 128, slope {math.log2(2 * 2240 / 1216):.2f} at the end, coming to S^2")
    assert all(line == line.rstrip() for line in lines)
    assert "sequence length" in (tmp_path / "curves.svg").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "said", "hint"),
    [
        (("ghostnetv2",), "no range is given", "--batch 1:64"),
        (("ghostnetv2", "--batch", "4"), "--batch 4 alone is no range", "--batch 1:64"),
        (("ghostnetv2", "--resolution", "64:96", "--dim", "width=64"), "--dim width and --resolution are one side", "one"),
        (("ghostnetv2", "--batch", "1:4", "--input", "Bx3x64x64", "--dim", "width=64"), "--input gives others", "into --input"),
        (("ghostnet2", "--batch", "1:4"), "no model named", "ghostnet"),
        (("x.onnx", "--batch", "1:4"), "is an ONNX file", "the model it is of"),
        (("ghostnetv2", "--batch", "1:4", "--kwarg", "a={seq}"), "--seq, which is not there", "--seq"),
        (("ghostnetv2", "--batch", "1:4", "--input", "Bx3xQ"), "is not a shape", "R for --resolution"),
        (("ghostnetv2", "--seq", "1:4"), "no sequence", "letter S"),
    ],
)
def test_bad_input_is_told_in_two_lines(words: tuple[str, ...], said: str, hint: str) -> None:
    done = mixbench("sweep", *words)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    error, help_line = done.stderr.splitlines()
    assert error.startswith("error: ")
    assert said in error
    assert help_line.startswith("hint: ")
    assert hint in help_line
