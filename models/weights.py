"""Load a checkpoint into a model without running anything that the file brings along, and say exactly what doesn't fit."""

import argparse
import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .errors import BadInput, first_line

_WRAPPERS = ("state_dict_ema", "ema_state_dict", "state_dict", "model_state_dict", "model_ema", "model", "module")
_SHOWN = 5


def load_weights(module: nn.Module, path: str | Path) -> str:
    """Load a ``.safetensors`` or a ``torch.save`` file, such as the released ``.pth.tar`` checkpoints and timm's.

    Wrapped state dicts (``state_dict``, ``model``, ``state_dict_ema`` and the like) and the ``module.`` prefix of distributed
    training are taken off. Files of ``torch.save`` are read with ``weights_only=True``, so a pickle runs no code.

    Returns:
        What was unwrapped, for the reader; empty when nothing was.

    Raises:
        BadInput: when the file is missing, unreadable or unsafe, or a key is missing, unexpected or of another shape.
    """
    path = Path(path)
    if not path.is_file():
        raise BadInput(f"there is no file {str(path)!r}", "check the path of --weights")
    state, unwrapped = _unwrap(_read(path), path)
    _check_fit(module, state, path)
    on_meta = any(parameter.is_meta for parameter in module.parameters())
    if on_meta:  # tensors that are assigned keep their dtype, those that are copied take the model's
        state = {key: state[key].to(tensor.dtype) for key, tensor in module.state_dict().items()}
    module.load_state_dict(state, assign=on_meta)
    return unwrapped


def _read(path: Path) -> Any:
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise BadInput(f"{path} is not a safetensors file: {first_line(error)}", "download it again") from error
    try:
        # timm and the GhostNet authors keep their training arguments beside the weights; a Namespace is inert data.
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken file makes torch's reader fail in any way
        if asked := re.search(r"GLOBAL (\S+)", str(error)):
            what = f"{path} holds more than weights, and loading it would run code: it asks for {asked[1]}"
            raise BadInput(what, "save its state_dict alone, or convert it to .safetensors where you trust it") from error
        # An UnpicklingError of torch advises to load the file unsafely, which is no advice for a file like this.
        reason = "torch cannot unpickle it" if isinstance(error, pickle.UnpicklingError) else first_line(error)
        raise BadInput(f"{path} is not a checkpoint: {reason}", "give a .pth or .safetensors file") from error


def _unwrap(data: Any, path: Path) -> tuple[dict[str, Tensor], str]:
    steps: list[str] = []
    while isinstance(data, Mapping):
        key = next((key for key in _WRAPPERS if isinstance(data.get(key), Mapping)), None)
        if key is None:
            break
        data = data[key]
        steps.append(f"taken from its entry {key!r}")
    if not isinstance(data, Mapping) or not data or not all(isinstance(value, Tensor) for value in data.values()):
        raise BadInput(f"{path} holds no state dict", "save model.state_dict(), alone or as the entry 'state_dict'")
    if all(str(key).startswith("module.") for key in data):
        data = {key.removeprefix("module."): value for key, value in data.items()}
        steps.append("prefix 'module.' taken off")
    return dict(data), ", ".join(steps)


def _check_fit(module: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    own = module.state_dict()
    faults = [f"missing {key}" for key in own if key not in state]
    faults += [f"unexpected {key}" for key in state if key not in own]
    faults += [
        f"{key} is {_shape(state[key])} in the file and {_shape(own[key])} in the model"
        for key in own
        if key in state and not nn.parameter.is_lazy(own[key]) and state[key].shape != own[key].shape
    ]
    if faults:
        shown = "; ".join(faults[:_SHOWN]) + (f"; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else "")
        what = f"{path} does not fit {type(module).__name__}, {len(faults)} of {len(own)} entries: {shown}"
        raise BadInput(what, "name the model and the --kwarg settings (width, num_classes) that the file was saved from")


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"
