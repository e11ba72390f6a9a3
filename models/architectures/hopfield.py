"""Modern Hopfield layers: associative memories whose retrieval is attention, iterated as often as asked.

Source: Ramsauer et al., "Hopfield Networks is All You Need", ICLR 2021 (arXiv 2008.02217), and the authors' package hflayers
(github.com/ml-jku/hopfield-layers). Constructor arguments, their order and defaults, call conventions and state-dict keys are
the package's, so changing the import is enough; what deliberately differs from it stands in docs/hopfield.md.

This file has the layers with learned patterns and the variants. `Hopfield` itself is in ``_hopfield_layer.py``, its weights in
``_hopfield_core.py``, its norms in ``_hopfield_norms.py``, the transformer layers in ``_hopfield_transformer.py``; the
association as a function of tensors is in ``models/association.py``, the energy and its theorems in ``models/energy.py``.

Letters: B batch, L state patterns (queries), S stored patterns (keys), E input width, H heads, a width of the association
space and p of a projected pattern, both per head.

The order of a triple is (stored, state, projection), that is (key, query, value): not the order of nn.MultiheadAttention.
"""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import BadInput
from ..spec import Family, Published, TensorSpec, Variant
from ._hopfield_core import STD, HopfieldCore
from ._hopfield_layer import Hopfield, reads, several
from ._hopfield_transformer import HopfieldDecoderLayer, HopfieldEncoderLayer

FAMILY = Family(
    title="Modern Hopfield layers",
    summary=(
        "An associative memory with continuous states. A state pattern is compared with stored patterns and replaced by "
        "their average, weighted by softmax(beta x similarity): one such update is attention, and more of them, "
        "update_steps_max, move the state further down an energy until it rests in a stored pattern or in the mean of a "
        "cluster. `layer` associates any sets of patterns, `pooling` asks with learned states, so that a set of any size "
        "becomes one vector, and `lookup` asks a learned table of patterns."
    ),
    task="set and sequence representation, pooling, associative retrieval",
    paper='Ramsauer et al., "Hopfield Networks is All You Need", ICLR 2021',
    paper_url="https://arxiv.org/abs/2008.02217",
    repository="https://github.com/ml-jku/hopfield-layers",
    inputs=(TensorSpec((1, 128, 256)),),
    default="layer",
    variants={
        "layer": Variant({"kind": "layer", "num_heads": 8}),
        "pooling": Variant(
            {"kind": "pooling", "num_heads": 8, "quantity": 1},
            (
                Published("auc_tiger_percent", "91.3", "arXiv 2008.02217, multiple instance learning table"),
                Published("auc_fox_percent", "64.05", "arXiv 2008.02217, multiple instance learning table"),
                Published("auc_elephant_percent", "94.9", "arXiv 2008.02217, multiple instance learning table"),
                Published("auc_ucsb_percent", "89.5", "arXiv 2008.02217, multiple instance learning table"),
            ),
        ),
        "lookup": Variant({"kind": "lookup", "num_heads": 8, "quantity": 512}),
    },
    supports=("options and checkpoints of hflayers", "updates by number or until rest", "torch.compile, torch.export"),
    notes=(
        "By default the inputs are normalised and projected, so nothing is retrieved as it was stored. For pure retrieval, "
        "Hopfield.retrieval(scaling=8) leaves out norms and projections: hopfield((stored, state, stored)) returns stored "
        "patterns. --kwarg retrieval=True builds it here; examples/hopfield_retrieval.py shows it at work.",
        "update_steps_max=n means n updates beyond the first look, n + 1 softmaxes. With n > 1, or None for no limit, a head "
        "stops early once its association matrix rests within update_steps_eps; how often depends on values, so such a "
        "model is counted on the CPU and what ran is counted. update_steps_eps=0 fixes the number.",
        "Widths per head: hidden_size and pattern_size are not multiplied by num_heads.",
        "Fixed patterns (pooling states, lookup tables) are projected once a batch; hflayers does it once a sample.",
        "The figures published under pooling are of whole networks for multiple instance learning, and the paper gives none "
        "for costs; what differs from hflayers, and why, is in docs/hopfield.md.",
    ),
)

