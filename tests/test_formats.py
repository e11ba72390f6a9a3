"""What other tools read of a check: each format by its rules, and the pieces for CI run as far as a machine without CI can."""

import csv
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest
import xmlschema
import yaml

from mixbench.cli.views import formats
from mixbench.models.errors import BadInput
from mixbench.profilers.runs.check_run import CheckRun, Culprit, Judgement, Metric

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = Path(sys.executable).with_name("mixbench")
NASTY = "a|b `c` <d> [x](y) *e* @f %0A ::error:: g,h:i\nj\x00 ]]> & é🙂"


def judgement(target: str = "net", name: str = "macs", word: Any = "same", **more: Any) -> Judgement:
    metric = Metric(target, name, more.pop("value", 120), "MACs", more.pop("kind", "counted"))
    return Judgement(metric, more.pop("base", 100), more.pop("limit", ""), word, more.pop("fails", False), "why", **more)


@pytest.fixture
def run() -> CheckRun:
    """One of every kind."""
    ratio = Metric("net", "snr", 42.5, "dB", "measured", "higher", 41.0, 43.5)
    judgements = (
        judgement(value=100),
        judgement(name="params", word="worse", fails=True, culprits=(Culprit("blocks.3.dfc", 10, 30, "aten::convolution"),)),
        judgement(name="bytes", word="better", value=80),
        judgement(name="flops", word="same", fails=True, over_budget=True, limit="<= 100"),
        judgement(name="odd", word="cannot tell", base=None),
        judgement(name="modelled", word="cannot tell", base=None, kind="modelled"),
        Judgement(ratio, None, ">= 40 dB", "same", False, "within its budget"),
        judgement(target=NASTY, name="macs", word="worse", fails=True, culprits=(Culprit(NASTY, 0, 1),)),
    )
    return CheckRun(judgements, "mixbench-baseline.toml", True, False, notes=(NASTY,))


@pytest.fixture
def large() -> CheckRun:
    """More metrics than a page or comment may hold, one of which fails, at the end."""
    many = [judgement(target=f"model-{number:05}", name="é" * 40, value=100) for number in range(20_000)]
    return CheckRun((*many, judgement(target="last", word="worse", fails=True)), "b.toml", True, False)


def text(name: str, run: CheckRun) -> str:
    return formats.find(name).render(run)


def test_every_file_of_the_folder_is_a_format_with_a_suffix_of_its_own() -> None:
    own = {"html", "markdown", "comment", "github", "junit", "bencher", "smaller-is-better", "bigger-is-better"}
    assert {"table", "json", "csv"} | own == set(formats.names())
    assert len(formats.suffixes()) == 3 + len(own)


def test_a_page_says_what_the_table_says_and_takes_no_name_for_markup(run: CheckRun, tmp_path: Path) -> None:
    path = tmp_path / "check.html"
    formats.write(run, formats.choose(None, False, False, [path]))
    page = path.read_text(encoding="utf-8")
    assert "FAILED, 3 of 8 metrics" in page
    assert " ".join(NASTY.split()).split("<d>", maxsplit=1)[0] in page
    assert "&lt;d&gt;" in page and "<d>" not in page


def test_the_help_names_every_format() -> None:
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8").partition("## mixbench check")[2]
    words = next(line for line in page.splitlines() if line.startswith("| `--format`"))
    assert set(re.findall(r"[a-z-]+", words.split("|")[-2])) >= set(formats.names())


