"""`mixbench compare`: differences add up to what was derived by hand, files stand beside models, and the front is the front."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from mixbench.cli.targets import models_named
from mixbench.cli.views import compare_page, compare_view, pareto_chart
from mixbench.models.errors import BadInput
from mixbench.models.lookup import resolve
from mixbench.models.spec import TensorSpec, Workload
from mixbench.profilers.compared import Counted, by_module, by_operator, count_one, told_apart
from mixbench.profilers.runs.compare_run import METRICS, Accuracy, CompareRun, check_front, front_of

SCRIPT = Path(sys.executable).with_name("mixbench")
NET = """
import torch
from torch import nn

class Net(nn.Module):
    example_inputs = torch.zeros(1, 8)
    def __init__(self, hidden, extra):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, hidden)])
        self.head = nn.Linear(hidden, 4)
        self.extra = nn.Sequential(nn.Linear(4, 4), nn.ReLU()) if extra else None
    def forward(self, x):
        for layer in self.layers:
            x = torch.relu(layer(x))
        x = self.head(x)
        return self.extra(x) if self.extra else x

def small():
    return Net(16, False)

def large():
    return Net(32, True)
"""


def mixbench(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    plain = {name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "MIXBENCH_DEBUG")}
    return subprocess.run([SCRIPT, *words], capture_output=True, text=True, cwd=cwd, env=plain, timeout=120, encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models that differ in known ways, and the smaller one as an ONNX file of two linear layers and its head."""
    path = tmp_path_factory.mktemp("nets")
    (path / "net.py").write_text(NET)
    sizes = {"layers.0": (8, 8), "layers.1": (16, 8), "head": (4, 16)}
    weights, nodes, last = [], [], "x"
    for name, (out, into) in sizes.items():
        for kind, shape in (("weight", (out, into)), ("bias", (out,))):
            weights.append(numpy_helper.from_array(np.ones(shape, "float32"), f"{name}.{kind}"))
        result = "y" if name == "head" else f"{name}.out"
        gemm = [last, f"{name}.weight", f"{name}.bias"]
        nodes.append(helper.make_node("Gemm", gemm, [result], name=f"/{name.replace('.', '/')}/Gemm", transB=1))
        last = result
        if name != "head":
            nodes.append(helper.make_node("Relu", [result], [f"{name}.relu"], name=f"/Relu_{name[-1]}"))
            last = f"{name}.relu"
    ends = [helper.make_tensor_value_info(end, TensorProto.FLOAT, shape) for end, shape in (("x", [1, 8]), ("y", [1, 4]))]
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, path / "net.onnx")
    return path


@pytest.fixture(scope="module")
def pair(folder: Path) -> tuple[Counted, Counted]:
    first, second = (count_one(resolve(f"{folder / 'net.py'}:{name}"), Workload()) for name in ("small", "large"))
    return first, second


def test_modules_differ_by_what_was_derived_by_hand(pair: tuple[Counted, Counted]) -> None:
    found = by_module(*pair)
    by_name = {item.name: item for item in found.items}
    # A Linear of n inputs and m outputs: n m MACs, n m + m parameters, m elementwise FLOPs for its bias, m activations; it
    # reads n + n m + m numbers of four bytes and writes m. A ReLU reads and writes as many as it computes.
    assert {name: item.more for name, item in by_name.items()} == {
        "layers.1": (8 * 16, 8 * 16 + 16, 0, 16, 16, 4 * (8 * 16 + 16 + 16)),
        "head": (16 * 4, 16 * 4, 0, 0, 0, 4 * (16 + 16 * 4)),
        "extra": (4 * 4, 4 * 4 + 4, 0, 4 + 4, 4, 4 * (4 + 4 * 4 + 4 + 4 + 4 + 4)),
        "": (0, 0, 0, 16, 0, 4 * (16 + 16)),  # the ReLU behind layers.1, which forward() calls itself
    }
    assert [item.name for item in found.items] == ["layers.1", "head", "extra", ""], "the largest difference first"
    assert by_name["extra"].found_in == "second"
    assert by_name["extra"].kind == "Sequential"
    assert by_name["extra"].second.calls == 1
    assert "extra.0" not in by_name, "what is inside is in the line of the whole"
    assert by_name["head"].found_in == "both"
    assert found.same == 2, "layers and layers.0"


