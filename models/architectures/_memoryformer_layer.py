"""The Memory Layer: hashing to the rows of look-up tables, and reading them. See ``memoryformer.py`` for source and letters."""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import BadInput

PAPER_TOKENS = 2048
"""The length s of the paper's tables of FLOPs."""
STD = 0.02
"""Of fresh tables, embeddings and the head; the paper states none, the code's tables have it."""

Weight = Literal["softmax", "scaled", "none"]
BitOrder = Literal["lsb", "msb"]
Path = Literal["bag", "gather"]
_CHOICES: dict[str, tuple[str, ...]] = {
    "weight": ("softmax", "scaled", "none"),
    "bit_order": ("lsb", "msb"),
    "path": ("bag", "gather"),
    "norm": ("layer_norm", "rms_norm"),
    "form": ("paper", "code"),
    "part": ("model", "block", "layer"),
}


def check_choices(**given: str) -> None:
    """Refuse a word that its setting doesn't know, with those that it does."""
    for name, value in given.items():
        if value not in _CHOICES[name]:
            raise BadInput(f"MemoryFormer has no {name} {value!r}", f"one of {', '.join(_CHOICES[name])}")


class Address(NamedTuple):
    """Where a token looks, and how much each look counts; layers with the same input share it.

    Attributes:
        rows: (..., K) int, the rows of the tables laid end to end.
        weights: (..., K), or None where every row counts as it is.
    """

    rows: Tensor
    weights: Tensor | None


@dataclass(frozen=True, slots=True)
class Occupancy:
    """How evenly some tokens use the rows of a layer's tables (paper, Figure 4): a health check of the norm before it.

    Attributes:
        counts: (K, 2^tau) int64, how often each row was looked up.
    """

    counts: Tensor

    @property
    def hit(self) -> Tensor:
        """The share of each table's rows that were looked up at all, (K,), 0 to 1."""
        return (self.counts > 0).double().mean(-1)

    @property
    def entropy_bits(self) -> Tensor:
        """Entropy of each table's look-ups in bits, (K,): tau where all rows are used alike, 0 where it is always one."""
        share = self.counts.double() / self.counts.sum(-1, keepdim=True).clamp(min=1)
        return torch.special.entr(share).sum(-1) / math.log(2)