def test_junit_keeps_its_schema_and_tells_outcomes_apart(run: CheckRun) -> None:
    written = text("junit", run)
    xmlschema.XMLSchema(ROOT / "tests" / "junit.xsd").validate(written)
    root = ElementTree.fromstring(written)
    outcomes = {(case.get("name"), child.tag) for case in root.iter("testcase") for child in case}
    assert outcomes == {
        ("params", "failure"),
        ("flops", "failure"),
        ("odd", "error"),
        ("modelled", "skipped"),
        ("macs", "failure"),
    }
    suite = root[0]
    assert [suite.get(name) for name in ("tests", "failures", "errors", "skipped")] == ["7", "2", "1", "1"]
    failure = root.find(".//testcase[@name='params']/failure")
    assert failure is not None
    assert failure.text is not None
    for line in ("base:  100", "new:   120 MACs", "limit: the baseline", "blocks.3.dfc: +20 MACs (aten::convolution)"):
        assert line in failure.text
    assert root[1].get("name") == NASTY.replace("\x00", "�")


@pytest.mark.parametrize("judgements", [(), (judgement(value=100),), (judgement(word="cannot tell", base=None),)])
def test_what_could_not_be_told_is_a_pass_in_no_format(judgements: tuple[Judgement, ...]) -> None:
    run = CheckRun(judgements, "main (abc)", False, True)
    written = text("junit", run)
    xmlschema.XMLSchema(ROOT / "tests" / "junit.xsd").validate(written)
    assert len(list(ElementTree.fromstring(written).iter("error"))) == 1
    assert "::error title=mixbench::CANNOT TELL" in text("github", run)
    assert "CANNOT TELL" in text("markdown", run)


def test_the_schema_for_junit_can_refuse(run: CheckRun) -> None:
    schema = xmlschema.XMLSchema(ROOT / "tests" / "junit.xsd")
    with pytest.raises(xmlschema.XMLSchemaValidationError):
        schema.validate(text("junit", run).replace("<failure", "<fault").replace("</failure", "</fault"))


def test_annotations_are_one_line_each_and_nothing_breaks_out(run: CheckRun) -> None:
    lines = text("github", run).splitlines()
    kinds = [line.split(" ")[0] for line in lines]
    assert kinds == ["::error"] * 3 + ["::warning", "::notice", "mixbench:"]
    assert lines[0].startswith("::error file=mixbench-baseline.toml,title=mixbench%3A net params worse::base 100, new 120")
    assert "%0Ablocks.3.dfc: +20 MACs (aten::convolution)" in lines[0]
    nasty = next(line for line in lines if "g%2Ch%3Ai" in line)
    command, _, message = nasty[2:].partition("::")
    assert dict(pair.split("=", 1) for pair in command.split(" ", 1)[1].split(",")).keys() == {"file", "title"}
    assert "%250A" in message, "a percent sign of the text is no code"


def test_more_annotations_than_github_shows_end_in_how_many_more() -> None:
    many = tuple(judgement(target=f"t{number}", word="worse", fails=True) for number in range(25))
    lines = text("github", CheckRun(many, "main (abc)", True, False)).splitlines()
    assert len(lines) == 11
    assert lines[9] == "::error title=mixbench::and 16 more, in the log and the summary"


def test_markdown_shows_what_changed_first_and_no_text_becomes_markup(run: CheckRun) -> None:
    page = text("markdown", run)
    head, _, folded = page.partition("<details>")
    assert head.startswith("### ❌ mixbench\n")
    for word in ("<code>params</code>", "**worse**", "blocks.3.dfc", "**over budget**"):
        assert word in head
    assert "snr" in folded
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in rows} == {8}, "no cell ends early"
    for sign in ("`c`", "<d>", "[x](", "*e*", "@f"):
        assert sign not in page
    assert NASTY.replace("\n", " ")[:30] in unescape(page).replace("\n", " ")
    passed = CheckRun((judgement(value=100),), "b.toml", False, False)
    assert text("markdown", passed).startswith("### ✅ mixbench\n")
    assert text("markdown", replace(passed, undecided=True)).startswith("### ❔ mixbench\n")


