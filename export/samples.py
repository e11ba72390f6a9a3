"""Inputs that are drawn: to compare with torch, and for norms that have never seen data. Each draw has its own generator."""

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from .signature import run
from .source import Source

_BATCHES, _BATCH = 4, 8
"""To set the statistics of norms: 32 samples, as few as estimate a channel's variance within a quarter."""


def draw(source: Source, seed: int, sizes: Mapping[str, int] | None = None) -> dict[str, Tensor]:
    """Inputs like the example's; seed 0 at the example's sizes is the example itself.

    Floats are normal, with the mean and deviation of the example; integers uniform from the least of the example to its
    largest, or below the smallest embedding table where the example's are all the same; masks are the example's, since a row
    that nothing is allowed in has no defined result.

    Args:
        sizes: of open dimensions by name, where they are not the example's.
    """
    sizes = {name: size for name, size in (sizes or {}).items() if size != source.sizes[name]}
    if seed == 0 and not sizes:
        return dict(source.inputs)
    shapes = {
        name: tuple(sizes.get(source.dynamic.get(name, {}).get(place, ""), size) for place, size in enumerate(example.shape))
        for name, example in source.inputs.items()
    }
    return _draw(source.inputs, shapes, seed, _smallest_table(source.reference))


def _draw(
    examples: Mapping[str, Tensor], shapes: Mapping[str, Sequence[int]], seed: int, table: int | None
) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: _like(example, shapes[name], generator, table) for name, example in examples.items()}


def _like(example: Tensor, shape: Sequence[int], generator: torch.Generator, table: int | None) -> Tensor:
    if example.is_floating_point() and example.numel() > 1 and bool(example.isfinite().all()):
        std, mean = torch.std_mean(example.double())
        made = torch.randn(shape, generator=generator, dtype=torch.float32)
        return (made * (float(std) or 1.0) + float(mean)).to(example.dtype)
    if example.dtype in (torch.int64, torch.int32, torch.int16) and example.numel():
        low, high = int(example.min()), int(example.max())
        if low == high == 0 and table:
            high = table - 1
        return torch.randint(low, high + 1, shape, generator=generator, dtype=example.dtype)
    return _tiled(example, shape)


def _tiled(example: Tensor, shape: Sequence[int]) -> Tensor:
    """The example, repeated or cut to a shape."""
    for place, size in enumerate(shape):
        example = example.index_select(place, torch.arange(size) % example.shape[place])
    return example


def _smallest_table(module: nn.Module) -> int | None:
    return min((part.num_embeddings for part in module.modules() if isinstance(part, nn.Embedding)), default=None)


def calibrate_norms(module: nn.Module, examples: Mapping[str, Tensor]) -> tuple[nn.Module, int]:
    """Give batch norms that have never seen data the statistics of drawn data, as training would have.

    With the statistics that they start with, the signal of a deep network dies, its outputs hardly depend on its inputs, and
    any wrong file would pass for the model. A norm with statistics of its own is never touched.

    The network runs in float64 for this. Sums in float32 depend on how many threads share them, and the same model would
    leave with other bytes; the last bits of float64 don't survive the rounding to float32.

    Args:
        module: flat; it is left as it is.

    Returns:
        A copy with these norms calibrated, or the module itself, and how many there are.
    """
    fresh = [name for name, part in module.named_modules() if _is_fresh(part)]
    if not fresh:
        return module, 0
    for dtype in (torch.float64, torch.float32):
        try:
            trained = _trained(copy.deepcopy(module).to(dtype), dtype, fresh, examples)
        except Exception:  # noqa: BLE001 - float32 made inside, no other batch than the example's, one value a channel
            continue
        calibrated = copy.deepcopy(module)
        for name in fresh:
            calibrated.get_submodule(name).load_state_dict(trained.get_submodule(name).state_dict())
        return calibrated, len(fresh)
    return module, 0


def _trained(module: nn.Module, dtype: torch.dtype, fresh: Sequence[str], examples: Mapping[str, Tensor]) -> nn.Module:
    """The module after batches of drawn inputs, with these norms, and nothing else, in training mode."""
    leading = next(iter(examples.values())).shape[:1]
    shapes = {
        name: (_BATCH, *example.shape[1:]) if example.ndim and example.shape[:1] == leading else tuple(example.shape)
        for name, example in examples.items()
    }
    for name in fresh:
        norm = module.get_submodule(name)
        assert isinstance(norm, nn.modules.batchnorm._BatchNorm)
        norm.momentum = None  # the plain average of what it sees
        norm.train()
    with torch.random.fork_rng(devices=[]):  # whatever the model draws is its own affair, and not the caller's
        torch.manual_seed(0)
        for seed in range(1, _BATCHES + 1):
            inputs = _draw(examples, shapes, seed, _smallest_table(module))
            run(module, {name: t.to(dtype) if t.is_floating_point() else t for name, t in inputs.items()})
    return module


def _is_fresh(part: nn.Module) -> bool:
    """Whether this is a batch norm with statistics as they are when it is made."""
    return (
        isinstance(part, nn.modules.batchnorm._BatchNorm)
        and part.running_mean is not None
        and part.running_var is not None
        and not bool(part.num_batches_tracked)
        and bool((part.running_mean == 0).all())
        and bool((part.running_var == 1).all())
    )
