"""Histories: series over commits, their changes, and what never goes into one series."""

import csv
import importlib.util
import io
import json
import math
import os
import random
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jsonschema
import pytest

from mixbench.cli.keeping import Keeping, keep
from mixbench.cli.views import history_page, history_view
from mixbench.models.errors import BadInput, CannotMeasure
from mixbench.profilers import store
from mixbench.profilers.change_points import LONGEST, change_points
from mixbench.profilers.commit import Commit
from mixbench.profilers.history import look, series_of
from mixbench.profilers.runs.check_run import Culprit
from mixbench.profilers.runs.history_run import HistoryRun
from mixbench.profilers.runs.metrics import metrics_of
from mixbench.profilers.store import Figure, KeptRun, Occasion

SCRIPT = Path(sys.executable).with_name("mixbench")
ROOT = Path(__file__).resolve().parent.parent


def commit(number: int, dirty: bool = False) -> Commit:
    return Commit(f"{number:02}" + "ab" * 19, f"2026-01-{1 + number // 24:02}T{number % 24:02}:00:00Z", "main", dirty)


def occasion(name: str, at: Commit, machine: str = "") -> Occasion:
    return Occasion(name, "2026-06-01T00:00:00.000000Z", "flops", at, machine, "CPU")


def macs(value: int, **parts: int) -> Figure:
    return Figure("net", "w", "macs", value, "MACs", "counted", "lower", parts=parts)


def latency(value: float, low: float | None = None, high: float | None = None) -> Figure:
    return Figure("net", "w", "latency", value, "ns", "measured", "lower", low, high)


def noise(count: int, seed: int, step_at: int = -1, step: float = 0.1) -> list[float]:
    dice = random.Random(seed)
    return [1e6 * math.exp(dice.gauss(0, 0.02) + (math.log1p(step) if 0 <= step_at <= place else 0)) for place in range(count)]


def test_noise_has_no_change_points() -> None:
    """benchmarks/history_alarms.py has the shares for more kinds of noise."""
    alarms = sum(bool(change_points(noise(40, seed))) for seed in range(200))
    assert alarms <= 4


def test_a_tenth_more_is_found_where_it_begins() -> None:
    found = [change_points(noise(40, seed, 25)) for seed in range(100)]
    assert all(len(cuts) == 1 and abs(cuts[0] - 25) <= 1 for cuts in found)


def test_of_a_long_series_the_newest_points_are_looked_at() -> None:
    count = LONGEST + 100
    assert change_points(noise(count, 1, count - 50)) == [count - 50]
    assert change_points(noise(count, 1, 50)) == []


def test_two_changes_are_both_found() -> None:
    values = [value * (1.2 if 20 <= place < 40 else 1.0) for place, value in enumerate(noise(60, 3))]
    assert change_points(values) == [20, 40]


@pytest.mark.parametrize(
    ("values", "cuts"),
    [
        ([], []),
        ([1.0] * 50, []),
        ([1.0, 1.0, 1.2, 1.2], []),  # too few to tell
        ([5.0] * 10 + [5.05] * 10, []),  # below the floor
        ([5.0] * 10 + [5.5] * 10, [10]),  # no noise at all
        ([5.0] * 10 + [9.0] + [5.0] * 10, []),  # one wild run
        ([0.0, 1.0] * 10, []),  # no logarithm
    ],
)
def test_what_is_no_level_is_no_change(values: list[float], cuts: list[int]) -> None:
    assert change_points(values) == cuts


def test_a_counted_figure_changes_wherever_it_differs_and_names_the_module() -> None:
    kept = [
        (occasion("a", commit(1)), macs(1000, stem=400, head=600)),
        (occasion("b", commit(2)), macs(1000, stem=400, head=600)),
        (occasion("c", commit(3)), macs(1250, stem=400, head=550, extra=300)),
        (occasion("d", commit(4)), macs(1249, stem=399, head=550, extra=300)),
    ]
    (series,) = series_of(kept)
    first, second = series.changes
    assert (first.commit, first.place, first.before, first.after, first.word) == (commit(3).sha, 2, 1000, 1250, "worse")
    assert first.parts == (Culprit("extra", 0, 300), Culprit("head", 600, 550))
    assert (second.commit, second.word, second.parts) == (commit(4).sha, "better", (Culprit("stem", 400, 399),))


