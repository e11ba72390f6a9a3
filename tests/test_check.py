"""`mixbench check`: a planted regression is found and named, what can't be told never passes, and the baseline survives."""

import csv
import io
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixbench.cli.app import main
from mixbench.models.errors import BadInput
from mixbench.profilers.budget import parse
from mixbench.profilers.runs import baseline as store
from mixbench.profilers.runs.check_run import Metric
from mixbench.profilers.runs.verdict import conclude, culprits, judge

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = Path(sys.executable).with_name("mixbench")

# What is planted comes from the environment, so that one process can build both.
NET = """
import os
import torch
from torch import nn

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.point = nn.Linear(8, 8)
        self.extra = nn.Linear(8, 4) if "extra" in os.environ.get("PLANTED", "") else nn.Identity()
    def forward(self, x):
        x = self.extra(self.point(x))
        if "matmul" in os.environ.get("PLANTED", ""):
            x = x @ x.transpose(-1, -2)
        return x

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(8, 8)
        self.blocks = nn.Sequential(nn.Identity() if "less" in os.environ.get("PLANTED", "") else nn.Linear(8, 8), Block())
    def forward(self, x):
        return self.blocks(self.head(x))

def make(width=8):
    print("a model that talks")
    return Net(), torch.zeros(3, 8)

if not hasattr(torch.ops.check_test, "opaque"):
    torch.library.define("check_test::opaque", "(Tensor x) -> Tensor")
    torch.library.impl("check_test::opaque", "CompositeExplicitAutograd")(lambda x: x.clone())

class Opaque(nn.Module):
    example_inputs = torch.zeros(2, 8)
    def forward(self, x):
        return torch.ops.check_test.opaque(x)
"""
SMALL = '[targets.small]\nmodel = "net.py:make"\n'
HEAD_MACS = 3 * 8 * 8


@dataclass
class Project:
    """A folder with a model, settings, and perhaps a baseline; the command runs in this process."""

    folder: Path
    patch: pytest.MonkeyPatch
    screen: pytest.CaptureFixture[str]

    @property
    def baseline(self) -> Path:
        return self.folder / store.NAME

    def settle(self, text: str) -> None:
        (self.folder / "mixbench.toml").write_text(text)

    def check(self, *words: str, planted: str = "") -> tuple[int, str, str]:
        """Exit code, stdout, stderr."""
        with self.patch.context() as patch:
            patch.chdir(self.folder)
            patch.setenv("PLANTED", planted)
            code = main(["check", *words])
        said = self.screen.readouterr()
        return code, said.out, said.err

    def record(self, *words: str, planted: str = "") -> tuple[int, dict[str, Any]]:
        code, out, err = self.check(*words, "--json", planted=planted)
        assert out, err
        return code, json.loads(out)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Project:
    """A project with one target and no baseline."""
    (tmp_path / "net.py").write_text(NET)
    made = Project(tmp_path, monkeypatch, capsys)
    made.settle(SMALL)
    return made


@pytest.fixture
def kept(project: Project) -> Project:
    """The same with its baseline."""
    assert project.check("--update")[0] == 0
    return project


def of(record: dict[str, Any], metric: str, target: str = "small") -> dict[str, Any]:
    """The judgement of a metric."""
    (found,) = (j for j in record["judgements"] if (j["metric"]["target"], j["metric"]["name"]) == (target, metric))
    return dict(found)


def test_an_unchanged_model_passes(kept: Project) -> None:
    code, out, err = kept.check()
    assert (code, err) == (0, "a model that talks\n"), "what models print is no data"
    assert out.splitlines()[-1] == "passed, 6 metrics by mixbench-baseline.toml"


def test_a_planted_module_is_named_with_its_operator(kept: Project) -> None:
    code, record = kept.record(planted="extra")
    assert code == 1
    macs = of(record, "macs")
    extra = 3 * 8 * 4
    assert (macs["word"], macs["fails"]) == ("worse", True)
    assert macs["metric"]["value"] - macs["base"] == extra
    assert macs["culprits"] == [{"part": "blocks.1.extra", "operator": "aten::addmm", "base": 0, "new": extra}]
    assert of(record, "params")["culprits"] == [{"part": "blocks.1.extra", "operator": "", "base": 0, "new": 8 * 4 + 4}]


def test_a_planted_operator_is_named_with_its_module(kept: Project) -> None:
    code, record = kept.record(planted="matmul")
    assert code == 1
    assert of(record, "macs")["culprits"] == [{"part": "blocks.1", "operator": "aten::mm", "base": 0, "new": 3 * 8 * 3}]
    assert (of(record, "params")["word"], record["failed"], record["undecided"]) == ("same", True, False)


