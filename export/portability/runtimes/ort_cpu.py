"""ONNX Runtime on the CPU: what the installed wheel has kernels for, asked of the wheel itself.

An operator without a kernel runs all the same when ONNX defines it by other operators (HardSwish, say).
"""

from onnx import TensorProto, defs
from onnxruntime.capi import onnxruntime_pybind11_state as runtime_state

from ....models.versions import versions
from ..base import Runtime
from ..graph import Node
from ..table import Table

_OPEN = 2**31 - 1
_FLOAT = "tensor(float)"
_TYPES = {
    getattr(TensorProto, name.upper()): f"tensor({name})"
    for name in "float float16 double bfloat16 int8 int16 int32 int64 uint8 uint16 uint32 uint64 bool string int4 uint4".split()
}


def _kernels() -> dict[str, list[tuple[tuple[int, int], dict[str, list[str]]]]]:
    """Versions and allowed types of each kernel, by the operator's full name."""
    found: dict[str, list[tuple[tuple[int, int], dict[str, list[str]]]]] = {}
    for kernel in runtime_state.get_all_opkernel_def():
        if kernel.provider == "CPUExecutionProvider":
            name = f"{kernel.domain}::{kernel.op_name}" if kernel.domain else kernel.op_name
            found.setdefault(name, []).append((kernel.version_range, kernel.type_constraints))
    return found


_KERNELS = _kernels()


def support(node: Node) -> tuple[str, list[str]]:
    """Whether there is a kernel of this version for these types, or a definition by other operators."""
    try:
        schema = defs.get_schema(node.operator, node.version, node.domain)
    except defs.SchemaError:
        schema = None
    # A kernel is for the version in which its operator last changed; only ONNX knows that of its own.
    version = schema.since_version if schema is not None else 1
    kernels = _KERNELS.get(node.full_name, [])
    fitting = [types for span, types in kernels if schema is None or _is_for(version, *span)]
    if any(_fits(node, schema, types) for types in fitting):
        return "", []
    if any(getattr(schema, name, False) for name in ("has_function", "has_context_dependent_function")):
        return "", []
    if fitting:
        return "no kernel for its types", []
    return (f"no kernel for it in operator set {node.version}" if kernels else "no kernel for it"), []


def _is_for(version: int, first: int, last: int) -> bool:
    """ONNX Runtime takes a kernel without a last version for no later form of its operator."""
    return version == first or (first < version <= last and last != _OPEN)


def _fits(node: Node, schema: "defs.OpSchema | None", types: dict[str, list[str]]) -> bool:
    if schema is None:
        return True
    for place, given in enumerate(node.inputs):
        formal = schema.inputs[min(place, len(schema.inputs) - 1)] if schema.inputs else None
        if given is None or formal is None or given.kind not in _TYPES:
            continue
        allowed = types.get(formal.type_str) or types.get(formal.name)
        # Half precision that a kernel doesn't take is cast to float32 around it.
        if allowed and _TYPES[given.kind] not in allowed and not (given.kind == TensorProto.FLOAT16 and _FLOAT in allowed):
            return False
    return True


RUNTIME = Runtime(
    title="ONNX Runtime, CPU",
    table=lambda: Table({}, f"kernels in the installed ONNX Runtime {versions('onnxruntime').get('onnxruntime', '?')}"),
    support=support,
)
