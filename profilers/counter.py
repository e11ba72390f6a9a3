"""Count what a model computes by watching the operators that torch dispatches while it runs once.

Everything that torch computes passes its dispatcher, whatever Python code asks for it, so nothing is missed in silence: an
operator without a rule is named and counted as uncounted. Counting happens on the meta device, where tensors have shapes but
no storage; a model that needs real values runs on the CPU instead, and the count says why.

The same pass tells the memory that the run takes (`liveness`) and the bytes that it moves (`traffic`).
"""

import bisect
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
from .cost import FREE, Cost, CostTree, Count, Footprint, Held, OperatorCost
from .counted_form import decomposed, gradients_aside, run_backward
from .formulas import rule_for
from .formulas.table import name_of
from .fused_attention import ATTENTION, is_fused, keep, operands
from .liveness import Key, Ledger, held_bytes
from .traffic import Traffic, extent, leaves, traffic

ROOT = ""
_STILL: Traffic = ([], [])


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
    inputs = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    parameters = list(module.parameters())
    watch = _Watch(listener)
    held = [tensor for tensor in (*parameters, *module.buffers()) if not nn.parameter.is_lazy(tensor)]
    watch.ledger.outside((*held, *inputs))
    with ExitStack() as stack:
        stack.enter_context(decomposed())
        stack.enter_context(_followed(module, names, watch))
        stack.enter_context(gradients_aside(module) if train else torch.no_grad())
        stack.enter_context(_attention_watched(watch))
        stack.enter_context(_FunctionWatch(watch))
        stack.enter_context(_OperatorWatch(watch))
        output = module(*args, **kwargs)
        saved = watch.ledger.live if train else 0
        if train:
            watch.backward = True
            run_backward(output)
        trained = [parameter for parameter in parameters if train and parameter.grad is not None]
        gradients = [parameter.grad for parameter in trained if parameter.grad is not None]
        results = [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor)]
        output_bytes = watch.ledger.finish(results)
        watch.ledger.finish(gradients)
    device = next((tensor.device.type for tensor in (*inputs, *parameters)), "cpu")
    tree = _tree(module, watch)
    notes = (*notes, *_cost_notes(names, module))
    footprint = Footprint(
        held=_held(module),
        input_bytes=sum(size for _, size in held_bytes(inputs)),
        output_bytes=output_bytes,
        activation_bytes=watch.ledger.made,
        peak_activation_bytes=watch.ledger.peak,
        peak_module=watch.ledger.peak_module,
        peak_operator=watch.ledger.peak_operator,
        saved_bytes=saved,
        gradient_bytes=sum(size for _, size in held_bytes(gradients)),
        trained=tuple(map(extent, trained)),
    )
    folded = _params_bn_folded(module, tree.total_params)
    return Count(tree, device, watch.spent(False), watch.spent(True), folded, notes, footprint)


