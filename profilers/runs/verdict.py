"""The word on a metric: against the baseline, exactly, and against its budget. No torch here.

A counted metric fails when it is worse than the baseline or outside its budget. A measured one is held to its budget only, by
its interval; a modelled one never fails. What can't be told is no pass.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from ..budget import SAME, Budget
from .baseline import Baseline, Entry
from .check_run import CheckRun, Culprit, Judgement, Metric, Word


def judge(metric: Metric, workload: str, baseline: Baseline | None, budget: Budget | None) -> Judgement:
    """Judge a metric of a target on this workload."""
    known = baseline.targets.get(metric.target) if baseline else None
    base = known.metrics.get(metric.name) if known and known.workload == workload else None
    if metric.kind == "counted":
        word, reason = _against(metric, base, _why_unknown(metric, workload, baseline, known))
    else:
        word, reason = "same", f"{metric.kind}, so it is not compared with the baseline"
    limit, over = "", False
    if budget and budget.sign != SAME:
        limit = budget.text
        kept = [budget.holds(end) for end in (metric.value, metric.low, metric.high) if end is not None]
        if not any(kept):
            over, reason = True, f"outside its budget, {limit}; {reason}"
        elif not all(kept):
            word, reason = "cannot tell", f"its interval reaches across its budget, {limit}"
        elif metric.kind != "counted":
            reason = f"within its budget; {reason}"
    before = known.parts.get(metric.name, {}) if known and base is not None else {}
    changed = culprits(before, metric.parts) if word in ("worse", "better") else ()
    fails = (over or word == "worse") and metric.kind != "modelled"
    return Judgement(replace(metric, parts={}), base, limit, word, fails, reason, changed, over)


def conclude(judgements: Sequence[Judgement], against: str, notes: Iterable[str] = (), complete: bool = True) -> CheckRun:
    """The record of a check.

    Args:
        complete: whether everything that was asked for is among the judgements.
    """
    failed = any(item.fails for item in judgements)
    open_ = not complete or any(item.word == "cannot tell" and item.metric.kind != "modelled" for item in judgements)
    return CheckRun(tuple(judgements), against, failed, open_ and not failed, tuple(notes))


def culprits(base: Mapping[str, int], new: Mapping[str, int]) -> tuple[Culprit, ...]:
    """The parts that changed, the largest change first."""
    found = []
    for key in {**base, **new}:
        before, after = base.get(key, 0), new.get(key, 0)
        if before != after:
            module, _, operator = key.rpartition(" ")
            is_operator = "::" in operator or operator.startswith("Tensor.")
            found.append(Culprit(module if is_operator else key, before, after, operator if is_operator else ""))
    return tuple(sorted(found, key=lambda item: (-abs(item.new - item.base), item.part, item.operator)))


def _against(metric: Metric, base: float | None, unknown: str) -> tuple[Word, str]:
    if base is None:
        return "cannot tell", unknown
    if metric.value == base:
        return "same", "equal to the baseline"
    is_better = (metric.value < base) == (metric.better == "lower")
    direction = "more" if metric.value > base else "less"
    return ("better" if is_better else "worse"), f"{direction} than the baseline"


def _why_unknown(metric: Metric, workload: str, baseline: Baseline | None, known: Entry | None) -> str:
    if baseline is None:
        return "there is no baseline"
    if known is None:
        return "the baseline has no such target"
    if known.workload != workload:
        return f"the baseline is of another workload, {known.workload}, and this is {workload}"
    return "the baseline has no such metric"
