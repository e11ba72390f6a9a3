"""What the tables of supported operators say beside an operator's name, as checks of a node.

A table's remark is a text for people, such as ``Only 2D Pool is supported.<br/>Input B should be constant.``: it is taken
apart into sentences, and each that is known here is checked. One that isn't keeps no node out, but is passed on to the user.
"""

import re
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from onnx import TensorProto

from .graph import Node, Tensor

Check = Callable[[Node], str]
"""Why a node does not meet a sentence; empty if it does."""

_SCALES = {
    "QuantizeLinear": (1, 2),
    "DequantizeLinear": (1, 2),
    "QLinearConv": (1, 2, 4, 5, 6, 7),
    "QLinearMatMul": (1, 2, 4, 5, 6, 7),
    "QLinearAdd": (1, 2, 4, 5, 6, 7),
    "QLinearConvTranspose": (1, 2, 4, 5, 6, 7),
}
"""Places of scales and zero points; in other quantised operators every input but the first."""
_WEIGHTS = {"QLinearConv": (3, 8), "QLinearConvTranspose": (3, 8)}
_PLACES = {"starts": 1, "ends": 2, "axes": 3, "steps": 4, "pads": 1, "constant_value": 2, "scales": 2, "sizes": 3}


def unmet(node: Node, remark: str) -> tuple[str, list[str]]:
    """The first reason for which a node does not meet a remark, and the sentences that nothing here checks."""
    unknown = []
    for sentence in sentences(remark):
        check = _find(sentence)
        if check is None:
            unknown.append(sentence)
        elif reason := _said(check, node):
            return reason, unknown
    return "", unknown


def _said(check: Check, node: Node) -> str:
    try:
        return check(node)
    except (LookupError, TypeError, ValueError):  # a file from anywhere: an axis that there isn't, a word for a number
        return "it is not understood"