__all__ = ["Hopfield", "HopfieldCore", "HopfieldDecoderLayer", "HopfieldEncoderLayer", "HopfieldLayer", "HopfieldPooling"]


class _FixedPatterns(nn.Module):
    """What pooling and lookup share: an association one of whose inputs is learned. Its options are `Hopfield`'s."""

    hopfield: Hopfield

    def __init__(self, options: dict[str, Any], quantity: int) -> None:
        super().__init__()
        if quantity < 1:
            raise ValueError(f"quantity={quantity} has to be positive: it is the number of learned patterns")
        self.hopfield = Hopfield(**options)
        self.quantity = quantity

    def _patterns(self, width: int, trainable: bool) -> nn.Parameter:
        shape = (1, self.quantity, width) if self.batch_first else (self.quantity, 1, width)
        return nn.Parameter(torch.empty(shape), requires_grad=trainable)

    def reset_parameters(self) -> None:
        """Initialise the association anew, and the learned patterns N(0, 0.02)."""
        self.hopfield.reset_parameters()
        for parameter in self.parameters(recurse=False):
            nn.init.normal_(parameter, 0.0, STD)

    def _triple(self, input: Any) -> tuple[Tensor, ...]:
        raise NotImplementedError

    def get_association_matrix(self, input: Any, *masks: Tensor | None, **named_masks: Tensor | None) -> Tensor:
        """See `Hopfield.get_association_matrix`; the arguments are those of a call."""
        return self.hopfield.get_association_matrix(self._triple(input), *masks, **named_masks)

    def get_projected_pattern_matrix(self, input: Any, *masks: Tensor | None, **named_masks: Tensor | None) -> Tensor:
        """See `Hopfield.get_projected_pattern_matrix`; the arguments are those of a call."""
        return self.hopfield.get_projected_pattern_matrix(self._triple(input), *masks, **named_masks)

    batch_first = reads("hopfield.batch_first")
    scaling = reads("hopfield.scaling")
    stored_pattern_dim = reads("hopfield.stored_pattern_dim")
    state_pattern_dim = reads("hopfield.state_pattern_dim")
    pattern_projection_dim = reads("hopfield.pattern_projection_dim")
    input_size = reads("hopfield.input_size")
    hidden_size = reads("hopfield.hidden_size")
    output_size = reads("hopfield.output_size")
    pattern_size = reads("hopfield.pattern_size")
    update_steps_max = reads("hopfield.update_steps_max")
    update_steps_eps = reads("hopfield.update_steps_eps")
    executed_steps = reads("hopfield.executed_steps")
    stored_pattern_as_static = reads("hopfield.stored_pattern_as_static")
    state_pattern_as_static = reads("hopfield.state_pattern_as_static")
    pattern_projection_as_static = reads("hopfield.pattern_projection_as_static")
    normalize_stored_pattern = reads("hopfield.normalize_stored_pattern")
    normalize_stored_pattern_affine = reads("hopfield.normalize_stored_pattern_affine")
    normalize_state_pattern = reads("hopfield.normalize_state_pattern")
    normalize_state_pattern_affine = reads("hopfield.normalize_state_pattern_affine")
    normalize_pattern_projection = reads("hopfield.normalize_pattern_projection")
    normalize_pattern_projection_affine = reads("hopfield.normalize_pattern_projection_affine")
    normalize_hopfield_space = reads("hopfield.normalize_hopfield_space")
    normalize_hopfield_space_affine = reads("hopfield.normalize_hopfield_space_affine")


