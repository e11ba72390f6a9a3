"""Count what a model computes by watching the operators that torch dispatches while it runs once.

Everything that torch computes passes its dispatcher, whatever Python code asks for it, so nothing is missed in silence: an
operator without a rule is named and counted as uncounted. Counting happens on the meta device, where tensors have shapes but
no storage; a model that needs real values runs on the CPU instead, and the count says why.

Three switches make torch take its decomposed form, so that the count does not depend on the device: attention as products
and softmax, no fused encoder layer, no oneDNN recurrent layer. They are put back whatever happens.
"""

import bisect
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from ..models import meta, meta_kernels
from ..models.case import Case
from ..models.errors import BadInput, MixbenchError, first_line
from .cost import FREE, Cost, CostTree, Count, OperatorCost
from .formulas import rule_for
from .formulas.table import name_of

ROOT = ""
_FLEX_SWITCH = "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG"


Listener = Callable[[Cost], None]
"""Is told the cost of each operator right after it ran, before its caller goes on."""


def count(case: Case, listener: Listener | None = None) -> Count:
    """Count a case on its device, or on the CPU with real values when the model cannot run on meta.

    Args:
        listener: is told of each operator; where meta fails it hears the part that ran, and then the whole run on the CPU.

    Raises:
        BadInput: when the model fails on its inputs.
        CannotMeasure: when it needs real values and does not fit into memory.
    """
    try:
        train = case.workload.mode == "train"
        return count_call(case.module, *case.args, train=train, notes=case.notes, listener=listener, **case.kwargs)
    except MixbenchError:
        raise
    except Exception as refusal:
        if case.device != "meta":
            raise _failed(case, refusal) from refusal
        try:
            real = case.on("cpu")
            notes = (*real.notes, f"counted on real CPU tensors, since meta tensors fail: {first_line(refusal)}")
            train = real.workload.mode == "train"
            return count_call(real.module, *real.args, train=train, notes=notes, listener=listener, **real.kwargs)
        except MixbenchError as error:
            error.hint = error.hint or f"on meta tensors it fails too: {first_line(refusal)}"
            raise
        except Exception as error:
            raise _failed(case, error) from error


def _failed(case: Case, error: Exception) -> BadInput:
    sizes = ", ".join(map(str, case.workload.inputs)) or "its inputs"
    return BadInput(f"{case.spec.name} fails on {sizes}: {first_line(error)}", "check --input; --debug shows the traceback")


def count_call(
    module: nn.Module,
    *args: Any,
    train: bool = False,
    notes: tuple[str, ...] = (),
    listener: Listener | None = None,
    **kwargs: Any,
) -> Count:
    """Count one call ``module(*args, **kwargs)`` where its tensors lie: meta, fake or real.

    Args:
        train: run the backward pass too, from a gradient for each output that has one. The module's own train or eval mode
            is left as it is.

    A module whose cost depends on values, or is partly for nothing (behind a mask), may define ``cost_note()``, a text on the
    call it has just served; it is among the notes of the count.
    """
    module = getattr(module, "_orig_mod", module)  # a compiled module hides its operators, its original shows them
    names = {id(child): name for name, child in module.named_modules()}
    watch = _Watch(listener)
    with ExitStack() as stack:
        stack.enter_context(_decomposed())
        stack.enter_context(_followed(module, names, watch))
        stack.enter_context(_gradients_aside(module) if train else torch.no_grad())
        stack.enter_context(_EscapeWatch(watch))
        stack.enter_context(_OperatorWatch(watch))
        output = module(*args, **kwargs)
        if train:
            watch.backward = True
            run_backward(output)
    tensors = [leaf for leaf in pytree.tree_leaves((args, kwargs, list(module.parameters()))) if isinstance(leaf, Tensor)]
    device = next((tensor.device.type for tensor in tensors), "cpu")
    tree = _tree(module, watch)
    notes = (*notes, *_cost_notes(names, module))
    return Count(tree, device, watch.spent[False], watch.spent[True], _params_bn_folded(module, tree.total_params), notes)


class _Watch:
    """What has been seen so far: for each module and operator, the calls and their cost."""

    def __init__(self, listener: Listener | None = None) -> None:
        self.listener = listener
        self.seen: dict[tuple[str, str, str], tuple[int, Cost]] = {}
        self.calls: dict[str, int] = {}
        self.stack = [ROOT]
        self.backward = False
        self.spent = {False: FREE, True: FREE}
        # From which autograd sequence number on which module was running; see `module_of_backward`.
        self._marks: list[int] = [0]
        self._modules: list[str] = [ROOT]

    def enter(self, name: str) -> None:
        self.stack.append(name)
        self.calls[name] = self.calls.get(name, 0) + 1
        self._mark()

    def leave(self) -> None:
        self.stack.pop()
        self._mark()

    def _mark(self) -> None:
        self._marks.append(torch.autograd._get_sequence_nr())  # type: ignore[attr-defined]
        self._modules.append(self.stack[-1])

    def module(self) -> str:
        """The module that the current operator belongs to."""
        if self.backward and len(self.stack) == 1:  # a recomputed forward has its own stack
            return self._module_of_backward()
        return self.stack[-1]

    def _module_of_backward(self) -> str:
        """Autograd numbers its nodes in the order of the forward pass, so a node's number tells who made it."""
        node = torch._C._current_autograd_node()
        number = node._sequence_nr() if node is not None else None
        if number is None or number >= 2**63:  # gradient accumulators carry the largest number
            return ROOT
        return self._modules[bisect.bisect_right(self._marks, number) - 1]

    def record(self, operator: str, family: str, cost: Cost) -> None:
        if self.backward and cost.activations:
            cost = Cost(cost.macs, cost.fft_flops, cost.elementwise_flops)
        key = (self.module(), operator, family)
        calls, total = self.seen.get(key, (0, FREE))
        self.seen[key] = (calls + 1, total + cost)
        self.spent[self.backward] += cost
        if self.listener:
            self.listener(cost)


