"""The formats that every command writes alike, and the schemas that its JSON keeps."""

import csv
import importlib.util
import io
import json
import os
import re
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from html import unescape
from pathlib import Path
from typing import Any, get_args

import jsonschema
import pytest
import typer
from markdown_it import MarkdownIt
from rich.console import Group
from rich.padding import Padding
from rich.panel import Panel
from rich.text import Text

from mixbench.cli import options
from mixbench.cli.app import create
from mixbench.cli.views import document, emit, table
from mixbench.models.errors import BadInput

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = Path(sys.executable).with_name("mixbench")
NASTY = "a|b `c` <d> [x](y) *e* _f_ ~g~ $h$ &lt; \\ # i"


def mixbench(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    plain = {name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "MIXBENCH_DEBUG")}
    return subprocess.run([SCRIPT, *words], capture_output=True, text=True, env=plain, cwd=cwd, timeout=120, encoding="utf-8")


def printed(*words: str) -> str:
    done = mixbench(*words)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def commands() -> dict[str, Any]:
    """The commands that print JSON."""
    group: Any = typer.main.get_command(create())
    return {
        name: command
        for name, command in group.commands.items()
        if any("--json" in parameter.opts for parameter in command.params)
    }


def schemas() -> dict[str, tuple[Any, int]]:
    """The records that ``docs/generate.py`` writes schemas of."""
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: dict[str, tuple[Any, int]] = module.RECORDS
    return found


# Formats -------------------------------------------------------------------------------------------------------------


def test_every_command_with_json_takes_format_with_the_formats_there_are() -> None:
    for name, command in commands().items():
        assert any("--format" in parameter.opts for parameter in command.params), name
    literal = get_args(get_args(get_args(options.Form)[0])[0])
    assert set(literal) == set(emit.SUFFIXES.values())


