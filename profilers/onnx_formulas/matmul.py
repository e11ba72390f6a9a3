"""Matrix products. A bias or an added matrix is elementwise; the scales of a Gemm are left out, as for PyTorch."""

from math import prod

from ..cost import FREE, Cost
from ..onnx_graph import Call, ShapeUnknownError
from .quantisation import requantised
from .table import contraction, per_result, rule


@rule("MatMul MatMulInteger")
def matmul(call: Call) -> Cost:
    """(..., M, K) times (..., K, N)."""
    return contraction(call.out, call.input(0).shape[-1])


@rule("QLinearMatMul")
def quantised(call: Call) -> Cost:
    """Integers inside."""
    return matmul(call) + requantised(call.out)


@rule("", fused="DynamicQuantizeMatMul")
def dynamically_quantised(call: Call) -> Cost:
    """The left factor is quantised first (4 an element), the result rescaled and perhaps given a bias."""
    biased = call.optional(4) is not None
    return matmul(call) + Cost(elementwise_flops=4 * call.input(0).size + (1 + biased) * call.out.size)


@rule("", fused="FusedMatMul")
def fused(call: Call) -> Cost:
    """Either factor may come transposed; a scale other than 1 is one step an element."""
    inner = call.input(0).shape[-2 if call.attributes.get("transA") else -1]
    return contraction(call.out, inner) + per_result(call.attributes.get("alpha", 1.0) != 1.0, call)


@rule("Gemm", fused="FusedGemm")
def gemm(call: Call) -> Cost:
    """A product with an added matrix, and in its fused form an activation."""
    inner = call.input(0).shape[0 if call.attributes.get("transA") else 1]
    added = call.optional(2) is not None and call.attributes.get("beta", 1.0) != 0.0
    return contraction(call.out, inner, added) + per_result("activation" in call.attributes, call)


@rule("", fused="QGemm")
def quantised_gemm(call: Call) -> Cost:
    """Integers inside, the added vector too; the result is rescaled, or without a scale of its own a product brings it back."""
    inner = call.input(0).shape[0 if call.attributes.get("transA") else 1]
    rescaled = requantised(call.out) if call.optional(7) is not None else Cost(elementwise_flops=call.out.size)
    return contraction(call.out, inner) + rescaled


@rule("", fused="MatMulNBits")
def few_bits(call: Call) -> Cost:
    """A product with a weight (N, K) of few bits, which is dequantised on the way: one step an element."""
    inner, columns = int(call.attributes["K"]), int(call.attributes["N"])
    return contraction(call.out, inner, added=call.optional(5) is not None) + Cost(elementwise_flops=inner * columns)


@rule("Einsum")
def einsum(call: Call) -> Cost:
    """Two operands at a time from the left, as runtimes take them; what only one of the two has is summed first."""
    terms, result = _letters(call)
    sizes: dict[str, int] = {}
    for index, letters in enumerate(terms):
        for letter, size in zip(letters, call.input(index).shape, strict=True):
            sizes[letter] = max(size, sizes.get(letter, 1))

    def summed(letters: str, kept: set[str]) -> tuple[str, Cost]:
        left = "".join(letter for letter in letters if letter in kept)
        return left, FREE if left == letters else Cost(elementwise_flops=prod(sizes[letter] for letter in letters))

    cost = FREE
    running = "".join(dict.fromkeys(terms[0]))
    for index, other in enumerate(terms[1:], 1):
        later = set(result).union(*terms[index + 1 :])
        running, first = summed(running, later | set(other))
        right, second = summed("".join(dict.fromkeys(other)), later | set(running))
        union = "".join(dict.fromkeys(running + right))
        work = prod(sizes[letter] for letter in union)
        running = "".join(letter for letter in union if letter in later)
        made = prod(sizes[letter] for letter in running)
        pair = Cost(elementwise_flops=work) if running == union else Cost(work, activations=made)
        cost += first + second + pair
    if len(terms) == 1:
        cost += summed(running, set(result))[1]
    return cost if call.out.floating else Cost(cost.macs, activations=cost.activations)


def _letters(call: Call) -> tuple[list[str], str]:
    """The equation's letters; the dimensions behind an ellipsis get upper signs of their own, aligned to the right."""
    left, arrow, right = call.attributes["equation"].decode().replace(" ", "").partition("->")
    terms = []
    for index, term in enumerate(left.split(",")):
        hidden = len(call.input(index).shape) - len(term.replace("...", ""))
        terms.append(term.replace("...", "".join(chr(0x2460 + k) for k in reversed(range(hidden)))))
    everything = "".join(terms)
    if not arrow:
        once = [letter for letter in dict.fromkeys(everything) if everything.count(letter) == 1 or ord(letter) >= 0x2460]
        return terms, "".join(sorted(once))
    behind = "".join(sorted({letter for letter in everything if ord(letter) >= 0x2460}))
    if any(letter not in everything for letter in right.replace("...", "")):
        raise ShapeUnknownError
    return terms, right.replace("...", behind)
