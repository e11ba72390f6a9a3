"""``mixbench info``: what an architecture is, and what was published about it."""

from .. import options


def info(model: options.Model, form: options.Form = None, json: options.Json = False, output: options.Output = None) -> None:
    """Tell what a model is: its idea, variants, published figures, paper and repository.

    Examples:
        mixbench info ghostnetv2
        mixbench info ghostnetv2 --json
    """
    from rich.console import Group
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    from ...models.card import Card
    from ...models.lookup import resolve
    from ...profilers.runs.run import label_of
    from ..views import emit

    how = emit.choose(json, None, output, form=form)
    spec = resolve(model)
    family = spec.family
    if family is None:
        from ...models.errors import BadInput

        raise BadInput(
            f"{model!r} is none of mixbench's own models", "`mixbench flops` counts it; info explains the models of the list"
        )

    def page() -> list[Group]:
        figures = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        for heading in ("variant", "settings", "figure", "published", "source"):
            figures.add_column(heading, justify="right" if heading == "published" else "left")
        for key, variant in family.variants.items():
            settings = ", ".join(f"{word}={value}" for word, value in variant.settings.items())
            label = f"{spec.entry}-{key}" + (" (default)" if key == family.default else "")
            if not variant.published:
                figures.add_row(*map(Text, (label, settings, "none published", "", "")))
            for item in variant.published:
                words = (label, settings, label_of(item.metric), item.figure, item.source)
                figures.add_row(*map(Text, words))
                label = settings = ""
        own = [f"{', '.join(map(str, variant.inputs))} ({key})" for key, variant in family.variants.items() if variant.inputs]
        facts = [
            ("task", family.task),
            ("input", "; ".join([", ".join(map(str, family.inputs)), *own])),
            ("supports", "; ".join(family.supports)),
            ("paper", f"{family.paper}, {family.paper_url}"),
            ("code", family.repository),
        ]
        lines = [Text.assemble((f"{word:<10}", "dim"), text) for word, text in facts]
        notes = [Text(f"- {note}") for note in family.notes]
        head = Text(family.title, style="bold")
        return [Group(head, Text(family.summary), Text(), *lines, Padding(figures, (1, 0)), *notes)]

    emit.emit(Card(spec.entry, family), how, output, page, list)
