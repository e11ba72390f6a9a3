"""The page of a count in a real browser: it asks for nothing, answers to clicks and keys, and fits phone, dark and paper."""

import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from mixbench import build, count
from mixbench.cli.views import report_page
from mixbench.models.spec import TensorSpec, Workload
from mixbench.profilers.runs.run import Module, Run, result_of

pytestmark = pytest.mark.browser
NASTY = "</script><script>document.title = 'run'</script><img src=x onerror=\"document.title = 'run'\">"
TABLE = "document.querySelector('tr[data-depth]').closest('table')"
ROWS = "table.sortable tr[data-depth]"


@pytest.fixture(scope="module")
def run() -> Run:
    case = build("ghostnetv2", Workload((TensorSpec((1, 3, 64, 64)),)))
    result = result_of(case, count(case))
    own: dict[str, Any] = dict.fromkeys((field.name for field in fields(Module)), 0)
    nasty = Module(**(own | {"name": NASTY, "kind": NASTY, "depth": 1, "params": 600_000}))
    return Run((replace(result, model="ghost", modules=(*result.modules, nasty), notes=(NASTY,)),))


@pytest.fixture
def file(run: Run, tmp_path: Path) -> Path:
    path = tmp_path / "page.html"
    path.write_text(report_page.page(run), encoding="utf-8")
    return path


def box(name: str) -> str:
    """The box of a module, by its whole name."""
    return f"[...document.querySelectorAll('.icicle svg svg')].find(e => e.getAttribute('aria-label').startsWith('{name} ('))"


def crumbs(tab: Any) -> str:
    found: str = tab.run("document.querySelector('.crumbs').textContent")
    return found


def test_it_loads_without_a_request_or_a_complaint_whatever_names_hold(tab: Any, file: Path) -> None:
    tab.open(file)
    assert tab.run("document.title") == "mixbench flops: ghost"
    assert tab.run("document.querySelector('.icicle svg svg').tabIndex") == 0, "its script runs"
    assert tab.requests == [file.as_uri()]
    assert tab.complaints == []


def test_a_click_on_a_columns_name_sorts_then_the_other_way_then_as_before(tab: Any, file: Path) -> None:
    tab.open(file)
    head = f"[...{TABLE}.querySelectorAll('th')].find(e => e.textContent === 'parameters')"
    column = f"[...{TABLE}.tBodies[0].rows].map(r => Number(r.cells[{head}.cellIndex].textContent.replaceAll(',', '')))"
    before = tab.run(column)
    for way, expected in (("descending", sorted(before)[::-1]), ("ascending", sorted(before)), (None, before)):
        tab.click(f"{head}.querySelector('button')")
        assert tab.run(f"{head}.getAttribute('aria-sort')") == way
        assert tab.run(column) == expected
    tab.run(f"{head}.querySelector('button').focus()")
    tab.press("Enter")
    assert tab.run(column) == sorted(before)[::-1]
    tab.click(f"{TABLE}.querySelector('th button')")
    names = tab.run(f"[...{TABLE}.tBodies[0].rows].map(r => r.cells[0].textContent)")
    assert names.index("blocks.2") < names.index("blocks.9"), "words sort upwards at once"
    assert tab.run(f"{TABLE}.querySelectorAll('[aria-sort]').length") == 1
    assert tab.complaints == []


def test_a_click_opens_a_module_and_the_path_leads_back(tab: Any, file: Path, run: Run) -> None:
    tab.open(file)
    blocks = next(item for item in run.models[0].modules if item.name == "blocks")
    before = tab.run(f"{box('blocks')}.getAttribute('width')")
    assert float(before.rstrip("%")) == pytest.approx(100 * blocks.macs / run.models[0].totals.macs)
    tab.click(box("blocks"))
    assert crumbs(tab) == "ghost › blocks"
    assert tab.run(f"{box('blocks')}.getAttribute('width')") == "100%"
    assert f"{blocks.params:,} parameters" in tab.run("document.querySelector('.told').textContent")
    tab.click(box("blocks.6"))
    assert crumbs(tab) == "ghost › blocks › 6"
    tab.click("document.querySelector('.crumbs button')")
    assert crumbs(tab) == "ghost"
    assert tab.run(f"{box('blocks')}.getAttribute('width')") == before