def test_the_installed_script_says_it_in_a_line(kept: Project) -> None:
    env = os.environ | {"PLANTED": "matmul"}
    done = subprocess.run([SCRIPT, "check"], cwd=kept.folder, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "  small  blocks.1: +72 MACs (aten::mm)" in done.stdout.splitlines()
    assert "FAILED, 2 of 6 metrics: small macs, small activations" in done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX pipes")
def test_a_closed_pipe_hides_no_failure(kept: Project) -> None:
    command = f"'{SCRIPT}' check --json | head -n 1; echo ${{PIPESTATUS[0]}}"
    env = os.environ | {"PLANTED": "matmul"}
    done = subprocess.run(["bash", "-c", command], cwd=kept.folder, env=env, capture_output=True, text=True, timeout=120)
    assert (done.stdout.splitlines(), done.stderr) == (["{", "1"], "a model that talks\n")


def test_less_passes_and_asks_to_be_kept(kept: Project) -> None:
    code, out, _ = kept.check(planted="less")
    assert code == 0
    assert "better than the baseline: `mixbench check --update` keeps it so" in out
    code, record = kept.record(planted="less")
    macs = of(record, "macs")
    assert (macs["word"], macs["fails"]) == ("better", False)
    assert macs["culprits"] == [{"part": "blocks.0", "operator": "aten::addmm", "base": HEAD_MACS, "new": 0}]
    assert kept.check("--update", planted="less")[0] == 0
    assert kept.check()[0] == 1, "what was kept is the base now"


def test_a_budget_holds_beside_the_baseline(kept: Project) -> None:
    kept.settle(SMALL + 'macs = "<= 0.5k"\nparams = "== 216"\n')
    code, record = kept.record()
    macs = of(record, "macs")
    assert code == 1
    assert (macs["word"], macs["over_budget"], macs["fails"], macs["limit"]) == ("same", True, True, "<= 0.5k")
    assert (of(record, "params")["over_budget"], of(record, "params")["limit"]) == (False, "== 216")
    assert "over budget" in kept.check()[1]
    assert kept.check("--update")[0] == 1, "an update accepts what is worse, not what is over its budget"


def test_a_budget_fails_where_there_is_no_baseline_yet(project: Project) -> None:
    project.settle(SMALL + 'macs = "<= 1"\n')
    code, record = project.record()
    assert (code, record["failed"]) == (1, True)


def test_no_baseline_is_no_pass(project: Project) -> None:
    code, record = project.record()
    assert (code, record["failed"], record["undecided"]) == (3, False, True)
    assert {item["word"] for item in record["judgements"]} == {"cannot tell"}
    assert "--update" in record["notes"][0]


def test_a_target_or_a_workload_that_the_baseline_does_not_know_is_no_pass(kept: Project) -> None:
    kept.settle(SMALL + "[targets.hopfield]\n")
    code, record = kept.record()
    assert code == 3
    assert of(record, "macs")["word"] == "same"
    assert of(record, "macs", "hopfield")["reason"] == "the baseline has no such target"
    assert kept.check("small")[0] == 0, "the one that it knows"
    kept.settle(SMALL + "batch = 5\n")
    code, record = kept.record()
    assert code == 3
    assert "another workload, 3x8-float32-eval, and this is 5x8-float32-eval" in of(record, "macs")["reason"]
    kept.settle(SMALL + 'flops = "same"\n')
    code, record = kept.record()
    assert (code, of(record, "flops")["reason"]) == (3, "the baseline has no such metric")


def test_leftovers_in_the_baseline_are_said(kept: Project) -> None:
    kept.settle('[targets.other]\nmodel = "net.py:make"\n')
    assert kept.check("--update")[0] == 0
    assert "small" not in kept.baseline.read_text()
    kept.settle(SMALL)
    code, out, _ = kept.check()
    assert code == 3
    assert "has other, which nothing names any more" in out


def test_an_update_of_some_keeps_the_others(kept: Project) -> None:
    kept.settle(SMALL + "[targets.hopfield]\n")
    before = kept.baseline.read_text()
    assert kept.check("--update", "hopfield")[0] == 0
    assert set(before.splitlines()) < set(kept.baseline.read_text().splitlines())
    assert kept.check()[0] == 0
    kept.baseline.write_text(kept.baseline.read_text().replace("torch = ", 'torch = "1.0" #'))
    code, _, err = kept.check("--update", "hopfield")
    assert code == 2
    assert "update all targets together" in err
    assert "was counted with torch 1.0" in kept.check()[1]


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (lambda text: text[: len(text) // 2], "no readable baseline"),
        (lambda text: "", "no schema number"),
        (lambda text: text.replace("schema = 1", 'schema = "1"'), "no schema number"),
        (lambda text: text.replace("schema = 1", "schema = 0"), "no schema number"),
        (lambda text: text.replace("[metrics]", "<<<<<<< HEAD\n[metrics]"), "no readable baseline"),
        (lambda text: text.replace("[metrics]", "[matrics]"), "its tables are"),
        (lambda text: re.sub(r"small.macs = .*", "small.macs = true", text), "small.macs is True"),
        (lambda text: re.sub(r"small.macs = .*", "small.macs = nan", text), "small.macs is nan"),
        (lambda text: re.sub(r"small.macs = .*", 'small.macs = "many"', text), "small.macs is 'many'"),
        (lambda text: re.sub(r"small = \"eN.*", "", text), "different targets"),
        (lambda text: re.sub(r"small = \"eN....", 'small = "eN', text), "no readable baseline"),
        (lambda text: re.sub(r"small = \"eN.*", 'small = "eJwrKk0FAAL7AXI="', text), "no readable baseline"),
        (lambda text: re.sub(r"small = \"3x8.*", "small = 3", text), "workload of small"),
        (lambda text: "metrics = 3\nschema = 1\ntorch = ''\nworkloads = 3\nparts = 3", "no readable baseline"),
    ],
)
def test_a_corrupt_baseline_is_no_pass_and_update_mends_it(kept: Project, spoil: Any, what: str) -> None:
    good = kept.baseline.read_text()
    kept.baseline.write_text(spoil(good))
    assert kept.baseline.read_text() != good
    code, out, err = kept.check()
    assert (code, out) == (2, "")
    assert what in err
    assert "mixbench check --update" in err.splitlines()[-1]
    assert kept.check("--update", "small")[0] == 2, "what others it had can't be kept"
    assert kept.check("--update")[0] == 0
    assert kept.baseline.read_text() == good


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"schema = 1\x00"])
def test_bytes_that_are_no_text_are_no_baseline(kept: Project, content: bytes) -> None:
    kept.baseline.write_bytes(content)
    assert kept.check()[0] == 2