@pytest.mark.parametrize(("name", "limit"), [("markdown", 1024 * 1024), ("comment", 64_000)])
def test_a_page_that_would_be_too_long_keeps_what_fails_and_says_what_is_missing(
    large: CheckRun, name: str, limit: int
) -> None:
    page = text(name, large)
    assert 0.9 * limit < len(page.encode()) <= limit
    shown = len(re.findall("^\\| <code>model", page, re.MULTILINE))
    assert "<code>last</code>" in page
    assert f"*{20_000 - shown:,} lines are left out: this page may have {limit:,} bytes.*" in page
    assert page.count("<details>") == page.count("</details>")


def test_a_comment_can_be_found_again(run: CheckRun) -> None:
    mark = text("comment", run).splitlines()[0]
    assert mark == "<!-- mixbench check -->"
    assert f'startswith("{mark}")' in (ROOT / "action.yml").read_text(encoding="utf-8")


def test_bencher_metrics_keep_the_documented_schema(run: CheckRun) -> None:
    metric = {
        "type": "object",
        "properties": {name: {"type": "number"} for name in ("value", "lower_value", "upper_value")},
        "required": ["value"],
        "additionalProperties": False,
    }
    found = json.loads(text("bencher", run))
    jsonschema.validate(found, {"type": "object", "additionalProperties": {"type": "object", "additionalProperties": metric}})
    assert found["net"]["snr"] == {"value": 42.5, "lower_value": 41.0, "upper_value": 43.5}
    assert found["net"]["macs"] == {"value": 100}


def test_the_two_directions_of_github_action_benchmark_share_no_metric(run: CheckRun) -> None:
    smaller, bigger = (json.loads(text(name, run)) for name in ("smaller-is-better", "bigger-is-better"))
    assert bigger == [{"name": "net snr", "unit": "dB", "value": 42.5, "range": "± 1.5"}]
    assert len(smaller) == len(run.judgements) - 1
    assert {
        "name": "net params",
        "unit": "MACs",
        "value": 120,
        "extra": "blocks.3.dfc: +20 MACs (aten::convolution)",
    } in smaller


def orders(*outputs: str, form: str | None = None, as_json: bool = False) -> list[tuple[str, str | None]]:
    found = formats.choose(form, as_json, False, [Path(name) for name in outputs])
    return [(order.name, str(order.path) if order.path else None) for order in found]


def test_files_go_by_their_suffixes_and_the_longest_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert orders() == [("table", None)]
    assert orders(form="github") == [("github", None)]
    assert orders("a.md", "b.comment.md", "c.xml") == [("markdown", "a.md"), ("comment", "b.comment.md"), ("junit", "c.xml")]
    assert orders("a.bencher.json", "b.json", form="github") == [
        ("github", None),
        ("bencher", "a.bencher.json"),
        ("json", "b.json"),
    ]
    assert orders("report", as_json=True) == [("json", "report")]
    assert orders("-", "a.xml") == [("table", None), ("junit", "a.xml")]


@pytest.mark.parametrize(
    ("outputs", "form", "as_json", "words"),
    [
        (["a.pdf"], None, False, "does not say its format"),
        ([], "junitt", False, "no format named 'junitt'"),
        ([], "junit", True, "two formats"),
        (["missing/a.xml"], None, False, "there is no folder"),
        (["a.xml", "./a.xml"], None, False, "named twice"),
    ],
)
def test_what_cannot_be_written_is_refused(
    outputs: list[str], form: str | None, as_json: bool, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match=words):
        orders(*outputs, form=form, as_json=as_json)


NET = """
import torch
from torch import nn

def make(width=64):
    return nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 4)), torch.zeros(2, 8)
"""