def test_the_short_forms_and_the_suffixes_are_the_formats(tmp_path: Path) -> None:
    text = printed("models", "--json")
    assert text == printed("models", "--format", "json")
    assert printed("models", "--csv") == printed("models", "--format", "csv")
    assert printed("models") == printed("models", "--format", "table") == printed("models", "-o", "-")
    for suffix, name in emit.SUFFIXES.items():
        path = tmp_path / f"models{suffix}"
        assert printed("models", "-o", str(path)) == ""
        assert path.read_text(encoding="utf-8") == printed("models", "--format", name)


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("--json", "--csv"), "json and csv are two formats"),
        (("--format", "markdown", "--json"), "markdown and json are two formats"),
        (("--format", "html", "-o", "x.json"), "html and 'x.json' are two formats for one file"),
        (("--csv", "-o", "x.md"), "csv and 'x.md' are two formats for one file"),
        (("-o", "x.pdf"), "'x.pdf' does not say its format"),
        (("--format", "xml"), "'xml'"),
        (("--format", "png"), "'png'"),
    ],
)
def test_contradictions_are_said_before_any_work(words: tuple[str, ...], what: str, tmp_path: Path) -> None:
    done = mixbench("models", *words, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert what in done.stderr.splitlines()[0]
    assert list(tmp_path.iterdir()) == []


def test_what_agrees_is_no_contradiction(tmp_path: Path) -> None:
    for words in (
        ("--json", "--format", "json"),
        ("--json", "-o", "x.json"),
        ("--json", "-o", "x.txt"),
        ("--csv", "-o", "x.y"),
    ):
        assert emit.choose("--json" in words, "--csv" in words, tmp_path / words[-1] if "-o" in words else None) in words[0]


def test_a_record_without_rows_has_no_csv(tmp_path: Path) -> None:
    for output, form in ((None, "csv"), (tmp_path / "x.csv", None)):
        with pytest.raises(BadInput) as caught:
            emit.choose(False, None, output, form=form)
        assert "csv" in f"{caught.value.what} {caught.value.hint}"


def test_a_command_with_a_page_of_its_own_is_asked_for_it_alike() -> None:
    assert emit.choose(False, False, None, form="html") == "html"
    assert emit.choose(False, False, None, drawn=("html",), form="html") == "page"
    assert emit.choose(False, False, Path("x.html"), drawn=("html",)) == "page"


@pytest.mark.parametrize("words", [("info", "ghostnetv2"), ("models",)])
def test_markdown_and_html_hold_every_word_of_the_table(words: tuple[str, ...]) -> None:
    plain = set(printed(*words).split())
    markdown = MarkdownIt("commonmark").enable("table").render(printed(*words, "--format", "markdown"))
    page = printed(*words, "--format", "html")
    for made in (markdown, page):
        missing = plain - set(unescape(re.sub(r"<[^>]*>", " ", made)).split())
        assert missing <= {"-"}, "the dashes of a list"
    assert "<script" not in page


def test_a_count_is_written_in_every_format_with_the_same_figures(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("import torch\ndef make():\n    return torch.nn.Linear(30, 50), torch.zeros(7, 30)\n")
    for name in ("markdown", "html", "csv"):
        done = mixbench("flops", "net.py:make", "--depth", "1", "--format", name, cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        assert re.search(r"10,?500", done.stdout)
    lines = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [line["macs"] for line in lines] == ["10500"]


def test_a_document_is_utf_8_whatever_the_terminal_is(tmp_path: Path) -> None:
    code = "import torch\nclass Möbius(torch.nn.Linear):\n    pass\ndef make():\n    return Möbius(3, 5), torch.zeros(7, 3)\n"
    (tmp_path / "net.py").write_text(code, encoding="utf-8")
    words = (SCRIPT, "flops", "net.py:make", "--depth", "0", "--format", "markdown")
    plain = {name: value for name, value in os.environ.items() if name != "FORCE_COLOR"} | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(words, capture_output=True, cwd=tmp_path, env=plain, timeout=120)
    assert "| Möbius |" in done.stdout.decode("utf-8")


# Markdown and plain pages --------------------------------------------------------------------------------------------


def test_no_text_becomes_markup_in_markdown() -> None:
    grid = table.Grid(((NASTY, "left"), ("n", "right")), ((NASTY, "1"), (f"    {NASTY}", "2")))
    rich_table = table.drawn(grid)
    rich_table.title = f"\n{NASTY}"
    items: list[Any] = [
        rich_table,
        *map(Text, ("- no list", "1. none", "# none", "=", f"+ {NASTY}", NASTY)),
        Text(NASTY, style="bold"),
    ]
    tokens = MarkdownIt("commonmark").enable("table").parse(document.markdown(items))
    opened = [
        token.type for token in tokens if token.type in ("heading_open", "table_open", "paragraph_open") or token.nesting == 0
    ]
    assert [kind for kind in opened if kind != "inline"] == ["heading_open", "table_open", *["paragraph_open"] * 7]
    inner = [[(child.type, child.content) for child in token.children or ()] for token in tokens if token.type == "inline"]
    plain = [NASTY, NASTY, "n", NASTY, "1", f"\u2003\u2003{NASTY}", "2", *(str(item) for item in items[1:-1])]
    assert inner[:-1] == [[("text", text.strip())] for text in plain]
    assert [kind for kind, text in inner[-1] if kind != "text" or text] == ["strong_open", "text", "strong_close"]


@pytest.mark.parametrize("name", ["__init__", "a_b", "_a_", "conv_stem.0_", "a__b", "_", "1._x_"])
def test_underscores_emphasise_nothing(name: str) -> None:
    token = MarkdownIt("commonmark").parse(document.markdown([Text(f"{name} {name}")]))[1]
    assert [(child.type, child.content) for child in token.children or ()] == [("text", f"{name} {name}")]


def test_numbers_stand_to_the_right_and_indents_stay() -> None:
    grid = table.Grid((("name", "left"), ("n", "right")), (("  inner", "1"),))
    head, rule, row = document.markdown([table.drawn(grid)]).splitlines()
    assert (head, rule) == ("| name | n |", "|---|---:|")
    assert row == "| \u2003inner | 1 |"


def test_what_is_drawn_with_characters_keeps_its_places_and_holds_no_fence() -> None:
    drawn = [table.exactly("\n  a ████"), table.exactly(" bb ``` █"), Text("after")]
    text = document.markdown([Text("before"), *drawn])
    assert text == "before\n\n````\n  a ████\n bb ``` █\n````\n\nafter\n"


def test_groups_are_opened_and_what_nobody_knows_is_drawn() -> None:
    items: list[Any] = [Group(Text("one"), Padding(table.drawn(table.Grid((("n", "left"),), (("two",),))), 1)), Panel("three")]
    text = document.markdown(items)
    assert text.startswith("one\n\n| n |\n|---|\n| two |\n\n```\n")
    assert "three" in text


def test_a_plain_page_names_what_made_it_and_escapes_what_it_shows() -> None:
    class Record:
        command = "check"

    page = document.page(Record(), [Text("<b>", style="yellow"), table.drawn(table.Grid((("<i>", "left"),), (("&",),)))])
    assert "<title>mixbench check</title>" in page
    assert '<p class="warn">&lt;b&gt;</p>' in page
    assert "<b>" not in page and "<i>" not in page
    assert '<td class="left">&amp;</td>' in page


# Schemas -------------------------------------------------------------------------------------------------------------


def test_every_command_with_json_has_a_schema() -> None:
    assert set(commands()) <= set(schemas())


@pytest.mark.parametrize("words", [("models",), ("info", "ghostnetv2"), ("info", "tokenring"), ("doctor",)])
def test_what_looks_prints_json_that_keeps_its_schema(words: tuple[str, ...]) -> None:
    found = json.loads(printed(*words, "--json"))
    schema = json.loads(printed("schema", words[0]))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(found, schema)
    assert found["command"] == words[0]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(found | {"schema": found["schema"] + 1}, schema)


def test_schema_lists_what_is_shipped_and_a_misspelt_name_gets_the_nearest() -> None:
    assert printed("schema").split() == sorted(f"{name}-{number}" for name, (_, number) in schemas().items())
    done = mixbench("schema", "flop")
    assert done.returncode == 2
    assert "did you mean flops?" in done.stderr


def test_what_the_code_reads_beside_itself_is_in_the_wheel() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    folders = {name: ROOT.joinpath(*name.split(".")[1:]) for name in settings["packages"]}
    needed = {
        (name, path.name)
        for name, folder in folders.items()
        for kind in ("*.json", "*.js", "*.toml")
        for path in folder.glob(kind)
    }
    needed -= {("mixbench", path.name) for path in ROOT.glob("*.toml")}  # of the project, not of the package
    shipped = {
        (name, file) for name, file in needed if any(fnmatch(file, glob) for glob in settings["package-data"].get(name, ()))
    }
    assert len(shipped) >= 14
    assert shipped == needed
