"""``mixbench init``: a commented start for the settings of a project."""

import typer


def init(context: typer.Context) -> None:
    """Write a start for `mixbench check`: the models that are found, with what they cost today as budgets.

    It goes to the end of pyproject.toml, or into a new mixbench.toml where there is no pyproject.toml. Nothing that is there
    is changed. Models of the project are found without running any of its code, by the types that functions say they return;
    those that are found are then built and counted.

    Examples:
        mixbench init
    """
    from ...models.errors import BadInput
    from .. import beginning
    from ..config import Config, find

    config: Config = context.obj.config
    if config.path is not None:
        raise BadInput(f"{config.path} has settings already", "edit it; docs/check.md has all keys")
    folder = beginning.project_folder()
    found = beginning.find_models(folder)
    path = beginning.write(folder, found)
    assert find(folder).path == path, "what was written is found again"
    typer.echo(
        f"wrote {path.name}: edit its budgets, then `mixbench check --update` keeps what the models cost today", err=True
    )