class _Watch:
    """What has been seen so far: for each module, operator and pass, the calls and their cost; and the memory they took."""

    def __init__(self, listener: Listener | None = None) -> None:
        self.listener = listener
        self.seen: dict[Key, list[int]] = {}
        self.calls: dict[str, int] = {}
        self.stack = [ROOT]
        self.backward = False
        self.ledger = Ledger(self._spill)
        self.kernel = 0
        self._kernels = 0
        # From which autograd sequence number on which module was running, and which fused kernel; see `_forward_of`.
        self._marks: list[int] = [0]
        self._places: list[tuple[str, int]] = [(ROOT, 0)]

    def enter(self, name: str) -> None:
        self.stack.append(name)
        self.calls[name] = self.calls.get(name, 0) + 1
        self._mark()

    def leave(self) -> None:
        self.stack.pop()
        self._mark()

    @contextmanager
    def fused(self) -> Iterator[None]:
        """What runs within this block is one kernel."""
        self._kernels += 1
        self.kernel = self._kernels
        self._mark()
        try:
            yield
        finally:
            self.kernel = 0
            self._mark()

    def attend(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """Run attention, as one kernel if it is one."""
        first, settings, options = operands(args, kwargs)
        if self.kernel or not is_fused(*first, *settings, **options):
            return ATTENTION(*args, **kwargs)
        with self.fused():
            q, k, v, kept = keep(*first)
            result: Tensor = ATTENTION(q, k, v, *settings, **options)
            if first[0].transpose(1, 2).is_contiguous():  # the kernel lays its result out like the queries
                result = result.transpose(1, 2).contiguous().transpose(1, 2)
            if kept:
                with torch.utils._python_dispatch._disable_current_modes():
                    kept.append(result.detach())
        self.ledger.leave((result,))
        return result

    def _mark(self) -> None:
        self._marks.append(torch.autograd._get_sequence_nr())  # type: ignore[attr-defined]
        self._places.append((self.stack[-1], self.kernel))

    def _place(self) -> tuple[str, int]:
        """The module and the fused kernel that the current operator belongs to."""
        if self.backward and len(self.stack) == 1:  # a recomputed forward has its own stack
            return self._forward_of()
        return self.stack[-1], self.kernel

    def _forward_of(self) -> tuple[str, int]:
        """Autograd numbers its nodes in the order of the forward pass, so a node's number tells who made it."""
        node = torch._C._current_autograd_node()
        number = node._sequence_nr() if node is not None else None
        if number is None or number >= 2**63:  # gradient accumulators carry the largest number
            return ROOT, 0
        return self._places[bisect.bisect_right(self._marks, number) - 1]

    def record(self, operator: str, family: str, cost: Cost, results: Any = (), moved: Traffic = _STILL) -> None:
        module, kernel = self._place()
        key = (module, operator, family, self.backward)
        tensors = (results,) if isinstance(results, Tensor) else leaves((results,))
        read, written = self.ledger.operator(key, kernel, tensors, *moved)
        if cost.read_bytes or cost.written_bytes:  # the rule knows better
            read, written = cost.read_bytes, cost.written_bytes
        seen = self.seen.get(key)
        if seen is None:
            seen = self.seen[key] = [0] * 7
        sizes = (1, cost.macs, cost.fft_flops, cost.elementwise_flops, 0 if self.backward else cost.activations, read, written)
        for place, size in enumerate(sizes):
            if size:
                seen[place] += size
        if self.listener:
            self.listener(Cost(*sizes[1:]))

    def _spill(self, key: Key, size: int) -> None:
        self.seen[key][6] += size

    def spent(self, backward: bool) -> Cost:
        """The cost of one pass."""
        sums = [
            sum(column) for column in zip(*(seen[1:] for key, seen in self.seen.items() if key[3] == backward), strict=True)
        ]
        return Cost(*sums)


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
        with torch._C.DisableTorchFunction():  # looking at a tensor's shape is no call of the model's
            result = meta_kernels.run(func, args, kwargs) if isinstance(func, torch._ops.OpOverload) else None
        if result is None:
            result = func(*args, **kwargs)
        with torch._C.DisableTorchFunction():
            cost = rule.formula(result, *args, **kwargs) if rule else FREE
            self.watch.record(name_of(func), rule.family if rule else "", cost, result, traffic(func, result, args, kwargs))
        return result


class _FunctionWatch(TorchFunctionMode):
    """Names the doors through which values leave torch, since what is computed behind them is seen by nobody; and knows the
    one function that is a single kernel on devices and many operators here."""

    DOORS = frozenset({Tensor.numpy, Tensor.__array__, Tensor.data_ptr, Tensor.__dlpack__})

    def __init__(self, watch: _Watch) -> None:
        super().__init__()
        self.watch = watch

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in self.DOORS:
            self.watch.record(f"Tensor.{func.__name__}", "", FREE)
        return self.watch.attend(args, kwargs or {}) if func is ATTENTION else func(*args, **(kwargs or {}))


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
def _attention_watched(watch: _Watch) -> Iterator[None]:
    """Torch's own layers call attention where no mode sees it: through this name, put in its place within this block only."""
    functional = torch.nn.functional
    before = functional.scaled_dot_product_attention
    functional.scaled_dot_product_attention = lambda *args, **kwargs: watch.attend(args, kwargs)
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = before


def _cost_notes(names: dict[int, str], module: nn.Module) -> Iterator[str]:
    """What modules say of the run that they have just made: one may define ``cost_note()``, a text or nothing to say."""
    for child in module.modules():
        note = getattr(child, "cost_note", None)
        if callable(note) and (text := note()):
            yield f"{names[id(child)]}: {text}" if names[id(child)] else text


def _tree(module: nn.Module, watch: _Watch) -> CostTree:
    """Arrange what was seen under the modules that it belongs to."""
    operators: dict[str, dict[str, OperatorCost]] = {}
    for (name, operator, family, _), (calls, *sizes) in watch.seen.items():
        here = operators.setdefault(name, {})
        other = here.get(operator, OperatorCost(operator, family, 0, FREE))
        here[operator] = OperatorCost(operator, family, calls + other.calls, Cost(*sizes) + other.cost)
    borders = watch.ledger.borders()
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
            compulsory_read_bytes=borders.get(name, (0, 0))[0],
            compulsory_written_bytes=borders.get(name, (0, 0))[1],
            operators=tuple(sorted(operators.get(name, {}).values(), key=lambda item: item.operator)),
            children=children,
        )

    return node(ROOT, module)


def _held(module: nn.Module) -> tuple[Held, ...]:
    """Weights by dtype, those that share a storage once."""
    found: dict[str, list[int]] = {}
    parameters = set(map(id, module.parameters()))
    for tensor, size in held_bytes((*module.parameters(), *module.buffers())):
        found.setdefault(str(tensor.dtype).removeprefix("torch."), [0, 0])[id(tensor) not in parameters] += size
    return tuple(Held(dtype, own, buffers) for dtype, (own, buffers) in sorted(found.items()))


def _params_bn_folded(module: nn.Module, params: int) -> int:
    """Parameters once each batch norm is folded into the bias-free convolution before it: its scale is gone."""
    norms = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    scales = (norm.weight for norm in module.modules() if isinstance(norm, norms))
    return params - sum(scale.numel() for scale in scales if scale is not None)
