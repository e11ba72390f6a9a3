"""A capture of the module for converters that would get a part of it wrong: the same function, that part in other operators.

Nearest up-sampling reads, for pixel i of ``out``, the pixel floor(i * in / out) of ``in``. litert-torch 0.10 gives other pixels
where ``out`` is no multiple of ``in`` (a map of 3 x 3 spread over 7 x 7, as in GhostNetV2's last blocks), and what Core ML does
can't be looked at off macOS. There the pixels are gathered by constant indices, which leaves nothing to interpret.

A mean over channels, height and width, as of a norm with one group, runs on ExecuTorch's portable kernel, which adds up a
hundred thousand numbers in one float32 after the other. As a mean over height and width, which XNNPACK takes, and then over
channels it has errors like everybody's: 1e-6 instead of 1.4e-5 on AFFNet's logits.
"""

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from ..source import Source

_NEAREST, _MEAN = torch.ops.aten.upsample_nearest2d.vec, torch.ops.aten.mean.dim


def capture(source: "Source") -> torch.fx.GraphModule:
    """The source's module as a graph of fixed sizes: uneven nearest up-samplings as gathers, means of whole maps in two steps.

    Returns:
        A module that takes the inputs by position and returns what the source's module returns.
    """
    with torch.no_grad():
        program = torch.export.export(source.module, tuple(source.inputs.values()))
    exported = program.module()
    assert isinstance(exported, torch.fx.GraphModule)
    module = torch.fx.GraphModule(exported, exported.graph)  # the exported one refuses eval(), which converters call
    for place, node in enumerate(list(module.graph.nodes)):
        if node.target is _NEAREST:
            _spread_by_index(module, node, f"nearest_{place}")
        elif node.target is _MEAN:
            _mean_in_steps(module, node)
    module.recompile()
    return module


def _spread_by_index(module: torch.fx.GraphModule, node: torch.fx.Node, name: str) -> None:
    (value, *_) = node.args
    assert isinstance(value, torch.fx.Node)
    sizes = [(value.meta["val"].shape[axis], node.meta["val"].shape[axis]) for axis in (2, 3)]
    if all(out % size == 0 for size, out in sizes):
        return
    with module.graph.inserting_before(node):
        for axis, (size, out) in zip((2, 3), sizes, strict=True):
            module.register_buffer(f"{name}_{axis}", torch.arange(out) * size // out)
            index = module.graph.get_attr(f"{name}_{axis}")
            value = module.graph.call_function(torch.ops.aten.index_select.default, (value, axis, index))
    node.replace_all_uses_with(value)
    module.graph.erase_node(node)


def _mean_in_steps(module: torch.fx.GraphModule, node: torch.fx.Node) -> None:
    value, axes, *rest = node.args
    assert isinstance(value, torch.fx.Node)
    rank = value.meta["val"].ndim
    keeps = bool(rest[0] if rest else node.kwargs.get("keepdim", False))
    if rank != 4 or not keeps or sorted(axis % rank for axis in axes) != [1, 2, 3]:  # type: ignore[union-attr]
        return
    with module.graph.inserting_before(node):
        pooled = module.graph.call_function(_MEAN, (value, [2, 3], True))
        whole = module.graph.call_function(_MEAN, (pooled, [1], True))
    node.replace_all_uses_with(whole)
    module.graph.erase_node(node)
