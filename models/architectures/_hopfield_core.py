"""The weights of a Hopfield association: how inputs get into the association space, and out of it. See ``hopfield.py``."""

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STD = 0.02
"""Standard deviation of every projection at initialisation, as in hflayers."""

# In the order of the state dict.
_OPTIONAL = (
    "in_proj_weight q_proj_weight k_proj_weight v_proj_weight in_proj_bias bias_k bias_v p_norm_weight p_norm_bias".split()
)

_Maps = tuple[tuple[Tensor, Tensor | None], ...]


class HopfieldCore(nn.Module):
    """The weights of an association: projections of the three inputs, and of the output (equation 10).

    Queries and keys have a numbers a head, values p. "Static" inputs are not projected: each head is given them as they are.
    Equal input widths share one ``in_proj_weight`` (rows of q, then k, then v), as in nn.MultiheadAttention; otherwise, or
    with a ``pattern_dim`` or connected values, there are three weights. Built by `Hopfield`, whose options these are.

    Raises:
        ValueError: when widths do not fit together.
    """

    in_proj_weight: nn.Parameter | None
    q_proj_weight: nn.Parameter | None
    k_proj_weight: nn.Parameter | None
    v_proj_weight: nn.Parameter | None
    in_proj_bias: nn.Parameter | None
    bias_k: nn.Parameter | None
    bias_v: nn.Parameter | None
    p_norm_weight: nn.Parameter | None
    p_norm_bias: nn.Parameter | None

    def __init__(
        self, embed_dim: int | None, num_heads: int, dropout: float, bias: bool, add_bias_kv: bool, add_zero_attn: bool,
        kdim: int | None, vdim: int | None, head_dim: int | None, pattern_dim: int | None, out_dim: int | None,
        disable_out_projection: bool, key_as_static: bool, query_as_static: bool, value_as_static: bool,
        value_as_connected: bool, normalize_pattern: bool, normalize_pattern_affine: bool, normalize_pattern_eps: float,
    ) -> None:  # fmt: skip
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.key_as_static, self.query_as_static, self.value_as_static = key_as_static, query_as_static, value_as_static
        self.value_as_connected, self.disable_out_projection = value_as_connected, disable_out_projection
        self.normalize_pattern, self.normalize_pattern_affine = normalize_pattern, normalize_pattern_affine
        self.normalize_pattern_eps = normalize_pattern_eps
        self.add_bias_kv, self.add_zero_attn = add_bias_kv, add_zero_attn
        all_static = key_as_static and query_as_static and value_as_static
        self.static_execution = (
            all_static and disable_out_projection and not (value_as_connected or normalize_pattern or normalize_pattern_affine)
        )
        if normalize_pattern_affine and not normalize_pattern:
            raise ValueError("normalize_hopfield_space_affine does nothing without normalize_hopfield_space")
        if num_heads < 1 or not 0 <= dropout < 1:
            raise ValueError(f"num_heads={num_heads} has to be positive, and dropout={dropout} in [0, 1)")
        if self.static_execution:
            embed_dim = kdim = vdim = None
        elif embed_dim is None:
            raise ValueError("input_size may be left out only when nothing is projected: see Hopfield.retrieval")
        self.embed_dim = embed_dim
        self.kdim, self.vdim = kdim or embed_dim, vdim or embed_dim
        self.one_weight = self.kdim == embed_dim == self.vdim and pattern_dim is None and not value_as_connected
        self.head_dim, self.pattern_dim, self.out_dim = None, pattern_dim, out_dim or embed_dim
        if embed_dim is not None:
            if head_dim is None and embed_dim % num_heads:
                raise ValueError(f"input_size={embed_dim} is no multiple of num_heads={num_heads}: give hidden_size")
            self.head_dim = embed_dim // num_heads if head_dim is None else head_dim
            self.pattern_dim = pattern_dim or self.head_dim
            if min(self.head_dim, self.pattern_dim, self.out_dim or 1) < 1:
                raise ValueError("hidden_size, pattern_size and output_size have to be positive")
        if value_as_connected and (self.kdim != self.vdim or self.pattern_dim != self.head_dim):
            raise ValueError(
                f"connected projections need equal widths of stored patterns ({self.kdim}) and projections ({self.vdim}), and "
                f"of hidden_size ({self.head_dim}) and pattern_size ({self.pattern_dim})"
            )
        if add_bias_kv and (key_as_static or value_as_static):
            raise ValueError("concat_bias_pattern adds a pattern in projected space, which static patterns do not have")
        self.connected = value_as_connected and not key_as_static
        """Whether values really pass through W_k: a static stored pattern has none."""
        self._make_weights(bias, add_bias_kv)

    @property
    def widths(self) -> tuple[int | None, int | None, int | None]:
        """How wide stored, state and projection inputs have to be. None: any width, the same for stored and state."""
        stored = self.head_dim if self.key_as_static else self.kdim
        state = self.head_dim if self.query_as_static else self.embed_dim
        if self.key_as_static and self.query_as_static:
            stored = state = None
        if not self.value_as_static or self.connected:
            return stored, state, self.vdim
        return stored, state, None if self.disable_out_projection else self.pattern_dim

    def _make_weights(self, bias: bool, add_bias_kv: bool) -> None:
        space, width = (self.num_heads * (size or 0) for size in (self.head_dim, self.pattern_dim))
        rows = [0 if self.query_as_static else space, 0 if self.key_as_static else space]
        value_rows = 0 if self.value_as_static else width
        projected = sum(rows) + value_rows > 0
        for name in _OPTIONAL:
            self.register_parameter(name, None)
        self.out_proj: nn.Linear | None = None
        if self.one_weight and projected:
            self.in_proj_weight = _new(sum(rows) + value_rows, self.embed_dim)
        elif projected:
            self.q_proj_weight = _new(rows[0], self.embed_dim) if rows[0] else None
            self.k_proj_weight = _new(rows[1], self.kdim) if rows[1] else None
            self.v_proj_weight = _new(value_rows, space if self.connected else self.vdim) if value_rows else None
        if bias and projected:
            self.in_proj_bias = _new(sum(rows) + width)  # with rows for values even where these are static
        if not self.disable_out_projection:
            assert self.out_dim is not None
            self.out_proj = nn.Linear(width, self.out_dim, bias=bias)
        if self.normalize_pattern_affine:
            self.p_norm_weight, self.p_norm_bias = _new(self.head_dim), _new(self.head_dim)
        if add_bias_kv:
            self.bias_k, self.bias_v = _new(1, 1, space), _new(1, 1, width)
        self._rows = rows
        self.uniform = self.in_proj_weight is not None and 0 not in (*rows, value_rows)
        """Whether one weight projects all three inputs to one width: what `project_one` and `fold` need."""
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Matrices and bias patterns N(0, 0.02), biases 0, norms 1 and 0."""
        for name, parameter in self.named_parameters():
            if name == "p_norm_weight":
                nn.init.ones_(parameter)
            elif name.endswith("weight") or name in ("bias_k", "bias_v"):
                nn.init.normal_(parameter, 0.0, STD)
            else:
                nn.init.zeros_(parameter)

    def _maps(self) -> tuple[_Maps, _Maps, _Maps]:
        """Weight and bias of every map that queries, keys and values pass through; none for static inputs."""
        whole, bias = self.in_proj_weight, self.in_proj_bias
        q_rows, k_rows = self._rows
        weights: Sequence[Tensor | None] = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        if whole is not None:
            weights = whole.split_with_sizes([q_rows, k_rows, whole.shape[0] - q_rows - k_rows])
        biases: Sequence[Tensor | None] = (None, None, None)
        if bias is not None:
            biases = bias.split_with_sizes([q_rows, k_rows, bias.shape[0] - q_rows - k_rows])
        q, k, v = (
            () if weight is None or not weight.shape[0] else ((weight, shift),)
            for weight, shift in zip(weights, biases, strict=True)
        )
        return q, k, k + v if self.connected else v

    def project(self, inputs: Iterable[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key and value in the association space, batch first; one of batch 1 serves every sample, projected once.

        An iterator's inputs are made one at a time, and each is freed before the next.

        Shapes: (B, L, E), (B, S, kdim), (B, S, vdim) to (B, H, L, a), (B, H, S', a), (B, H, S', p); S' counts added patterns.
        """
        q, k, v = map(_through, inputs, self._maps())
        q, k = self._split(q, self.query_as_static), self._split(k, self.key_as_static)
        q, k, v = self._complete(q, k, self._split(v, self.value_as_static and not self.connected))
        batch = next((x.shape[0] for x in (q, k, v) if x.shape[0] != 1), 1)
        return _spread(q, batch), _spread(k, batch), _spread(v, batch)

    def project_one(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`project` in one product for an input (B, L, E) that plays all three parts."""
        assert self.in_proj_weight is not None
        projected = F.linear(x, self.in_proj_weight, self.in_proj_bias).unflatten(-1, (3, self.num_heads, -1))
        q, k, v = projected.permute(2, 0, 3, 1, 4).unbind(0)
        return self._complete(q, k, v)

    @torch.no_grad()
    def fold(self, gains: Tensor, shifts: Tensor) -> None:
        """Take an affine map of each part's input into weight and bias: W (g x + s) + b = (W g) x + (W s + b).

        Args:
            gains, shifts: (3 E), for query, key and value.
        """
        assert self.in_proj_weight is not None
        rows, width = self.in_proj_weight.shape
        weight = self.in_proj_weight.view(3, -1, width)
        bias = (weight @ shifts.view(3, width, 1)).view(rows)
        self.in_proj_bias = nn.Parameter(bias if self.in_proj_bias is None else bias + self.in_proj_bias)
        self.in_proj_weight = nn.Parameter((weight * gains.view(3, 1, width)).view(rows, width))

    def _complete(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What follows the projections: the norm of the association space, and the patterns that the module adds."""
        if self.normalize_pattern:
            shape = (q.shape[-1],)
            q, k = (F.layer_norm(x, shape, self.p_norm_weight, self.p_norm_bias, self.normalize_pattern_eps) for x in (q, k))
        if self.add_bias_kv:
            assert self.bias_k is not None and self.bias_v is not None
            k, v = self._append(k, self.bias_k), self._append(v, self.bias_v)
        if self.add_zero_attn:
            k, v = F.pad(k, (0, 0, 0, 1)), F.pad(v, (0, 0, 0, 1))
        return q, k, v

    def _split(self, x: Tensor, static: bool) -> Tensor:
        """(B, N, H * width) to (B, H, N, width); static patterns go to every head whole."""
        if static:
            return x[:, None].expand(-1, self.num_heads, -1, -1)
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def _append(self, x: Tensor, pattern: Tensor) -> Tensor:
        """(B, H, N, width) with one pattern more, given as (1, 1, H * width)."""
        last = self._split(pattern, static=False).expand(x.shape[0], -1, -1, -1)
        return torch.cat((x, last), 2)

    def merge(self, x: Tensor) -> Tensor:
        """The heads side by side, and the output projection: (B, H, L, p) to (B, L, out_dim), or H * p without one."""
        merged = x.transpose(1, 2).flatten(2)
        return merged if (out := self.out_proj) is None else out(merged)


def _new(*shape: int | None) -> nn.Parameter:
    return nn.Parameter(torch.empty([size or 0 for size in shape]))


def _through(x: Tensor, maps: _Maps) -> Tensor:
    for weight, bias in maps:
        x = F.linear(x, weight, bias)
    return x


def _spread(x: Tensor, batch: int) -> Tensor:
    return x if x.shape[0] == batch else x.expand(batch, -1, -1, -1)
