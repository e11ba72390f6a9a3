"""Bencher Metric Format: {benchmark: {measure: {value, lower_value, upper_value}}}, as bencher.dev has it; times in ns."""

import json
from typing import Any

from ....profilers.runs.check_run import CheckRun
from . import Format

_LONGEST = 1024
"""Characters of a benchmark's name there; a measure may have 64, which no metric of ours reaches."""


def render(run: CheckRun) -> str:
    """Every metric of every target, with its interval where it has one."""
    found: dict[str, dict[str, Any]] = {}
    for item in run.judgements:
        metric = item.metric
        measure: dict[str, float] = {"value": metric.value}
        measure |= {"lower_value": metric.low} if metric.low is not None else {}
        measure |= {"upper_value": metric.high} if metric.high is not None else {}
        found.setdefault(metric.target[:_LONGEST], {})[metric.name.replace("_", "-")] = measure
    return json.dumps(found, indent=2, sort_keys=True) + "\n"


FORMAT = Format(".bencher.json", "Bencher Metric Format", render)
