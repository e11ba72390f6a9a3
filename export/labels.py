"""Names of classes, for the file's metadata: whoever runs it can say what an output means."""

import json
from pathlib import Path

from ..models.errors import BadInput


def read_labels(path: Path) -> list[str]:
    """A JSON list of words, or a text file with one a line.

    Raises:
        BadInput: when there is no such file, or it holds something else.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"labels can't be read from {str(path)!r}", "give a text file with one label a line") from error
    if path.suffix != ".json":
        labels: object = [line.strip() for line in text.splitlines() if line.strip()]
    else:
        try:
            labels = json.loads(text)
        except json.JSONDecodeError as error:
            raise BadInput(f"{str(path)!r} is no JSON: {error}", "give a list of words, or a text file") from error
    if not isinstance(labels, list) or not labels or not all(isinstance(label, str) for label in labels):
        raise BadInput(f"{str(path)!r} holds no list of labels", "one word for each class, in the order of the outputs")
    return labels


def check_labels(labels: list[str], shape: tuple[int, ...]) -> None:
    """Refuse labels that are not as many as the first result has classes.

    Raises:
        BadInput: with both numbers.
    """
    if not shape or shape[-1] != len(labels):
        classes = f"{shape[-1]} classes" if shape else "no classes"
        raise BadInput(f"there are {len(labels)} labels, and the first result has {classes}", "check --labels")
