"""What each node of an ONNX graph is given and returns: shapes, types, and the values that follow from constants.

Types come from the operators' own definitions (`onnx.shape_inference`), node by node. Small integer tensors are computed
along the way, since they are where sizes come from: what a Shape, a Gather and a Concat give a Reshape, how often a Loop
turns. Weights are never looked into. ONNX Runtime's fused operators have no definition in ``onnx``; they are described by
the standard operators that they are made of.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, defs, helper, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

from ..models.onnx_names import domain_of

FLOATS = frozenset(
    getattr(TensorProto, name)
    for name in "FLOAT DOUBLE FLOAT16 BFLOAT16 FLOAT8E4M3FN FLOAT8E4M3FNUZ FLOAT8E5M2 FLOAT8E5M2FNUZ FLOAT4E2M1".split()
)
_SMALL = 4096
"""Elements up to which a constant may hold sizes."""
_RANDOM = frozenset("RandomNormal RandomNormalLike RandomUniform RandomUniformLike Bernoulli Multinomial".split())
_COMPUTED = frozenset(
    "Shape Size Gather GatherElements GatherND Concat Slice Split Squeeze Unsqueeze Reshape Transpose Expand Tile Flatten "
    "Identity Cast Add Sub Mul Div Mod Neg Abs Min Max Pow Sqrt Floor Ceil Round Range ConstantOfShape Equal Less Greater "
    "LessOrEqual GreaterOrEqual Not And Or Where ReduceProd ReduceSum ReduceMax ReduceMin NonZero CumSum ScatterND".split()
)
MICROSOFT = "com.microsoft"
# A fused operator's result has the type of this operator's on these of its inputs.
_LIKE: dict[str, tuple[str, tuple[int, ...]]] = {
    "FusedConv": ("Conv", (0, 1)),
    "FusedGemm": ("Gemm", (0, 1)),
    "QLinearConv": ("QLinearConv", tuple(range(9))),
    "DynamicQuantizeMatMul": ("MatMul", (0, 1)),
    "BiasGelu": ("Add", (0, 1)),
    "QLinearAdd": ("Add", (0, 3)),
    "QLinearMul": ("Mul", (0, 3)),
    "QLinearAveragePool": ("AveragePool", (0,)),
    "QLinearGlobalAveragePool": ("GlobalAveragePool", (0,)),
    **dict.fromkeys(
        "QuickGelu Gelu FastGelu QLinearSigmoid QLinearLeakyRelu QLinearSoftmax SkipLayerNormalization "
        "SkipSimplifiedLayerNormalization MultiHeadAttention QuantizeLinear DequantizeLinear".split(),
        ("Identity", (0,)),
    ),
}


class ShapeUnknownError(Exception):
    """A rule needs a shape that doesn't follow from the file."""


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor of the graph.

    Attributes:
        kind: its element type, one of ``onnx.TensorProto``'s.
        dims: its shape, or None where it doesn't follow from the file.
        content: its elements, where they are few and follow from constants and sizes.
        fixed: whether it follows from constants alone, so that a runtime computes it once, when it loads the file.
    """

    kind: int
    dims: tuple[int, ...] | None
    content: np.ndarray | None = None
    fixed: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape.

        Raises:
            ShapeUnknownError: when it isn't known.
        """
        if self.dims is None:
            raise ShapeUnknownError
        return self.dims

    @property
    def size(self) -> int:
        """Its elements."""
        return prod(self.shape)

    @property
    def floating(self) -> bool:
        """Whether arithmetic on it is floating point work."""
        return self.kind in FLOATS


@dataclass(frozen=True, slots=True)
class Call:
    """A node with what it is given and returns; an input that is left out, and one whose type is unknown, is None.

    ``version`` is that of its operator set.
    """

    operator: str
    domain: str
    version: int
    inputs: tuple[Value | None, ...]
    outputs: tuple[Value, ...]
    attributes: Mapping[str, Any]

    def input(self, index: int) -> Value:
        """An input that has to be there.

        Raises:
            ShapeUnknownError: when nothing is known of it.
        """
        found = self.optional(index)
        if found is None:
            raise ShapeUnknownError
        return found

    def optional(self, index: int) -> Value | None:
        """An input that may be left out."""
        return self.inputs[index] if index < len(self.inputs) else None

    @property
    def out(self) -> Value:
        """The first result."""
        return self.outputs[0]


def constant(tensor: TensorProto) -> Value:
    """A constant of the file; only a small one that lies in the file itself is read."""
    inside = tensor.data_location != TensorProto.EXTERNAL
    try:
        content = numpy_helper.to_array(tensor) if inside and prod(tensor.dims) <= _SMALL else None
    except (TypeError, ValueError):  # fewer bytes than it says, or of a type that nobody knows
        content = None
    return Value(tensor.data_type, tuple(tensor.dims), content, fixed=True)


