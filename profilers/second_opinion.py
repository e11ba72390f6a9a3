"""Second opinions: what fvcore and torch's own counter say of the same case, and which operators explain each difference.

torch's counter is compared operator by operator, fvcore's family by family, since it names operators by their traced form.
Either way the differences add up to the difference of the totals.
"""

import logging
import warnings
from collections import Counter
from collections.abc import Callable, Mapping

import torch

from ..models.case import Case
from ..models.errors import CannotMeasure, first_line
from .cost import Count
from .counted_form import run_backward
from .formulas.table import rule_of_name
from .runs.run import Difference, Opinion

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
_COMPOUND_FAMILIES = {
    "scaled_dot_product_attention": "matmul",
    "_native_multi_head_attention": "matmul",
    "_transformer_encoder_layer_fwd": "matmul",
    "lstm": "matmul",
    "gru": "matmul",
    "rnn_tanh": "matmul",
    "rnn_relu": "matmul",
    "_convolution_mode": "convolution",
}
"""Operators that ours follows down to the contractions that they are made of."""


def second_opinion(case: Case, count: Count, counter: str) -> Opinion:
    """Ask another counter, ``fvcore`` or ``torch``.

    Raises:
        CannotMeasure: when it fails on this case, with its own words.
    """
    ask: Callable[[Case, Count], tuple[str, list[Difference]]] = {"fvcore": _ask_fvcore, "torch": _ask_torch}[counter]
    try:
        device, differences = ask(case, count)
    except Exception as error:
        what = f"{counter}'s counter fails on {case.spec.name}: {first_line(error)}"
        raise CannotMeasure(what, f"leave --verify {counter} out; ours does not depend on it") from error
    theirs = sum(item.theirs_macs for item in differences)
    return Opinion(counter, device, theirs, count.totals.macs, tuple(differences))


def _ask_torch(case: Case, count: Count) -> tuple[str, list[Difference]]:
    """torch.utils.flop_counter: FLOPs of contractions, halved to MACs; it skips other operators without a word."""
    from torch.utils.flop_counter import FlopCounterMode

    # Where the model needed real values for ours, it needs them here as well.
    case = case if case.device == count.device else case.on(count.device)
    with FlopCounterMode(display=False) as mode, torch.set_grad_enabled(case.workload.mode == "train"):
        output = case.module(*case.args, **case.kwargs)
        if case.workload.mode == "train":
            run_backward(output)
    flops = mode.get_flop_counts().get("Global", {})
    theirs = {str(operator).replace("aten.", "aten::"): int(value) // 2 for operator, value in flops.items()}
    ours = {item.operator: item.cost.macs for item in count.operators if item.cost.macs}
    names = sorted({*ours, *theirs}, key=lambda name: (-ours.get(name, 0), name))
    return case.device, [_difference("torch", name, ours.get(name, 0), theirs.get(name, 0)) for name in names]


def _ask_fvcore(case: Case, count: Count) -> tuple[str, list[Difference]]:
    """fvcore's flop counter: MACs of contractions, and its own figures for norms and pooling. Needs real tensors."""
    from fvcore.nn import FlopCountAnalysis

    real = case if case.device == "cpu" else case.on("cpu")
    if real.kwargs:
        raise ValueError("it takes positional inputs only")
    logging.getLogger("fvcore.nn.jit_analysis").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        analysis = FlopCountAnalysis(real.module, real.args).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        by_operator = analysis.by_operator()
        skipped = {name.removeprefix("aten::").removesuffix("_"): int(n) for name, n in analysis.unsupported_ops().items()}
    theirs, ours = Counter[str](), Counter[str]()
    for name, macs in by_operator.items():
        theirs[_FVCORE_FAMILIES.get(name, name)] += int(macs)
    for item in count.operators:
        ours[item.family] += item.cost.macs
    differences = []
    for family in sorted({*theirs, *ours}, key=lambda name: (-ours[name], name)):
        if ours[family] or theirs[family]:
            missed = {name: calls for name, calls in skipped.items() if _family(name) == family and ours[family]}
            notes = missed | ({"einsum": 0} if family == "matmul" and by_operator.get("einsum") else {})
            differences.append(_difference("fvcore", family, ours[family], theirs[family], notes))
    for name, calls in sorted(skipped.items()):
        where = f"ours counts it under {_family(name)}" if _family(name) else "ours follows it to what it is made of"
        differences.append(Difference(name, 0, 0, f"fvcore has no rule for it; {where}", calls))
    return "cpu", differences


def _family(name: str) -> str:
    """Our family of an operator that fvcore names, empty for one that ours never sees whole."""
    rule = rule_of_name(f"aten::{name}")
    return rule.family if rule else _COMPOUND_FAMILIES.get(name, "")


def _difference(counter: str, name: str, ours: int, theirs: int, skipped: Mapping[str, int] | None = None) -> Difference:
    words = []
    if ours == theirs:
        words = ["the same"]
    elif not ours:
        words = [f"no contraction: elementwise FLOPs in ours, part of the total in {counter}"]
    elif name == "aten::convolution_backward" and counter == "torch":
        words = ["torch's weight gradient ignores groups, so a depthwise convolution's comes out as a dense one's"]
    elif skipped:
        words = [
            "fvcore's einsum is rounded" if operator == "einsum" else f"fvcore skips {operator}, {calls} calls"
            for operator, calls in skipped.items()
        ]
    elif not theirs:
        words = [f"{counter} has no rule for it"]
    if ours > theirs and (ours - theirs) % 3 == 0 and theirs and not words:
        words = [
            "complex products: four real MACs in ours, one in theirs" if ours == 4 * theirs else "complex products in part"
        ]
    return Difference(name, ours, theirs, "; ".join(words) or "another rule")