def test_keys_do_what_clicks_do(tab: Any, file: Path) -> None:
    tab.open(file)
    focused = "document.activeElement.getAttribute('aria-label').split(' ')[0]"
    tab.run("document.querySelector('.icicle svg svg').focus()")
    walk = (("ArrowDown", "conv_stem"), ("ArrowRight", "blocks"), ("ArrowLeft", "conv_stem"), ("ArrowUp", "ghost"))
    for key, name in walk:
        tab.press(key)
        assert tab.run(focused) == name
    for key in ("ArrowDown", "ArrowRight", "Enter"):
        tab.press(key)
    assert crumbs(tab) == "ghost › blocks"
    assert tab.run(focused) == "blocks"
    tab.press("Escape")
    assert crumbs(tab) == "ghost"
    tab.press("ArrowDown")
    tab.press("Enter")
    tab.run("document.querySelector('.crumbs button').focus()")
    tab.press("Enter")
    assert (crumbs(tab), tab.run(focused)) == ("ghost", "ghost"), "keys go on where the button was"


def test_what_a_width_means_can_be_chosen(tab: Any, file: Path, run: Run) -> None:
    tab.open(file)
    choose = "(s => { s.value = 'params'; s.dispatchEvent(new Event('change')); })(document.querySelector('.icicle select'))"
    tab.run(choose)
    item = next(item for item in run.models[0].modules if item.name == "classifier")
    width = tab.run(f"{box('classifier')}.getAttribute('width')")
    assert float(width.rstrip("%")) == pytest.approx(100 * item.params / run.models[0].totals.params)


def test_many_modules_are_shown_down_to_a_depth_that_can_be_chosen(tab: Any, file: Path, run: Run) -> None:
    tab.open(file)
    visible = f"[...document.querySelectorAll('{ROWS}')].filter(r => r.offsetParent).length"
    assert tab.run(visible) < len(run.models[0].modules)
    deepest = "(s => { s.selectedIndex = s.length - 1; s.dispatchEvent(new Event('change')); })"
    tab.run(f"{deepest}(document.querySelector('select[name=depth]'))")
    assert tab.run(visible) == len(run.models[0].modules)


def luminance(colour: str) -> float:
    """Relative luminance of ``rgb(...)``, as WCAG 2 has it."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("dark", [False, True])
def test_every_text_can_be_read_in_the_light_and_in_the_dark(tab: Any, file: Path, dark: bool) -> None:
    tab.look(1280, 900, dark=dark)
    tab.open(file)
    style = "getComputedStyle(document.querySelector('{}')).{}"
    paper, ink = (luminance(tab.run(style.format("body", name))) for name in ("backgroundColor", "color"))
    assert (paper < ink) is dark
    faint, warn = (luminance(tab.run(style.format(name, "color"))) for name in ("p.faint", "p.warn"))
    fills = tab.run("[...document.querySelectorAll('.icicle rect')].map(e => getComputedStyle(e).fill)")
    assert len(set(fills)) > 3
    pairs = [(paper, ink), (paper, faint), (paper, warn), *((luminance(fill), ink) for fill in set(fills))]
    for below, above in pairs:
        low, high = sorted((below, above))
        assert (high + 0.05) / (low + 0.05) >= 4.5


def test_it_is_no_wider_than_a_phone(tab: Any, file: Path) -> None:
    tab.look(360, 740, phone=True)
    tab.open(file)
    assert tab.run("document.documentElement.scrollWidth") <= 360
    assert tab.run("document.querySelector('.icicle svg').clientWidth") <= 360


def test_on_paper_everything_is_there_and_nothing_that_wants_a_click(tab: Any, file: Path) -> None:
    tab.open(file)
    tab.click(box("blocks"))
    assert tab.pdf().startswith(b"%PDF-")
    tab.send("Emulation.setEmulatedMedia", media="print")
    hidden = f"[...document.querySelectorAll('{ROWS}, p, h3')].filter(e => !e.getClientRects().length)"
    assert tab.run(f"{hidden}.every(e => e.classList.contains('live'))")
    assert tab.run("[...document.querySelectorAll('.live')].every(e => !e.getClientRects().length)")
    assert tab.run("document.querySelector('.by').innerText") == "ghost › blocks, by MACs"


def test_without_scripts_the_figures_and_the_picture_are_there(tab: Any, file: Path, run: Run) -> None:
    tab.send("Emulation.setScriptExecutionDisabled", value=True)
    tab.open(file)
    assert tab.run(f"[...document.querySelectorAll('{ROWS}')].every(r => r.offsetParent)")
    assert tab.run(f"document.querySelectorAll('{ROWS}').length") == len(run.models[0].modules)
    assert tab.run("[...document.querySelectorAll('.icicle svg svg')].every(e => e.getBoundingClientRect().height === 20)")
    assert tab.run("[...document.querySelectorAll('.live')].every(e => !e.getClientRects().length)")