def test_times_of_two_machines_are_never_one_series_and_counts_are() -> None:
    kept = [(occasion(f"{m}{n}", commit(n), m), f) for n in range(3) for m in "ab" for f in (macs(7), latency(8.0))]
    series = series_of(kept)
    assert [(item.name, item.machine, len(item.points)) for item in series] == [
        ("macs", "", 3),
        ("latency", "a", 3),
        ("latency", "b", 3),
    ]


def test_other_workloads_units_and_kinds_make_series_of_their_own() -> None:
    others = [macs(1), Figure("net", "w2", "macs", 1, "MACs", "counted", "lower")]
    others.append(Figure("net", "w", "macs", 1, "GMACs", "counted", "lower"))
    others.append(Figure("net", "w", "macs", 1, "MACs", "modelled", "lower"))
    assert len(series_of([(occasion(str(n), commit(n)), figure) for n, figure in enumerate(others)])) == 4


def test_commits_stand_in_their_order_whenever_they_were_measured() -> None:
    kept = [(occasion("late", commit(9)), macs(9)), (occasion("backfilled", commit(2)), macs(2))]
    assert [point.value for point in series_of(kept)[0].points] == [2, 9]


def test_runs_of_one_commit_are_one_point_and_runs_of_changed_trees_are_not() -> None:
    kept = [(occasion(f"r{n}", commit(1), "m"), latency(value)) for n, value in enumerate((5.0, 9.0, 6.0))]
    kept += [(occasion(f"d{n}", commit(1, dirty=True), "m"), latency(7.0)) for n in range(2)]
    points = series_of(kept)[0].points
    assert [(point.value, point.low, point.high, point.runs, point.dirty) for point in points] == [
        (6.0, 5.0, 9.0, 3, False),
        (7.0, None, None, 1, True),
        (7.0, None, None, 1, True),
    ]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository with a history: one change of MACs at commit 20, one of latency at commit 30, on two machines."""
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    runs = []
    for number in range(48):
        at = commit(number, dirty=number == 47)
        count = 1000 if number < 20 else 1200
        runs.append(KeptRun(occasion(f"c{number}", at), (macs(count, stem=400, **{"b<b>[x]": count - 400}),), {}))
    for machine, factor in (("m1", 1.0), ("m2", 1.7)):
        for number, value in enumerate(noise(48, 1, 30)):
            figure = latency(factor * value, 0.99 * factor * value, 1.01 * factor * value)
            runs.append(KeptRun(occasion(f"{machine}{number}", commit(number), machine), (figure,), {"models": []}))
    store.save(tmp_path / ".mixbench" / "history.db", runs)
    return tmp_path


def mixbench(folder: Path, *words: str, code: int = 0) -> "subprocess.CompletedProcess[str]":
    plain = {name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "MIXBENCH_DEBUG")}
    done = subprocess.run(
        [SCRIPT, *words], capture_output=True, text=True, cwd=folder, env=plain, timeout=120, encoding="utf-8"
    )
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    if code:
        error, hint = done.stderr.splitlines()
        assert error.startswith("error: ")
        assert hint.startswith("hint: ")
        assert done.stdout == ""
    return done


def test_the_terminal_shows_trends_and_marks_changes_by_commit(project: Path) -> None:
    shown = mixbench(project, "history", "net").stdout
    assert re.search(r"worse: macs 1,000 → 1,200 \(\+20 %\) at 20abababab, 2026-01-01", shown)
    assert "b<b>[x]: +200" in shown
    assert len(re.findall(r"worse: latency .* at 30abababab, 2026-01-02, w, on CPU m[12]", shown)) == 2
    assert "2 machines, each with series of its own" in shown
    assert "!█" in shown
    alone = mixbench(project, "history", "net", "--metric", "macs").stdout
    assert "latency" not in alone
    assert "▲" in alone


def test_json_keeps_its_schema_and_csv_marks_the_change(project: Path) -> None:
    found = json.loads(mixbench(project, "history", "net", "--json").stdout)
    schema = json.loads((ROOT / "profilers" / "runs" / "history-1.schema.json").read_text())
    jsonschema.validate(found, schema)
    assert [len(series["points"]) for series in found["series"]] == [48, 48, 48]
    rows = list(csv.DictReader(io.StringIO(mixbench(project, "history", "net", "--metric", "macs", "--csv").stdout)))
    assert [row["change"] for row in rows].count("worse") == 1
    assert rows[20]["change"] == "worse"
    assert rows[47]["dirty"] == "True"


def test_pictures_and_the_page_mark_the_change(project: Path) -> None:
    for kind, begin in (("png", b"\x89PNG"), ("svg", b"<?xml"), ("html", b"<!DOCTYPE html>")):
        mixbench(project, "history", "net", "-o", f"h.{kind}")
        assert (project / f"h.{kind}").read_bytes().startswith(begin)
    for kind in ("svg", "html"):
        assert "worse +20 %" in (project / f"h.{kind}").read_text(encoding="utf-8")
    page = (project / "h.html").read_text(encoding="utf-8")
    assert "b&lt;b&gt;[x]" in page
    assert "<b>" not in page
    assert "http" not in page.replace("http-equiv", "")


def test_a_page_of_one_point_can_be_drawn() -> None:
    run = HistoryRun("net", tuple(series_of([(occasion("a", commit(1)), macs(0))])))
    assert "<circle" in history_page.page(run)
    assert history_view.trend(run.series[0]) == "▄"


def test_lines_go_out_and_come_in_again_once(project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    mixbench(project, "history", "--export", "runs.jsonl")
    exported = (project / "runs.jsonl").read_bytes()
    assert mixbench(project, "history", "--export", "-").stdout.encode() == exported
    for new in ("144 new runs of 144", "0 new runs of 144"):
        done = mixbench(other, "history", "--import", str(project / "runs.jsonl"))
        assert done.stdout == ""
        assert done.stderr.startswith(new)
    assert mixbench(other, "history", "--export", "-").stdout.encode() == exported


def test_a_file_with_one_bad_line_imports_nothing(project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    mixbench(project, "history", "--export", "runs.jsonl")
    lines = (project / "runs.jsonl").read_text(encoding="utf-8").splitlines()
    (other / "bad.jsonl").write_text("\n".join([*lines[:7], lines[7][:-9], *lines[8:]]), encoding="utf-8")
    done = mixbench(other, "history", "--import", "bad.jsonl", code=2)
    assert "bad.jsonl, line 8 is no JSON" in done.stderr
    assert not (other / ".mixbench").exists()


@pytest.mark.parametrize(
    ("words", "code", "what"),
    [
        (["history"], 2, "one of them"),
        (["history", "net", "--export", "x"], 2, "one of them"),
        (["history", "other"], 3, "no run of other"),
        (["history", "net", "--metric", "mac"], 2, "no run of net has a metric 'mac'"),
        (["history", "--import", "missing"], 2, "can't be read"),
        (["history", "net", "-o", "x.pdf"], 2, "does not say its format"),
    ],
)
def test_what_cannot_be_shown_is_said(project: Path, words: list[str], code: int, what: str) -> None:
    assert what in mixbench(project, *words, code=code).stderr


def test_without_a_store_there_is_no_history(tmp_path: Path) -> None:
    assert "there is no history" in mixbench(tmp_path, "history", "net", code=3).stderr
    with pytest.raises(CannotMeasure):
        look(tmp_path / "history.db", "net")


def test_saved_counts_have_parts_that_add_up_and_a_name_finds_its_default(tmp_path: Path) -> None:
    done = mixbench(tmp_path, "flops", "ghostnet", "--save", "--json")
    assert re.fullmatch(r"saved as [0-9a-f]{10} in .*history\.db, without a commit: git names none here\n", done.stderr)
    (kept,) = store.runs(tmp_path / ".mixbench" / "history.db")
    assert kept.document == json.loads(done.stdout)
    for figure in kept.figures:
        assert sum(figure.parts.values()) == figure.value, figure.name
    assert [f.value for f in kept.figures if f.name == "macs"] == [141150512]
    assert "141,150,512" in mixbench(tmp_path, "history", "ghostnet").stdout


NET = """
import torch

