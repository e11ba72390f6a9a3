"""Hopfield updates that stop by themselves, as a Loop of the graph.

Why: how often a head updates depends on values, and a graph can't leave a Python loop. With a limit of n the model unrolls all
n updates when it is captured and holds finished heads by selection: the same values, no Loop, always n updates' work, and n
copies of them in the file. That stays the form up to 16 updates, since no mobile runtime's table has Loop. Without a limit
(the preset for retrieval) there is nothing to unroll and the model refuses; above 16 the file grows and most updates are
computed in vain. Both become torch's `while_loop`, which the exporter writes as ONNX's Loop, and which runs as often as needed.

The rule is the model's own, head by head, by the Frobenius norm of the matrix's move, the largest of the batch; so are the
results. What the model raises when a head never rests (10,000 updates) the file can't: it stops there and returns what it has.

Proof: equal to the model's eager loop within float32 rounding for limited and unlimited heads, also mixed, with masks and at
other batches than the captured one; the file has one Loop (`tests/test_rewrites_loop.py`).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ...models.architectures.hopfield import Hopfield
from ...models.association import PATIENCE, UNLIMITED, Mask
from .base import Rewrite

MOST_UNROLLED = 16
"""Updates that are still written out one by one."""


class LoopingHopfield(Hopfield):
    """A `Hopfield` whose updates are one loop in the captured graph; called eagerly it is the ordinary one."""

    def _associate(self, q: Tensor, k: Tensor, mask: Mask) -> tuple[Tensor, tuple[int, ...] | None]:
        if not torch.compiler.is_exporting():
            return super()._associate(q, k, mask)
        from torch._higher_order_ops.while_loop import while_loop_op

        steps = self.steps
        # All that the body reads goes in by name: captured as it is, a closure would have to be traced back to its module.
        beta = torch.as_tensor(self._beta(), dtype=q.dtype, device=q.device)
        limits = torch.tensor([PATIENCE if most == UNLIMITED else most for most in steps.most], device=k.device)
        eps = torch.tensor(steps.eps, device=k.device, dtype=q.dtype)

        matrix = mask.softmax((q * beta) @ k.mT)
        start = torch.zeros((), dtype=torch.int64, device=k.device)
        given = [k, beta, limits, eps, *(part for part in (mask.allowed, mask.added) if part is not None)]
        carried: Any = (start, limits > 0, matrix)  # torch's own hint has room for one
        return while_loop_op(_goes_on, _update_under(mask), carried, tuple(given))[2], None


def _goes_on(step: Tensor, active: Tensor, matrix: Tensor, *_: Tensor) -> Tensor:
    return active.any()


def _update_under(like: Mask) -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    """The loop's body, for a mask of the same kind."""

    def update(
        step: Tensor, active: Tensor, matrix: Tensor, k: Tensor, beta: Tensor, limits: Tensor, eps: Tensor, *masks: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        mask = Mask(*masks) if like.added is None else Mask(None, *masks)
        after = torch.where(active[:, None, None], mask.softmax(((matrix @ k) * beta) @ k.mT), matrix)
        move = torch.linalg.vector_norm(after - matrix, dim=(2, 3)).amax(0)
        step = step + 1
        return step, active & (step < limits) & ((move > eps) | (eps == 0)), after

    return update


def _loop(module: nn.Module) -> nn.Module | None:
    if type(module) is not Hopfield or module.steps.fixed:
        return None
    if UNLIMITED not in module.steps.most and max(module.steps.most) <= MOST_UNROLLED:
        return None
    module.__class__ = LoopingHopfield
    return module


REWRITE = Rewrite("updates that stop by themselves as a Loop", module=_loop)