def test_operators_differ_by_what_was_derived_by_hand(pair: tuple[Counted, Counted]) -> None:
    found = {item.name: item for item in by_operator(*pair).items}
    assert found["aten::addmm"].more[:5] == (8 * 16 + 16 * 4 + 4 * 4, 0, 0, 16 + 4, 16 + 4)
    assert (found["aten::addmm"].first.calls, found["aten::addmm"].second.calls) == (3, 4)
    assert found["aten::relu"].more == (0, 0, 0, 16 + 4, 0, 4 * 2 * (16 + 4))
    inner = {item.name: item.more[0] for item in by_module(*pair).items[0].operators}
    assert inner["aten::addmm"] == 8 * 16, "operators within a module too"


@pytest.mark.parametrize("depth", [None, 0, 2])
@pytest.mark.parametrize(("first", "second"), [("ghostnetv2", "ghostnet"), ("affnet-et", "ghostnetv2-0.5x")])
def test_all_differences_together_are_the_models_difference(first: str, second: str, depth: int | None) -> None:
    found = [count_one(resolve(name), Workload((TensorSpec((1, 3, 64, 64)),))) for name in (first, second)]
    items = by_module(found[0], found[1], depth).items
    for place, name in enumerate(("macs", "params", "fft_flops", "elementwise_flops", "activations", "moved_bytes")):
        a, b = (getattr(item.compared.counted.totals, name) for item in found)
        assert sum(item.more[place] for item in items) == b - a, name
    deepest = max(item.name.count(".") + 1 if item.name else 0 for item in items)
    assert deepest == depth if depth is not None else deepest


def test_swapping_two_models_turns_every_difference_round(pair: tuple[Counted, Counted]) -> None:
    there, back = by_module(*pair), by_module(*pair[::-1])
    turned = {"both": "both", "first": "second", "second": "first"}
    assert {item.name: (item.found_in, item.more) for item in there.items} == {
        item.name: (turned[item.found_in], tuple(-gap for gap in item.more)) for item in back.items
    }


def test_a_model_differs_from_itself_in_nothing(pair: tuple[Counted, Counted]) -> None:
    found = by_module(pair[1], pair[1])
    assert (found.items, found.same) == ((), 8), "the model, layers, their two, head, extra and its two"
    assert by_operator(pair[1], pair[1]).items == ()


def test_the_nodes_of_a_file_belong_to_modules_and_match_a_pytorch_models(folder: Path, pair: tuple[Counted, Counted]) -> None:
    file = count_one(folder / "net.onnx", Workload())
    found = by_module(pair[0], file)
    assert found.items == (), "the same network"
    assert found.same == 5
    operators = by_operator(pair[0], file)
    assert operators.matched == "family of the rule"
    assert operators.items == ()
    assert [item.name for item in by_module(file, pair[1]).items] == ["layers.1", "head", "extra", ""]


def test_the_size_of_a_file_includes_the_weights_beside_it(folder: Path, tmp_path: Path) -> None:
    model = onnx.load(folder / "net.onnx")
    onnx.save(model, tmp_path / "split.onnx", save_as_external_data=True, location="split.data", size_threshold=0)
    found = count_one(tmp_path / "split.onnx", Workload()).compared
    parts = [(tmp_path / name).stat().st_size for name in ("split.onnx", "split.data")]
    assert min(parts) > 0
    assert found.file_bytes == sum(parts)


def test_accuracy_is_of_the_published_settings_and_size_only() -> None:
    published = count_one(resolve("ghostnetv2"), Workload()).compared
    assert published.accuracy is not None
    assert (published.accuracy.top1_percent, published.accuracy.source) == (75.3, "arXiv 2211.12905, abstract")
    batch = count_one(resolve("ghostnetv2"), Workload(batch=2)).compared
    assert batch.accuracy == published.accuracy
    smaller = count_one(resolve("ghostnetv2"), Workload((TensorSpec((1, 3, 64, 64)),))).compared
    assert (smaller.accuracy, smaller.no_accuracy) == (None, "it is published for 1x3x224x224")
    changed = count_one(resolve("ghostnetv2", {"width": 0.75}), Workload()).compared
    assert (changed.accuracy, changed.no_accuracy) == (None, "settings were changed")
    assert count_one(resolve("ghostnetv2-0.5x"), Workload()).compared.no_accuracy == "none is published"


def planted(found: Counted, rows: list[tuple[int, float]]) -> list[Any]:
    """Models with these MACs and accuracies."""
    base = found.compared
    return [
        replace(
            base,
            model=f"m{place}",
            counted=replace(base.counted, totals=replace(base.counted.totals, macs=macs)),
            accuracy=Accuracy(top1, "here"),
        )
        for place, (macs, top1) in enumerate(rows)
    ]


