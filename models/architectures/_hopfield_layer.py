"""The association of any stored patterns with any states, `Hopfield`: options, masks and calls. See ``hopfield.py``."""

import math
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..association import UNLIMITED, Mask, Steps, association, retrieve_fixed
from ._hopfield_core import HopfieldCore
from ._hopfield_norms import is_affine, norm_of, shared_norm


def reads(path: str) -> Any:
    """A read-only property that is kept further down."""
    return property(attrgetter(path), doc=f"``{path}`` of this module.")


def function(option: str, name: str) -> Callable[[Tensor], Tensor]:
    """The function of torch, or of torch.nn.functional, that an option names.

    Raises:
        ValueError: when there is none.
    """
    found = (getattr(torch, name, None) or getattr(F, name, None)) if isinstance(name, str) else None
    if not callable(found) or isinstance(found, type):
        raise ValueError(f"{option}={name!r} is no function of torch, such as 'relu' or 'tanh'")
    activation: Callable[[Tensor], Tensor] = found
    return activation


def _for_heads(name: str, value: Any, heads: int) -> list[Any]:
    """One value for each head from a number, or from a tensor, list or tuple with one entry a head."""
    if isinstance(value, Tensor):
        value = value.detach().tolist()
    if not isinstance(value, Sequence):
        return [value] * heads
    if len(value) != heads:
        raise ValueError(f"{name} has {len(value)} entries for {heads} heads: one number, or one a head")
    return list(value)


def _steps(most: Any, eps: Any, heads: int) -> Steps:
    limits, thresholds = _for_heads("update_steps_max", most, heads), _for_heads("update_steps_eps", eps, heads)
    for limit in limits:
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int)):
            raise TypeError(f"update_steps_max={limit!r} is no number of updates: an integer, or None for no limit")
    limits = [UNLIMITED if limit is None or limit < 0 else limit for limit in limits]
    for limit, threshold in zip(limits, thresholds, strict=True):
        if not threshold >= 0 or (threshold == 0 and limit == UNLIMITED):
            raise ValueError(f"update_steps_eps={threshold!r} has to be positive, or 0 with a limit, to always use it up")
    return Steps(tuple(limits), tuple(map(float, thresholds)))


