"""From a `Case` to a `Source`: the model run once, its call made flat, folded and rewritten for export."""

import copy
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ..models.case import Case
from ..models.errors import BadInput, MixbenchError, first_line
from ..models.reparameterise import reparameterise
from ..models.spec import ModelSpec
from ..models.versions import versions
from .axes import open_dimensions
from .explain import place_of
from .rewrites.base import rewrite_module
from .samples import calibrate_norms
from .signature import Flat, Signature
from .source import Source


def capture(
    case: Case, keep: Sequence[str] = (), dynamic: Sequence[str] = (), metadata: Mapping[str, str] | None = None
) -> Source:
    """Make a model ready to leave. The case's own module is left as it is, its mode included.

    Batch norms that have never seen data are calibrated first, see `samples.calibrate_norms`; the calibrated weights are the
    ones that are exported, since the fresh ones would make a file that nobody could verify.

    Args:
        case: in eval mode and float32, on any device; it is built on the CPU if it is elsewhere.
        keep: names of rewrites to leave out.
        dynamic: words for open dimensions, see `axes.open_dimensions`.
        metadata: more of it, such as costs; see `describe`.

    Raises:
        BadInput: when the model is in train mode or not in float32, fails on its example inputs, or takes or returns complex
            numbers.
    """
    if case.workload.mode == "train":
        raise BadInput(f"{case.spec.name} is in train mode, and files are for inference", "leave train mode out")
    if case.workload.dtype != "float32":
        what = f"{case.spec.name} is in {case.workload.dtype}, and models are exported from float32"
        raise BadInput(what, "leave --dtype out")
    case = case if case.device == "cpu" else case.on("cpu")
    module = _all_eval(copy.deepcopy(case.module))
    kept = {name: buffer.clone() for name, buffer in module.named_buffers()}
    with _explained(case), torch.no_grad():
        result = module(*copy.deepcopy(case.args), **copy.deepcopy(case.kwargs))
    mutated = _put_back(module, kept)
    signature = Signature(module, case.args, case.kwargs, result)
    _refuse_complex(signature.inputs, result)
    opened = open_dimensions(dynamic, signature.inputs)
    reference, fresh = calibrate_norms(signature.flat(module), signature.inputs)
    module = _bare(reference)
    with torch.no_grad():
        rewritten, changed = rewrite_module(_all_eval(reparameterise(module)), keep)
    notes = list(case.notes + signature.notes)
    if fresh:
        norms = f"{fresh} batch norms" if fresh > 1 else "a batch norm"
        notes.append(f"{norms} had never seen data: calibrated on random inputs, in the file too")
    if mutated:
        notes.append(f"forward changes the model's own buffers ({', '.join(mutated)}): the file begins each call anew")
    if bare := _without_statistics(reference):
        several = len(bare) > 1
        norms = (
            f"{len(bare)} batch norms have no statistics of their own"
            if several
            else "a batch norm has no statistics of its own"
        )
        notes.append(f"{norms} ({'first ' * several}{bare[0]}): each result depends on the whole batch")
    if case.weights is None and (case.spec.family is not None or case.spec.source):
        notes.append("random weights: --weights FILE exports trained ones")
    described = describe(case, reference, signature.inputs, fresh) | dict(metadata or {})
    return Source(
        name=case.spec.name,
        module=signature.flat(rewritten).requires_grad_(False),
        reference=reference.requires_grad_(False),
        inputs={name: tensor.detach().contiguous() for name, tensor in signature.inputs.items()},
        outputs=signature.outputs,
        dynamic=opened,
        metadata=described,
        rewrites=changed,
        keep=tuple(keep),
        notes=tuple(notes),
        mutated=mutated,
    )