@pytest.fixture(scope="module")
def committed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a small model and its baseline, committed."""
    folder = tmp_path_factory.mktemp("committed")
    (folder / "net.py").write_text(NET)
    (folder / "mixbench.toml").write_text('[targets.small]\nmodel = "net.py:make"\nmacs = "<= 3k"\n')
    about = ["-c", "user.name=n", "-c", "user.email=e@x"]
    for words in (
        ["git", "init"],
        [str(SCRIPT), "check", "--update"],
        ["git", "add", "."],
        ["git", *about, "commit", "-m", "one"],
    ):
        subprocess.run(words, cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture
def project(committed: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(committed, tmp_path / "project")


def widen(project: Path) -> None:
    (project / "net.py").write_text(NET.replace("64", "300"))


def test_one_check_writes_everything_that_was_ordered(project: Path) -> None:
    widen(project)
    files = ["check.json", "check.csv", "junit.xml", "s.md", "c.comment.md", "b.bencher.json", "m.smaller.json"]
    words = [word for name in files for word in ("-o", name)]
    done = subprocess.run(
        [SCRIPT, "check", "--format", "github", "--save", *words], cwd=project, capture_output=True, text=True, encoding="utf-8"
    )
    assert done.returncode == 1, done.stderr
    assert done.stdout.startswith("::error file=mixbench-baseline.toml,title=mixbench%3A small")
    assert "0: +3.78 k MACs (aten::addmm)" in done.stdout
    assert all((project / name).stat().st_size for name in files)
    found = json.loads((project / "check.json").read_text())
    schema = json.loads((ROOT / "profilers" / "runs" / "check-1.schema.json").read_text())
    jsonschema.validate(found, schema)
    with (project / "check.csv").open(encoding="utf-8") as lines:
        assert {row["name"]: row["fails"] for row in csv.DictReader(lines)}["macs"] == "True"
    assert "saved as" in done.stderr
    shown = subprocess.run([SCRIPT, "history", "small"], cwd=project, capture_output=True, text=True).stdout
    assert "7,200" in shown


def environment(folder: Path, **more: str) -> dict[str, str]:
    """What a runner gives its steps, with our script first on the path."""
    folder.mkdir(exist_ok=True)
    path = f"{folder}{os.pathsep}{SCRIPT.parent}{os.pathsep}{os.environ['PATH']}"
    files = {name: str(folder / name.lower()) for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
    return {**os.environ, "PATH": path, **files, **more}


def steps() -> dict[str, dict[str, Any]]:
    action = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
    return {step["name"]: step for step in action["runs"]["steps"]}


def bash(script: str, folder: Path, env: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    # As GitHub's runner calls it for `shell: bash`.
    words = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script]
    return subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, encoding="utf-8", timeout=120)


@pytest.mark.parametrize("worse", [False, True])
def test_the_steps_of_the_action_run_and_its_verdict_is_the_checks(project: Path, tmp_path: Path, worse: bool) -> None:
    if worse:
        widen(project)
    runner = tmp_path / "runner"
    reports = runner / "reports with blank"
    env = environment(runner, ARGUMENTS="small", REPORTS=str(reports))
    done = bash(steps()["Check"]["run"], project, env)
    assert done.returncode == 0, done.stderr
    outputs = dict(line.split("=", 1) for line in (runner / "github_output").read_text().splitlines())
    assert outputs == {"code": str(int(worse)), "reports": str(reports)}
    assert ("::error" in done.stdout) == worse
    assert ("❌" if worse else "✅") in (runner / "github_step_summary").read_text(encoding="utf-8")
    assert (reports / "junit.xml").is_file()
    assert bash(steps()["Verdict"]["run"], project, env | {"CODE": outputs["code"]}).returncode == int(worse)


def test_a_check_that_could_not_run_is_no_pass_of_the_action(project: Path, tmp_path: Path) -> None:
    env = environment(tmp_path / "runner", ARGUMENTS="no-such-target", REPORTS=str(tmp_path / "reports"))
    done = bash(steps()["Check"]["run"], project, env)
    assert "code=2" in (tmp_path / "runner" / "github_output").read_text()
    assert "no-such-target" in done.stderr
    assert bash(steps()["Verdict"]["run"], project, env | {"CODE": "2"}).returncode == 2
    assert bash(steps()["Verdict"]["run"], project, env | {"CODE": ""}).returncode != 0, "no code is no pass"


@pytest.mark.parametrize(("known", "method"), [("", "POST"), ("17\n18", "PATCH")])
def test_the_comment_is_written_once_and_then_anew(tmp_path: Path, known: str, method: str) -> None:
    runner = tmp_path / "runner"
    env = environment(runner, GITHUB_REPOSITORY="o/r", NUMBER="5", BODY=str(tmp_path / "pull.comment.md"), KNOWN=known)
    (tmp_path / "pull.comment.md").write_text("body")
    calls = runner / "calls"
    (runner / "gh").write_text(f'#!/bin/sh\necho "$@" >> {calls}\ncase "$*" in *paginate*) printf "%s\\n" "$KNOWN";; esac\n')
    (runner / "gh").chmod(0o755)
    done = bash(steps()["Comment"]["run"], tmp_path, env)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    last = calls.read_text().splitlines()[-1]
    assert f"--method {method}" in last
    assert ("comments/17 " in last) == bool(known)


def test_a_comment_that_may_not_be_written_is_a_warning_only(tmp_path: Path) -> None:
    env = environment(tmp_path / "runner", GITHUB_REPOSITORY="o/r", NUMBER="5", BODY=str(tmp_path / "b"))
    (tmp_path / "b").write_text("body")
    (tmp_path / "runner" / "gh").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "runner" / "gh").chmod(0o755)
    done = bash(steps()["Comment"]["run"], tmp_path, env)
    assert done.returncode == 0
    assert done.stdout.startswith("::warning title=mixbench::")


def test_no_step_of_the_action_puts_an_input_into_its_script() -> None:
    """An expression in a script is how a branch's name becomes a command."""
    assert not [name for name, step in steps().items() if "${{" in step["run"]]