def sentences(remark: str) -> list[str]:
    """A remark's sentences, without what is left of HTML and Markdown."""
    plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", remark).replace("`", "")
    parts = re.split(r"<br\s*/?>|(?<=[a-z\])])\.\s+(?=[A-Z\d])|;\s+", plain)
    return [part.strip().rstrip(".") for part in parts if part.strip()]


def _find(sentence: str) -> Check | None:
    for pattern, check in _CHECKS:
        if re.fullmatch(pattern, sentence, re.IGNORECASE):
            return check
    return None


def _constant(places: Iterable[int] | str, what: str) -> Check:
    def check(node: Node) -> str:
        for place in places if not isinstance(places, str) else [_PLACES[word] for word in places.split()]:
            given = node.input(place)
            if given is not None and not given.constant:
                return f"its {what} is computed, not a constant"
        return ""

    return check


def _fine(node: Node) -> str:
    """Of a sentence that asks for nothing."""
    return ""


def _weights(node: Node) -> str:
    return _constant(_WEIGHTS.get(node.operator, (1, 2)), "weight or bias")(node)


def _scales(node: Node) -> str:
    return _constant(_SCALES.get(node.operator, range(1, len(node.inputs))), "scale or zero point")(node)


def _rank(*ranks: int) -> Check:
    def check(node: Node) -> str:
        given = node.input(0)
        rank = given.rank if given is not None else -1
        allowed = " or ".join(map(str, ranks))
        return (
            "" if rank in ranks else f"its input has {'an unknown rank' if rank < 0 else f'{rank} dimensions'}, not {allowed}"
        )

    return check


def _attribute(name: str, allowed: Sequence[str], default: str) -> Check:
    """An attribute that is a word or a number has to be one of these."""

    def check(node: Node) -> str:
        value = node.text(name, default)
        return "" if value in allowed else f"its {name} is {value}, not {' or '.join(allowed)}"

    return check


def _absent(*names: str) -> Check:
    """Attributes have to keep their defaults: zeros or ones."""

    def check(node: Node) -> str:
        for name in names:
            if any(np.ravel(node.attributes.get(name, 0))):
                return f"it has {name}"
        return ""

    return check


def _kinds(places: Sequence[int], kinds: Sequence[int], what: str) -> Check:
    def check(node: Node) -> str:
        for place in places:
            given = node.input(place)
            if given is not None and given.kind not in kinds:
                name = TensorProto.DataType.Name(given.kind) if given.kind else "of unknown type"
                return f"input {place} is {name}, not {what}"
        return ""

    return check


def _value(node: Node, place: int, name: str) -> list[int] | None:
    """Numbers that older operator sets have as an attribute and newer ones as an input; None where they can't be told."""
    if name in node.attributes:
        return [int(item) for item in np.ravel(node.attributes[name])]
    given = node.input(place)
    return None if given is None or given.value is None else [int(item) for item in np.ravel(given.value)]


def _even_split(node: Node) -> str:
    given = node.input(0)
    if given is None or not given.shape:
        return "the size that it splits is unknown"
    size = given.shape[int(node.attributes.get("axis", 0))]
    parts = _value(node, 1, "split")
    if parts is not None and len(set(parts)) > 1:
        return f"it splits {size} into unequal parts: {', '.join(map(str, parts))}"
    count = len(node.outputs)
    return "" if size > 0 and size % count == 0 else f"its {count} parts do not divide {size} evenly"


def _gemm_transposed(node: Node) -> str:
    given = node.input(1)
    fine = given is None or given.constant or node.attributes.get("transB", 0) == 1
    return "" if fine else "its B is computed and not transposed"


def _scales_or_sizes(node: Node) -> str:
    given = [item for item in (node.input(2), node.input(3)) if item is not None and item.shape != (0,)]
    return "" if any(item.constant for item in given) else "its target size is computed, not a constant"


def _gather_indices(node: Node) -> str:
    given = node.input(1)
    fine = given is None or given.constant or given.kind == TensorProto.INT32
    return "" if fine else "its indices are computed, and not int32"


def _scalar_indices(node: Node) -> str:
    given = node.input(1)
    return "its indices are one scalar" if given is not None and given.rank == 0 else ""


def _positive_indices(node: Node) -> str:
    given = node.input(1)
    return "it has negative indices" if given is not None and given.value is not None and np.any(given.value < 0) else ""


def _pads(node: Node) -> list[int]:
    return _value(node, 1, "pads") or []


def _no_negative_pads(node: Node) -> str:
    return "it pads by negative sizes" if any(size < 0 for size in _pads(node)) else ""


def _last_two_padded(node: Node) -> str:
    wrong = _attribute("mode", ["constant"], "constant")(node)
    pads = _pads(node)
    side = len(pads) // 2
    outer = [*pads[: max(0, side - 2)], *pads[side : max(side, 2 * side - 2)]]
    axes = node.input(3)
    return wrong or ("it pads more than the last two dimensions" if any(outer) and axes is None else "")


def _small_slope(node: Node) -> str:
    given = node.input(1)
    if given is None or given.shape is None:
        return "the shape of its slope is unknown"
    return "" if np.prod(given.shape) == 1 or given.shape[1:] == (1, 1) else f"its slope has the shape {list(given.shape)}"


def _fixed_if_crd(node: Node) -> str:
    given = node.input(0)
    return "it is of mode CRD and its input has open dimensions" if _crd(node) and not (given and given.static) else ""


def _crd(node: Node) -> bool:
    return node.text("mode", "DCR") == "CRD"


def _not_empty(node: Node) -> str:
    return "it makes an empty slice" if any(0 in (item.shape or ()) for item in node.outputs) else ""


def _last_axis(node: Node) -> str:
    rank = node.input(0).rank if node.input(0) else -1  # type: ignore[union-attr]
    axis = int(node.attributes.get("axis", -1 if node.version >= 13 else 1))
    return "" if node.version < 13 or axis in (-1, rank - 1) else f"it is over axis {axis}, not the last"


def _matrix_b(node: Node) -> str:
    a, b = node.input(0), node.input(1)
    ranks = (a.rank if a else -1, b.rank if b else -1)
    fine = 0 < ranks[1] <= 2 and ranks[0] in (ranks[1], ranks[1] + 1)
    return "" if fine else f"its factors have {ranks[0]} and {ranks[1]} dimensions"


def _bilinear(node: Node) -> str:
    return _attribute("mode", ["linear"], "nearest")(node) or _rank(4)(node)


def _no_unit_kernel(node: Node) -> str:
    sides = list(node.attributes.get("kernel_shape", [0]))
    return "its kernel is 1 x 1" if all(side == 1 for side in sides) else ""


def _unscaled(node: Node) -> str:
    return next((f"its {name} is not 1" for name in ("alpha", "beta") if node.attributes.get(name, 1.0) != 1.0), "")


def _float32(node: Node) -> str:
    return _kinds((0,), (TensorProto.FLOAT,), "float32")(node)


def _conv_rank(*ranks: int) -> Check:
    """Of a convolution the weight tells its dimensions."""

    def check(node: Node) -> str:
        weight: Tensor | None = node.input(_WEIGHTS.get(node.operator, (1,))[0])
        sides = weight.rank - 2 if weight is not None and weight.rank > 0 else 0
        return "" if sides in ranks else f"it is over {sides or 'unknown'} dimensions, not {' or '.join(map(str, ranks))}"

    return check


def _floor(node: Node) -> str:
    if node.text("mode", "nearest") != "nearest":
        return ""
    return _attribute("nearest_mode", ["floor"], "round_prefer_floor")(node)


_CONST = r"(?:should|must) be constant(?: initializers)?"
_CHECKS: tuple[tuple[str, Check], ...] = (
    (r"Only 2D Pool is supported(?: currently)?", _rank(4)),
    (r"3D and 5D support can be added if needed|There are too many permutations to describe the valid combinations", _fine),
    (r"Only 2D Resize is supported|4D input", _rank(4)),
    (r"Only 2D (?:Conv|ConvTranspose) is supported", _conv_rank(2)),
    (r"Only 1D/2D Conv is supported", _conv_rank(1, 2)),
    (rf"Weights? and bias {_CONST}", _weights),
    (rf"Weight {_CONST}", _constant((1,), "weight")),
    (rf"Bias if provided {_CONST}", _constant((2,), "bias")),
    (rf"(?:Input )?B {_CONST}", _constant((1,), "B")),
    (r"If input B is not constant, transB should be 1", _gemm_transposed),
    (rf"All quantization scales and zero points {_CONST}", _scales),
    (r"Only DCR mode DepthToSpace is supported", _attribute("mode", ["DCR"], "DCR")),
    (r"If 'mode' is 'CRD' the input must have a fixed shape", _fixed_if_crd),
    (r"Input indices with scalar value is not supported", _scalar_indices),
    (r"Input indices should be constant if not int32 type", _gather_indices),
    (r"Only supports positive indices", _positive_indices),
    (r"Only constant mode and last two dim padding is supported", _last_two_padded),
    (r"Only constant mode Pad is supported", _attribute("mode", ["constant"], "constant")),
    (rf"Input pads and constant_value {_CONST}", _constant("pads constant_value", "padding")),
    (r"Input pads values should be non-negative", _no_negative_pads),
    (rf"If provided, axes {_CONST}", _constant((3,), "axes input")),
    (r"Only supports cases when both inputs are fp32", _kinds((0, 1), (TensorProto.FLOAT,), "float32")),
    (r"Both inputs must be bool", _kinds((0, 1), (TensorProto.BOOL,), "bool")),
    (r"X/Y branches must be float or float16", _kinds((1, 2), (TensorProto.FLOAT, TensorProto.FLOAT16), "float")),
    (rf"Input slope {_CONST}", _constant((1,), "slope")),
    (r"Input slope should either have shape \[C, 1, 1\] or have 1 element", _small_slope),
    (
        r"coordinate_transformation_mode == asymmetric",
        _attribute("coordinate_transformation_mode", ["asymmetric"], "half_pixel"),
    ),
    (r"mode == linear or nearest", _attribute("mode", ["linear", "nearest"], "nearest")),
    (r"nearest_mode == floor", _floor),
    (r"exclude_outside == false", _attribute("exclude_outside", ["0"], "0")),
    (rf"scales or sizes {_CONST}", _scales_or_sizes),
    (r"Attribute start with non-default value is not supported", _absent("start")),
    (r"Attribute end is not supported", _absent("end")),
    (rf"(?:Inputs )?starts(?:, |/)ends(?:, |/)axes(?:, and |/)steps {_CONST}", _constant("starts ends axes steps", "range")),
    (r"Empty slice is not supported", _not_empty),
    (rf"If provided, splits {_CONST}|Input split should be constant if provided", _constant((1,), "sizes")),
    (r"Number of splits must evenly divide split axis size", _even_split),
    (rf"Input axes {_CONST}", _constant((1,), "axes")),
    (r"padding_type of SAME_UPPER/SAME_LOWER is not supported", _attribute("auto_pad", ["NOTSET", "VALID"], "NOTSET")),
    (r"output_shape is not supported", _absent("output_shape")),
    (r"output_padding must have default values", _absent("output_padding")),
    (r"batch_dims must be 0", _attribute("batch_dims", ["0"], "0")),
    (r"p == 2", _attribute("p", ["2"], "2")),
    (r"axis is the last dimension from opset 13 on", _last_axis),
    (r"bilinear, 4D", _bilinear),
    (r"B has one or two dimensions, A as many or one more", _matrix_b),
    (r"ceil_mode is 0", _attribute("ceil_mode", ["0"], "0")),
    (r"count_include_pad is 0", _attribute("count_include_pad", ["0"], "0")),
    (r"kernel is larger than 1 x 1", _no_unit_kernel),
    (r"float32", _float32),
    (r"float32 or uint8", _kinds((0,), (TensorProto.FLOAT, TensorProto.UINT8), "float32 or uint8")),
    (r"2D", _rank(2)),
    (r"alpha and beta are 1", _unscaled),
    (rf"B and C {_CONST}", _constant((1, 2), "B or C")),
)
