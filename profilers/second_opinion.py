"""Second opinions: what fvcore and torch's own counter say of the same case, and what explains each difference.

Differences are taken family by family, so that they add up to the difference of the totals.
"""

import logging
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch

from ..models.case import Case
from ..models.errors import CannotMeasure, first_line
from .counter import Count
from .formulas.table import rule_of_name
from .runs.run import Difference, Opinion

_Theirs = tuple[str, dict[str, int], Counter[str]]

_FVCORE_FAMILIES = {
    "conv": "convolution",
    "linear": "matmul",
    "matmul": "matmul",
    "addmm": "matmul",
    "bmm": "matmul",
    "mm": "matmul",
    "mv": "matmul",
    "einsum": "matmul",
    "batch_norm": "norm",
    "layer_norm": "norm",
    "group_norm": "norm",
    "instance_norm": "norm",
    "upsample_nearest2d": "pooling",
    "upsample_bilinear2d": "pooling",
    "grid_sampler": "pooling",
    "adaptive_avg_pool2d": "pooling",
}


def second_opinion(case: Case, count: Count, counter: str) -> Opinion:
    """Ask another counter, ``fvcore`` or ``torch``.

    Raises:
        CannotMeasure: when it fails on this case, with its own words.
    """
    ask: Callable[[Case], _Theirs] = {"fvcore": _ask_fvcore, "torch": _ask_torch}[counter]
    try:
        device, theirs, skipped = ask(case)
    except Exception as error:
        what = f"{counter}'s counter fails on {case.spec.name}: {first_line(error)}"
        raise CannotMeasure(what, f"leave --verify {counter} out; ours does not depend on it") from error
    ours = Counter[str]()
    for operator in count.operators:
        ours[operator.family] += operator.cost.macs
    differences = [
        Difference(family, ours[family], theirs.get(family, 0), _explain(counter, family, ours[family], theirs.get(family, 0)))
        for family in sorted({*theirs, *ours})
        if ours[family] or theirs.get(family)
    ]
    for name, calls in sorted(skipped.items()):
        differences.append(Difference(name, 0, 0, _explain_skip(counter, name), calls))
    return Opinion(counter, device, sum(theirs.values()), count.totals.macs, tuple(differences))


def _explain(counter: str, family: str, ours: int, theirs: int) -> str:
    if ours == theirs:
        return "the same"
    if not ours:
        return f"no contraction: ours counts it as elementwise FLOPs, {counter} adds it to its total"
    if not theirs:
        return f"{counter} has no rule for these operators"
    return f"{counter} counts other operators of this family, or by another rule (complex products, padding, fused attention)"


def _explain_skip(counter: str, name: str) -> str:
    rule = rule_of_name(f"aten::{name.removeprefix('aten::')}")
    ours = f"ours counts it under {rule.family}" if rule else "ours follows it down to the operators that it is made of"
    return f"{counter} has no rule for it; {ours}"


def _ask_fvcore(case: Case) -> _Theirs:
    """fvcore's flop counter: MACs of contractions, and its own figures for norms and pooling. Needs real tensors."""
    from fvcore.nn import FlopCountAnalysis

    real = case if case.device == "cpu" else case.on("cpu")
    if real.kwargs:
        raise ValueError("fvcore takes positional inputs only")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        analysis = FlopCountAnalysis(real.module, real.args).unsupported_ops_warnings(False)
        analysis.uncalled_modules_warnings(False)
        logging.getLogger("fvcore.nn.jit_analysis").setLevel(logging.ERROR)
        by_operator = {name: int(value) for name, value in analysis.by_operator().items()}
        skipped = Counter({name: int(calls) for name, calls in analysis.unsupported_ops().items()})
    theirs: dict[str, int] = {}
    for name, macs in by_operator.items():
        family = _FVCORE_FAMILIES.get(name, name)
        theirs[family] = theirs.get(family, 0) + macs
    return "cpu", theirs, skipped


def _ask_torch(case: Case) -> _Theirs:
    """torch.utils.flop_counter: FLOPs of contractions, halved to MACs; it skips other operators without a word."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as mode, torch.set_grad_enabled(case.workload.mode == "train"):
        output = case.module(*case.args, **case.kwargs)
        if case.workload.mode == "train":
            _backward(output)
    theirs: dict[str, int] = {}
    for operator, flops in mode.get_flop_counts().get("Global", {}).items():
        rule = rule_of_name(str(operator).replace("aten.", "aten::"))
        family = rule.family if rule else str(operator)
        theirs[family] = theirs.get(family, 0) + int(flops) // 2
    return case.device, theirs, Counter()


def _backward(output: Any) -> None:
    roots = [leaf for leaf in torch.utils._pytree.tree_leaves(output) if isinstance(leaf, torch.Tensor) and leaf.requires_grad]
    torch.autograd.backward(roots, [torch.ones_like(root) for root in roots])