def test_the_lines_of_the_gitlab_job_run_and_fail_with_the_check(project: Path) -> None:
    widen(project)
    job = yaml.safe_load((ROOT / "ci" / "gitlab.yml").read_text(encoding="utf-8"))["mixbench"]
    env = environment(project / "runner", **(job["variables"] | {"CHECK_INSTALL": ""}))
    done = bash("\n".join(job["script"]), project, env)
    assert done.returncode == 1, done.stderr
    report = project / job["artifacts"]["reports"]["junit"]
    xmlschema.XMLSchema(ROOT / "tests" / "junit.xsd").validate(str(report))
    assert "small" in done.stdout


def test_the_hook_of_pre_commit_runs_and_fails_with_the_check(project: Path) -> None:
    widen(project)
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    assert hook["pass_filenames"] is False, "files' names would be taken for targets"
    done = subprocess.run(shlex.split(hook["entry"]), cwd=project, env=environment(project / "runner"), capture_output=True)
    assert done.returncode == 1


def test_the_examples_name_only_what_there_is() -> None:
    folder = ROOT / "examples" / "ci"
    action = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
    jobs = yaml.safe_load((folder / "github.yml").read_text(encoding="utf-8"))["jobs"]
    (ours,) = [step for step in jobs["cost"]["steps"] if "/mixbench@" in step.get("uses", "")]
    assert ours["with"].keys() <= action["inputs"].keys()
    used = re.findall(r"steps\.mixbench\.outputs\.(\w+)", (folder / "github.yml").read_text(encoding="utf-8"))
    assert set(used) <= action["outputs"].keys()
    template = yaml.safe_load((ROOT / "ci" / "gitlab.yml").read_text(encoding="utf-8"))
    gitlab = yaml.safe_load((folder / "gitlab-ci.yml").read_text(encoding="utf-8"))
    assert gitlab["mixbench"]["variables"].keys() <= template["mixbench"]["variables"].keys()
    assert template["mixbench"]["stage"] in gitlab["stages"]
    config = yaml.safe_load((folder / "pre-commit-config.yaml").read_text(encoding="utf-8"))
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    assert config["repos"][0]["hooks"] == [{"id": hook["id"]}]