def make():
    return torch.nn.Linear(8, 4), torch.zeros(2, 8)
"""


@pytest.mark.alone
def test_saved_times_are_those_that_were_printed_on_the_machine_that_took_them(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NET)
    words = ("--threads", "1", "--samples", "20", "--no-roofline", "--save", "--json")
    timed = json.loads(mixbench(tmp_path, "time", "net.py:make", *words).stdout)
    (one,) = store.runs(tmp_path / ".mixbench" / "history.db")
    assert one.document == timed
    assert one.occasion.machine == timed["machine"]["fingerprint"]
    assert one.occasion.versions == timed["machine"]["versions"]
    found = {figure.name: figure for figure in one.figures}
    printed = timed["models"][0]
    assert (found["latency"].value, found["latency"].low) == (printed["latency_ns"]["value"], printed["latency_ns"]["low"])
    assert found["peak_memory"].value == printed["memory"]["peak_bytes"]
    assert found["throughput"].better == "higher"


@pytest.mark.slow
@pytest.mark.alone
def test_a_saved_trace_keeps_its_mean_step(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NET)
    traced = json.loads(mixbench(tmp_path, "trace", "net.py:make", "--save", "--json").stdout)
    (kept,) = store.runs(tmp_path / ".mixbench" / "history.db")
    assert [figure.value for figure in kept.figures] == [traced["trace"]["traced_ns"]]


@pytest.mark.slow
@pytest.mark.alone
def test_saved_scaling_has_a_series_for_each_degree(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NET)
    words = ("--gpus", "1", "--device", "cpu", "--seconds", "0.05", "--repeats", "1", "--batch", "2", "--save", "--json")
    printed = json.loads(mixbench(tmp_path, "scale", "net.py:make", *words).stdout)
    (kept,) = store.runs(tmp_path / ".mixbench" / "history.db")
    step = next(figure for figure in kept.figures if figure.name == "step")
    assert step.value == printed["points"][0]["step_ns"]["value"]
    assert "1 ranks" in step.workload


def test_every_record_that_can_be_saved_has_a_rule_for_its_metrics() -> None:
    importlib.import_module("mixbench.cli.export_metrics")
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    without = {
        name for name, (record, _) in generate.RECORDS.items() if metrics_of.dispatch(record) is metrics_of.dispatch(object)
    }
    assert without == {"history", "models", "info", "doctor"}, "these have no --save"
    with pytest.raises(TypeError, match="register one"):
        metrics_of(3)


def test_a_run_that_was_stopped_before_its_end_is_not_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keep(Keeping(tmp_path / "history.db", Commit()), SimpleNamespace(partial=True))
    assert "not saved" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_picture_of_too_many_series_is_refused() -> None:
    figures = [Figure("net", f"w{number}", "macs", 1, "MACs", "counted", "lower") for number in range(25)]
    run = HistoryRun("net", tuple(series_of((occasion(str(n), commit(1)), figure) for n, figure in enumerate(figures))))
    with pytest.raises(BadInput, match="25 series are too many"):
        history_view.draw(run, "png")


def test_a_store_that_cannot_be_written_is_said_before_counting(tmp_path: Path) -> None:
    (tmp_path / ".mixbench").write_text("")
    assert "can't be used" in mixbench(tmp_path, "flops", "ghostnet", "--save", code=2).stderr
