"""The one report of some models: its record is what ``--json`` prints, its figures are the record's, a browser can use it."""

import json
import os
import re
import subprocess
import sys
from html import unescape
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from mixbench.cli.views import compare_view
from mixbench.models.lookup import resolve
from mixbench.models.spec import TensorSpec, Workload
from mixbench.profilers.compared import count_one, works
from mixbench.profilers.machine import look
from mixbench.profilers.peaks_published import published
from mixbench.profilers.roofline import Level, Peaks
from mixbench.profilers.roofline_session import Here, place_here
from mixbench.profilers.runs.roofline_run import measured_place
from mixbench.profilers.stats import Estimate

SCRIPT = Path(sys.executable).with_name("mixbench")
MODELS = ("ghostnetv2", "ghostnet", "ghostnet")
NAMES = ("ghostnetv2-1.0x", "ghostnet-1.0x #1", "ghostnet-1.0x #2")
WORDS = ("--dim", "height=64", "--dim", "width=96", "--roofline", "--hardware", "a100-sxm-80gb", "--x", "macs", "--y", "params")
NAV = "document.querySelector('nav a[href=\"#model-{}\"]')"
OPEN = "[...document.querySelectorAll('details')].map(e => e.open)"


def mixbench(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    plain = {name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "MIXBENCH_DEBUG")}
    return subprocess.run([SCRIPT, *words], capture_output=True, text=True, cwd=cwd, env=plain, timeout=300, encoding="utf-8")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    done = mixbench("compare", *MODELS, *WORDS, "-o", "report.html", cwd=folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return folder / "report.html"


@pytest.fixture(scope="module")
def page(file: Path) -> str:
    return file.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def record(page: str) -> Any:
    found = re.search(r'<script type="application/json" id="record">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def text_of(page: str) -> str:
    bare = re.sub(r"<(script|style)\b.*?</\1>", " ", page, flags=re.DOTALL)
    return unescape(re.sub(r"<[^>]*>", " ", bare))


def test_the_record_in_the_page_is_what_json_prints(record: Any) -> None:
    done = mixbench("compare", *MODELS, *WORDS, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == record
    schema = json.loads((files("mixbench.profilers.runs") / "compare-1.schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(record, schema)


def test_each_model_has_a_section_with_all_that_flops_shows(page: str, record: Any) -> None:
    sections = re.findall(r'<details id="model-(\d)"><summary><h2>(.*?)</h2>.*?</summary>(.*?)</details>', page, re.DOTALL)
    assert [(place, name) for place, name, _ in sections] == [(str(place), name) for place, name in enumerate(NAMES)]
    assert re.findall(r"<nav>.*?</nav>", page)[0].count('href="#model-') == 3
    for (place, name, part), model in zip(sections, record["models"], strict=True):
        shown = set(re.findall(r"[\d,]+", text_of(part)))
        counted = model["counted"]
        assert counted["inputs"] == ["1x3x64x96"], "--dim sizes it"
        figures = [counted["totals"][key] for key in ("params", "macs", "flops", "elementwise_flops", "activations")]
        figures += [item[key] for key in ("macs", "params", "read_bytes") for item in counted["modules"]]
        figures += [item["macs"] for item in counted["operators"]]
        assert {f"{value:,}" for value in figures} <= shown
        assert f'<figure class="icicle" data-model="{place}">' in part
        assert model["model"] == name and f"{name}, by MACs" in text_of(part)


def test_the_roofs_are_the_makers_and_the_floors_stand_beside_each_model(page: str, record: Any) -> None:
    device, under = published("a100-sxm-80gb"), record["roofline"]
    (place,) = under["places"]
    assert (place["kind"], place["flops_per_s"]) == ("modelled", device.flops_per_s)
    assert [point["model"] for point in under["models"]] == list(NAMES), "copies are told apart there too"
    for point, model in zip(under["models"], record["models"], strict=True):
        totals = model["counted"]["totals"]
        moved = totals["compulsory_read_bytes"] + totals["compulsory_written_bytes"]
        least = max(totals["flops"] / device.flops_per_s["float32"], moved / device.memory_bytes_per_s)
        assert point["compulsory_floor_ns"] == pytest.approx(1e9 * least, rel=1e-9)
        assert point["measured"] is None
        assert point["notes"] == [], "those of the count are with the count"
    text = text_of(page)
    assert compare_view.UNDER_ROOFS in text and text.count(f"Operators under the roof of {device.title}") == 3
    assert page.count('<figure class="roofline">') == page.count('<figure class="pareto">') == 1


def test_the_policy_still_forbids_all_but_what_is_in_the_page(page: str) -> None:
    found = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert found is not None
    assert found[1].startswith("default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; style-src 'sha256-")
    assert found[1].count("'sha256-") == 1 + page.count("<script>") == 4 and "unsafe" not in found[1]
    bare = re.sub(r'<script type="application/json".*?</script>', "", page, flags=re.DOTALL)
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|@import|url\(|\bsrc=| on[a-z]+=|style=", bare)


def test_the_screen_and_the_lines_have_the_floors_too(record: Any) -> None:
    done = mixbench("compare", *MODELS[:2], *WORDS)
    assert done.returncode == 0, done.stderr
    below = done.stdout.partition(f"\n{compare_view.UNDER_ROOFS}\n")[2]
    assert "modelled floor, unfused" in below and "NVIDIA A100 SXM, 80 GB" in below
    lines = mixbench("compare", *MODELS[:2], *WORDS, "--csv").stdout.splitlines()
    row = dict(zip(lines[0].split(","), lines[1].split(","), strict=True))
    point = record["roofline"]["models"][0]
    assert float(row["a100-sxm-80gb_unfused_floor_ns"]) == point["unfused_floor_ns"]


def test_latencies_are_shares_of_the_roofs_of_this_machine() -> None:
    found = count_one(resolve("ghostnetv2"), Workload((TensorSpec((1, 3, 64, 64)),)), reparameterised=True)
    (work,) = works([found])
    assert (work.how, work.runtime, work.notes) == ("reparameterised", "torch", ())
    totals = found.compared.counted.totals
    slow = (totals.compulsory_read_bytes + totals.compulsory_written_bytes) / 1e3  # seconds at 1 kB/s
    place = measured_place("slow", Peaks({"float32": 1e15}, (Level(1e3),), "here", {}), 10**9, 1)
    took = Estimate(2e9 * slow, None, None, 0.99, 3)
    run = place_here(Here(place, look("slow", "a clock", {}), ("hot",)), [work], [took], partial=True)
    assert run.models[0].measured is not None
    assert run.models[0].measured.compulsory_share == pytest.approx(0.5)
    assert (run.partial, run.warnings) == (True, ("hot",))


@pytest.mark.slow
@pytest.mark.alone
def test_measured_times_are_shares_of_measured_peaks(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "import torch\n\ndef net(width=64):\n    return torch.nn.Linear(width, width), torch.zeros(8, width)\n"
    )
    words = ("net.py:net", "net.py:net", "--roofline", "--time", "--threads", "1", "--seconds", "0.1", "--json")
    done = mixbench("compare", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = json.loads(done.stdout)
    assert run["roofline"]["machine"] is not None and run["roofline"]["places"][0]["threads"] == 1
    for point, timed in zip(run["roofline"]["models"], run["time"]["models"], strict=True):
        latency = timed["latency_ns"]
        assert point["measured"]["latency_ns"] == latency, "timed once"
        assert point["measured"]["compulsory_share"] == pytest.approx(point["compulsory_floor_ns"] / latency["value"])


@pytest.mark.parametrize(
    ("words", "said", "hint"),
    [
        (("--hardware", "t4"), "--hardware is for --roofline", "add --roofline"),
        (("--roofline", "--hardware-file", "x.toml"), "--hardware-file is for --hardware", "add --hardware"),
        (("--roofline", "--hardware", "t5"), "no hardware named 't5'", "t4"),
        (("--roofline", "--hardware", "t4", "--dtype", "bfloat16"), "NVIDIA T4, 16 GB has no peak for bfloat16", "--dtype"),
        (("--dim", "seq=8"), "no open dimension 'seq'", "height, width"),
    ],
)
def test_bad_input_is_told_in_two_lines(words: tuple[str, ...], said: str, hint: str) -> None:
    done = mixbench("compare", "ghostnetv2", "ghostnet", *words)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    error, help_line = done.stderr.splitlines()
    assert error.startswith("error: ") and said in error
    assert help_line.startswith("hint: ") and hint in help_line


@pytest.mark.browser
def test_a_link_opens_its_section_and_the_icicle_in_it_answers(tab: Any, file: Path, record: Any) -> None:
    tab.look(1280, 900)
    tab.open(file)
    assert tab.run(OPEN) == [False] * 3
    tab.click(NAV.format(1))
    assert tab.run(OPEN) == [False, True, False]
    assert 0 <= tab.run("document.querySelector('#model-1').getBoundingClientRect().top") < 450, "and leads there"
    figure = "document.querySelector('#model-1 .icicle')"
    tab.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    box = f"[...{figure}.querySelectorAll('svg svg')].find(e => e.getAttribute('aria-label').startsWith('blocks ('))"
    tab.click(box)
    assert tab.run(f"{figure}.querySelector('.crumbs').textContent") == f"{NAMES[1]} › blocks"
    blocks = next(item for item in record["models"][1]["counted"]["modules"] if item["name"] == "blocks")
    assert f"{blocks['params']:,} parameters" in tab.run(f"{figure}.querySelector('.told').textContent")
    assert tab.run(f"{figure}.querySelectorAll('text').length") > 10, "drawn for the width that it has once it is seen"
    head = "document.querySelector('#model-1 table.sortable th button')"
    tab.click(head)
    assert tab.run(f"{head}.closest('th').getAttribute('aria-sort')") == "ascending"
    assert tab.complaints == []
    assert set(tab.requests) == {file.as_uri()}


@pytest.mark.browser
@pytest.mark.parametrize("dark", [False, True])
def test_it_is_no_wider_than_a_phone_with_all_open(tab: Any, file: Path, dark: bool) -> None:
    tab.look(360, 740, dark=dark, phone=True)
    tab.open(file)
    assert tab.run("document.documentElement.scrollWidth") <= 360
    for place in range(3):
        tab.click(NAV.format(place))
    assert tab.run(OPEN) == [True] * 3
    assert tab.run("document.documentElement.scrollWidth") <= 360
    assert tab.complaints == []


@pytest.mark.browser
@pytest.mark.parametrize("scripts", [True, False])
def test_on_paper_every_section_is_there(tab: Any, file: Path, scripts: bool) -> None:
    tab.send("Emulation.setScriptExecutionDisabled", value=not scripts)
    tab.open(file)
    tables = "[...document.querySelectorAll('details table')].filter(e => e.checkVisibility({ contentVisibilityAuto: true }))"
    assert tab.run(f"{tables}.length") == 0
    assert tab.pdf().startswith(b"%PDF-")
    assert tab.run(OPEN) == [False] * 3, "as they were"
    tab.send("Emulation.setEmulatedMedia", media="print")
    assert tab.run(f"{tables}.length") == tab.run("document.querySelectorAll('details table').length") > 9