@given(rows=st.lists(st.tuples(st.integers(1, 20), st.sampled_from([60.0, 65.5, 70.0, 71.0, 80.0])), min_size=1, max_size=12))
def test_the_front_is_what_nothing_beats(pair: tuple[Counted, Counted], rows: list[tuple[int, float]]) -> None:
    found = front_of(planted(pair[0], rows), "macs", "top1")
    for item in found.placed:
        place = int(item.model[1:])
        macs, top1 = rows[place]
        beaten = any(m <= macs and t >= top1 and (m, t) != (macs, top1) for m, t in rows)
        assert item.on_front == (not beaten)
        if beaten:
            m, t = rows[int(item.behind[1:])]
            assert m <= macs
            assert t >= top1
            assert next(p for p in found.placed if p.model == item.behind).on_front
    assert [item.x for item in found.placed] == sorted(item.x for item in found.placed)


def test_models_without_a_figure_are_named_with_the_reason(pair: tuple[Counted, Counted]) -> None:
    known = planted(pair[0], [(5, 70.0)])
    found = front_of([*known, pair[1].compared], "macs", "top1")
    assert [(item.model == pair[1].compared.model, item.why) for item in found.unplaced] == [
        (True, "ImageNet top-1, published: none is known of a model of your own")
    ]
    with pytest.raises(BadInput, match="no model has macs and top1 both"):
        front_of([pair[0].compared], "macs", "top1")
    with pytest.raises(BadInput, match="no model has top1") as caught:
        check_front([pair[0].compared], "latency", "top1")
    assert "none is known of a model of your own" in caught.value.hint
    check_front([pair[0].compared, *known], "latency", "top1")


def test_wildcards_mean_what_they_mean_to_the_gate() -> None:
    assert models_named("ghostnetv2-*") == [f"ghostnetv2-{width}x" for width in ("0.5", "1.0", "1.3", "1.6")]
    assert models_named("ghostnetv2") == ["ghostnetv2"]
    with pytest.raises(BadInput, match="no model is called like"):
        models_named("nothing-*")


