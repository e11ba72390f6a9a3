"""``mixbench history``: figures over commits, from the runs that were kept."""

from pathlib import Path
from typing import Annotated

import typer

from .. import options

LINES = "JSON lines"


def history(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="A model that was run with --save, or a target of `mixbench check`.",
            autocompletion=options.complete_model,
            show_default=False,
        ),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", metavar="NAME", help="Show this one, such as macs; may be repeated.", show_default=False),
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option("--export", metavar="FILE", help="Write every run as a line; - is stdout.", rich_help_panel=LINES),
    ] = None,
    imported: Annotated[
        Path | None,
        typer.Option("--import", metavar="FILE", help="Add the runs of such a file.", rich_help_panel=LINES),
    ] = None,
    form: options.Form = None,
    json: options.Json = False,
    csv: options.Csv = False,
    output: options.Output = None,
) -> None:
    """Show how a model's figures went over commits, and at which commit they changed.

    Counted figures are exact: every difference is a change, and names its modules. Measured ones have to reach a new level,
    and stay there for three commits. Times of different machines are never in one series. With --import, runs that are there
    already are left as they are; a file with one bad line is refused as a whole.

    Examples:
        mixbench flops ghostnetv2 --save
        mixbench history ghostnetv2
        mixbench history ghostnetv2 --metric macs -o macs.svg
        mixbench history --export runs.jsonl
    """
    from ...models.errors import BadInput
    from ...profilers.history import look
    from ...profilers.store import place_of_store
    from ..views import emit, history_page, history_view

    if sum(given is not None for given in (model, export, imported)) != 1:
        raise BadInput(
            "a model, --export or --import: one of them", "mixbench history MODEL, or mixbench history --export FILE"
        )
    path = place_of_store(Path.cwd())
    if export is not None:
        _write(path, export)
    elif imported is not None:
        _read(path, imported)
    elif model is not None:
        how = emit.choose(json, csv, output, drawn=("png", "svg", "html"), form=form)
        run = look(path, _kept_name(path, model), metric or [])

        def draw(kind: str) -> bytes | str:
            return history_page.page(run) if kind == "html" else history_view.draw(run, kind)

        emit.emit(run, how, output, lambda: history_view.tables(run), lambda: history_view.rows(run), draw)


def _kept_name(path: Path, model: str) -> str:
    """What runs of a model are kept under: ``ghostnetv2`` is its default variant, unless a target has just this name."""
    from ...models.errors import BadInput
    from ...models.lookup import resolve
    from ...profilers.store import targets

    if model in targets(path):
        return model
    try:
        return resolve(model).name
    except BadInput:
        return model  # one that is no more, or another project's


def _write(path: Path, export: Path) -> None:
    import sys

    from ...models.files import check_writable, write_whole
    from ...profilers.run_lines import to_line
    from ...profilers.store import runs
    from ..console import drop_stdout

    if str(export) != "-":
        check_writable(export)
        write_whole(export, "".join(map(to_line, runs(path))))
        return
    try:
        sys.stdout.writelines(map(to_line, runs(path)))
        sys.stdout.flush()
    except BrokenPipeError:
        drop_stdout()


def _read(path: Path, imported: Path) -> None:
    from ...models.errors import BadInput
    from ...profilers.run_lines import from_lines
    from ...profilers.store import save

    try:
        with imported.open("rb") as lines:
            found = list(from_lines(lines, imported.name))
    except OSError as error:
        raise BadInput(f"{str(imported)!r} can't be read: {error.strerror}", "check the path of --import") from error
    new = save(path, found)
    typer.echo(f"{new} new runs of {len(found)} in {path}", err=True)