def described(kind: onnx.TypeProto) -> Value:
    """A value by its type; an open dimension leaves the whole shape unknown."""
    tensor = kind.tensor_type
    if not kind.HasField("tensor_type") or not tensor.HasField("shape"):
        return Value(tensor.elem_type, None)
    sizes = tuple(item.dim_value if item.HasField("dim_value") else -1 for item in tensor.shape.dim)
    return Value(tensor.elem_type, None if -1 in sizes else sizes)


def call_of(node: onnx.NodeProto, known: Mapping[str, Value], versions: Mapping[str, int]) -> Call:
    """A node with all that can be said of it.

    Args:
        known: what the values are that it may read.
        versions: of the operator sets, by domain.
    """
    inputs = tuple(known.get(name) for name in node.input)
    attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    domain = domain_of(node.domain)
    outputs = _results(node, domain, inputs, attributes, versions)
    named = [value for name, value in zip(node.input, inputs, strict=True) if name]
    if named and node.op_type not in _RANDOM and all(value is not None and value.fixed for value in named):
        outputs = tuple(replace(value, fixed=True) for value in outputs)
    return Call(node.op_type, domain, versions.get(domain, 1), inputs, outputs, attributes)


def _results(
    node: onnx.NodeProto,
    domain: str,
    inputs: Sequence[Value | None],
    attributes: Mapping[str, Any],
    versions: Mapping[str, int],
) -> tuple[Value, ...]:
    if node.op_type == "Constant" and not domain:
        return (_constant_node(attributes),)
    if (computed := _computed(node, domain, inputs, attributes, versions)) is not None:
        return computed
    if domain == MICROSOFT:
        return _fused(node, inputs, attributes, versions)
    types = _inferred(node, domain, dict(zip(node.input, inputs, strict=True)), versions)
    return tuple(described(types[name]) if name in types else _nothing(inputs) for name in node.output)


def _nothing(inputs: Iterable[Value | None]) -> Value:
    """A result of unknown shape, taken to be of the type of the first input."""
    return Value(next((value.kind for value in inputs if value), TensorProto.FLOAT), None)


def _constant_node(attributes: Mapping[str, Any]) -> Value:
    for name, value in attributes.items():
        if name == "value":
            return constant(value)
        if name in ("value_float", "value_floats", "value_int", "value_ints"):
            content = np.array(value, np.float32 if "float" in name else np.int64)
            return Value(TensorProto.FLOAT if "float" in name else TensorProto.INT64, content.shape, content, fixed=True)
    return Value(TensorProto.STRING, None, fixed=True)


def _computed(
    node: onnx.NodeProto,
    domain: str,
    inputs: Sequence[Value | None],
    attributes: Mapping[str, Any],
    versions: Mapping[str, int],
) -> tuple[Value, ...] | None:
    """The results' values, where they are small and follow from what is known."""
    if domain or node.op_type not in _COMPUTED:
        return None
    if node.op_type in ("Shape", "Size"):
        return _measured(node.op_type, inputs[0], attributes)
    feeds = {name: value.content for name, value in zip(node.input, inputs, strict=True) if name and value is not None}
    given = {name: content for name, content in feeds.items() if content is not None}
    if len(given) < len({name for name in node.input if name}):
        return None
    try:
        found = _evaluated(node, given, versions.get("", defs.onnx_opset_version()))
    except Exception:  # noqa: BLE001 - whatever it dislikes, the type is still to be had
        return None
    if any(item.size > _SMALL for item in found):
        return None
    return tuple(Value(helper.np_dtype_to_tensor_dtype(item.dtype), item.shape, item) for item in found)


def _measured(operator: str, value: Value | None, attributes: Mapping[str, Any]) -> tuple[Value, ...] | None:
    if value is None or value.dims is None:
        return None
    sizes = np.array(value.dims[attributes.get("start", 0) : attributes.get("end")], np.int64)
    content = sizes if operator == "Shape" else np.array(value.size, np.int64)
    return (Value(TensorProto.INT64, content.shape, content),)


def _evaluated(node: onnx.NodeProto, feeds: dict[str, np.ndarray], version: int) -> list[np.ndarray]:
    given = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for name, v in feeds.items()
    ]
    wanted = [onnx.ValueInfoProto(name=name) for name in node.output]
    graph = helper.make_graph([node], "one", given, wanted)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", version)])
    return [np.asarray(item) for item in ReferenceEvaluator(model).run(None, feeds)]


