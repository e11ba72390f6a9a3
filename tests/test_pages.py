"""HTML pages: one file each that needs nobody, names escaped, measured and modelled apart; and what a browser makes of them."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from mixbench.cli.views import flame, line_chart, parallel_page, scale_page
from mixbench.cli.views.line_chart import Line
from mixbench.cli.views.page import page as skeleton
from mixbench.models.versions import versions
from mixbench.profilers.links import hardware
from mixbench.profilers.machine import Machine, look
from mixbench.profilers.parallel_job import Sweep, parse_methods
from mixbench.profilers.parallel_modelled import crossovers, model_points
from mixbench.profilers.runs.parallel_run import Bar, MeasuredPoint, ParallelRun, Workload
from mixbench.profilers.runs.scale_run import ScalePoint, ScaleRun, over, rate, speed_up
from mixbench.profilers.runs.trace_run import Frame
from mixbench.profilers.stats import Estimate, estimate

NASTY = "<b>&\"'"
WORK = Workload(1, 8, 8, 64, "float32", False, False)


@pytest.fixture(scope="module")
def machine() -> Machine:
    return look("a CPU", "wall clock", versions("mixbench", "torch"))


def measured(method: str, degree: int, ms: float) -> MeasuredPoint:
    bars = tuple(Bar(rank, lane, f"send {kind}", 0.0, ms * 1e6) for rank in range(degree) for lane, kind in KINDS)
    return MeasuredPoint(
        method, degree, 1024, "measured", "", False, estimate([ms * 1e6] * 20), None, None, None, None, 1024 / ms * 1e3, 1e9,
        sent_bytes=0, planned_bytes=0, max_error=1e-7, bars_ns=bars,
    )  # fmt: skip


KINDS = (("compute", "q"), ("send", "q"), ("send", "o"), ("wait", "o"))


@pytest.fixture
def parallel(machine: Machine) -> ParallelRun:
    """Two methods measured on two ranks, modelled on four; its model and a note are nasty."""
    job = Sweep(parse_methods("ring,tokenring", causal=False), (1024,), WORK)
    lost = MeasuredPoint("ring", 4, 1024, "failed", f"rank 1 {NASTY}", False)
    points = (measured("one process", 1, 8), measured("ring", 2, 5), measured("tokenring", 2, 4), lost)
    return ParallelRun(
        NASTY, WORK, 4, "strong", points, tuple(model_points(job, (1, 2, 4), hardware("a100-nvlink"))), (),
        ("measured: tokenring wins", "modelled: ring wins"), hardware("a100-nvlink"), "cpu", "gloo", 1, machine, (NASTY,), (),
        partial=True, cause=f"rank 1 {NASTY}",
    )  # fmt: skip


@pytest.fixture
def scaled(machine: Machine) -> ScaleRun:
    def point(degree: int, ms: float) -> ScalePoint:
        step = Estimate(ms * 1e6, ms * 0.9e6, ms * 1.1e6, 0.99, 20)
        faster = speed_up([8e6] * 20, 8, [ms * 1e6] * 20, 8)
        many = over(faster, degree)
        return ScalePoint(degree, 8 // degree, 8, "measured", "", 1, step, rate(step, 8), faster, many, False, (), ())

    return ScaleRun(
        NASTY, ("1x3",), "float32", "eval", "", "strong", "independent replicas", 2, (point(1, 8), point(2, 5)), "cpu", "gloo",
        1, 1, "mixbench", machine, (NASTY,), (),
    )  # fmt: skip


class Balanced(HTMLParser):
    """The texts of a page in which every element that is opened is closed, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in ("meta", "link"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        """It closes itself."""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def check_alone(page: str) -> Balanced:
    """One file: no address, no script, nothing imported; well-formed and with nothing of a name taken for markup."""
    assert page.startswith("<!DOCTYPE html>")
    assert not re.search(r"https?://|<script|@import|url\(|src=| on\w+=", page)
    assert "prefers-color-scheme: dark" in page
    assert 'name="viewport"' in page
    assert "<b>&" not in page
    found = Balanced()
    found.feed(page)
    assert found.open == []
    assert NASTY in " ".join(found.texts), "the name is there, as text"
    return found


def test_a_page_of_a_sweep_has_everything_and_needs_nobody(parallel: ParallelRun) -> None:
    page = parallel_page.page(parallel)
    text = " ".join(check_alone(page).texts)
    for words in ("PARTIAL: rank 1", "Measured on this machine", "never measured here", "tokenring wins", "failed: rank 1"):
        assert words in text
    before, after = page.split("<h2>Modelled for")
    # Each half has its own table, lines and time lines, of its own kind only.
    assert 'class="line l0 measured"' in before and "modelled" not in before.split("</style>")[1].replace("modelled: ring", "")
    assert 'l1 modelled"' in after and 'measured"' not in after
    assert before.count('class="gantt"') == after.count('class="gantt"') == 2
    fastest = before.index("one step of tokenring")
    assert fastest < before.index("one step of ring"), "the fastest first"
    # Ranks 0 and 1, with computing, messages out and results back; waiting is no bar.
    assert [len(re.findall(f'<rect class="{kind}" x=', before)) for kind in ("compute", "out", "back")] == [4, 4, 4]


def test_a_page_of_crossovers_is_all_modelled(parallel: ParallelRun) -> None:
    job = Sweep(parse_methods("ring", causal=False), (1,), WORK)
    run = replace(parallel, measured=(), modelled=(), crossovers=tuple(crossovers(job, 4, hardware("mi300x-mesh"))))
    page = parallel_page.page(run)
    check_alone(page)
    assert 'class="line l0 modelled"' in page
    assert ' measured"' not in page


def test_a_page_of_throughput_shows_points_and_a_guide(scaled: ScaleRun) -> None:
    page = scale_page.page(scaled)
    text = " ".join(check_alone(page).texts)
    assert "proportional to one process" in text
    assert "80 %" in text, "8 ms by 5 ms on two ranks"
    assert page.count("<circle") == 2 + 1, "two points, and the legend's"


def test_a_chart_puts_its_points_where_they_belong() -> None:
    chart = line_chart.line_chart("t", [Line("a", "measured", 0, ((1, 10.0), (2, 20.0), (4, 40.0)))], "u")
    places = [(float(x), float(y)) for x, y in re.findall(r'<circle class="d0" cx="([\d.]+)" cy="([\d.]+)"', chart)[:3]]
    (x1, y1), (x2, y2), (x4, y4) = places
    assert x2 - x1 == pytest.approx(x4 - x2, abs=0.2), "ranks by their logarithm"
    assert (y1 - y2) * 2 == pytest.approx(y2 - y4, abs=0.2), "values in proportion"
    assert line_chart.line_chart("t", [], "u") == ""


def test_a_chart_over_another_size_says_so_and_writes_what_has_room() -> None:
    sizes = [1024 + 64 * place for place in range(40)]
    line = Line("a", "measured", 0, tuple((size, float(size) ** 3) for size in sizes))
    chart = line_chart.line_chart("t", [line], "u", log=True, over="tokens")
    assert ">tokens</text>" in chart
    assert "1024 tokens: " in chart
    assert "ranks" not in chart
    written = [size for size in sizes if f'text-anchor="middle">{size}</text>' in chart]
    assert 3 < len(written) < 15
    far = line_chart.line_chart("t", [Line("a", "measured", 0, ((1, 10.0), (2, 1e9)))], "u", log=True)
    assert all(f">{tick}</text>" in far for tick in ("10", "1,000", "10 M", "1 G"))


def shown(tab: Any, page: str, folder: Path) -> Path:
    """A page as a file that the tab has opened."""
    file = folder / "page.html"
    file.write_text(page, encoding="utf-8")
    tab.open(file)
    return file


@pytest.mark.browser
@pytest.mark.parametrize("kind", ["parallel", "scale", "trace"])
def test_a_browser_shows_the_page_without_a_complaint_or_a_request(
    kind: str, parallel: ParallelRun, scaled: ScaleRun, tab: Any, tmp_path: Path
) -> None:
    frame = Frame(NASTY, "module", 1.0, 10.0, 10.0)
    pages = {
        "parallel": lambda: parallel_page.page(parallel),
        "scale": lambda: scale_page.page(scaled),
        "trace": lambda: skeleton(NASTY, "trace", {}, flame.STYLE, [flame.svg(frame)]),
    }
    file = shown(tab, pages[kind](), tmp_path)
    assert tab.run("document.querySelectorAll('svg').length") > 0
    assert NASTY in tab.run("document.title")
    assert tab.run("getComputedStyle(document.querySelector('td, text')).textAlign"), "its style is not refused"
    assert tab.complaints == []
    assert tab.requests == [file.as_uri()]


@pytest.mark.browser
def test_a_complaint_and_a_request_would_be_seen(tab: Any, tmp_path: Path) -> None:
    page = '<img src="http://127.0.0.1:9/a.png"><script>console.error("no")</script>'
    shown(tab, page, tmp_path)
    assert any('"no"' in words for words in tab.complaints)
    assert "http://127.0.0.1:9/a.png" in tab.requests


@pytest.mark.browser
def test_what_a_name_would_load_or_run_is_refused_by_the_pages_policy(scaled: ScaleRun, tab: Any, tmp_path: Path) -> None:
    bad = '<img src="http://127.0.0.1:9/a.png"><script>document.title = "run"</script></body>'
    shown(tab, scale_page.page(scaled).replace("</body>", bad), tmp_path)
    assert tab.run("document.title") != "run"
    assert len([words for words in tab.complaints if "Content Security Policy" in words]) == 2


@pytest.mark.browser
def test_a_page_is_no_wider_than_a_phone(parallel: ParallelRun, tab: Any, tmp_path: Path) -> None:
    """What is wide scrolls by itself."""
    tab.look(360, 740, phone=True)
    shown(tab, parallel_page.page(parallel), tmp_path)
    assert tab.run("document.documentElement.scrollWidth") <= 360
