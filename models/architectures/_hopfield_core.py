"""The weights of a Hopfield association: how inputs get into the association space, and out of it. See ``hopfield.py``."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STD = 0.02
"""Standard deviation of every projection at initialisation, as in hflayers."""

# In the order of the state dict.
_OPTIONAL = (
    "in_proj_weight q_proj_weight k_proj_weight v_proj_weight in_proj_bias bias_k bias_v p_norm_weight p_norm_bias".split()
)


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
        self.normalize_pattern_eps, self.add_zero_attn = normalize_pattern_eps, add_zero_attn
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

    def _weights(self) -> list[tuple[Tensor | None, Tensor | None]]:
        """Weight and bias of queries, keys and values; no weight where there is no projection."""
        bias = self.in_proj_bias
        ends = (self._rows[0], sum(self._rows))
        biases = (None, None, None) if bias is None else (bias[: ends[0]], bias[ends[0] : ends[1]], bias[ends[1] :])
        if self.in_proj_weight is None:
            return list(zip((self.q_proj_weight, self.k_proj_weight, self.v_proj_weight), biases, strict=True))
        weight = self.in_proj_weight
        parts = (weight[: ends[0]], weight[ends[0] : ends[1]], weight[ends[1] :])
        return [(part if len(part) else None, shift) for part, shift in zip(parts, biases, strict=True)]

    def project(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """All three inputs in the association space, batch first; an input of batch 1 serves every sample, projected once.

        Shapes: (B, L, E), (B, S, kdim), (B, S, vdim) to (B, H, L, a), (B, H, S', a), (B, H, S', p); S' counts added patterns.
        """
        weights = self._weights()
        (w_q, b_q), (w_k, b_k), (w_v, b_v) = weights
        if query is key is value and self.in_proj_weight is not None and None not in (w_q, w_k, w_v):
            whole = F.linear(query, self.in_proj_weight, self.in_proj_bias)
            q, k, v = whole.tensor_split((self._rows[0], sum(self._rows)), -1)
        else:
            if self.connected:
                assert w_k is not None
                value = F.linear(value, w_k, b_k)
            q, k = (x if w is None else F.linear(x, w, b) for x, w, b in ((query, w_q, b_q), (key, w_k, b_k)))
            v = value if w_v is None else F.linear(value, w_v, b_v)
        q, k = self._split(q, self.query_as_static), self._split(k, self.key_as_static)
        v = self._split(v, self.value_as_static and not self.connected)
        if self.normalize_pattern:
            shape = (q.shape[-1],)
            q, k = (F.layer_norm(x, shape, self.p_norm_weight, self.p_norm_bias, self.normalize_pattern_eps) for x in (q, k))
        for added_k, added_v in ((self.bias_k, self.bias_v), (0.0, 0.0) if self.add_zero_attn else (None, None)):
            if added_k is not None and added_v is not None:
                k, v = self._append(k, added_k), self._append(v, added_v)
        batch = next((x.shape[0] for x in (q, k, v) if x.shape[0] != 1), 1)
        return _spread(q, batch), _spread(k, batch), _spread(v, batch)

    def _split(self, x: Tensor, static: bool) -> Tensor:
        """(B, N, H * width) to (B, H, N, width); static patterns go to every head whole."""
        if static:
            return x[:, None].expand(-1, self.num_heads, -1, -1)
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def _append(self, x: Tensor, pattern: Tensor | float) -> Tensor:
        """(B, H, N, width) with one pattern more: of zeros, or given as (1, 1, H * width)."""
        if isinstance(pattern, Tensor):
            last = self._split(pattern, static=False).expand(x.shape[0], -1, -1, -1)
            return torch.cat((x, last), 2)
        return F.pad(x, (0, 0, 0, 1), value=pattern)

    def merge(self, x: Tensor) -> Tensor:
        """The heads side by side, and the output projection: (B, H, L, p) to (B, L, out_dim), or H * p without one."""
        merged = x.transpose(1, 2).flatten(2)
        return merged if self.out_proj is None else self.out_proj(merged)


def _new(*shape: int | None) -> nn.Parameter:
    return nn.Parameter(torch.empty([size or 0 for size in shape]))


def _spread(x: Tensor, batch: int) -> Tensor:
    return x if x.shape[0] == batch else x.expand(batch, -1, -1, -1)