def test_a_baseline_of_a_newer_mixbench_is_neither_read_nor_overwritten(kept: Project) -> None:
    kept.baseline.write_text(kept.baseline.read_text().replace("schema = 1", "schema = 2"))
    before = kept.baseline.read_bytes()
    for words in ((), ("--update",)):
        code, out, err = kept.check(*words)
        assert (code, out) == (2, "")
        assert "has schema 2, and this mixbench reads up to 1" in err
        assert kept.baseline.read_bytes() == before


def test_a_model_that_fails_is_named_and_nothing_is_written(kept: Project) -> None:
    kept.settle(SMALL + '[targets.broken]\nmodel = "net.py:make"\ninputs = "1x7"\n')
    before = kept.baseline.read_bytes()
    code, out, err = kept.check("--update")
    assert (code, out) == (2, "")
    assert "target 'broken': net.py:make fails on 1x7" in err
    assert kept.baseline.read_bytes() == before


def test_a_model_that_fails_does_not_keep_the_others_from_being_judged(kept: Project) -> None:
    kept.settle('[targets.broken]\nmodel = "net.py:make"\ninputs = "1x7"\n' + SMALL.replace("small", "other") + SMALL)
    code, out, err = kept.check("--json", planted="extra")
    run = json.loads(out)
    assert code == 2, "never a pass, and not only a regression"
    assert "target 'broken': net.py:make fails on 1x7" in err
    assert {item["metric"]["target"] for item in run["judgements"]} == {"other", "small"}
    assert run["failed"]
    assert [note for note in run["notes"] if note.startswith("not judged: target 'broken'")]
    assert not any("which nothing names any more" in note for note in run["notes"])
    code, out, _ = kept.check("broken", "--json")
    assert (code, out) == (2, "")


def test_an_operator_without_a_rule_is_counted_and_said(project: Project) -> None:
    project.settle('[targets.opaque]\nmodel = "net.py:Opaque"\nuncounted = "== 0"\n')
    code, record = project.record("--update")
    assert code == 1
    assert of(record, "uncounted", "opaque")["over_budget"]
    assert "opaque: check_test::opaque, 1 calls: no rule, in no total" in record["notes"]


