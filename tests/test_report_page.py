"""The page of a count: alone, closed against whatever names hold, the same bytes for the same record, and each figure in it."""

import json
import re
from base64 import b64encode
from dataclasses import asdict, fields, replace
from hashlib import sha256
from html import unescape
from typing import Any

import pytest

from mixbench import build, count
from mixbench.cli.views import icicle, report_page
from mixbench.models.spec import TensorSpec, Workload
from mixbench.profilers.runs.run import Coverage, Difference, Module, Opinion, Run, Uncounted, result_of

NASTY = "</script><script>alert(1)</script><!-- <b>&\"' é🙂"
STYLES = (r"<style>(.*?)</style>", "style-src")
SCRIPTS = (r"<script>(.*?)</script>", "script-src")


@pytest.fixture(scope="module")
def run() -> Run:
    """A small architecture, with everything that speaks against a count; its names are nasty."""
    case = build("ghostnetv2", Workload((TensorSpec((2, 3, 64, 64)),), mode="train"))
    result = result_of(case, count(case))
    modules = (*result.modules, replace(box(NASTY, 1, 0), kind=NASTY))
    gap = Opinion(NASTY, "cpu", 12_345, 67_890, (Difference(NASTY, 67_890, 12_345, NASTY, 3),))
    result = replace(
        result,
        model=NASTY,
        modules=modules,
        uncounted=(Uncounted(NASTY, 4_321),),
        coverage=Coverage(8_000, 3_679),
        notes=(NASTY,),
        opinions=(gap,),
    )
    return Run((result,))


@pytest.fixture(scope="module")
def page(run: Run) -> str:
    return report_page.page(run)


