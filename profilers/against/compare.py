"""Is the working copy slower than a revision? Pairs of processes until the answer is clear, twice before it is bad news."""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from ...models.errors import BadInput, CannotMeasure
from ..machine import Disturbances, usable_cores
from ..runs.check_run import Judgement, Metric
from ..runs.timing_run import FLOOR_NS
from ..stats import median
from .pairs import PAIR_S, Job, PairTimes, Side, time_pair
from .sequential import LAST, Look, look
from .trees import Trees

LIMIT = 1.03
"""Without a budget: a slowdown that measures less is no finding, so that one of 5 % is found and none is never invented."""

Progress = Callable[[str, float], None]
"""Gets what is known so far, in words, and the share that is done, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a comparison found.

    Attributes:
        run: the pairs that the answer rests on: those of the confirming run, if there was one.
        first_run: those of the run before, which asked for one; else empty.
        answer: on the pairs of ``run``; its word is None when they did not suffice.
        limit: a ratio, the one asked for or, for a model of microseconds, what is above the clock's own noise.
    """

    run: tuple[PairTimes, ...]
    first_run: tuple[PairTimes, ...]
    answer: Look
    limit: float
    notes: tuple[str, ...] = ()


def compare(
    job: Job,
    trees: Trees,
    limit: float = LIMIT,
    folder: Path | None = None,
    seconds: float = PAIR_S,
    seed: int | None = None,
    progress: Progress = lambda words, share: None,
) -> Found:
    """Time a model of the working copy against the same of a revision.

    Args:
        job: with the model as the user names it.
        limit: the ratio of new over old, above 1, beyond which the new side counts as slower; its inverse as faster.
        folder: where the user is, the current one if not given.
        seconds: of sampling in each pair.
        seed: of all random orders, for tests; anew each time if not given.

    Raises:
        BadInput: when the model can't be built in the working copy, or is not part of the repository.
        CannotMeasure: when it can't be built in the revision, or a process fails.
    """
    folder = (folder or Path.cwd()).resolve()
    draw = random.Random(seed)
    cores = tuple(usable_cores())[-job.threads :]
    if job.threads > len(cores):
        raise CannotMeasure(f"{job.threads} threads on {len(cores)} cores measure how they wait", "fewer --threads")
    jobs = [replace(job, model=words, cores=cores) for words in trees.words(job.model, folder)]
    old, new = zip(trees.places(folder), jobs, strict=True)
    watch = Disturbances()
    found = decide(lambda: time_pair(old, new, draw, partial(_check, trees), seconds), limit, progress)
    return replace(found, notes=(*trees.notes, *watch.warnings()))


def decide(pair: Callable[[], PairTimes], limit: float = LIMIT, progress: Progress = lambda words, share: None) -> Found:
    """Take pairs until they tell; what looks slower or faster has to be so again in pairs of their own."""
    first_run: tuple[PairTimes, ...] = ()
    run, answer, raised = _run(pair, limit, progress)
    if answer.word in ("worse", "better"):
        first_run, seen = run, answer.word
        run, answer, raised = _run(pair, limit, lambda words, share: progress(f"once more: {words}", share))
        if answer.word not in (seen, "same"):
            answer = replace(answer, word=None)
    return Found(run, first_run, answer, raised)


def _run(pair: Callable[[], PairTimes], limit: float, progress: Progress) -> tuple[tuple[PairTimes, ...], Look, float]:
    pairs: list[PairTimes] = []
    while True:
        pairs.append(pair())
        raised = max(limit, 1 + FLOOR_NS / median([pair.old_ns for pair in pairs]))
        answer = look([pair.log_ratio for pair in pairs], math.log(raised))
        progress(f"{math.exp(answer.estimate):.3f} of the time, {len(pairs)} pairs", len(pairs) / LAST)
        if answer.word or len(pairs) == LAST:
            return tuple(pairs), answer, raised


def _check(trees: Trees, old: Side, new: Side) -> None:
    """Each side has to run its own tree's code, and both the same workload."""
    ours, theirs = old.ready["workload"], new.ready["workload"]
    if ours != theirs:
        what = f"{old.place.label} runs on {ours}, the working copy on {theirs}"
        raise CannotMeasure(what, "give the target `inputs`, so that both take the same")
    inside = [path for path in old.ready["files"] if Path(path).is_relative_to(trees.old)]
    astray = [path for path in old.ready["files"] if _is_source(Path(path), trees.new) and not path.startswith(str(trees.old))]
    if astray:
        what = f"the side of {trees.against} imports {astray[0]} of the working copy"
        raise CannotMeasure(what, "it is installed in editable mode, or untracked: commit it, and stand in its root folder")
    if copies := [path for path in old.ready["files"] if _is_copy(Path(path), trees.new)]:
        what = f"both sides import {copies[0]}, an installed copy of what the repository holds"
        raise CannotMeasure(what, "uninstall it, or install it in editable mode")
    if not inside:
        what = f"no code of {new.job.model} comes from {trees.new}: none of its revisions changes it"
        raise BadInput(what, "go to the repository that holds the model")


def _is_source(path: Path, root: Path) -> bool:
    """Whether a file is the repository's own, and not of an environment that was installed inside it."""
    return path.is_relative_to(root) and "site-packages" not in path.parts


def _is_copy(path: Path, root: Path) -> bool:
    """Whether an installed file is a copy of one of the repository's; of mixbench there may be two."""
    if "site-packages" not in path.parts:
        return False
    packaged = Path(*path.parts[path.parts.index("site-packages") + 1 :])
    return packaged.parts[0] != "mixbench" and any((root / place / packaged).is_file() for place in ("", "src"))


def judgement(found: Found, target: str, trees: Trees) -> Judgement:
    """The word on ``latency_ratio``: it fails when the working copy is slower, in two runs on end."""
    ratio = math.exp(found.answer.estimate)
    low, high = (None if end is None else math.exp(end) for end in (found.answer.low, found.answer.high))
    metric = Metric(target, "latency_ratio", ratio, "ratio", "measured", "lower", low, high)
    word = found.answer.word or "cannot tell"
    return Judgement(metric, 1.0, f"<= {found.limit:.4g}", word, word == "worse", _sentence(found, trees.against))


def _sentence(found: Found, against: str) -> str:
    """A verdict that can be read aloud."""
    old, new = (median([getattr(pair, name) for pair in found.run]) / 1e6 for name in ("old_ns", "new_ns"))
    ratio, pairs = math.exp(found.answer.estimate), len(found.run)
    times = f"{new:.4g} ms a call, {old:.4g} ms in {against}"
    said = {
        "worse": f"slower by {100 * (ratio - 1):.1f} %, in two runs of pairs on end",
        "better": f"faster by {100 * (1 - ratio):.1f} %, in two runs of pairs on end",
        "same": f"no slowdown beyond {100 * (found.limit - 1):.2g} %",
        None: f"{pairs} pairs do not tell: run it again while nothing else runs",
    }[found.answer.word]
    before = f", after {len(found.first_run)} that looked different" if found.first_run and found.answer.word == "same" else ""
    return f"{said}; {times}; {pairs} pairs of processes{before}"