def test_the_baseline_is_sorted_and_says_one_figure_a_line(kept: Project) -> None:
    kept.settle(SMALL + '[targets.hopfield]\n[targets."ghostnetv2-0.5*"]\n')
    assert kept.check("--update")[0] == 0
    text = kept.baseline.read_text()
    figures = text.partition("[metrics]\n")[2].partition("\n\n")[0].splitlines()
    assert figures == sorted(figures)
    assert all(re.fullmatch(r'("[\w.-]+"|\w+)\.\w+ = [\d_]+', line) for line in figures)
    assert len(figures) == 3 * 6
    assert f"small.macs = {3 * HEAD_MACS}" in figures
    assert tomllib.loads(text)["metrics"]["ghostnetv2-0.5x"]["params"] > 10**6
    assert kept.check("--update")[0] == 0
    assert kept.baseline.read_text() == text, "the same bytes for the same figures"


def test_a_diff_of_the_baseline_shows_what_changed_and_nothing_else(kept: Project) -> None:
    before = kept.baseline.read_text().splitlines()
    kept.check("--update", planted="matmul")
    after = kept.baseline.read_text().splitlines()
    changed = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    assert [old.partition(" = ")[0] for old, _ in changed] == ["small.activations", "small.macs", "small"]
    assert changed[1] == ("small.macs = 576", "small.macs = 648")


def test_parts_that_another_zlib_packed_are_kept_as_they_are(kept: Project) -> None:
    import base64
    import zlib

    text = kept.baseline.read_text()
    packed = text.rpartition(' = "')[2].partition('"')[0]
    other = base64.b64encode(zlib.compress(zlib.decompress(base64.b64decode(packed)), 1)).decode()
    assert other != packed
    kept.baseline.write_text(text.replace(packed, other))
    assert kept.check("--update")[0] == 0
    assert other in kept.baseline.read_text()
    kept.check("--update", planted="extra")
    assert other not in kept.baseline.read_text()


