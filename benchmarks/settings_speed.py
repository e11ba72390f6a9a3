"""The fastest way to run each image model for inference here: eager, channels-last, folded, compiled, and their mixtures.

Settings of one model are timed in turn, in random order within each round, in one process; a row says how many times as fast
as plain eager a setting is, as the median of the rounds' ratios with its 99 % order-statistic interval. Outputs are compared
first.

Run: ./dev bench, or python benchmarks/settings_speed.py [--quick] [--batch N] [MODEL ...].
"""

import argparse
import copy
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

import mixbench
from mixbench.models.reparameterise import reparameterise
from mixbench.profilers.stats import median, ratio
from side_by_side import interval, times

MODELS = ("ghostnetv2", "affnet-et", "affnet")


def in_layout(module: nn.Module) -> nn.Module:
    """A copy with channels-last weights."""
    twin = copy.deepcopy(module)
    for tensor in twin.parameters():
        if tensor.ndim == 4:
            tensor.data = tensor.data.to(memory_format=torch.channels_last)
    return twin


def settings(module: nn.Module, x: Tensor, with_compile: bool) -> dict[str, Callable[[], Tensor]]:
    """Every setting as a call without arguments."""
    folded = reparameterise(module)
    flat = x.to(memory_format=torch.channels_last)
    forms: dict[str, tuple[Callable[[Tensor], Tensor], Tensor]] = {
        "eager": (module, x),
        "channels-last": (in_layout(module), flat),
        "folded": (folded, x),
        "folded, channels-last": (in_layout(folded), flat),
    }
    if with_compile:
        forms["folded, compiled"] = (torch.compile(folded), x)
        forms["folded, channels-last, compiled"] = (torch.compile(in_layout(folded)), flat)
    return {name: partial(form, value) for name, (form, value) in forms.items()}


def main() -> None:
    """Print a table for each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compile", action="store_true", help="compiled settings too; needs a C++ compiler, takes minutes")
    parser.add_argument("--quick", action="store_true", help="nine rounds of one model")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    models, rounds = (MODELS[:1], 9) if arguments.quick else (arguments.models, arguments.rounds)
    for name in models:
        case = mixbench.build(name, mixbench.Workload(batch=arguments.batch), device="cpu")
        calls = settings(case.module, case.args[0], arguments.compile)
        with torch.inference_mode():
            expected = calls["eager"]()
            for call in calls.values():
                torch.testing.assert_close(call(), expected, rtol=1e-3, atol=1e-4)
            found = dict(zip(calls, times(rounds, *calls.values()), strict=True))
        print(f"{name}, batch {arguments.batch}, {arguments.threads} thread(s), torch {torch.__version__}")
        for setting, own in found.items():
            fast = ratio(own, found["eager"])
            print(f"  {setting:<32} {median(own) * 1000:8.2f} ms  {fast.value:5.2f} x as fast as eager, {interval(fast)}")


if __name__ == "__main__":
    main()