def describe(case: Case, module: nn.Module, inputs: Mapping[str, Tensor], fresh: int = 0) -> dict[str, str]:
    """What the file says of the model, all words: where it comes from, what it takes, the hash of its weights.

    Lists and numbers are JSON. Nothing here depends on the day, the folder or the machine.
    """
    spec = case.spec
    said = {"model": _public_name(spec), "weights_sha256": weights_sha256(module)}
    made_by = versions("mixbench", "torch", *([spec.source] if spec.source else []))
    said |= {f"{name}_version": number for name, number in made_by.items() if name != "python"}
    said["inputs"] = json.dumps({name: _shape(tensor) for name, tensor in inputs.items()})
    if fresh:
        said["batch_norms"] = "never trained; statistics from random inputs"
    if spec.family is not None:
        said |= {"family": spec.family.title, "paper": spec.family.paper, "paper_url": spec.family.paper_url}
    if spec.family is not None or spec.source:
        said["settings"] = json.dumps(dict(spec.settings), sort_keys=True, default=str)
        said["weights"] = "random" if case.weights is None else "loaded"
        said |= _preprocessing(spec, next(iter(inputs.values())))
    return said


def weights_sha256(module: nn.Module) -> str:
    """The SHA-256 of a state dict's names, dtypes, shapes and values, in its own order."""
    digest = hashlib.sha256()
    for name, tensor in _bare(module).state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(memoryview(tensor.detach().contiguous().flatten().view(torch.uint8).numpy()) if tensor.numel() else b"")
    return digest.hexdigest()


def _preprocessing(spec: ModelSpec, input: Tensor) -> dict[str, str]:
    own = spec.preprocessing() if spec.preprocessing is not None else None
    steps = spec.family.preprocessing if spec.family else own
    if steps is None:
        return {}
    said = {"input_layout": steps.layout, "input_range": json.dumps(steps.range)}
    said |= {"mean": json.dumps(steps.mean), "std": json.dumps(steps.std), "interpolation": steps.interpolation}
    if tuple(input.shape[-2:]) == (steps.crop, steps.crop):  # at another size nobody published how to cut
        said |= {"resize": str(steps.resize), "crop": str(steps.crop)}
    return said | {"preprocessing_source": steps.source}


def _public_name(spec: ModelSpec) -> str:
    """The name without the path to a user's file, which is nobody else's business and differs from folder to folder."""
    if spec.label:
        return spec.label
    place, colon, factory = spec.name.rpartition(":")
    return factory if colon and place.endswith(".py") else spec.name


def _shape(tensor: Tensor) -> str:
    return f"{'x'.join(map(str, tensor.shape)) or 'scalar'} {str(tensor.dtype).removeprefix('torch.')}"


def _put_back(module: nn.Module, kept: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Undo what a call has changed in the buffers, and name those."""
    changed = []
    for name, buffer in module.named_buffers():
        if name in kept and not (buffer.shape == kept[name].shape and bool(torch.allclose(buffer, kept[name], 0, 0, True))):
            owner, _, last = name.rpartition(".")
            module.get_submodule(owner).register_buffer(last, kept[name])
            changed.append(name)
    return tuple(changed)


def _refuse_complex(inputs: Mapping[str, Tensor], result: object) -> None:
    leaves: list[tuple[str, Any]] = [(f"input {name}", tensor) for name, tensor in inputs.items()]
    leaves += [("a result", leaf) for leaf in pytree.tree_leaves(result)]
    first = next((name for name, leaf in leaves if isinstance(leaf, Tensor) and leaf.is_complex()), "")
    if first:
        what = f"{first} is complex, and ONNX's operators take no complex numbers"
        hint = "let forward take torch.view_as_real(x) and return torch.view_as_real(y): both parts, in a last dimension of 2"
        raise BadInput(what, hint)


def _without_statistics(module: nn.Module) -> list[str]:
    """Batch norms that take mean and variance of what they are given, in eval mode too."""
    kind = nn.modules.batchnorm._BatchNorm
    return [
        name or "the model" for name, part in module.named_modules() if isinstance(part, kind) and part.running_mean is None
    ]


def _bare(module: nn.Module) -> nn.Module:
    return module.model if isinstance(module, Flat) else module


def _all_eval(module: nn.Module) -> nn.Module:
    """Every module in eval mode, also one whose own ``train`` keeps a part of it from that."""
    for part in module.eval().modules():
        part.training = False
    return module


@contextmanager
def _explained(case: Case) -> Iterator[None]:
    try:
        yield
    except MixbenchError:
        raise
    except Exception as error:
        shapes = ", ".join(map(str, case.workload.inputs))
        what = f"forward of {case.spec.name} fails on inputs {shapes}: {first_line(error)}{place_of(error)}"
        raise BadInput(what, "mend it, or give inputs that fit by --input; nothing was exported yet") from error
