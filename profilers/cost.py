"""Costs as exact integers, and the tree of modules that they belong to. No torch here.

Units, once for the whole project:

* a MAC is one multiply-accumulate of a contraction (matrix product, convolution, attention product, the elimination,
  substitution and reflections of a matrix factorisation) on real numbers; a complex product takes four;
* FLOPs are 2 x MACs: contractions only;
* FFT FLOPs are those of Fourier transforms by the idealised 5 N log2 N of a complex transform of N points;
* elementwise FLOPs are everything else that computes on floating point numbers: biases, norms, activations, pooling,
  interpolation, softmax, reductions;
* activations are the elements that the contractions of the forward pass write (Radosavovic et al., "Designing Network
  Design Spaces", CVPR 2020, section 3);
* bytes read and written are those of operators that share nothing with their neighbours: each operand and result once a call,
  an upper bound of what fusion leaves; compulsory bytes are those of everything fused into one: each weight, input and output
  once, a lower bound. What a cache serves is in both.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Cost:
    """What some work costs. Costs add up."""

    macs: int = 0
    fft_flops: int = 0
    elementwise_flops: int = 0
    activations: int = 0
    read_bytes: int = 0
    written_bytes: int = 0

    @property
    def arithmetic(self) -> "Cost":
        """The same without bytes, which two ways of computing one thing rarely share."""
        return Cost(self.macs, self.fft_flops, self.elementwise_flops, self.activations)

    @property
    def moved_bytes(self) -> int:
        """Bytes read and written."""
        return self.read_bytes + self.written_bytes

    @property
    def all_flops(self) -> int:
        """FLOPs of all three buckets."""
        return 2 * self.macs + self.fft_flops + self.elementwise_flops

    @property
    def flops(self) -> int:
        """FLOPs of the contractions: twice the MACs."""
        return 2 * self.macs

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.macs + other.macs,
            self.fft_flops + other.fft_flops,
            self.elementwise_flops + other.elementwise_flops,
            self.activations + other.activations,
            self.read_bytes + other.read_bytes,
            self.written_bytes + other.written_bytes,
        )


FREE = Cost()
"""Views, copies and look-ups: no arithmetic, by rule and not by oversight."""


@dataclass(frozen=True, slots=True)
class Held:
    """Parameters and buffers of one dtype, each storage once."""

    dtype: str
    param_bytes: int
    buffer_bytes: int


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a run holds in memory, in bytes, by the life of each tensor's storage in the order of execution.

    Scratch that a kernel takes for itself is not in it, nor what an allocator rounds up.

    Attributes:
        held: weights, by dtype.
        output_bytes: of results, a part of the activations.
        activation_bytes: everything that the run makes, together.
        peak_activation_bytes: the most of it that is alive at once; in training gradients of parameters count too.
        peak_module, peak_operator: where that was.
        saved_bytes: what is alive between the forward and the backward pass; 0 without one.
        gradient_bytes: of parameters; 0 without a backward pass.
        trained: bytes of each parameter that has a gradient.
    """

    held: tuple[Held, ...] = ()
    input_bytes: int = 0
    output_bytes: int = 0
    activation_bytes: int = 0
    peak_activation_bytes: int = 0
    peak_module: str = ""
    peak_operator: str = ""
    saved_bytes: int = 0
    gradient_bytes: int = 0
    trained: tuple[int, ...] = ()

    @property
    def param_bytes(self) -> int:
        """Of parameters of every dtype."""
        return sum(item.param_bytes for item in self.held)

    @property
    def buffer_bytes(self) -> int:
        """Of buffers of every dtype."""
        return sum(item.buffer_bytes for item in self.held)


@dataclass(frozen=True, slots=True)
class OperatorCost:
    """All calls of one operator within a module, or within the whole model.

    ``family`` names the file of its rule; it is empty for an operator without one, whose cost is unknown, not zero.
    """

    operator: str
    family: str
    calls: int
    cost: Cost


@dataclass(frozen=True, slots=True)
class CostTree:
    """A module by its full name (the root's is empty): its own operators, its own parameters, and its children.

    ``params`` counts each tensor once, where it comes first; ``shared_params`` are those that came before elsewhere.
    ``compulsory_read_bytes`` and ``compulsory_written_bytes`` are of the module with everything below it: what comes into it
    from outside (weights too) and what outside needs of it, each once. They don't add up over modules.
    """

    name: str
    kind: str
    calls: int = 0
    params: int = 0
    shared_params: int = 0
    compulsory_read_bytes: int = 0
    compulsory_written_bytes: int = 0
    operators: tuple[OperatorCost, ...] = ()
    children: tuple["CostTree", ...] = field(default=())

    @property
    def own(self) -> Cost:
        """What the module's own operators cost, without its children's."""
        return sum((operator.cost for operator in self.operators), FREE)

    @property
    def total(self) -> Cost:
        """What the module costs with everything below it."""
        return sum((node.own for node in self.walk()), FREE)

    @property
    def total_params(self) -> int:
        """Parameters of the module and everything below it, each tensor once."""
        return sum(node.params for node in self.walk())

    def walk(self) -> Iterator["CostTree"]:
        """The module and all below it, parents first."""
        yield self
        for child in self.children:
            yield from child.walk()

    def by_operator(self) -> tuple[OperatorCost, ...]:
        """The operators of the whole tree, merged by name, the dearest first."""
        merged: dict[str, OperatorCost] = {}
        for node in self.walk():
            for item in node.operators:
                seen = merged.get(item.operator)
                calls, cost = (item.calls + seen.calls, item.cost + seen.cost) if seen else (item.calls, item.cost)
                merged[item.operator] = OperatorCost(item.operator, item.family, calls, cost)

        def dearest(item: OperatorCost) -> tuple[int, ...]:
            cost = item.cost
            return (-cost.macs, -cost.fft_flops, -cost.elementwise_flops, -cost.moved_bytes, -item.calls)

        return tuple(sorted(merged.values(), key=lambda item: (*dearest(item), item.operator)))


@dataclass(frozen=True, slots=True)
class Count:
    """What one run of a model costs: the tree of its modules, and the same work split by pass.

    Attributes:
        device: where it was counted: ``onnx`` for a file's graph; anything else but ``meta`` has its reason among the notes.
        forward, backward: the cost of each pass; the backward pass is empty in eval mode.
    """

    tree: CostTree
    device: str
    forward: Cost
    backward: Cost
    params_bn_folded: int
    notes: tuple[str, ...] = ()
    footprint: Footprint = Footprint()

    @property
    def totals(self) -> Cost:
        """The cost of everything that ran."""
        return self.forward + self.backward

    @property
    def params(self) -> int:
        """Parameters, each tensor once."""
        return self.tree.total_params

    @property
    def operators(self) -> tuple[OperatorCost, ...]:
        """Every operator that ran, the dearest first."""
        return self.tree.by_operator()

    @property
    def uncounted(self) -> tuple[OperatorCost, ...]:
        """Operators without a rule: their cost is unknown and in no total."""
        return tuple(operator for operator in self.operators if not operator.family)

    @property
    def coverage(self) -> float:
        """Share of the operator calls that have a rule, 0 to 1."""
        calls = sum(operator.calls for operator in self.operators)
        missed = sum(operator.calls for operator in self.uncounted)
        return 1 - missed / calls if calls else 1.0
