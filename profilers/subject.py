"""A `Subject`: anything that can be called again and again, with what one call works on. PyTorch models become one here."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ..models.case import Case
from ..models.errors import BadInput, CannotMeasure, first_line
from .counted_form import run_backward

_WARM_CALLS_BEFORE_CAPTURE = 3
"""As torch.cuda.make_graphed_callables does, so that lazy initialisation is not captured."""


@dataclass(frozen=True)
class Subject:
    """What is timed.

    Attributes:
        name: shown to the user; two subjects of one measurement may share it.
        call: one inference or one training step, without arguments.
        how: settings that change the time but not the result, such as "compiled".
        samples: per call, which is the batch.
        tokens: per call, 0 for a model that takes none.
        held_bytes: weights and inputs, which are there before the call.
        flops: of one call, of what is no PyTorch model; those of a ``case`` are counted from it. None if unknown.
        grad: whether autograd records the call.
        case: of a PyTorch model.
        notes: what the user should know of how it came about.
    """

    name: str
    call: Callable[[], Any]
    how: str = ""
    samples: int = 1
    tokens: int = 0
    held_bytes: int = 0
    grad: bool = False
    runtime: str = "torch"
    workload: str = ""
    inputs: tuple[str, ...] = ()
    dtype: str = ""
    case: Case | None = None
    flops: int | None = None
    notes: tuple[str, ...] = ()

    def numbered(self, number: int) -> "Subject":
        """The same under a name that tells it from others of its name."""
        return replace(self, name=f"{self.name} #{number}")


def torch_subject(case: Case, compiled: bool = False, channels_last: bool = False, cuda_graph: bool = False) -> Subject:
    """A model on its example inputs: an inference, or in train mode one training step.

    A training step is forward, backward from ones, and an SGD update with a learning rate of 0: all the work of an update,
    while the weights stay as they are, so that the last step costs what the first did.

    Args:
        case: built on the device on which it is to run.
        compiled: through ``torch.compile``; compilation happens in the first call.
        channels_last: weights and 4-D inputs in that memory format.
        cuda_graph: captured once and replayed, which takes the launches out of the time.

    Raises:
        BadInput: when the settings exclude each other.
        CannotMeasure: when the device has no graphs, or capturing fails.
    """
    module, args, kwargs = case.module, case.args, case.kwargs
    train = case.workload.mode == "train"
    if cuda_graph and (train or torch.device(case.device).type != "cuda"):
        if train:
            raise BadInput("--cuda-graph replays inferences, not training steps", "leave one of the two out")
        raise CannotMeasure(f"{case.device} has no CUDA graphs", "leave --cuda-graph out, or take --device cuda")
    if channels_last:
        module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        args, kwargs = pytree.tree_map_only(Tensor, _channels_last, (args, kwargs))
    run: Callable[..., Any] = torch.compile(module) if compiled else module
    call = _step(module, run, args, kwargs) if train else _inference(run, args, kwargs)
    if cuda_graph:
        call = _captured(call)
    words = (("compiled", compiled), ("channels last", channels_last), ("CUDA graph", cuda_graph))
    weights = storage_bytes([*module.parameters(), *module.buffers()])
    inputs = storage_bytes(pytree.tree_leaves((args, kwargs)))
    samples, tokens = _per_call(case)
    return Subject(
        name=case.spec.name,
        call=call,
        how=", ".join([*(["reparameterised"] if case.reparameterised else []), *(word for word, on in words if on)]),
        samples=samples,
        tokens=tokens,
        held_bytes=weights + inputs,
        grad=train,
        workload=case.workload.key,
        inputs=tuple(map(str, case.workload.inputs)),
        dtype=case.workload.dtype,
        case=case,
        notes=case.notes,
    )


def _inference(run: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Callable[[], Any]:
    if kwargs:
        return lambda: run(*args, **kwargs)
    if len(args) == 1:  # the usual model; unpacking costs a tenth of a microsecond
        only = args[0]
        return lambda: run(only)
    return lambda: run(*args)


def _step(module: nn.Module, run: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Callable[[], Any]:
    update = torch.optim.SGD([p for p in module.parameters() if p.requires_grad] or [torch.zeros(())], lr=0.0)

    def step() -> None:
        update.zero_grad(set_to_none=True)
        run_backward(run(*args, **kwargs))
        update.step()

    return step


def _captured(call: Callable[[], Any]) -> Callable[[], Any]:
    try:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream), torch.inference_mode():
            for _ in range(_WARM_CALLS_BEFORE_CAPTURE):
                call()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph), torch.inference_mode():
            call()
    except RuntimeError as error:
        raise CannotMeasure(
            f"the model can't be captured in a CUDA graph: {first_line(error)}", "leave --cuda-graph out"
        ) from error
    return graph.replay


def _channels_last(tensor: Tensor) -> Tensor:
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor


def storage_bytes(leaves: list[Any]) -> int:
    """Bytes of the tensors among these, shared ones once, and of the arrays."""
    tensors = {leaf.data_ptr(): leaf.numel() * leaf.element_size() for leaf in leaves if isinstance(leaf, Tensor)}
    return sum(tensors.values()) + sum(leaf.nbytes for leaf in leaves if isinstance(leaf, np.ndarray))


def _per_call(case: Case) -> tuple[int, int]:
    """Samples and tokens of one call: the first dimension of the first input; ids count as tokens."""
    inputs = case.workload.inputs
    if not inputs or not inputs[0].shape:
        return 1, 0
    ids = next((item for item in inputs if item.dtype.startswith("int") and len(item.shape) == 2), None)
    return inputs[0].shape[0], ids.shape[0] * ids.shape[1] if ids else 0
