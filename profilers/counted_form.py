"""The form in which a model is run to be counted: decomposed, eager, its gradients put aside, and a backward pass from ones.

Three switches make torch take its decomposed form, so that the count does not depend on the device: attention as products
and softmax, no fused encoder layer, no oneDNN recurrent layer. They are put back whatever happens.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ..models.errors import BadInput
from ..models.meta_kernels.layout import dense_strides

_FLEX_SWITCH = "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG"


@contextmanager
def decomposed() -> Iterator[None]:
    """torch's decomposed form of attention, encoder layers and recurrent layers, within this block only."""
    switches: list[tuple[Callable[[], bool], Callable[[bool], None], bool]] = [
        (torch._C._get_flash_sdp_enabled, torch._C._set_sdp_use_flash, False),
        (torch._C._get_mem_efficient_sdp_enabled, torch._C._set_sdp_use_mem_efficient, False),
        (torch._C._get_cudnn_sdp_enabled, torch._C._set_sdp_use_cudnn, False),
        (torch._C._get_math_sdp_enabled, torch._C._set_sdp_use_math, True),
        (torch._C._get_mkldnn_enabled, torch._C._set_mkldnn_enabled, False),
        (torch.backends.mha.get_fastpath_enabled, torch.backends.mha.set_fastpath_enabled, False),
    ]
    before = [get() for get, _, _ in switches]
    try:
        for _, put, value in switches:
            put(value)
        with _eager():
            yield
    finally:
        for (_, put, _), value in zip(switches, before, strict=True):
            put(value)


@contextmanager
def _eager() -> Iterator[None]:
    """Run compiled parts of a model as they were written. Only where the compiler is loaded: loading it takes a second."""
    with ExitStack() as stack:
        if "torch._dynamo" in sys.modules:
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        if flex := sys.modules.get("torch.nn.attention.flex_attention"):
            # It compiles itself even where it was not asked to.
            stack.callback(setattr, flex, _FLEX_SWITCH, getattr(flex, _FLEX_SWITCH, False))
            setattr(flex, _FLEX_SWITCH, True)
        yield


@contextmanager
def gradients_aside(module: nn.Module) -> Iterator[None]:
    """Let a backward pass start from no gradients, as a training step does, and give the module back the ones it had."""
    before = [(parameter, parameter.grad) for parameter in module.parameters()]
    for parameter, _ in before:
        parameter.grad = None
    try:
        yield
    finally:
        for parameter, gradient in before:
            parameter.grad = gradient


def run_backward(output: Any) -> None:
    """Backward from every output that has a gradient, started by ones of its shape: no loss, so nothing of its own."""
    roots = [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor) and leaf.requires_grad]
    if not roots:
        raise BadInput("no output of the model depends on a parameter", "leave --train out, or check requires_grad")
    with torch.utils._python_dispatch._disable_current_modes():
        seeds = [_ones_like(root) for root in roots]
    # What torch.autograd.backward() comes to, without its look at the seeds, for which it loads the compiler.
    engine = torch.autograd.graph._engine_run_backward
    engine(tuple(roots), tuple(seeds), False, False, (), allow_unreachable=True, accumulate_grad=True)


def _ones_like(root: Tensor) -> Tensor:
    """What torch's function makes, which on meta would load the compiler."""
    strides = dense_strides(root) if root.is_meta else None
    if strides is None:
        return torch.ones_like(root)
    return torch.empty_strided(root.shape, strides, dtype=root.dtype, device=root.device).fill_(1)
