"""Write docs/cli.md and the JSON schemas from the code; a test compares them with what lies there."""

import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from pydantic import TypeAdapter

from mixbench.cli.app import create
from mixbench.cli.commands import doctor, models
from mixbench.export import artifact
from mixbench.models import card
from mixbench.profilers.runs import (
    check_run,
    compare_run,
    history_run,
    parallel_run,
    run,
    scale_run,
    sweep_run,
    timing_run,
    trace_run,
)

ROOT = Path(__file__).resolve().parent.parent


def cli_page() -> str:
    """The command line as Markdown: usage, arguments and options of each command, and its examples."""
    group: Any = typer.main.get_command(create())
    context = group.make_context("mixbench", [], resilient_parsing=True)
    lines = ["# The command line", "", "Written by `./dev docs` from the code.", ""]
    for name in group.list_commands(context):
        lines += _command(name, group.get_command(context, name))
    return "\n".join(lines).rstrip() + "\n"


def _command(name: str, command: Any) -> Iterator[str]:
    yield from (f"## mixbench {name}", "", (command.help or "").strip(), "")
    yield from ("| argument or option | value | |", "|---|---|---|")
    for parameter in command.params:
        is_option = parameter.opts[0].startswith("-")
        names = ", ".join(f"`{word}`" for word in parameter.opts) if is_option else f"`{parameter.metavar}`"
        value = (parameter.metavar or "").replace("|", r"\|") if is_option else ""
        yield f"| {names} | {value} | {parameter.help or ''} |"
    examples = [line.strip() for line in (command.epilog or "").splitlines() if line.strip().startswith("mixbench")]
    yield from ("", "```sh", *examples, "```", "")


RECORDS = {
    "models": (models.Catalogue, models.SCHEMA),
    "info": (card.Card, card.SCHEMA),
    "doctor": (doctor.Machine, doctor.SCHEMA),
    "check": (check_run.CheckRun, check_run.SCHEMA),
    "compare": (compare_run.CompareRun, compare_run.SCHEMA),
    "flops": (run.Run, run.SCHEMA),
    "time": (timing_run.TimeRun, timing_run.SCHEMA),
    "history": (history_run.HistoryRun, history_run.SCHEMA),
    "parallel": (parallel_run.ParallelRun, parallel_run.SCHEMA),
    "scale": (scale_run.ScaleRun, scale_run.SCHEMA),
    "sweep": (sweep_run.SweepRun, sweep_run.SCHEMA),
    "trace": (trace_run.TraceRun, trace_run.SCHEMA),
    "export": (artifact.ExportRun, artifact.SCHEMA),
}


def json_schema(command: str) -> str:
    """The JSON Schema of what a command's ``--json`` prints."""
    record, number = RECORDS[command]
    schema = TypeAdapter(record).json_schema(mode="serialization")
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = f"mixbench {command} --json, schema {number}"
    schema["properties"]["schema"] = {"const": number}
    return json.dumps(schema, indent=2, sort_keys=True) + "\n"


def pages() -> dict[Path, str]:
    """Every generated file and its text."""
    schemas = {
        Path(inspect.getfile(record)).with_name(f"{command}-{number}.schema.json"): json_schema(command)
        for command, (record, number) in RECORDS.items()
    }
    return {ROOT / "docs" / "cli.md": cli_page(), **schemas}


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
