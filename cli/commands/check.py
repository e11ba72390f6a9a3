"""``mixbench check``: hold models to their committed baseline and to their budgets."""

from contextlib import chdir
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .. import options

if TYPE_CHECKING:
    from ..config import Config


def check(
    context: typer.Context,
    targets: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TARGET]", help="Names of [tool.mixbench.targets]; all if none is given.", show_default=False),
    ] = None,
    update: Annotated[
        bool, typer.Option("--update", metavar="", help="Write what is counted now as the new baseline.")
    ] = False,
    baseline: Annotated[
        Path | None,
        typer.Option("--baseline", metavar="FILE", help="Instead of mixbench-baseline.toml beside the settings."),
    ] = None,
    form: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="NAME",
            help="table, json, csv, html, markdown, comment, github, junit, bencher, smaller-is-better, bigger-is-better.",
            rich_help_panel=options.OUTPUT,
            autocompletion=options.complete_format,
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option("--against", metavar="REVISION", help="Instead, time the targets beside this git revision of themselves."),
    ] = None,
    threads: Annotated[
        int,
        typer.Option("--threads", metavar="N", min=1, help="Of each process, with --against."),
    ] = 1,
    json: options.Json = False,
    csv: options.Csv = False,
    output: Annotated[
        list[Path] | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Write to a file, in the format of its suffix; may be repeated: .xml is JUnit, .md Markdown.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = None,
    save: options.Save = False,
) -> None:
    """Compare what models cost with a committed baseline, exactly, and with their budgets.

    Models and budgets stand in pyproject.toml under [tool.mixbench.targets], or in mixbench.toml. What became worse is named
    with the modules and operators that did it. With --against, times are compared instead: pairs of processes from both work
    trees, until the answer is clear. Exit code 0: fine; 1: worse, or over a budget; 2: wrong input; 3: nothing can be told.

    Examples:
        mixbench check
        mixbench check --update
        mixbench check small --json
        mixbench check --against main
        mixbench check --format github -o summary.md -o junit.xml
    """
    from ...models.errors import BadInput
    from ...profilers.runs.baseline import check_place
    from .. import checking
    from ..keeping import begin
    from ..targets import read
    from ..views import formats

    orders = formats.choose(form, json, csv, output or ())
    keeping = begin(save)
    config: Config = context.obj.config
    path = _baseline(context, config, baseline)
    with chdir(config.folder):
        chosen = read(config, tuple(targets or ()))
    if against is not None:
        if update:
            raise BadInput("--update writes what is counted, and --against takes times", "leave one of the two out")
        from ..against import against_revision

        run, failures = against_revision(chosen, config.folder, against, threads)
    else:
        if update:
            check_place(path)
        taken, failures = checking.take_all(chosen, config.folder)
        if update and failures:
            raise failures[0]
        judge = checking.update if update else checking.against_baseline
        run = judge(taken, path, not targets and not failures)
    if failures and not run.judgements:
        raise failures[0]
    formats.write(checking.noted(run, failures), orders, keeping)
    if failures:
        raise failures[0]
    if run.failed or run.undecided:
        raise typer.Exit(1 if run.failed else 3)


def _baseline(context: typer.Context, config: "Config", given: Path | None) -> Path:
    """The file: a name in the settings is meant from where they are, one on the command line from where the user is."""
    from ...profilers.runs.baseline import NAME

    if given is None:
        return config.folder / NAME
    in_file = context.obj.origin("check", "baseline").startswith("[")
    source = context.get_parameter_source("baseline")
    return config.folder / given if in_file and source is not None and source.name == "DEFAULT_MAP" else given