class HopfieldPooling(_FixedPatterns):
    """Pooling by learned states (paper, section 4): a set of any size becomes ``quantity`` vectors, side by side.

    ``forward(input, stored_pattern_padding_mask=None, association_mask=None)``: ``input`` is one tensor (B, S, input_size) or
    the pair (stored, projection); the result is (B, quantity * output_size), whatever ``batch_first``.

    Args:
        quantity: learned state patterns.
        trainable: whether they are learned, or stay as initialised.
        Others: see `Hopfield`.
    """

    def __init__(
        self, input_size: int, hidden_size: int | None = None, output_size: int | None = None,
        pattern_size: int | None = None, num_heads: int = 1, scaling: float | Sequence[float] | Tensor | None = None,
        update_steps_max: int | Sequence[int] | Tensor | None = 0, update_steps_eps: float | Sequence[float] | Tensor = 1e-4,
        normalize_stored_pattern: bool = True, normalize_stored_pattern_affine: bool = True,
        normalize_state_pattern: bool = True, normalize_state_pattern_affine: bool = True,
        normalize_pattern_projection: bool = True, normalize_pattern_projection_affine: bool = True,
        normalize_hopfield_space: bool = False, normalize_hopfield_space_affine: bool = False,
        stored_pattern_as_static: bool = False, state_pattern_as_static: bool = False,
        pattern_projection_as_static: bool = False, pattern_projection_as_connected: bool = False,
        stored_pattern_size: int | None = None, pattern_projection_size: int | None = None, batch_first: bool = True,
        association_activation: str | None = None, dropout: float = 0.0, input_bias: bool = True,
        concat_bias_pattern: bool = False, add_zero_association: bool = False, disable_out_projection: bool = False,
        quantity: int = 1, trainable: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(_shared(locals()), quantity)
        width = (self.hidden_size if state_pattern_as_static else self.input_size) or input_size
        self.pooling_weights = self._patterns(width, trainable)
        self.reset_parameters()

    def _triple(self, input: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
        stored, projection = (input, input) if isinstance(input, Tensor) else several(input, "stored, projection")
        return stored, self.pooling_weights, projection

    def forward(
        self,
        input: Tensor | Sequence[Tensor],
        stored_pattern_padding_mask: Tensor | None = None,
        association_mask: Tensor | None = None,
    ) -> Tensor:
        pooled = self.hopfield(self._triple(input), stored_pattern_padding_mask, association_mask)
        return (pooled if self.batch_first else pooled.transpose(0, 1)).flatten(1)


class HopfieldLayer(_FixedPatterns):
    """Lookup in a learned table (paper, section 4): states (B, L, input_size) ask ``quantity`` patterns.

    ``forward(input, stored_pattern_padding_mask=None, association_mask=None)`` returns (B, L, output_size). The table is
    projected once a batch.

    Args:
        lookup_weights_as_separated: read values from a second table, ``target_weights``, instead of from the first.
        lookup_targets_as_trainable: whether that one is learned.
        quantity: learned stored patterns.
        trainable: whether they are learned.
        pattern_projection_size: by default as wide as the table that is read.
        Others: see `Hopfield`.
    """

    target_weights: nn.Parameter | None

    def __init__(
        self, input_size: int, hidden_size: int | None = None, output_size: int | None = None,
        pattern_size: int | None = None, num_heads: int = 1, scaling: float | Sequence[float] | Tensor | None = None,
        update_steps_max: int | Sequence[int] | Tensor | None = 0, update_steps_eps: float | Sequence[float] | Tensor = 1e-4,
        lookup_weights_as_separated: bool = False, lookup_targets_as_trainable: bool = True,
        normalize_stored_pattern: bool = True, normalize_stored_pattern_affine: bool = True,
        normalize_state_pattern: bool = True, normalize_state_pattern_affine: bool = True,
        normalize_pattern_projection: bool = True, normalize_pattern_projection_affine: bool = True,
        normalize_hopfield_space: bool = False, normalize_hopfield_space_affine: bool = False,
        stored_pattern_as_static: bool = False, state_pattern_as_static: bool = False,
        pattern_projection_as_static: bool = False, pattern_projection_as_connected: bool = False,
        stored_pattern_size: int | None = None, pattern_projection_size: int | None = None, batch_first: bool = True,
        association_activation: str | None = None, dropout: float = 0.0, input_bias: bool = True,
        concat_bias_pattern: bool = False, add_zero_association: bool = False, disable_out_projection: bool = False,
        quantity: int = 1, trainable: bool = True,
    ) -> None:  # fmt: skip
        options = _shared(locals())
        if pattern_projection_size is None:
            options["pattern_projection_size"] = stored_pattern_size
        super().__init__(options, quantity)
        width = (self.hidden_size if stored_pattern_as_static else self.stored_pattern_dim) or input_size
        needed = self.hopfield.association_core.widths[2]
        if not lookup_weights_as_separated and needed not in (None, width):
            what = f"the lookup weights are {width} wide, and as projections they would have to be {needed} wide"
            raise ValueError(f"{what}: set lookup_weights_as_separated, or other sizes")
        self.lookup_weights = self._patterns(width, trainable)
        self.register_parameter("target_weights", None)
        if lookup_weights_as_separated:
            self.target_weights = self._patterns(needed or pattern_projection_size or width, lookup_targets_as_trainable)
        self.reset_parameters()

    def _triple(self, input: Tensor) -> tuple[Tensor, ...]:
        return self.lookup_weights, input, self.lookup_weights if self.target_weights is None else self.target_weights

    def forward(
        self, input: Tensor, stored_pattern_padding_mask: Tensor | None = None, association_mask: Tensor | None = None
    ) -> Tensor:
        found: Tensor = self.hopfield(self._triple(input), stored_pattern_padding_mask, association_mask)
        return found


def _shared(arguments: dict[str, Any]) -> dict[str, Any]:
    """Those of a constructor's arguments that `Hopfield` takes."""
    return {name: arguments[name] for name in inspect.signature(Hopfield).parameters if name in arguments}


_KINDS: dict[str, type[nn.Module]] = {"layer": Hopfield, "pooling": HopfieldPooling, "lookup": HopfieldLayer}


def build(
    kind: str = "layer", input_size: int = 256, num_heads: int = 8, retrieval: bool = False, **options: Any
) -> tuple[nn.Module, Any]:
    """One of the three layers, initialised as hflayers does, and 128 patterns as wide as it takes them.

    Args:
        kind: ``layer`` (`Hopfield`), ``pooling`` (`HopfieldPooling`) or ``lookup`` (`HopfieldLayer`).
        retrieval: `Hopfield.retrieval`, the memory without weights, of one head unless ``num_heads`` is among the options.
        options: any other option of the layer.

    Raises:
        BadInput: when the kind or an option is unknown.
    """
    if kind not in _KINDS or (retrieval and kind != "layer"):
        raise BadInput(
            f"no Hopfield layer of kind {kind!r}" + " for retrieval" * retrieval, f"kind is one of {', '.join(_KINDS)}"
        )
    layer = _KINDS[kind]
    known = inspect.signature(layer).parameters
    for name in options:
        if name not in known:
            raise BadInput(f"{layer.__name__} has no option {name!r}", f"its options: {', '.join(known)}")
    if retrieval:
        made: nn.Module = Hopfield.retrieval(**options)
    else:
        made = layer(input_size=input_size, num_heads=num_heads, **options)
    return made, _example(made, input_size)


def _example(layer: nn.Module, input_size: int) -> Any:
    """What ``layer`` is called with: one tensor where all its inputs are equally wide, else each by itself."""
    core = layer.association_core if isinstance(layer, Hopfield) else layer.get_submodule("hopfield.association_core")
    assert isinstance(core, HopfieldCore)
    stored, state, projection = (TensorSpec((1, 128, width or input_size)) for width in core.widths)
    if isinstance(layer, HopfieldLayer):
        return state
    inputs = (stored, projection) if isinstance(layer, HopfieldPooling) else (stored, state, projection)
    return stored if len(set(inputs)) == 1 else (inputs,)
