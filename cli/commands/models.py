"""``mixbench models``: what can be built."""

from dataclasses import dataclass
from typing import Annotated

import typer

from .. import options

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Entry:
    """An architecture in the list; ``error`` says why a plug-in of another package can't be used."""

    name: str
    title: str
    task: str
    variants: tuple[str, ...]
    supports: tuple[str, ...]
    paper: str
    paper_url: str
    repository: str
    error: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """A source of models that are not mixbench's own; ``extra`` is what ``pip install 'mixbench[EXTRA]'`` takes for it."""

    name: str
    form: str
    title: str
    extra: str


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All that can be built by name."""

    models: tuple[Entry, ...]
    sources: tuple[Place, ...] = ()
    command: str = "models"
    schema: int = SCHEMA


def models(
    names: Annotated[
        bool, typer.Option("--names", metavar="", help="Names only, one a line.", rich_help_panel=options.OUTPUT)
    ] = False,
    form: options.Form = None,
    json: options.Json = False,
    csv: options.Csv = False,
    output: options.Output = None,
) -> None:
    """List the architectures with their variants, task, source and what each supports; then where other models come from.

    Examples:
        mixbench models
        mixbench models --names
    """
    from rich.table import Table
    from rich.text import Text

    from ...models.lookup import all_names, all_sources
    from ...models.registry import architectures
    from ..views import emit

    how = emit.choose(json, csv, output, form=form)
    if names:
        emit.emit(None, "table", output, lambda: map(Text, all_names()), list)
        return
    places = tuple(Place(name, source.form, source.title, source.extra) for name, source in all_sources())
    catalogue = Catalogue(tuple(_entry(name) for name in architectures.names()), places)

    def page() -> list[Table | Text]:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        for heading in ("model", "variants", "task", "supports", "source"):
            table.add_column(heading, overflow="fold")
        for item in catalogue.models:
            cells = (item.name, " ".join(item.variants), item.task, ", ".join(item.supports), item.paper_url)
            table.add_row(*map(Text, (item.name, item.error) if item.error else cells))
        example = catalogue.models[-1]
        hint = f"a variant is named with a dash: {example.name}-{example.variants[-1]}; `mixbench info MODEL` tells more"
        others = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        for heading in ("or", "which is", "needs"):
            others.add_column(heading, overflow="fold")
        for place in (*catalogue.sources, Place("", "FILE.onnx", "an ONNX file, where a command takes one", "")):
            others.add_row(*map(Text, (place.form, place.title, f"mixbench[{place.extra}]" if place.extra else "")))
        return [table, Text(hint, style="dim"), Text(""), others]

    def rows() -> list[dict[str, str]]:
        return [
            {
                "model": item.name,
                "variants": " ".join(item.variants),
                "task": item.task,
                "paper_url": item.paper_url,
                "repository": item.repository,
            }
            for item in catalogue.models
        ]

    emit.emit(catalogue, how, output, page, rows)


def _entry(name: str) -> Entry:
    from ...models.errors import MixbenchError
    from ...models.registry import architectures

    try:
        family = architectures.describe(name)
    except MixbenchError as error:
        return Entry(name, "", "", (), (), "", "", "", error=error.what)
    words = (family.paper, family.paper_url, family.repository)
    return Entry(name, family.title, family.task, tuple(family.variants), family.supports, *words)
