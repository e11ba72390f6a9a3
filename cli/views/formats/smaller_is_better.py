"""``customSmallerIsBetter`` of github-action-benchmark: an array of {name, unit, value, range, extra}."""

import json
from typing import Any

from ....profilers.runs.check_run import Better, CheckRun, Metric
from .. import check_view
from . import Format


def array(run: CheckRun, better: Better) -> str:
    """The metrics of one direction: that tool keeps the two in files of their own."""
    found = []
    for item in run.judgements:
        metric = item.metric
        if metric.better == better:
            entry: dict[str, Any] = {"name": f"{metric.target} {metric.name}", "unit": metric.unit, "value": metric.value}
            entry |= _range(metric)
            if extra := "\n".join(check_view.lines(item, len(item.culprits))):
                entry["extra"] = extra
            found.append(entry)
    return json.dumps(found, indent=2) + "\n"


def _range(metric: Metric) -> dict[str, str]:
    """± the farther end of the interval, since that is all that a range can say there."""
    ends = [abs(end - metric.value) for end in (metric.low, metric.high) if end is not None]
    return {"range": f"± {max(ends):.6g}"} if ends else {}


FORMAT = Format(".smaller.json", "customSmallerIsBetter of github-action-benchmark", lambda run: array(run, "lower"))