def test_the_record_keeps_its_shipped_schema_and_csv_has_a_line_for_each_metric(kept: Project) -> None:
    _, record = kept.record(planted="extra")
    schema = json.loads((ROOT / "profilers" / "runs" / "check-1.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(record, schema)
    lines = {line["name"]: line for line in csv.DictReader(io.StringIO(kept.check("--csv", planted="extra")[1]))}
    assert len(lines) == 6
    assert lines["macs"]["culprits"] == "blocks.1.extra: +96 MACs (aten::addmm)"
    assert (lines["macs"]["word"], lines["macs"]["fails"], lines["macs"]["base"]) == ("worse", "True", "576")


def test_a_baseline_elsewhere_is_found_from_the_flag_and_from_the_settings(kept: Project) -> None:
    (kept.folder / "costs").mkdir()
    kept.baseline.rename(kept.folder / "costs" / "small.toml")
    assert kept.check()[0] == 3
    assert kept.check("--baseline", "costs/small.toml")[0] == 0
    kept.settle(SMALL + '[check]\nbaseline = "costs/small.toml"\n')
    assert kept.check()[0] == 0
    (kept.folder / ".git").mkdir()
    below = replace(kept, folder=kept.folder / "costs")
    assert below.check()[0] == 0, "the settings' paths begin at the settings' file, and so do the models'"
    code, _, err = kept.check("--update", "--baseline", "nowhere/x.toml")
    assert code == 2
    assert "no folder 'nowhere'" in err
    assert "--baseline" in err


def test_peak_memory_is_held_to_its_budget_and_to_nothing_else(project: Project) -> None:
    project.settle(SMALL + 'peak_memory = "<= 1 kB"\n')
    assert project.check("--update")[0] == 0
    assert "peak_memory" not in project.baseline.read_text(), "another machine has another peak"
    _, record = project.record()
    found = of(record, "peak_memory")
    # The last layer's input and output, and the head's output, which the call of `blocks` holds; not the model's own input.
    assert found["metric"]["value"] == 3 * (3 * 8 * 4)
    assert (found["word"], found["base"]) == ("same", None)
    project.settle(SMALL + 'peak_memory = "< 288 B"\n')
    assert project.check()[0] == 1


def test_what_is_alive_at_once_by_shapes_is_exact_and_in_the_baseline(project: Project) -> None:
    project.settle(SMALL + 'peak_activations = "<= 288 B"\nread_bytes = "same"\n')
    assert project.check("--update")[0] == 0
    text = project.baseline.read_text()
    assert "peak_activations = 288" in text
    assert "read_bytes" in text
    assert project.check(planted="extra")[0] == 1


def test_a_file_that_would_leave_is_checked_as_well(project: Project) -> None:
    project.settle(
        SMALL + 'onnx_bytes = "<= 10 kB"\nonnx_portable = ["nnapi", "xnnpack"]\nsnr = ">= 60"\nlatency_ratio = "<= 1.05"\n'
    )
    assert project.check("--update")[0] == 0
    code, record = project.record(planted="extra")
    assert code == 1
    grown = of(record, "onnx_bytes")
    assert grown["word"] == "worse"
    assert {part["part"]: part["new"] - part["base"] for part in grown["culprits"]}["blocks.1.extra.weight"] == 8 * 4 * 4
    assert of(record, "onnx_portable")["metric"]["value"] == 0
    assert of(record, "snr")["metric"]["value"] > 60
    assert "small: latency_ratio is judged by --against REVISION only" in record["notes"]


MACS = Metric("x", "macs", 100, "MACs", "counted")
KNOWN = store.Baseline("2", {"x": store.entry_of("w", [MACS])})


@pytest.mark.parametrize(
    ("value", "better", "word", "fails"),
    [
        (100, "lower", "same", False),
        (101, "lower", "worse", True),
        (99, "lower", "better", False),
        (101, "higher", "better", False),
        (99, "higher", "worse", True),
    ],
)
def test_counted_metrics_are_judged_to_the_last_unit(value: int, better: Any, word: str, fails: bool) -> None:
    found = judge(replace(MACS, value=value, better=better), "w", KNOWN, None)
    assert (found.word, found.fails, found.base) == (word, fails, 100)


def test_measured_metrics_are_judged_by_their_interval_and_modelled_ones_never_fail() -> None:
    measured = Metric("x", "peak_memory", 100, "bytes", "measured", low=95, high=105)
    words = {limit: judge(measured, "w", KNOWN, parse(limit, "bytes")) for limit in ("<= 105", "<= 100", "<= 94")}
    assert [item.word for item in words.values()] == ["same", "cannot tell", "same"]
    assert [item.fails for item in words.values()] == [False, False, True]
    assert conclude([words["<= 100"]], "x").undecided
    assert not conclude([words["<= 100"], words["<= 94"]], "x").undecided, "what fails is decided"
    modelled = replace(measured, kind="modelled", low=None, high=None)
    assert not judge(modelled, "w", KNOWN, parse("<= 1", "bytes")).fails
    assert conclude([], "x", complete=False).undecided


def test_a_part_under_another_name_is_no_culprit() -> None:
    before = {"a aten::mm": 5, "b aten::mm": 5, "c aten::mm": 7, "d aten::add": 9, "e aten::mm": 3}
    after = {"x.a aten::mm": 5, "x.c aten::mm": 7, "x.new aten::mm": 8, "x.d aten::mul": 9, "e aten::mm": 4}
    found = culprits(before, after)
    assert [(item.part, item.operator, item.new - item.base) for item in found] == [
        ("d", "aten::add", -9),
        ("x.d", "aten::mul", 9),
        ("x.new", "aten::mm", 8),
        ("b", "aten::mm", -5),
        ("e", "aten::mm", 1),
    ]


@given(
    st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 3)),
    st.dictionaries(st.sampled_from("efghijkl"), st.integers(1, 3)),
)
def test_culprits_add_up_to_the_change(before: dict[str, int], after: dict[str, int]) -> None:
    found = culprits(before, after)
    assert sum(item.new - item.base for item in found) == sum(after.values()) - sum(before.values())
    assert not {item.new for item in found if not item.base} & {item.base for item in found if not item.new}, "a move is left"


NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)


@given(st.dictionaries(NAMES, st.tuples(NAMES, st.dictionaries(NAMES, st.integers(-(2**60), 2**60)), st.integers(0, 2**62))))
def test_whatever_names_and_figures_come_back_as_they_were(known: dict[str, tuple[str, dict[str, int], int]]) -> None:
    entries = {
        name: store.Entry(workload, {"macs": value, **parts}, {"macs": parts})
        for name, (workload, parts, value) in known.items()
    }
    text = store.text_of(store.Baseline("2.0", entries))
    assert store.parsed(text) == store.Baseline("2.0", entries)


