"""What the kernels ask of shapes and strides, and which result follows from them."""

from collections.abc import Sequence

import torch
from torch import Tensor


def broadcast(shapes: list[torch.Size]) -> tuple[int, ...] | None:
    rank = max(map(len, shapes))
    result = [1] * rank
    for shape in shapes:
        for axis, size in enumerate(shape, rank - len(shape)):
            if result[axis] == 1:
                result[axis] = size
            elif size not in (1, result[axis]):
                return None
    return tuple(result)


def dense_strides(tensor: Tensor) -> list[int] | None:
    """Strides of a new tensor without gaps whose sides are nested in the order of this one's; None for expanded sides."""
    strides = [0] * tensor.ndim
    expected = 1
    for stride, size, axis in sorted(zip(tensor.stride(), tensor.shape, range(tensor.ndim), strict=True)):
        if stride == 0 and size != 1:
            return None
        strides[axis] = expected
        expected *= size
    return strides


def is_expanded(tensor: Tensor) -> bool:
    """Whether it repeats itself along some dimensions, and the others lie in their order: what is made of it is contiguous."""
    strides = [stride for stride, size in zip(tensor.stride(), tensor.shape, strict=True) if size > 1]
    order = [stride for stride in strides if stride]
    return len(order) < len(strides) and order == sorted(order, reverse=True)


def broadcasts_plainly(tensors: Sequence[Tensor]) -> bool:
    """Whether the result of contiguous tensors is contiguous. Where shapes differ, torch looks at the strides of sides of one
    element as well, which may be anything."""
    return all(tensor.shape == tensors[0].shape for tensor in tensors) or all(map(has_usual_strides, tensors))


def has_usual_strides(tensor: Tensor) -> bool:
    """Those of a new tensor of its shape."""
    expected = 1
    for size, stride in zip(reversed(tensor.shape), reversed(tensor.stride()), strict=True):
        if stride != expected:
            return False
        expected *= max(size, 1)
    return True


def is_axis(x: Tensor, dim: int) -> bool:
    """A number has one axis to name, and no other."""
    rank = max(x.ndim, 1)
    return -rank <= dim < rank


def is_plain(x: Tensor) -> bool:
    """Contiguous, and not channels-last by the strides of sides of one element, as some tensors are both."""
    return x.is_contiguous() and (x.ndim < 4 or (x.stride(-1) == 1 and not is_channels_last(x)))


def is_channels_last(tensor: Tensor) -> bool:
    """As torch tells from the strides where it has to choose a layout: channels innermost, then columns, rows and batch."""
    if tensor.ndim != 4 or 0 in tensor.shape or tensor.stride(1) == 0:
        return False
    least = 0
    for axis in (1, 3, 2, 0):
        if tensor.stride(axis) < least or (axis == 0 and least == tensor.stride(1)):
            return False
        least = tensor.stride(axis) * tensor.shape[axis]
    return True


def windows(
    sides: Sequence[int], kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> list[int] | None:
    """How many windows fit along each side; a single setting serves all sides. None when one has no room for any, or when a
    setting has no meaning."""
    settings = [
        list(setting) * len(sides) if len(setting) == 1 else list(setting)
        for setting in (kernel, stride or kernel, padding, dilation)
    ]
    if any(len(setting) != len(sides) for setting in settings) or min(settings[1]) < 1:
        return None
    rows = zip(sides, *settings, strict=True)
    counts = [(side + 2 * pad - gap * (width - 1) - 1) // step + 1 for side, width, step, pad, gap in rows]
    return counts if min(counts) >= 1 else None
