"""`mixbench check --against`: the targets' times beside those of a revision. Neither side's torch is loaded in this process."""

from collections.abc import Sequence
from pathlib import Path

from ..models.errors import BadInput, MixbenchError
from ..profilers.against.compare import LIMIT, Found, compare, judgement
from ..profilers.against.pairs import Job
from ..profilers.against.trees import Trees, checked_out
from ..profilers.budget import SAME
from ..profilers.runs.check_run import CheckRun
from ..profilers.runs.verdict import conclude
from .checking import failing_alone
from .console import bar
from .targets import Target

RATIO = "latency_ratio"


def against_revision(
    targets: Sequence[Target], folder: Path, revision: str, threads: int = 1
) -> tuple[CheckRun, list[MixbenchError]]:
    """Time each target against the same of a revision, and judge the ratio by the target's budget or by `compare.LIMIT`.

    Args:
        folder: where models' files are looked for; its repository is the revision's.

    Returns:
        What could be judged; and the errors of targets that could not, such as one that does not build in the revision.

    Raises:
        BadInput: without a repository, a revision, or a budget that can be judged.
    """
    limits = [_limit(target) for target in targets]
    judgements, notes = [], dict[str, None]()
    failures: list[MixbenchError] = []
    with checked_out(folder, revision) as trees:
        for target, limit in zip(targets, limits, strict=True):
            with failing_alone(target, failures):
                found = _compare(target, limit, trees, folder, threads)
                judgements.append(judgement(found, target.name, trees))
                notes |= dict.fromkeys(found.notes)
    return conclude(judgements, trees.against, notes), failures


def _compare(target: Target, limit: float, trees: Trees, folder: Path, threads: int) -> Found:
    words = f"{target.name} beside {trees.against}"
    with bar(words) as update:
        return compare(
            _job(target, threads), trees, limit, folder, progress=lambda text, share: update(f"{words}: {text}", share)
        )


def _limit(target: Target) -> float:
    budget = target.budgets.get(RATIO)
    if budget is None or budget.sign == SAME:
        return LIMIT
    if budget.sign not in ("<=", "<") or budget.limit <= 1:
        what = f"target {target.name!r}: {RATIO} = {budget.text!r} is no limit that a time can be judged by"
        raise BadInput(what, "write '<= 1.03' or another ratio above 1")
    return budget.limit


def _job(target: Target, threads: int) -> Job:
    """The target in plain data. A variant's settings are left to each side, which may have set them otherwise."""
    spec, workload = target.spec, target.workload
    own = spec.variant.settings if spec.variant else {}
    settings = {name: value for name, value in spec.settings.items() if name not in own or own[name] != value}
    return Job(
        model=spec.name,
        settings=repr(settings),
        inputs=tuple(map(str, workload.inputs)),
        batch=workload.batch,
        dtype=workload.dtype,
        mode=workload.mode,
        seed=workload.seed,
        weights=str(target.weights.resolve()) if target.weights else "",
        reparameterised=target.reparameterised,
        threads=threads,
    )
