"""Load a checkpoint into a model without running anything that the file brings along, and say exactly what doesn't fit."""

import argparse
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .errors import BadInput, first_line

_WRAPPERS = ("state_dict_ema", "state_dict", "model_ema", "model", "module")
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
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "weights_only" in str(error) or "Unsupported" in str(error):
            what = f"{path} holds more than weights, and loading it would run code: {_culprit(error)}"
            raise BadInput(what, "save its state_dict alone, or convert it to .safetensors where you trust it") from error
        raise BadInput(f"{path} is not a checkpoint: {first_line(error)}", "give a .pth or .safetensors file") from error
    except (RuntimeError, EOFError, ValueError, OSError, KeyError) as error:
        raise BadInput(f"{path} is not a checkpoint: {first_line(error)}", "give a .pth or .safetensors file") from error


def _culprit(error: BaseException) -> str:
    """The line of torch's long message that names what the pickle asked for."""
    lines = [line.strip() for line in str(error).splitlines()]
    return next((line for line in lines if "GLOBAL" in line or "Unsupported" in line), lines[0])


def _unwrap(data: Any, path: Path) -> tuple[dict[str, Tensor], str]:
    steps: list[str] = []
    while isinstance(data, Mapping) and not any(isinstance(value, Tensor) for value in data.values()):
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
        if key in state and state[key].shape != own[key].shape
    ]
    if faults:
        shown = "; ".join(faults[:_SHOWN]) + (f"; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else "")
        what = f"{path} does not fit {type(module).__name__}, {len(faults)} of {len(own)} entries: {shown}"
        raise BadInput(what, "name the model and the --kwarg settings (width, num_classes) that the file was saved from")


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"
