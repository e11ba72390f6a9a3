"""JUnit XML, which nearly every CI shows: a suite for each target, a test case for each metric.

There is no one standard. This is the part that Maven Surefire's schema, Jenkins' junit-10.xsd and GitLab's reader share;
tests/junit.xsd describes just that part.
"""

import re
from itertools import groupby
from xml.etree import ElementTree as Tree

from ....profilers.runs.check_run import CheckRun, Judgement
from .. import check_view
from . import Format

_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 can't hold, not even escaped."""


def render(run: CheckRun) -> str:
    """Failures are what fails the check, errors what can't be told, skipped what is only modelled and can't be told either."""
    root = Tree.Element("testsuites", {"name": "mixbench check"})
    for target, group in groupby(run.judgements, key=lambda item: item.metric.target):
        items = list(group)
        suite = Tree.SubElement(root, "testsuite", {"name": _clean(target)})
        children = [_case(suite, item) for item in items]
        suite.set("tests", str(len(items)))
        for attribute, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            suite.set(attribute, str(children.count(tag)))
        suite.set("time", "0")  # readers want one; a figure takes none of its own
    if run.undecided and root.find("*/testcase/error") is None:
        _add_undecided(root, check_view.sentence(run))
    Tree.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{Tree.tostring(root, encoding="unicode")}\n'


def _add_undecided(root: Tree.Element, sentence: str) -> None:
    """What could not be told is no pass, also where no single metric says so."""
    counts = {"tests": "1", "failures": "0", "errors": "1", "skipped": "0", "time": "0"}
    suite = Tree.SubElement(root, "testsuite", {"name": "mixbench check", **counts})
    case = Tree.SubElement(suite, "testcase", {"name": "verdict", "classname": "mixbench", "time": "0"})
    Tree.SubElement(case, "error", {"message": _clean(sentence), "type": "cannot tell"})


def _case(suite: Tree.Element, item: Judgement) -> str:
    """Add a metric's test case; what its outcome is called, "" for passed."""
    metric = item.metric
    about = {"name": _clean(metric.name), "classname": f"mixbench.{_clean(metric.target)}", "time": "0"}
    case = Tree.SubElement(suite, "testcase", about)
    unknown = "skipped" if metric.kind == "modelled" else "error"
    outcome = "failure" if item.fails else unknown if item.word == "cannot tell" else ""
    if outcome:
        word = check_view.word(item)
        child = Tree.SubElement(case, outcome, {"message": _clean(f"{metric.name} {word}: {item.reason}")})
        if outcome != "skipped":
            child.set("type", word)
        child.text = _clean(_text(item))
    return outcome


def _text(item: Judgement) -> str:
    base, new, change = check_view.figures(item)
    lines = [
        f"base:  {base or 'not known'}",
        f"new:   {new} {item.metric.unit}".rstrip(),
        f"limit: {item.limit or 'the baseline'}",
    ]
    if change:
        lines.insert(2, f"change: {change}")
    return "\n".join([*lines, *check_view.lines(item)])


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("�", text)


FORMAT = Format(".xml", "JUnit XML: a test case for each metric", render)