def _inferred(
    node: onnx.NodeProto, domain: str, inputs: Mapping[str, Value | None], versions: Mapping[str, int]
) -> Mapping[str, onnx.TypeProto]:
    """The results' types by the operator's own definition; none where it has none or refuses."""
    try:
        schema = defs.get_schema(node.op_type, versions.get(domain, 1), domain)
        types = {name: _type_of(value) for name, value in inputs.items() if name and value is not None}
        content = {
            name: numpy_helper.from_array(value.content, name)
            for name, value in inputs.items()
            if value is not None and value.content is not None
        }
        opsets = [helper.make_opsetid(name, version) for name, version in versions.items()]
        return shape_inference.infer_node_outputs(schema, node, types, content, opset_imports=opsets)
    except Exception:  # noqa: BLE001 - no schema, or inputs that it refuses: nothing is known, and the node says so
        return {}


def _type_of(value: Value) -> onnx.TypeProto:
    return helper.make_tensor_type_proto(value.kind, value.dims)


def _fused(
    node: onnx.NodeProto, inputs: Sequence[Value | None], attributes: Mapping[str, Any], versions: Mapping[str, int]
) -> tuple[Value, ...]:
    """Results of ONNX Runtime's own operators; but for the first they are statistics or copies of it."""
    try:
        first = _SHAPES[node.op_type](inputs, attributes) if node.op_type in _SHAPES else _alike(node, inputs, versions)
    except (LookupError, ValueError):  # an input or attribute is missing, or two shapes don't fit
        first = _nothing(inputs)
    return tuple(first if index == 0 else _nothing(inputs) for index in range(len(node.output)))


def _alike(node: onnx.NodeProto, inputs: Sequence[Value | None], versions: Mapping[str, int]) -> Value:
    if node.op_type not in _LIKE:
        return _nothing(inputs)
    operator, kept = _LIKE[node.op_type]
    given = {f"i{index}": inputs[index] for index in kept if index < len(inputs)}
    last = any(item.name == "channels_last" and item.i for item in node.attribute)
    x = inputs[0]
    if last and x is not None and x.dims:
        given["i0"] = replace(x, dims=(x.dims[0], x.dims[-1], *x.dims[1:-1]))
    other = helper.make_node(operator, list(given), ["out"])
    accepted = set(defs.get_schema(operator, versions.get("", 1), "").attributes)
    other.attribute.extend(item for item in node.attribute if item.name in accepted)
    types = _inferred(other, "", given, versions)
    made = described(types["out"]) if "out" in types else _nothing(inputs)
    return replace(made, dims=(made.dims[0], *made.dims[2:], made.dims[1])) if last and made.dims else made


def _matmul_shape(inputs: Sequence[Value | None], attributes: Mapping[str, Any]) -> Value:
    """FusedMatMul: either factor may have its last two dimensions exchanged."""
    a, b = inputs[0], inputs[1]
    if a is None or b is None or a.dims is None or b.dims is None or min(len(a.dims), len(b.dims)) < 2:
        return _nothing(inputs)
    if attributes.get("transBatchA") or attributes.get("transBatchB"):
        return _nothing(inputs)
    rows = a.dims[-1 if attributes.get("transA") else -2]
    columns = b.dims[-2 if attributes.get("transB") else -1]
    return Value(a.kind, (*np.broadcast_shapes(a.dims[:-2], b.dims[:-2]), rows, columns))


def _qgemm_shape(inputs: Sequence[Value | None], attributes: Mapping[str, Any]) -> Value:
    """QGemm: integers, which ONNX's Gemm is not for; floating point numbers if the result has no scale."""
    a, b = inputs[0], inputs[3]
    if a is None or b is None or a.dims is None or b.dims is None:
        return _nothing(inputs)
    rows, columns = a.dims[1 if attributes.get("transA") else 0], b.dims[0 if attributes.get("transB") else 1]
    scaled = len(inputs) > 7 and inputs[7] is not None
    return Value(a.kind if scaled else TensorProto.FLOAT, (rows, columns))


def _attention_shape(inputs: Sequence[Value | None], attributes: Mapping[str, Any]) -> Value:
    """Attention: x (B, S, I) to (B, S, hidden size of the values)."""
    x, weight = inputs[0], inputs[1]
    if x is None or weight is None or x.dims is None or weight.dims is None:
        return _nothing(inputs)
    sizes = attributes.get("qkv_hidden_sizes") or [weight.dims[-1] // 3] * 3
    return Value(x.kind, (*x.dims[:-1], int(sizes[2])))


def _nbits_shape(inputs: Sequence[Value | None], attributes: Mapping[str, Any]) -> Value:
    """MatMulNBits: (..., K) to (..., N)."""
    x = inputs[0]
    return _nothing(inputs) if x is None or x.dims is None else Value(x.kind, (*x.dims[:-1], int(attributes["N"])))


_SHAPES: dict[str, Callable[[Sequence[Value | None], Mapping[str, Any]], Value]] = {
    "FusedMatMul": _matmul_shape,
    "QGemm": _qgemm_shape,
    "Attention": _attention_shape,
    "MatMulNBits": _nbits_shape,
}
