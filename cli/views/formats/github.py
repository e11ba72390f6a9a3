"""Workflow commands of GitHub Actions, one a line: they become annotations of the run and of the changed files.

GitHub shows the first ten of each kind in a step, so the last place is kept for how many more there are.
"""

from ....profilers.runs.check_run import CheckRun, Judgement
from .. import check_view
from . import Format

_SHOWN = 10


def render(run: CheckRun) -> str:
    """Errors for what fails, warnings for what can't be told or is worse, notices for what is better."""
    kinds: dict[str, list[str]] = {"error": [], "warning": [], "notice": []}
    file = run.against if run.against.endswith(".toml") else ""
    for item in run.judgements:
        if kind := _kind(item):
            title = f"mixbench: {item.metric.target} {item.metric.name} {check_view.word(item)}"
            kinds[kind].append(_command(kind, file, title, _message(item)))
    if run.undecided:  # which is no pass, so it is no mere warning
        kinds["error"].append(_command("error", file, "mixbench", check_view.sentence(run)))
    lines = []
    for kind, found in kinds.items():
        shown = found if len(found) <= _SHOWN else found[: _SHOWN - 1]
        lines += shown
        if len(found) > len(shown):
            lines.append(_command(kind, file, "mixbench", f"and {len(found) - len(shown)} more, in the log and the summary"))
    return "".join(f"{line}\n" for line in [*lines, f"mixbench: {' '.join(check_view.sentence(run).split())}"])


def _kind(item: Judgement) -> str:
    if item.fails:
        return "error"
    if item.word == "better":
        return "notice"
    return "warning" if item.word in ("worse", "cannot tell") and item.metric.kind != "modelled" else ""


def _message(item: Judgement) -> str:
    base, new, change = check_view.figures(item)
    figures = f"base {base}, new {new} ({change})" if change else f"{new}"
    words = [f"{figures} {item.metric.unit}".rstrip(), f"budget {item.limit}" if item.limit else "", item.reason]
    return "\n".join(["; ".join(word for word in words if word), *check_view.lines(item)])


def _command(kind: str, file: str, title: str, message: str) -> str:
    about = [f"file={_value(file)}"] if file else []
    return f"::{kind} {','.join([*about, f'title={_value(title)}'])}::{_data(message)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _value(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


FORMAT = Format(".annotations", "annotations of GitHub Actions", render)
