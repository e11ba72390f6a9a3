"""Graph attention windows in a causal decoder: node tokens attend to nodes at most k links away, text stays causal.

Source: Guan et al., "Attention Mechanisms Perspective: Exploring LLM Processing of Graph-Structured Data", ICML 2025 (arXiv
2505.02130), and the authors' code (github.com/millioniron/LLM_exploration), which varies the attention mask of LLaMA2-7B
(Touvron et al., arXiv 2307.09288) tuned on graphs that are written into the prompt. The paper studies a mask, not a new
network; the decoder here is LLaMA's, and apart from the node tokens its state dict has the keys and shapes of Hugging Face's
LLaMA checkpoints.
`models/windows.py` has the mask itself, `models/prompts.py` the prompt, `profilers/attention_maps.py` the paper's analyses.

Letters: B batch, S tokens, H heads, D width of a head, G row blocks of a group, R rows and K keys of a block, k hops.
"""

from collections.abc import Iterator, Sequence
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import BadInput
from ..prompts import PromptTree, TokenGraph
from ..spec import Family, Published, TensorSpec, Variant
from ..windows import TEXT_ROWS, Cells, Direction, RowGroup, plan_window, window_mask

FAMILY = Family(
    title="Graph-window decoder",
    summary=(
        "A LLaMA-shaped decoder that reads a graph from its prompt. Each node is one token whose embedding is the node's "
        "feature vector. Node tokens attend to nodes at most k links away in the prompt's tree, text tokens causally to "
        "everything; k runs from fixed links (1), as in a graph network, to full attention (twice the tree's depth)."
    ),
    task="node classification by a language model",
    paper='Guan et al., "Attention Mechanisms Perspective: Exploring LLM Processing of Graph-Structured Data", ICML 2025',
    paper_url="https://arxiv.org/abs/2505.02130",
    repository="https://github.com/millioniron/LLM_exploration",
    inputs=(TensorSpec((1, 177), "int64", below="vocabulary"),),
    default="small",
    variants={
        "small": Variant({"layers": 2, "width": 256, "heads": 4, "hidden": 688, "vocabulary": 2048}),
        "llama2-7b": Variant(
            {"layers": 32, "width": 4096, "heads": 32, "hidden": 11008, "vocabulary": 32000},
            (Published("params", "6.7G", "arXiv 2302.13971, Table 2 (as 6.7B, of the same shape without node tokens)"),),
        ),
    },
    supports=(
        "any k, one- and bidirectional windows",
        "any sizes of the tree (children=[8,3,0]), left padding",
        "any graph of token ranges (classes)",
        "a mask as input (mask=1x1xSxS:bool)",
        "path=sparse: attention that skips what the window blocks",
    ),
    notes=(
        "The window is about learning, not speed: of the 177 tokens of the default prompt 73 are inside it, and at k = 1 it "
        "keeps 84 % of the causal cells; the templates of real prompts, of 70 to 130 text tokens, keep more.",
        "A dense mask executes all S x S cells. path=sparse pays where it executes less than about a quarter, in spans.",
        "Tokens past the prompt, such as generated ones, are text and attend to all before them, as in the released code.",
        "A bidirectional window rules out a key-value cache for the prompt that grows token by token: prefill it in one piece.",
        "The head scores text tokens only. Node vectors are given, so they are not trained.",
    ),
)

__all__ = ["GraphWindow", "GraphWindowAttention", "GraphWindowBlock", "GraphWindowDecoder", "PromptTree", "TokenGraph"]

PATHS = ("dense", "sparse")


