"""Small ONNX graphs for the tests of reduced precision, written node by node: exporting a net takes longer than all of them."""

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper

Array = np.ndarray


def model(
    nodes: list[onnx.NodeProto],
    constants: dict[str, Array],
    shape: tuple[int, ...],
    out: tuple[int | str, ...],
    **metadata: str,
) -> ModelProto:
    """A graph from ``input`` to ``logits``."""
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, out)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10, producer_name="mixbench")
    helper.set_model_props(made, metadata)
    onnx.checker.check_model(made, full_check=True)
    return made


def _normal(generator: np.random.Generator, *shape: int) -> Array:
    fan_in = int(np.prod(shape[1:]))
    return (generator.standard_normal(shape) * np.sqrt(2 / fan_in)).astype(np.float32)


def conv_net(depth: int = 3, width: int = 8, side: int = 8) -> ModelProto:
    """Convolutions of different sizes with ReLU between, pooled, and a classifier of 10."""
    generator = np.random.Generator(np.random.PCG64(7))
    nodes, constants, last, channels = [], {}, "input", 3
    for place in range(depth):
        to = width * (1 + place)
        constants[f"w{place}"] = _normal(generator, to, channels, 3, 3)
        constants[f"b{place}"] = generator.standard_normal(to).astype(np.float32)
        nodes.append(
            helper.make_node("Conv", [last, f"w{place}", f"b{place}"], [f"c{place}"], f"conv{place}", pads=[1, 1, 1, 1])
        )
        nodes.append(helper.make_node("Relu", [f"c{place}"], [f"r{place}"], f"relu{place}"))
        last, channels = f"r{place}", to
    constants["fc"] = _normal(generator, channels, 10)
    nodes += [
        helper.make_node("GlobalAveragePool", [last], ["pooled"], "pool"),
        helper.make_node("Flatten", ["pooled"], ["flat"], "flat"),
        helper.make_node("Gemm", ["flat", "fc"], ["logits"], "fc"),
    ]
    return model(nodes, constants, (1, 3, side, side), (1, 10), model="conv_net", paper="none")


def linear_net(weight: Array) -> ModelProto:
    """One matrix product, (1, n) to (1, m)."""
    rows, columns = weight.shape
    return model([helper.make_node("MatMul", ["input", "w"], ["logits"], "product")], {"w": weight}, (1, rows), (1, columns))


SPECTRAL = ("spectrum", "filter", "back")


def spectral_net(size: int = 32, width: int = 96) -> ModelProto:
    """A transform by a constant matrix, a filter on its bins, and the way back, beside two wide layers.

    Inputs with a mean make bin 0 many times the others, so that 8 bits over all bins leave little for them; and the filter
    takes that bin out, so that the others are what matters.
    """
    generator = np.random.Generator(np.random.PCG64(11))
    angle = 2 * np.pi * np.outer(np.arange(size), np.arange(size)) / size
    hartley = ((np.cos(angle) + np.sin(angle)) / np.sqrt(size)).astype(np.float32)  # its own inverse
    gains = np.ones(size, np.float32)
    gains[0] = 0
    constants = {
        "h": hartley,
        "g": gains[None],
        "w0": _normal(generator, width, size).T.copy(),
        "w1": _normal(generator, 10, width).T.copy(),
    }
    nodes = [
        helper.make_node("MatMul", ["input", "h"], ["bins"], "spectrum"),
        helper.make_node("Mul", ["bins", "g"], ["filtered"], "filter"),
        helper.make_node("MatMul", ["filtered", "h"], ["x"], "back"),
        helper.make_node("MatMul", ["x", "w0"], ["hidden"], "wide"),
        helper.make_node("Relu", ["hidden"], ["active"], "relu"),
        helper.make_node("MatMul", ["active", "w1"], ["logits"], "head"),
    ]
    return model(nodes, constants, (1, size), (1, 10))


def feeds(count: int, shape: tuple[int, ...], seed: int = 0, mean: float = 0.0) -> list[dict[str, Array]]:
    """Normal inputs."""
    generator = np.random.Generator(np.random.PCG64(seed))
    return [{"input": (generator.standard_normal(shape) + mean).astype(np.float32)} for _ in range(count)]