class MemoryLayer(nn.Module):
    """Memory Layer: the replacement of a dense layer of D inputs and H outputs.

    A chunk z of tau inputs names the row of its table by its signs, h(z) = sum over i of [z_i >= 0] 2^i (paper, Equation 4),
    and weights it by p(z) = 1 / prod over i of (1 + exp(-2 |z_i| / t)), the softmax probability of that row among all 2^tau
    when a row scores <z, its signs> / t. The output is the weighted sum over the K chunks. The row number has no gradient: the
    input learns through p only, a table at the rows that were read only.

    Shapes: (..., inputs) to (..., outputs). ``tables``: (K, 2^tau, outputs).

    Args:
        tables: K; it divides ``inputs``, and tau = inputs / K.
        weight: ``softmax``, p; ``scaled``, the public code's p times the sum of \\|z_i\\|; ``none``, 1, which passes the input
            no gradient at all.
        bit_order: whether the first input of a chunk is the lowest bit (``lsb``, Equation 4) or the highest (``msb``, the
            code and Figure 2). It permutes the rows: tables trained with one are noise to the other.
        temperature: t; no value was published, and the code uses 1.
        bias: a learned addition to each output, which the code always has.
        path: ``bag`` is the fast one; ``gather`` makes (..., K, outputs) on the way and is the one to export, since runtimes
            know a gather and turn a bag into a loop. The attribute can be changed at any time; see `MemoryFormer.use_path`.
        std: standard deviation of fresh tables.

    Raises:
        BadInput: on a K that does not divide the inputs, more than 30 bits, or an unknown choice.
        RuntimeError: on an input of another width.
    """

    powers: Tensor
    first_rows: Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        tables: int,
        weight: Weight = "softmax",
        bit_order: BitOrder = "lsb",
        temperature: float = 1.0,
        bias: bool = False,
        path: Path = "bag",
        std: float = STD,
    ) -> None:
        super().__init__()
        check_choices(weight=weight, bit_order=bit_order, path=path)
        if tables < 1 or inputs % tables:
            raise BadInput(f"{inputs} inputs cannot be cut into {tables} equal chunks", "the number of tables has to divide")
        if temperature <= 0:
            raise BadInput(f"a temperature of {temperature} is none", "choose one above 0")
        self.inputs, self.outputs, self.bits = inputs, outputs, inputs // tables
        if self.bits > 30:
            raise BadInput(f"tables of 2^{self.bits} rows are out of reach", f"give {inputs} inputs more tables than {tables}")
        self.weight, self.bit_order, self.temperature, self.path, self.std = weight, bit_order, temperature, path, std
        rows = 2**self.bits
        # Half as wide as torch's usual integers, and so twice as fast to make: the hash is a third of a layer's time.
        kind = torch.int32 if tables * rows < 2**31 else torch.int64
        powers = [2**i for i in range(self.bits)]
        powers = powers if bit_order == "lsb" else powers[::-1]
        self.register_buffer("powers", torch.tensor(powers, dtype=kind), persistent=False)
        self.register_buffer("first_rows", torch.arange(0, tables * rows, rows, dtype=kind), persistent=False)
        self.tables = nn.Parameter(torch.empty(tables, rows, outputs))
        self.bias = nn.Parameter(torch.empty(outputs)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Normal numbers: tables of ``std``, the bias of 0.001 (the code's)."""
        nn.init.normal_(self.tables, std=self.std)
        if self.bias is not None:
            nn.init.normal_(self.bias, std=0.001)

    def address(self, x: Tensor) -> Address:
        """Hash an input (..., inputs) to the rows that it looks up and their weights."""
        if x.shape[-1] != self.inputs:
            raise RuntimeError(f"this Memory Layer hashes {self.inputs} inputs, not {x.shape[-1]}")
        z = x.unflatten(-1, (-1, self.bits))
        # Integers, not a product with a vector of floats: this is no contraction, and must not be counted as one.
        rows = ((z >= 0).to(self.powers.dtype) * self.powers).sum(-1, dtype=self.powers.dtype) + self.first_rows
        if self.weight == "none":
            return Address(rows, None)
        size = z.abs()
        # A sum of softplus: the product over a chunk would do, but its gradient in torch looks for zeros first.
        weights = torch.exp(-F.softplus(size * (-2 / self.temperature)).sum(-1))
        return Address(rows, weights * size.sum(-1) if self.weight == "scaled" else weights)

    def forward(self, x: Tensor, address: Address | None = None) -> Tensor:
        """Look up ``x``, or the ``address`` that a layer of the same form and input made already."""
        rows, weights = self.address(x) if address is None else address
        table = self.tables.flatten(0, 1)
        if self.path == "bag":
            bags = rows.reshape(-1, len(self.tables))
            given = None if weights is None else weights.reshape(bags.shape)
            y = F.embedding_bag(bags, table, mode="sum", per_sample_weights=given).view(*rows.shape[:-1], self.outputs)
        else:
            found = F.embedding(rows, table)
            y = (found if weights is None else found * weights.unsqueeze(-1)).sum(-2)
        return y if self.bias is None else y + self.bias

    def gather_macs(self, tokens: int) -> int:
        """Multiply-adds of weighting and adding up the rows: K H a token. No counter calls them MACs, the paper does."""
        return tokens * len(self.tables) * self.outputs

    def hashed_elements(self, tokens: int) -> int:
        """Elements that are compared, shifted and put through an exponential: D a token."""
        return tokens * self.inputs

    def table_bytes(self, tokens: int) -> int:
        """Bytes of table rows that are read, in the tables' dtype, if no row is read from a cache: K H entries a token."""
        return self.gather_macs(tokens) * self.tables.element_size()

    def published_figures(self) -> dict[str, int]:
        """Ours for the figures of the paper's Table 3: look-up MACs of 2,048 tokens, bytes of the tables in float16."""
        return {"layer_lookup_macs": self.gather_macs(PAPER_TOKENS), "table_bytes_fp16": 2 * self.tables.numel()}

    @torch.no_grad()
    def occupancy(self, x: Tensor) -> Occupancy:
        """Count how often each row is looked up by an input (..., inputs)."""
        tables, rows, _ = self.tables.shape
        counts = torch.bincount(self.address(x).rows.flatten(), minlength=tables * rows)
        return Occupancy(counts.view(tables, rows))

    def extra_repr(self) -> str:
        form = f"{self.weight}, {self.bit_order}, t={self.temperature}, bias={self.bias is not None}, path={self.path}"
        return f"{self.inputs}, {self.outputs}, tables={len(self.tables)} of 2^{self.bits} rows, {form}"
