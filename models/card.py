"""The record of one `mixbench info`: what is known about an architecture without building it. No torch here."""

from dataclasses import dataclass

from .spec import Family

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Card:
    """An architecture by its name; its JSON is printed by ``--json``, by the schema beside this file."""

    model: str
    family: Family
    command: str = "info"
    schema: int = SCHEMA