# A process that does nothing but fork writers and kill them, since the tests' own has torch and threads.
KILLER = """
import os, random, signal, sys, time
from pathlib import Path
from mixbench.profilers.runs import baseline as store
from mixbench.profilers.runs.check_run import Metric

path, moments = Path(sys.argv[1]), int(sys.argv[2])

def version(number):
    metrics = [Metric("x", "macs", number, "MACs", "counted", parts={f"part.{n} aten::mm": number + n for n in range(200)})]
    return store.Baseline("2", {f"t{n}": store.entry_of("w", metrics) for n in range(5)})

random.seed(7)
number = 1
began = time.perf_counter()
store.write(path, version(number))
once = max(time.perf_counter() - began, 0.02)
for _ in range(moments):
    read, write = os.pipe()
    child = os.fork()
    if not child:
        while True:
            number += 1
            store.write(path, version(number))
            os.write(write, number.to_bytes(8, "big"))
    os.close(write)
    time.sleep(random.uniform(0, 4 * once))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    told = b""
    while part := os.read(read, 2**16):
        told += part
    os.close(read)
    acknowledged = int.from_bytes(told[-8:], "big") if told else number
    found = store.read(path)
    number = found.targets["t0"].metrics["macs"]
    assert acknowledged <= number <= acknowledged + 1, (acknowledged, number)
    assert found == version(number)
print(number)
"""

WRITER = """
import sys, time
from pathlib import Path
from mixbench.profilers.runs import baseline as store
from mixbench.profilers.runs.check_run import Metric
path, me = Path(sys.argv[1]), int(sys.argv[2])
for n in range(20):
    metrics = [Metric("x", "macs", me, "MACs", "counted", parts={f"part.{k}": me for k in range(100)})]
    store.write(path, store.Baseline("2", {"x": store.entry_of(f"{me}", metrics)}))
    found = store.read(path).targets["x"]
    assert {found.workload} == {str(v) for v in (*found.metrics.values(), *found.parts["macs"].values())}
"""


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_a_kill_at_any_moment_of_an_update_leaves_a_whole_baseline(tmp_path: Path) -> None:
    words = [sys.executable, "-c", KILLER, str(tmp_path / store.NAME), "50"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 10, "something was written between the kills"


def test_eight_writers_at_once_leave_a_whole_baseline(tmp_path: Path) -> None:
    path = tmp_path / store.NAME
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(number)], stderr=subprocess.PIPE, text=True)
        for number in range(8)
    ]
    said = [writer.communicate(timeout=120)[1] for writer in writers]
    assert [writer.returncode for writer in writers] == [0] * 8, said
    assert store.read(path) is not None
    assert [entry.name for entry in tmp_path.iterdir()] == [store.NAME]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_killed_or_crowded_command_leaves_the_old_baseline_or_the_new_one(kept: Project) -> None:
    old = kept.baseline.read_bytes()
    assert kept.check("--update", planted="extra")[0] == 0
    new = kept.baseline.read_bytes()
    assert old != new
    env = os.environ | {"PLANTED": "extra"}
    begin = time.monotonic()
    subprocess.run([SCRIPT, "check", "--update"], cwd=kept.folder, env=env, check=True, capture_output=True)
    duration = time.monotonic() - begin
    for _ in range(8):
        kept.baseline.write_bytes(old)
        process = subprocess.Popen([SCRIPT, "check", "--update"], cwd=kept.folder, env=env, stdout=subprocess.DEVNULL)
        time.sleep(random.uniform(0.5, 1.1) * duration)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert kept.baseline.read_bytes() in (old, new)
    several = [
        subprocess.Popen([SCRIPT, "check", "--update"], cwd=kept.folder, env=env, stdout=subprocess.DEVNULL) for _ in range(8)
    ]
    assert [process.wait() for process in several] == [0] * 8
    assert kept.baseline.read_bytes() == new


def test_mixbenchs_own_targets_are_all_in_its_baseline(monkeypatch: pytest.MonkeyPatch) -> None:
    from mixbench.cli.config import find
    from mixbench.cli.targets import read

    monkeypatch.chdir(ROOT)
    base = store.read(ROOT / store.NAME)
    assert base is not None
    assert sorted(base.targets) == sorted(target.name for target in read(find(ROOT)))
    assert base.targets["ghostnetv2"].metrics["macs"] == 167_048_288


def test_no_file_is_no_baseline_and_a_folder_is_an_error(tmp_path: Path) -> None:
    assert store.read(tmp_path / "none.toml") is None
    with pytest.raises(BadInput):
        store.read(tmp_path)