class _OperatorWatch(meta.CheapDispatchMode):
    """Records each operator that torch dispatches, and lets it run."""

    supports_higher_order_operators = True

    def __init__(self, watch: _Watch) -> None:
        super().__init__()
        self.watch = watch

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        rule = rule_for(func)
        if rule is None and isinstance(func, torch._ops.OpOverload):
            # An operator that torch itself defines by others (all of them are, under inference mode) is counted by those.
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = meta_kernels.run(func, args, kwargs) if isinstance(func, torch._ops.OpOverload) else None
        if result is None:
            result = func(*args, **kwargs)
        name = name_of(func)
        self.watch.record(name, rule.family if rule else "", rule.formula(result, *args, **kwargs) if rule else FREE)
        return result


class _EscapeWatch(TorchFunctionMode):
    """Names the doors through which values leave torch: what is computed behind them is seen by nobody."""

    DOORS = frozenset({Tensor.numpy, Tensor.__array__, Tensor.data_ptr, Tensor.__dlpack__})

    def __init__(self, watch: _Watch) -> None:
        super().__init__()
        self.watch = watch

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in self.DOORS:
            self.watch.record(f"Tensor.{func.__name__}", "", FREE)
        return func(*args, **(kwargs or {}))


@contextmanager
def _followed(module: nn.Module, names: dict[int, str], watch: _Watch) -> Iterator[None]:
    """Keep the watch's stack on the module that runs; a module that is used twice goes by its first name."""

    def entering(name: str) -> Callable[..., None]:
        return lambda child, inputs: watch.enter(name)

    handles = []
    try:
        for child in module.modules():
            if isinstance(child, torch.jit.ScriptModule):  # takes no hooks: what it runs belongs to the module around it
                continue
            handles.append(child.register_forward_pre_hook(entering(names[id(child)])))
            handles.append(child.register_forward_hook(lambda *_: watch.leave(), always_call=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _decomposed() -> Iterator[None]:
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
def _gradients_aside(module: nn.Module) -> Iterator[None]:
    """Let a backward pass start from no gradients, as a training step does, and give the module back the ones it had."""
    before = [(parameter, parameter.grad) for parameter in module.parameters()]
    for parameter, _ in before:
        parameter.grad = None
    try:
        yield
    finally:
        for parameter, gradient in before:
            parameter.grad = gradient


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


def run_backward(output: Any) -> None:
    """Backward from every output that has a gradient, started by ones of its shape: no loss, so nothing of its own."""
    roots = [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor) and leaf.requires_grad]
    if not roots:
        raise BadInput("no output of the model depends on a parameter", "leave --train out, or check requires_grad")
    with torch.utils._python_dispatch._disable_current_modes():
        seeds = [torch.ones_like(root) for root in roots]
    torch.autograd.backward(roots, seeds)


def _cost_notes(names: dict[int, str], module: nn.Module) -> Iterator[str]:
    """What modules say of the run that they have just made: one may define ``cost_note()``, a text or nothing to say."""
    for child in module.modules():
        note = getattr(child, "cost_note", None)
        if callable(note) and (text := note()):
            yield f"{names[id(child)]}: {text}" if names[id(child)] else text


def _tree(module: nn.Module, watch: _Watch) -> CostTree:
    """Arrange what was seen under the modules that it belongs to."""
    operators: dict[str, list[OperatorCost]] = {}
    for (name, operator, family), (calls, cost) in watch.seen.items():
        operators.setdefault(name, []).append(OperatorCost(operator, family, calls, cost))
    counted: set[int] = set()
    visited: set[int] = set()

    def node(name: str, child: nn.Module) -> CostTree:
        visited.add(id(child))
        own = {id(p): p.numel() for p in child.parameters(recurse=False)}
        fresh = sum(size for key, size in own.items() if key not in counted)
        counted.update(own)
        children = tuple(
            node(f"{name}.{key}" if name else key, grandchild)
            for key, grandchild in child.named_children()
            if id(grandchild) not in visited
        )
        return CostTree(
            name=name,
            kind=type(child).__name__,
            calls=watch.calls.get(name, 0),
            params=fresh,
            shared_params=sum(own.values()) - fresh,
            operators=tuple(sorted(operators.get(name, ()), key=lambda item: item.operator)),
            children=children,
        )

    return node(ROOT, module)


def _params_bn_folded(module: nn.Module, params: int) -> int:
    """Parameters once each batch norm is folded into the bias-free convolution before it: its scale is gone."""
    norms = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    scales = (norm.weight for norm in module.modules() if isinstance(norm, norms))
    return params - sum(scale.numel() for scale in scales if scale is not None)