class Hopfield(nn.Module):
    """Association of stored patterns Y with state patterns R: softmax(beta R W_q W_k^T Y^T) Y W_v (equation 10).

    ``forward(input, stored_pattern_padding_mask=None, association_mask=None)``: ``input`` is one tensor (B, L, input_size),
    which plays all three parts, or the triple (stored (B, S, .), state (B, L, .), projection (B, S, .)); the result is
    (B, L, output_size). With ``batch_first=False`` batch and length change places. An input of batch 1 serves all samples.
    ``association_mask`` (L, S) or (B * H, L, S) and ``stored_pattern_padding_mask`` (B, S): True or nonzero hides a pattern;
    a floating association mask is added. A state that may see nothing retrieves zeros.

    Args:
        input_size: width of the state patterns; None only where nothing is projected or normalised.
        hidden_size, pattern_size: a and p, PER HEAD; by default input_size / num_heads, and a.
        output_size: by default input_size.
        scaling: beta. A number; a tensor, list or tuple with one entry a head (kept as the buffer ``beta``); or an
            nn.Parameter of one or H entries, which is then trained. By default 1 / sqrt(a), or 1 if nothing is projected.
        update_steps_max: updates beyond the first look: an integer, one a head, or None or a negative one for no limit.
        update_steps_eps: a head whose matrix moves by no more than this rests (see `association`); 0 never ends early.
        normalize_...: layer norm of each input (on), with an affine map (on); and of q and k in the association space (off).
        ..._as_static: leave this input unprojected; each head gets it whole.
        pattern_projection_as_connected: values are projected by W_k first and then by W_v, as in the paper.
        association_activation: name of a function of torch, on the output.
        dropout: on the association matrix, after the last update.
        input_bias: biases in all projections.
        concat_bias_pattern, add_zero_association: one learned stored pattern more, and one of zeros.
        disable_out_projection: return the heads side by side, H * p numbers.

    Attributes:
        executed_steps: how many updates each head made in the last call; None in a compiled graph.

    Raises:
        ValueError, TypeError: at construction when options contradict each other; at a call when shapes do not fit.
    """

    def __init__(
        self, input_size: int | None = None, hidden_size: int | None = None, output_size: int | None = None,
        pattern_size: int | None = None, num_heads: int = 1, scaling: float | Sequence[float] | Tensor | None = None,
        update_steps_max: int | Sequence[int] | Tensor | None = 0, update_steps_eps: float | Sequence[float] | Tensor = 1e-4,
        normalize_stored_pattern: bool = True, normalize_stored_pattern_affine: bool = True,
        normalize_stored_pattern_eps: float = 1e-5, normalize_state_pattern: bool = True,
        normalize_state_pattern_affine: bool = True, normalize_state_pattern_eps: float = 1e-5,
        normalize_pattern_projection: bool = True, normalize_pattern_projection_affine: bool = True,
        normalize_pattern_projection_eps: float = 1e-5, normalize_hopfield_space: bool = False,
        normalize_hopfield_space_affine: bool = False, normalize_hopfield_space_eps: float = 1e-5,
        stored_pattern_as_static: bool = False, state_pattern_as_static: bool = False,
        pattern_projection_as_static: bool = False, pattern_projection_as_connected: bool = False,
        stored_pattern_size: int | None = None, pattern_projection_size: int | None = None, batch_first: bool = True,
        association_activation: str | None = None, dropout: float = 0.0, input_bias: bool = True,
        concat_bias_pattern: bool = False, add_zero_association: bool = False, disable_out_projection: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        core = HopfieldCore(
            input_size, num_heads, dropout, input_bias, concat_bias_pattern, add_zero_association, stored_pattern_size,
            pattern_projection_size, hidden_size, pattern_size, output_size, disable_out_projection, stored_pattern_as_static,
            state_pattern_as_static, pattern_projection_as_static, pattern_projection_as_connected, normalize_hopfield_space,
            normalize_hopfield_space_affine, normalize_hopfield_space_eps,
        )  # fmt: skip
        self.association_core = core
        self.association_activation = (
            None if association_activation is None else function("association_activation", association_activation)
        )
        stored, state, projection = core.widths
        self.norm_stored_pattern = norm_of(
            "stored_pattern",
            stored or stored_pattern_size or input_size,
            normalize_stored_pattern,
            normalize_stored_pattern_affine,
            normalize_stored_pattern_eps,
        )
        self.norm_state_pattern = norm_of(
            "state_pattern",
            state or input_size,
            normalize_state_pattern,
            normalize_state_pattern_affine,
            normalize_state_pattern_eps,
        )
        self.norm_pattern_projection = norm_of(
            "pattern_projection", projection or pattern_projection_size or input_size, normalize_pattern_projection,
            normalize_pattern_projection_affine, normalize_pattern_projection_eps,
        )  # fmt: skip
        self.batch_first = batch_first
        self._asked = (update_steps_max, update_steps_eps)
        self.steps = _steps(update_steps_max, update_steps_eps, num_heads)
        self._fixed = self.steps.fixed
        self.executed_steps: tuple[int, ...] | None = None
        self._register_scaling(scaling)

    @classmethod
    def retrieval(cls, scaling: float = 1.0, update_steps_max: int | None = None, **options: Any) -> "Hopfield":
        """The memory of section 2, without weights: ``memory((stored, state, stored))`` returns what the states retrieve.

        Nothing is projected or normalised, and updates go on until the state rests.

        Args:
            scaling: beta; large ones retrieve single patterns, small ones averages.
            options: any other option of `Hopfield`, such as ``num_heads``, ``update_steps_eps`` or ``batch_first``.
        """
        inputs = ("stored_pattern", "state_pattern", "pattern_projection")
        norms = {f"normalize_{name}{end}": False for name in inputs for end in ("", "_affine")}
        static = {f"{name}_as_static": True for name in inputs}
        preset = {**norms, **static, "disable_out_projection": True, **options}
        return cls(scaling=scaling, update_steps_max=update_steps_max, **preset)

    def _register_scaling(self, scaling: Any) -> None:
        heads, space = self.association_core.num_heads, self.association_core.head_dim
        self.beta: Tensor | None = None
        self._scaling: float = 1.0 if space is None else 1.0 / math.sqrt(space)
        if isinstance(scaling, Tensor | Sequence) and not isinstance(scaling, str):
            numbers = scaling if isinstance(scaling, Tensor) else torch.tensor([float(number) for number in scaling])
            single = isinstance(scaling, nn.Parameter) and numbers.numel() == 1
            if not numbers.is_floating_point():
                numbers = numbers.to(torch.get_default_dtype())
            if numbers.ndim > 1 or not (single or numbers.shape == (heads,)):
                raise ValueError(
                    f"scaling of shape {tuple(numbers.shape)} does not fit {heads} heads: one number, or one a head"
                )
            if isinstance(scaling, nn.Parameter):
                self.beta = scaling
            else:
                del self.beta
                self.register_buffer("beta", numbers.detach().clone())
                self.register_load_state_dict_pre_hook(_fill_beta)
        elif scaling is not None:
            if isinstance(scaling, bool) or not isinstance(scaling, int | float) or not math.isfinite(scaling):
                raise TypeError(f"scaling={scaling!r} is neither a finite number nor a tensor with one entry a head")
            self._scaling = float(scaling)

    def reset_parameters(self) -> None:
        """Initialise projections and norms anew; a trained scaling stays as it is."""
        for module in (
            self.association_core, self.norm_stored_pattern, self.norm_state_pattern, self.norm_pattern_projection
        ):  # fmt: skip
            if module is not None:
                module.reset_parameters()

    def reparameterised(self) -> "Hopfield":
        """This layer with the norms' affine maps folded into the projections, where these take in all three inputs.

        The one norm that is left serves all inputs; one tensor that plays all three parts is then projected in one product.
        """
        if self.association_core.uniform and (found := shared_norm(self._norms())) is not None:
            gains, shifts, norm = found
            self.association_core.fold(gains, shifts)
            self.norm_state_pattern = self.norm_stored_pattern = self.norm_pattern_projection = norm.eval()
        return self

    def _norms(self) -> tuple[nn.LayerNorm | None, nn.LayerNorm | None, nn.LayerNorm | None]:
        """In the order of the projections: query, key, value."""
        return self.norm_state_pattern, self.norm_stored_pattern, self.norm_pattern_projection

    def forward(
        self,
        input: Tensor | Sequence[Tensor],
        stored_pattern_padding_mask: Tensor | None = None,
        association_mask: Tensor | None = None,
    ) -> Tensor:
        core = self.association_core
        q, k, v = self._projected(input)
        mask = self._mask(q, k, stored_pattern_padding_mask, association_mask)
        rate = core.dropout if self.training else 0.0
        if self._fixed:
            found = retrieve_fixed(q, k, v, self._beta(), self.steps.most, mask, rate)
            self._remember(self.steps.most)
        else:
            matrix, executed = self._associate(q, k, mask)
            found = F.dropout(matrix, rate, self.training) @ v if rate else matrix @ v
            self._remember(executed)
        out = core.merge(found)
        if self.association_activation is not None:
            out = self.association_activation(out)
        return out if self.batch_first else out.transpose(0, 1)

    @torch.no_grad()
    def get_association_matrix(
        self,
        input: Tensor | Sequence[Tensor],
        stored_pattern_padding_mask: Tensor | None = None,
        association_mask: Tensor | None = None,
    ) -> Tensor:
        """The association matrix after the last update, without dropout: (B, H, L, S'), without gradient."""
        q, k, _ = self._projected(input)
        mask = self._mask(q, k, stored_pattern_padding_mask, association_mask)
        matrix, executed = self._associate(q, k, mask)
        self._remember(executed)
        return matrix

    @torch.no_grad()
    def get_projected_pattern_matrix(
        self,
        input: Tensor | Sequence[Tensor],
        stored_pattern_padding_mask: Tensor | None = None,
        association_mask: Tensor | None = None,
    ) -> Tensor:
        """The values: (B, H, S', p), without gradient. Masks have no say in them."""
        return self._projected(input)[2]

    def cost_note(self) -> str:
        """What the cost of the last call depended on, for the counter: how many updates the heads made, if values decided."""
        made, limits = self.executed_steps, set(self.steps.most)
        if self._fixed or made is None:
            return ""
        limit = "no limit" if UNLIMITED in limits else f"a limit of {max(limits)}"
        return f"updates executed, with {limit}: {min(made)} to {max(made)}, {sum(made) / len(made):.2f} on average over heads"

    def _remember(self, executed: tuple[int, ...] | None) -> None:
        if not torch.compiler.is_compiling() and self.executed_steps is not executed:  # setting costs more than looking
            self.executed_steps = executed

    def _associate(self, q: Tensor, k: Tensor, mask: Mask) -> tuple[Tensor, tuple[int, ...] | None]:
        """See `association`. By itself, so that export can put a loop of the graph in its place."""
        return association(q, k, self._beta(), self.steps, mask)

    def _beta(self) -> float | Tensor:
        if self.beta is None:
            return self._scaling
        return self.beta.view(-1, 1, 1)

    def _projected(self, input: Tensor | Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """The three inputs, batch first, normalised and projected."""
        core, norms = self.association_core, self._norms()
        if isinstance(input, Tensor):
            stored = state = projection = input
        else:
            stored, state, projection = several(input, "stored, state, projection")
        if not (core.uniform and isinstance(input, Tensor) and input.ndim == 3 and input.shape[-1] == core.embed_dim):
            self._check(stored, state, projection)
        inputs: tuple[Tensor, ...] = (state, stored, projection)
        if not self.batch_first:
            inputs = tuple(x.transpose(0, 1) for x in inputs)
        if isinstance(input, Tensor) and core.uniform and norms[0] is norms[1] is norms[2]:
            return core.project_one(inputs[0] if norms[0] is None else norms[0](inputs[0]))
        return core.project(x if norm is None else norm(x) for x, norm in zip(inputs, norms, strict=True))

    def _check(self, stored: Tensor, state: Tensor, projection: Tensor) -> None:
        core = self.association_core
        named = {"stored pattern": stored, "state pattern": state, "pattern projection": projection}
        for name, x in named.items():
            if x.ndim != 3:
                raise ValueError(f"the {name} has shape {tuple(x.shape)}: batch, length and width are needed")
        for (name, x), width in zip(named.items(), core.widths, strict=True):
            if width is not None and x.shape[-1] != width:
                raise ValueError(f"the {name} is {x.shape[-1]} wide, and {width} is needed")
        if core.widths[0] is None and stored.shape[-1] != state.shape[-1]:
            raise ValueError(f"stored patterns of width {stored.shape[-1]} cannot be compared with states of {state.shape[-1]}")
        length, batch = (1, 0) if self.batch_first else (0, 1)
        if stored.shape[length] != projection.shape[length]:
            lengths = f"{stored.shape[length]} stored patterns and {projection.shape[length]} projections"
            raise ValueError(f"{lengths}: there has to be one for each")
        batches = [x.shape[batch] for x in named.values() if x.shape[batch] != 1]
        if any(size != batches[0] for size in batches):
            sizes = ", ".join(str(x.shape[batch]) for x in named.values())
            raise ValueError(f"stored, state and projection have batches of {sizes}: equal ones, or 1 for all")

    def _mask(self, q: Tensor, k: Tensor, padding: Tensor | None, association_mask: Tensor | None) -> Mask:
        """Both masks, the patterns that the module itself adds left visible."""
        if padding is None and association_mask is None:
            return Mask()
        core = self.association_core
        batch, heads, states, patterns = *q.shape[:3], k.shape[2]
        added = (core.bias_k is not None) + core.add_zero_attn
        given = patterns - added
        if padding is not None and padding.shape != (batch, given):
            raise ValueError(f"stored_pattern_padding_mask has shape {tuple(padding.shape)}, not {(batch, given)}")
        shapes = ((states, given), (batch * heads, states, given))
        if association_mask is not None and association_mask.shape not in shapes:
            what = f"association_mask has shape {tuple(association_mask.shape)}"
            raise ValueError(f"{what}: (states, patterns) = {shapes[0]} or (batch * heads, ...) = {shapes[1]} are understood")
        if added:
            padding, association_mask = (m if m is None else F.pad(m, (0, added)) for m in (padding, association_mask))
        return Mask.make(association_mask, padding, batch, heads, q.dtype)

    @property
    def scaling(self) -> float | Tensor:
        """beta: the number, or a copy of the tensor with one entry a head."""
        return self._scaling if self.beta is None else self.beta.clone()

    @property
    def update_steps_max(self) -> Any:
        """The limit as it was given; a tensor as a copy."""
        return _copied(self._asked[0])

    @property
    def update_steps_eps(self) -> Any:
        """The threshold as it was given; a tensor as a copy."""
        return _copied(self._asked[1])

    stored_pattern_dim = reads("association_core.kdim")
    state_pattern_dim = input_size = reads("association_core.embed_dim")
    pattern_projection_dim = reads("association_core.vdim")
    hidden_size = reads("association_core.head_dim")
    output_size = reads("association_core.out_dim")
    pattern_size = reads("association_core.pattern_dim")
    stored_pattern_as_static = reads("association_core.key_as_static")
    state_pattern_as_static = reads("association_core.query_as_static")
    pattern_projection_as_static = reads("association_core.value_as_static")
    normalize_hopfield_space = reads("association_core.normalize_pattern")
    normalize_hopfield_space_affine = reads("association_core.normalize_pattern_affine")
    normalize_stored_pattern = property(lambda self: self.norm_stored_pattern is not None)
    normalize_state_pattern = property(lambda self: self.norm_state_pattern is not None)
    normalize_pattern_projection = property(lambda self: self.norm_pattern_projection is not None)
    normalize_stored_pattern_affine = property(lambda self: is_affine(self.norm_stored_pattern))
    normalize_state_pattern_affine = property(lambda self: is_affine(self.norm_state_pattern))
    normalize_pattern_projection_affine = property(lambda self: is_affine(self.norm_pattern_projection))


def _copied(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


def several(patterns: Sequence[Tensor], names: str) -> tuple[Tensor, ...]:
    count = len(names.split(", "))
    if not isinstance(patterns, Sequence) or len(patterns) != count or not all(isinstance(x, Tensor) for x in patterns):
        raise TypeError(f"the input is a tensor, or {count} of them in the order ({names})")
    return tuple(patterns)


def _fill_beta(module: Any, state: dict[str, Any], prefix: str, *rest: Any) -> None:
    """Checkpoints of the package lack a fixed scaling: there it is an argument only, so the argument stays."""
    state.setdefault(f"{prefix}beta", module.beta)