class GraphWindow(nn.Module):
    """Softmax attention under the window of a graph (the paper's GLH mask), as a dense masked kernel or skipping blocked cells.

    The sparse path gathers for each node the keys that it sees and runs nodes with equally many as one batch; text goes
    in runs of 64 tokens (`windows.plan_window`). Its results and gradients are the dense path's, and a row that sees nothing,
    such as padding, gets zeros from both. It costs what its blocks hold, whatever the order of the nodes, and no compiler.

    Both paths serve any length. A shorter sequence is the graph's, cut: the sparse path leaves out the blocks behind the cut.
    Tokens past the graph, such as generated ones, are text; on the sparse path they go in runs of their own.

    Shapes: q, k and v (B, S, H, D) to (B, S, H, D).

    Args:
        graph: the tokens and their nodes.
        k: hops that a node sees; 0 only itself.
        direction: ``uni`` looks back only, ``bi`` also ahead, between nodes.
        path: ``dense`` or ``sparse``.

    Raises:
        BadInput: on an unknown path or direction or a negative k.
    """

    allowed: Tensor
    unseen: Tensor
    rows: Tensor

    def __init__(self, graph: TokenGraph, k: int = 1, direction: Direction = "uni", path: str = "dense") -> None:
        super().__init__()
        if path not in PATHS:
            raise BadInput(f"no path {path!r} through the window", f"one of {', '.join(PATHS)}")
        self.graph, self.k, self.direction, self.path = graph, k, direction, path
        mask = window_mask(graph, k, direction)
        device = torch.empty(0).device
        self.register_buffer("allowed", mask.to(device), persistent=False)
        self.register_buffer("unseen", torch.tensor(graph.unseen, dtype=torch.int64, device=device), persistent=False)
        self.starts: list[tuple[list[int], list[int], list[int]]] = []
        self.planned: Cells | None = None
        self.served = graph.length
        if path == "sparse":
            plan = plan_window(mask, graph)
            self.starts, self.planned = [group.starts for group in plan.groups], plan.cells
            self.register_buffer("rows", plan.rows.to(device), persistent=False)
            self.has_blank_rows = int(plan.rows.max()) == sum(group.queries.numel() for group in plan.groups)
            for index, group in enumerate(plan.groups):
                for name, tensor in (("queries", group.queries), ("keys", group.keys), ("mask", group.mask)):
                    self.register_buffer(f"{name}{index}", None if tensor is None else tensor.to(device), persistent=False)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """The same as `attend`."""
        return self.attend(q, k, v, mask)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend; a given mask, bool or additive and broadcastable to (B, H, S, S), replaces the window."""
        length = q.shape[1]
        if not torch.compiler.is_compiling():
            self.served = 0 if mask is not None else length
        if mask is None and self.path == "sparse":
            parts = [self._sparse(q, k, v), *self._later(q, k, v)]
            return parts[0] if len(parts) == 1 else torch.cat(parts, 1)
        mask = self.mask(length) if mask is None else mask
        y = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attn_mask=mask)
        return y.transpose(1, 2)

    def mask(self, length: int) -> Tensor:
        """The window for ``length`` tokens, (S, S) bool: cut, or continued by causal text that doesn't see padding or holes."""
        known = self.graph.length
        if length <= known:
            return self.allowed[:length, :length]
        mask = torch.ones(length, length, dtype=torch.bool, device=self.allowed.device).tril()
        mask[:known, :known] = self.allowed
        return mask.index_fill(1, self.unseen, False)

    def cells(self, length: int) -> Cells:
        """Cells per head and sample that the window allows and that its path executes, for ``length`` tokens."""
        if self.planned is not None and length == self.graph.length:
            return self.planned
        useful = int(window_mask(self.graph, self.k, self.direction, length).sum())
        if self.planned is None:
            return Cells(useful, length * length)
        later = sum((end - start) * end for start, end in self._runs(length))
        return Cells(useful, later + sum(prod(self._extent(index, length)) for index in range(len(self.starts))))

    def cost_note(self) -> str:
        """What the count can't see, for the counter: a dense kernel also computes what its mask blocks."""
        if not self.served:
            return ""
        batches = sum(blocks[0] < self.served for blocks, _, _ in self.starts) + len([*self._runs(self.served)])
        kernel = "dense mask kernel" if self.path == "dense" else f"{batches} batches of row blocks"
        return f"attention: {self.cells(self.served)} per head and layer ({kernel})"

    def _extent(self, index: int, length: int) -> tuple[int, ...]:
        """Blocks, rows and keys of a group that start within ``length`` tokens."""
        starts = self.starts[index]
        if length >= self.graph.length:
            return tuple(map(len, starts))
        return tuple(sum(start < length for start in side) for side in starts)

    def _group(self, index: int, length: int) -> RowGroup:
        """A group, cut: what is left of a block from behind the cut is masked as a key, and as a row computed in vain."""
        queries, keys, mask = (getattr(self, f"{name}{index}") for name in ("queries", "keys", "mask"))
        if length >= self.graph.length:
            return RowGroup(queries, keys, mask)
        blocks, rows, columns = self._extent(index, length)
        queries, keys = queries[:blocks, :rows], keys[:blocks, :columns]
        inside = (keys < length)[:, None]
        mask = inside if mask is None else mask[:blocks, :rows, :columns] & inside
        return RowGroup(queries.clamp(max=length - 1), keys.clamp(max=length - 1), mask)

    def _sparse(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The graph's own tokens, or as many of them as there are."""
        batch, length, heads, size = q.shape
        results = []
        for index, (all_blocks, all_rows, _) in enumerate(self.starts):
            group = self._group(index, length)
            blocks, rows = group.queries.shape
            mask = group.mask
            if mask is not None:
                mask = mask[:, None].repeat(batch, 1, 1, 1)  # (B G, 1, R or 1, K)
            y = F.scaled_dot_product_attention(
                _gather(q, group.queries), _gather(k, group.keys), _gather(v, group.keys), attn_mask=mask
            )
            y = y.transpose(1, 2).reshape(batch, blocks, rows, heads, size)
            if length < self.graph.length:  # every row stays in its place
                y = F.pad(y, (0, 0, 0, 0, 0, len(all_rows) - rows, 0, len(all_blocks) - blocks))
            results.append(y.flatten(1, 2))
        if self.has_blank_rows:
            results.append(q.new_zeros(batch, 1, heads, size))
        return torch.cat(results, 1).index_select(1, self.rows[:length])

    def _later(self, q: Tensor, k: Tensor, v: Tensor) -> Iterator[Tensor]:
        """The tokens past the graph, run by run, each on all tokens up to its end."""
        for start, end in self._runs(q.shape[1]):
            mask = torch.ones(end - start, end, dtype=torch.bool, device=q.device).tril(start)
            mask = mask.index_fill(1, self.unseen, False)
            late, keys, values = (x.transpose(1, 2) for x in (q[:, start:end], k[:, :end], v[:, :end]))
            yield F.scaled_dot_product_attention(late, keys, values, attn_mask=mask).transpose(1, 2)

    def _runs(self, length: int) -> Iterator[tuple[int, int]]:
        return ((start, min(start + TEXT_ROWS, length)) for start in range(self.graph.length, length, TEXT_ROWS))


def _gather(x: Tensor, tokens: Tensor) -> Tensor:
    """The tokens (G, n) of x (B, S, H, D), as a batch of blocks (B G, H, n, D)."""
    batch, _, heads, size = x.shape
    blocks, count = tokens.shape
    return x.index_select(1, tokens.flatten()).view(batch * blocks, count, heads, size).transpose(1, 2)


def rotary_angles(length: int, size: int, device: torch.device, base: float = 10000.0) -> tuple[Tensor, Tensor]:
    """Cosines and sines of rotary positions (Su et al., arXiv 2104.09864), both (S, 1, D) float32; heads of an even width D."""
    frequencies = base ** (torch.arange(0, size, 2, device=device, dtype=torch.float32) / -size)
    angles = torch.arange(length, device=device, dtype=torch.float32)[:, None] * frequencies
    angles = torch.cat((angles, angles), -1)[:, None]
    return angles.cos(), angles.sin()


def _rotate(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Turn each pair (i, i + D/2) of x (B, S, H, D) by its token's angle, as LLaMA's checkpoints of Hugging Face expect."""
    cosine, sine = rotation
    first, second = x.chunk(2, -1)
    return x * cosine + torch.cat((-second, first), -1) * sine


class GraphWindowAttention(nn.Module):
    """Multi-head self-attention under a graph window: four projections without bias around a `GraphWindow`.

    Shapes: x (B, S, width) to the same; the rotation, if any, two tensors (S, 1, width / heads).

    Args:
        window: may be shared by several layers.

    Raises:
        BadInput: when the heads don't divide the width into even parts.
    """

    def __init__(self, width: int, heads: int, window: GraphWindow) -> None:
        super().__init__()
        if width % heads or width // heads % 2:
            raise BadInput(f"{heads} heads don't divide a width of {width} into even parts", "rotary positions turn pairs")
        self.heads = heads
        self.window = window
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (nn.Linear(width, width, bias=False) for _ in range(4))

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor] | None = None, mask: Tensor | None = None) -> Tensor:
        q, k = self._queries_and_keys(x, rotation)
        v = self.v_proj(x).unflatten(-1, (self.heads, -1))
        # Not called as a module: a window that layers share would be counted in the first of them.
        return self.o_proj(self.window.attend(q, k, v, mask).flatten(2))

    def weights(self, x: Tensor, rotation: tuple[Tensor, Tensor] | None = None, mask: Tensor | None = None) -> Tensor:
        """The attention weights that `forward` applies, (B, H, S, S); rows that see nothing are zeros."""
        q, k = self._queries_and_keys(x, rotation)
        mask = self.window.mask(x.shape[1]) if mask is None else mask
        scores = torch.einsum("bihd,bjhd->bhij", q, k) * q.shape[-1] ** -0.5
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
        return scores.softmax(-1).nan_to_num(0.0)

    def _queries_and_keys(self, x: Tensor, rotation: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
        q, k = (projection(x).unflatten(-1, (self.heads, -1)) for projection in (self.q_proj, self.k_proj))
        return (q, k) if rotation is None else (_rotate(q, rotation), _rotate(k, rotation))


class GatedFeedForward(nn.Module):
    """SwiGLU (Shazeer, arXiv 2002.05202) as in LLaMA: (B, S, width) to the same, through ``hidden``."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = nn.Linear(width, hidden, bias=False), nn.Linear(width, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class GraphWindowBlock(nn.Module):
    """LLaMA's block: RMS norm and attention, RMS norm and SwiGLU, each added to its input; (B, S, width) to the same."""

    def __init__(self, width: int, heads: int, hidden: int, window: GraphWindow) -> None:
        super().__init__()
        self.self_attn = GraphWindowAttention(width, heads, window)
        self.mlp = GatedFeedForward(width, hidden)
        self.input_layernorm, self.post_attention_layernorm = nn.RMSNorm(width, eps=1e-5), nn.RMSNorm(width, eps=1e-5)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor], mask: Tensor | None = None) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), rotation, mask)
        return x + self.mlp(self.post_attention_layernorm(x))


