"""A capture of the module for converters that would get a part of it wrong: the same function, that part in other operators.

Nearest up-sampling reads, for pixel i of ``out``, the pixel floor(i * in / out) of ``in``. litert-torch 0.10 gives other pixels
where ``out`` is no multiple of ``in`` (a map of 3 x 3 spread over 7 x 7, as in GhostNetV2's last blocks), and what Core ML does
can't be looked at off macOS. There the pixels are gathered by constant indices, which leaves nothing to interpret.
"""

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from ..source import Source

_NEAREST = torch.ops.aten.upsample_nearest2d.vec


def capture(source: "Source") -> nn.Module:
    """The source's module as a graph with all sizes fixed, its uneven nearest up-samplings written as two gathers.

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
