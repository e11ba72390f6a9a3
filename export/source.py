"""What every target converts: one model in its inference form, rewritten for export, with its inputs and its metadata."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Source:
    """A model that is ready to leave.

    Attributes:
        name: the model's name with its variant, such as ``ghostnetv2-1.0x``.
        module: in eval mode on the CPU, float32, batch norms folded, rewritten; takes ``inputs`` as positional arguments and
            returns a tensor or a tuple of tensors.
        reference: the model as it was built, called in the same way, which the result is compared with.
        inputs: example inputs by their names in the file, in order.
        outputs: names of the results, in order.
        dynamic: names of the open dimensions, by input and dimension: ``{"input": {0: "batch"}}``.
        metadata: what goes into the file beside the graph, as words.
        rewrites: names of the rewrites that changed something.
        keep: names of the rewrites that the user left out, for those that are made on the graph.
        notes: what the user should know of how this came about.
        mutated: names of buffers that ``forward`` changes; a file keeps them as they were.
    """

    name: str
    module: nn.Module
    reference: nn.Module
    inputs: Mapping[str, Tensor]
    outputs: tuple[str, ...]
    dynamic: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    rewrites: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    mutated: tuple[str, ...] = ()

    @property
    def sizes(self) -> dict[str, int]:
        """The open dimensions and their sizes in the example."""
        return {
            word: self.inputs[name].shape[place]
            for name, dimensions in self.dynamic.items()
            for place, word in dimensions.items()
        }