class GraphWindowTrunk(nn.Module):
    """Embeddings, blocks and last norm: token ids (B, S) int64 to (B, S, width).

    Ids from ``vocabulary`` up are nodes; their rows are the nodes' feature vectors and not trained.
    """

    def __init__(
        self, layers: int, width: int, heads: int, hidden: int, vocabulary: int, nodes: int, window: GraphWindow
    ) -> None:
        super().__init__()
        self.vocabulary, self.size = vocabulary, width // heads
        self.embed_tokens = nn.Embedding(vocabulary, width)
        self.node_tokens = nn.Embedding(nodes, width).requires_grad_(False) if nodes else None
        self.layers = nn.ModuleList(GraphWindowBlock(width, heads, hidden, window) for _ in range(layers))
        self.norm = nn.RMSNorm(width, eps=1e-5)

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        x, rotation = self.start(ids)
        for layer in self.layers:
            x = layer(x, rotation, mask)
        return self.norm(x)

    def start(self, ids: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """What enters the first block: the embeddings, and the rotation of their positions."""
        if self.node_tokens is None:
            x = self.embed_tokens(ids)
        else:
            is_text, is_node = ids < self.vocabulary, ids >= self.vocabulary
            text = self.embed_tokens(ids.masked_fill(is_node, 0))
            nodes = self.node_tokens((ids - self.vocabulary).masked_fill(is_text, 0))
            x = torch.where(is_node[..., None], nodes, text)
        cosine, sine = rotary_angles(ids.shape[1], self.size, ids.device)
        return x, (cosine.to(x.dtype), sine.to(x.dtype))


class GraphWindowDecoder(nn.Module):
    """A LLaMA-shaped language model under a graph window: token ids (B, S) int64 to logits (B, S, vocabulary).

    Args:
        vocabulary: text tokens; ids from here up are nodes.
        nodes: added node tokens, see `set_node_features`.
        window: the window that all layers share. Inputs of other lengths than its graph's are cut from it or continued
            by text.
    """

    def __init__(
        self, layers: int, width: int, heads: int, hidden: int, vocabulary: int, nodes: int, window: GraphWindow
    ) -> None:
        super().__init__()
        self.window = window
        self.model = GraphWindowTrunk(layers, width, heads, hidden, vocabulary, nodes, window)
        self.lm_head = nn.Linear(width, vocabulary, bias=False)

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Logits. A mask, bool or additive, broadcastable to (B, H, S, S), replaces the window, for instance when exporting."""
        return self.lm_head(self.model(ids, mask))

    @torch.no_grad()
    def set_node_features(self, features: Tensor) -> None:
        """Write the nodes' feature vectors, (nodes, width), into the rows of their tokens."""
        if self.model.node_tokens is None or features.shape != self.model.node_tokens.weight.shape:
            rows = 0 if self.model.node_tokens is None else len(self.model.node_tokens.weight)
            raise BadInput(f"features of shape {tuple(features.shape)} for {rows} node tokens", "give (nodes, width)")
        self.model.node_tokens.weight.copy_(features)

    @torch.no_grad()
    def attention_maps(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attention weights averaged over the heads, (layers, B, S, S): what `profilers/attention_maps.py` looks at."""
        x, rotation = self.model.start(ids)
        maps = []
        for layer in self.model.layers:
            assert isinstance(layer, GraphWindowBlock)
            maps.append(layer.self_attn.weights(layer.input_layernorm(x), rotation, mask).mean(1))
            x = layer(x, rotation, mask)
        return torch.stack(maps)


def build(
    layers: int = 2,
    width: int = 256,
    heads: int = 4,
    hidden: int = 688,
    vocabulary: int = 2048,
    children: Sequence[int] = (8, 8, 8, 8, 8, 8, 8, 8),
    padding: int = 0,
    k: int = 1,
    direction: Direction = "uni",
    path: str = "dense",
    nodes: int | None = None,
) -> tuple[GraphWindowDecoder, TensorSpec]:
    """A decoder for the prompt of a tree, by default of 8 neighbours with 8 children each, in a template of 177 tokens.

    With it comes its input: one prompt, padding included.

    Args:
        children: how many children each neighbour has.
        nodes: node tokens; by default one for each mention.
    """
    if not isinstance(children, Sequence) or not all(isinstance(size, int) and size >= 0 for size in children):
        raise BadInput(f"children={children!r} is no list of sizes", "one number for each neighbour, such as children=[8,3,0]")
    tree = PromptTree.of_sizes(children)
    graph = tree.graph(padding)
    window = GraphWindow(graph, k, direction, path)
    nodes = len(tree.mentions) if nodes is None else nodes
    decoder = GraphWindowDecoder(layers, width, heads, hidden, vocabulary, nodes, window)
    return decoder, TensorSpec((1, graph.length), "int64", below="vocabulary")