class Texts(HTMLParser):
    """How often an element is opened, and all texts."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_chart_shows_each_model_once_and_escapes_names(pair: tuple[Counted, Counted]) -> None:
    models = planted(pair[0], [(1, 60.0), (2, 70.0), (3, 65.5), (3, 80.0)])
    models[2] = replace(models[2], model="<b>&\"'")
    run = CompareRun(tuple(models), (), front_of(models, "macs", "top1"), None)
    seen = Texts()
    seen.feed(pareto_chart.chart(run))
    looks = [attributes.get("class") for tag, attributes in seen.found if tag == "circle"]
    assert (looks.count("best"), looks.count("beaten")) == (3, 1)
    assert "b" not in [tag for tag, _ in seen.found]
    assert "<b>&\"': 3, 65.5 %; behind m1" in seen.text
    assert "href" not in pareto_chart.chart(run), "self-contained"
    assert pareto_chart.chart(replace(run, front=None)) == ""
    page = Texts()
    page.feed(compare_page.page(run))
    assert [attributes.get("class") for tag, attributes in page.found if tag == "figure"].count("pareto") == 1
    assert "b" not in [tag for tag, _ in page.found]
    single = replace(run, front=front_of(models[:1], "macs", "top1"))
    assert pareto_chart.chart(single).count("<circle") == 1, "one model has a plane too"


def test_more_models_than_a_screen_is_wide_are_rows(pair: tuple[Counted, Counted]) -> None:
    models = planted(pair[0], [(place, 70.0) for place in range(1, 6)])
    few, many = (compare_view.figures(CompareRun(tuple(models[:n]), (), None, None)) for n in (4, 5))
    assert [name for name, _ in few.columns] == ["", "m0", "m1", "", "m2", "", "m3", ""]
    assert [row[0] for row in many.rows] == ["m0", "m1", "m2", "m3", "m4"]
    macs = next(row for row in few.rows if row[0] == "MACs")
    assert macs[1:] == ("1", "2", "x2.000", "3", "x3.000", "4", "x4.000")


def test_copies_are_told_apart(pair: tuple[Counted, Counted]) -> None:
    names = [item.compared.model for item in told_apart([pair[0], pair[1], pair[0]])]
    name = pair[0].compared.model
    assert names == [f"{name} #1", pair[1].compared.model, f"{name} #2"]


def test_every_metric_has_a_name_that_can_be_typed() -> None:
    named = {"params", "macs", "flops", "bytes", "peak_memory", "activations", "latency", "top1", "file_bytes"}
    assert named <= set(METRICS)
    assert all(name.replace("_", "a").isalnum() for name in METRICS)


def test_a_model_and_its_file_are_counted_and_timed_in_one_command(folder: Path) -> None:
    words = ("net.py:small", "net.onnx", "--time", "--threads", "1", "--seconds", "0.05", "--by-module", "--json")
    done = mixbench("compare", *words, "--x", "latency", "--y", "macs", cwd=folder)
    assert done.returncode == 0, done.stderr
    run = json.loads(done.stdout)
    schema = json.loads((files("mixbench.profilers.runs") / "compare-1.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(run, schema)
    first, second = run["models"]
    assert first["counted"]["totals"]["macs"] == second["counted"]["totals"]["macs"] == 8 * 8 + 8 * 16 + 16 * 4
    assert second["file_bytes"] == (folder / "net.onnx").stat().st_size
    assert run["differences"][0]["items"] == []
    assert [model["latency_ns"]["value"] > 0 for model in run["models"]] == [True, True]
    assert [model["runtime"] for model in run["time"]["models"]] == ["torch", "onnxruntime"]
    assert run["time"]["models"][1]["latency_ns"] == second["latency_ns"]
    assert run["time"]["comparisons"][0]["model"] == "net.onnx"
    assert {item["model"] for item in run["front"]["placed"]} == {"net.py:small", "net.onnx"}


def test_the_table_holds_what_the_record_holds(folder: Path) -> None:
    done = mixbench("compare", "net.py:small", "net.py:large", "--by-module", "--by-op", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert next(line for line in lines if line.startswith("MACs")).split() == ["MACs", "256", "464", "x1.812"]
    assert next(line for line in lines if line.startswith("extra")).split()[:4] == ["extra", "Sequential", "second", "only"]
    assert next(line for line in lines if line.startswith("together")).startswith("together +208 MACs, +228 parameters")
    assert all(line == line.rstrip() for line in lines)


def test_csv_lists_every_difference_and_every_model(pair: tuple[Counted, Counted]) -> None:
    models = tuple(item.compared for item in pair)
    lines = list(compare_view.rows(CompareRun(models, (by_module(*pair),), None, None)))
    assert len({tuple(line) for line in lines}) == 1, "the same columns in each line"
    modules = [line for line in lines if line["by"] == "module"]
    assert [line["name"] for line in modules] == ["layers.1", "head", "extra", ""]
    assert sum(line["macs_more"] for line in modules) == 208
    both = list(compare_view.rows(CompareRun(models, (), None, None)))
    assert [line["macs"] for line in both] == [256, 464]
    assert set(METRICS) <= {name.removesuffix("_ns").removesuffix("_percent") for name in both[0]}
    assert {line["inside"] for line in lines if line["by"] == "operator"} >= {"layers.1", "head"}


def test_variants_are_drawn_with_their_front(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    done = mixbench("compare", "ghostnetv2-*", "ghostnetv2-1.0x", "--y", "top1", "-o", "front.svg", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    drawing = (tmp_path / "front.svg").read_text(encoding="utf-8")
    for name in ("ghostnetv2-1.0x", "ghostnetv2-1.3x", "ghostnetv2-1.6x", "ghostnetv2-0.5x", "ImageNet top-1"):
        assert name in drawing, "the one without a published accuracy is named too"
    assert "not shown: ImageNet top-1, published: none is published" in done.stdout


@pytest.mark.parametrize(
    ("words", "said", "hint"),
    [
        (("ghostnetv2",), "nothing to compare", "mixbench flops"),
        (("ghostnetv2", "ghostnet", "--x", "mac"), "no metric named 'mac'", "did you mean macs?"),
        (("ghostnetv2", "ghostnet", "--y", "latency"), "not measured", "--time"),
        (("ghostnetv2", "ghostnet", "affnet", "--by-op"), "takes two models", "two"),
        (("ghostnetv2", "ghostnet", "--depth", "1"), "--depth is for --by-module", "--by-module"),
        (("ghostnetv2", "ghostnet", "-o", "x.svg"), "one figure over another", "--y top1"),
        (("ghostnetv2", "net.onnx", "--train"), "--train is for PyTorch models", "leave --train out"),
        (("ghostnetv2-*", "x.onnx"), "there is no file 'x.onnx'", "path"),
    ],
)
def test_bad_input_is_told_in_two_lines(folder: Path, words: tuple[str, ...], said: str, hint: str) -> None:
    done = mixbench("compare", *words, cwd=folder)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    error, help_line = done.stderr.splitlines()
    assert error.startswith("error: ")
    assert said in error
    assert help_line.startswith("hint: ")
    assert hint in help_line
