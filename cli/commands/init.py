"""``mixbench init``: a commented start for the settings of a project."""
import typer
def init() -> None:
    """x

    Examples:
        mixbench init
    """
