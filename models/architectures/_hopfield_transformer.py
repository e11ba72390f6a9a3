"""Transformer layers whose attention is a Hopfield association (hflayers, transformer.py). See ``hopfield.py``."""

from copy import deepcopy

from torch import Tensor, nn

from ._hopfield_layer import Hopfield, function


class _Layer(nn.Module):
    """The feed-forward half that both layers share, in post-norm order."""

    def __init__(self, width: int, dim_feedforward: int, dropout: float, activation: str) -> None:
        super().__init__()
        self.linear_residual = nn.Linear(width, dim_feedforward)
        self.dropout_residual = nn.Dropout(dropout)
        self.linear_output = nn.Linear(dim_feedforward, width)
        self.norm_output = nn.LayerNorm(width)
        self.dropout_output = nn.Dropout(dropout)
        self.activation_residual = function("activation", activation)

    def reset_parameters(self) -> None:
        """Initialise everything anew, the associations included."""
        for child in self.children():
            reset = getattr(child, "reset_parameters", None)
            if callable(reset):
                reset()

    def _feed_forward(self, x: Tensor) -> Tensor:
        inner = self.dropout_residual(self.activation_residual(self.linear_residual(x)))
        normed: Tensor = self.norm_output(x + self.dropout_output(self.linear_output(inner)))
        return normed

    @property
    def output_size(self) -> int:
        """Width of the result, that of the input."""
        return self.linear_output.out_features


def _width(*associations: Hopfield) -> int:
    """The one width that goes in and out, since a residual is added.

    Raises:
        ValueError: when an association gives back another width than it is given.
    """
    widths = {size for association in associations for size in (association.input_size, association.output_size)}
    if len(widths) != 1 or None in widths:
        raise ValueError(f"a residual layer needs one width going in and out, not {sorted(map(str, widths))}")
    width: int = widths.pop()
    return width


class HopfieldEncoderLayer(_Layer):
    """nn.TransformerEncoderLayer, post-norm, with a Hopfield association; (B, L, E) to the same.

    Args:
        hopfield_association: copied, and the copy is initialised anew.
    """

    def __init__(
        self, hopfield_association: Hopfield, dim_feedforward: int = 2048, dropout: float = 0.1, activation: str = "relu"
    ) -> None:
        width = _width(hopfield_association)
        super().__init__(width, dim_feedforward, dropout, activation)
        self.hopfield_association = deepcopy(hopfield_association)
        self.norm_residual = nn.LayerNorm(width)
        self.dropout_hopfield_association = nn.Dropout(dropout)
        self.reset_parameters()

    def forward(self, src: Tensor, src_mask: Tensor | None = None, src_key_padding_mask: Tensor | None = None) -> Tensor:
        found = self.hopfield_association(src, src_key_padding_mask, src_mask)
        return self._feed_forward(self.norm_residual(src + self.dropout_hopfield_association(found)))

    def get_association_matrix(self, input: Tensor) -> Tensor:
        """See `Hopfield.get_association_matrix`."""
        return self.hopfield_association.get_association_matrix(input)

    @property
    def batch_first(self) -> bool:
        """Whether the batch is the first dimension."""
        return self.hopfield_association.batch_first

    @property
    def input_size(self) -> int:
        """Width of the input."""
        return self.linear_residual.in_features


class HopfieldDecoderLayer(_Layer):
    """nn.TransformerDecoderLayer, post-norm, with Hopfield self- and cross-association.

    Shapes: tgt (B, L, E) and memory (B, S, E of the cross-association's stored patterns) to (B, L, E).

    Args:
        hopfield_association_self, hopfield_association_cross: copied, and the copies are initialised anew.
    """

    def __init__(
        self,
        hopfield_association_self: Hopfield,
        hopfield_association_cross: Hopfield,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str = "relu",
    ) -> None:
        width = _width(hopfield_association_self, hopfield_association_cross)
        super().__init__(width, dim_feedforward, dropout, activation)
        self.hopfield_association_self = deepcopy(hopfield_association_self)
        self.hopfield_association_cross = deepcopy(hopfield_association_cross)
        self.norm_residual_self, self.norm_residual_cross = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout_hopfield_association_self = nn.Dropout(dropout)
        self.dropout_hopfield_association_cross = nn.Dropout(dropout)
        self.reset_parameters()

    def forward(
        self,
        tgt: Tensor,
        memory: Tensor,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
    ) -> Tensor:
        found = self.hopfield_association_self(tgt, tgt_key_padding_mask, tgt_mask)
        tgt = self.norm_residual_self(tgt + self.dropout_hopfield_association_self(found))
        found = self.hopfield_association_cross((memory, tgt, memory), memory_key_padding_mask, memory_mask)
        return self._feed_forward(self.norm_residual_cross(tgt + self.dropout_hopfield_association_cross(found)))

    def get_association_matrix_self(self, input: Tensor) -> Tensor:
        """The matrix of the self-association, see `Hopfield.get_association_matrix`."""
        return self.hopfield_association_self.get_association_matrix(input)

    def get_association_matrix_cross(self, input: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """The matrix of the cross-association, of (memory, state, memory)."""
        return self.hopfield_association_cross.get_association_matrix(input)

    @property
    def batch_first(self) -> bool:
        """Whether the batch is the first dimension."""
        return self.hopfield_association_self.batch_first

    @property
    def input_size(self) -> int:
        """Width of the target."""
        return self.linear_residual.in_features