def record_in(page: str) -> object:
    found = re.search(r'<script type="application/json" id="record">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def text_of(page: str) -> str:
    """What a reader sees without running a script."""
    bare = re.sub(r"<(script|style)\b.*?</\1>", " ", page, flags=re.DOTALL)
    return unescape(re.sub(r"<[^>]*>", " ", bare))


def test_the_json_in_the_page_is_the_record(run: Run, page: str) -> None:
    assert record_in(page) == json.loads(json.dumps(asdict(run)))


def test_no_name_ends_a_script_or_becomes_markup(page: str) -> None:
    assert "alert(1)" in page
    assert "<script>alert" not in page
    assert page.count("</script>") == 4, "the record's and the three of ours"
    assert "<!-- " not in page
    assert "<b>&" not in page
    assert NASTY in text_of(page)


@pytest.mark.parametrize(("elements", "directive"), [STYLES, SCRIPTS])
def test_the_policy_forbids_every_load_and_allows_just_what_is_in_the_page(page: str, elements: str, directive: str) -> None:
    found = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert found is not None
    policy = {words.split()[0]: words.split()[1:] for words in found[1].split(";")}
    assert policy["default-src"] == ["'none'"]
    assert policy["img-src"] == ["data:"]
    assert set(policy) == {"default-src", "base-uri", "form-action", "img-src", "style-src", "script-src"}
    texts = re.findall(elements, page, re.DOTALL)
    hashes = [f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'" for text in texts]
    assert texts
    assert policy[directive] == hashes


def test_nothing_comes_from_elsewhere(page: str) -> None:
    bare = re.sub(r'<script type="application/json".*?</script>', "", page, flags=re.DOTALL)
    bare = bare.replace("http://www.w3.org/2000/svg", "")  # a name, which no browser fetches
    assert not re.search(r"https?://|@import|url\(|\bsrc=| on[a-z]+=|innerHTML|fetch\(|style=", bare)


def test_every_figure_of_the_record_is_shown(run: Run, page: str) -> None:
    shown = set(re.findall(r"[\d,]+", text_of(page)))
    result = run.models[0]
    memory, training = result.memory, result.memory.training
    assert training is not None
    parts: list[Any] = [result.totals, result.coverage, *result.modules, *result.operators, *result.uncounted]
    parts += [*result.published, memory, training, *training.optimisers]
    hidden = ("depth", "compulsory_read_bytes", "compulsory_written_bytes")  # a row's place; of modules their sum is shown
    figures = {value for part in parts for key, value in asdict(part).items() if isinstance(value, int) and key not in hidden}
    figures |= {item.compulsory_read_bytes + item.compulsory_written_bytes for item in result.modules}
    figures |= {held.param_bytes + held.buffer_bytes for held in memory.held}
    figures |= {result.totals.compulsory_read_bytes, result.totals.compulsory_written_bytes}
    assert len(figures) > 300
    assert {f"{value:,}" for value in figures | {result.params_bn_folded, 12_345, 67_890}} <= shown


def test_what_has_no_rule_shows_no_figure_and_is_said(run: Run) -> None:
    first = run.models[0].operators[0]
    unknown = replace(first, operator="mine::odd", family="", macs=0)
    page = report_page.page(Run((replace(run.models[0], operators=(unknown,)),)))
    row = re.search(r"<tr><td class=\"left\">mine::odd.*?</tr>", page)
    assert row is not None
    assert row[0].count("<td>?</td>") == row[0].count("<td>") - 3, "all but calls and bytes"
    assert "4,321 calls: no rule" in text_of(page)


def test_the_same_record_is_the_same_bytes(run: Run, page: str) -> None:
    assert report_page.page(replace(run)) == page


def test_several_models_stand_side_by_side_and_each_has_its_part(run: Run) -> None:
    other = replace(run.models[0], model="other")
    page = report_page.page(Run((run.models[0], other)))
    assert re.findall(r'<figure class="icicle" data-model="(\d)"', page) == ["0", "1"]
    assert "2 models" in text_of(page)


def box(name: str, depth: int, macs: int) -> Module:
    sizes: dict[str, Any] = dict.fromkeys((field.name for field in fields(Module)), 0)
    return Module(**(sizes | {"name": name, "kind": "K", "depth": depth, "macs": macs}))


def boxes(nodes: tuple[Module, ...]) -> list[tuple[str, float, int, float]]:
    svg = "".join(icicle.figure(nodes, report_page.METRICS, 0, "net"))
    pattern = r'<svg x="([\d.]+)%" y="(\d+)" width="([\d.]+)%" height="20"><title>([^ ]*) '
    return [(name, float(x), int(y) // 20, float(width)) for x, y, width, name in re.findall(pattern, svg)]


def test_a_box_is_as_wide_as_its_share_and_lies_below_its_parent() -> None:
    nodes = (box("", 0, 100), box("a", 1, 60), box("a.x", 2, 15), box("a.y", 2, 45), box("b", 1, 30), box("b.z", 2, 30))
    assert boxes(nodes) == [
        ("net", 0.0, 0, 100.0),
        ("a", 0.0, 1, 60.0),
        ("a.x", 0.0, 2, 15.0),
        ("a.y", 15.0, 2, 45.0),
        ("b", 60.0, 1, 30.0),
        ("b.z", 60.0, 2, 30.0),
    ]


def test_what_is_too_thin_to_be_seen_is_left_out_with_all_below_it_and_keeps_its_place() -> None:
    nodes = (box("", 0, 100_000), box("thin", 1, 50), box("thin.x", 2, 50), box("b", 1, 50_000))
    assert boxes(nodes) == [("net", 0.0, 0, 100.0), ("b", 0.05, 1, 50.0)]


def test_a_model_without_figures_has_no_picture() -> None:
    assert boxes((box("", 0, 0),)) == []
    assert list(icicle.figure((), report_page.METRICS, 0, "net")) == []


def test_thousands_of_modules_make_a_page_of_a_few_megabytes(run: Run) -> None:
    layers = [box(f"layers.{i}", 1, 1_000) for i in range(80)]
    nodes = [box("", 0, 80_000)]
    for layer in layers:
        nodes += [layer, *(box(f"{layer.name}.block.{i}.projection", 2, 20) for i in range(50))]
    page = report_page.page(Run((replace(run.models[0], modules=tuple(nodes)),)))
    assert len(nodes) == 4_081
    assert len(page) < 4_000_000
    assert page.count("<tr data-depth") == 4_081
