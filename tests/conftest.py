"""What several tests share: weights and inputs filled by rule, and the outputs of the original implementations on them."""

import contextlib
import hashlib
import importlib.util
import io
import json
import math
import os
import re
import signal
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import numpy as np
import pytest
import torch
from torch import Tensor

if TYPE_CHECKING:
    from onnx import ModelProto

# In CI the same examples every time: a build breaks by its change, not by luck. At home new ones, which is how bugs are found.
hypothesis.settings.register_profile("house", deadline=None, derandomize=bool(os.environ.get("CI")))
hypothesis.settings.load_profile("house")

_MIXERS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
_GOLDEN_RATIO = 0x9E3779B97F4A7C15

# Started in a shell's background the run ignores Ctrl-C, and so would every process of ours that a test interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _uniform(name: str, count: int) -> np.ndarray:
    """``count`` float64 numbers in [-1, 1) from the name alone: SplitMix64, seeded by the start of its SHA-256."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    with np.errstate(over="ignore"):  # arithmetic modulo 2^64 is meant
        state = np.uint64(seed) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(_GOLDEN_RATIO)
        for shift, factor in _MIXERS:
            state = (state ^ (state >> np.uint64(shift))) * np.uint64(factor)
        state ^= state >> np.uint64(31)
    return (state >> np.uint64(11)).astype(np.float64) / 2.0**53 * 2.0 - 1.0


class FillRule:
    """Tensors that depend on a name and a shape only, so that two implementations get the same weights without a file."""

    def tensor(self, name: str, shape: Sequence[int], scale: float = 1.0, shift: float = 0.0) -> Tensor:
        """Uniform within ``scale`` around ``shift``, float64."""
        return torch.from_numpy(_uniform(name, math.prod(shape)).reshape(tuple(shape)) * scale + shift)

    def image(self, tag: str, shape: Sequence[int]) -> Tensor:
        """An input, uniform within [-2, 2) as a normalised image is."""
        return self.tensor(f"input:{tag}", shape, 2.0)

    def state(self, shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
        """A state dict for these keys and shapes."""
        return {key: self._entry(key, shape) for key, shape in shapes.items()}

    def fill(self, module: torch.nn.Module) -> torch.nn.Module:
        """The module in float64 eval mode, its state dict filled."""
        module = module.double().eval()
        module.load_state_dict(self.state({key: tensor.shape for key, tensor in module.state_dict().items()}))
        return module

    def _entry(self, key: str, shape: Sequence[int]) -> Tensor:
        match key.rpartition(".")[2]:
            case "num_batches_tracked":
                return torch.zeros(tuple(shape), dtype=torch.int64)
            case "running_var":
                return self.tensor(key, shape, 0.5, 1.0)
            case "running_mean" | "bias":
                return self.tensor(key, shape, 0.2)
            case "weight" if len(shape) == 1:  # of a norm
                return self.tensor(key, shape, 0.4, 1.0)
            case "weight":  # gentle enough that no gate saturates
                return self.tensor(key, shape, math.sqrt(3.0 / math.prod(shape[1:])))
            case _:
                raise KeyError(f"no rule fills {key}")


@pytest.fixture(scope="session")
def fill_rule() -> FillRule:
    """The rule by which the golden files' weights and inputs were filled."""
    return FillRule()


@pytest.fixture(scope="session")
def golden() -> Callable[[str], Any]:
    """A loader of the originals' outputs: ``golden("ghostnetv2")``."""
    folder = Path(__file__).parent / "golden"
    return lambda name: json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))


class Exporter:
    """What `mixbench export` does to a module before it is written: the inference form, rewrites, capture, rewrites."""

    def __call__(
        self, module: torch.nn.Module, args: tuple[Any, ...], keep: Sequence[str] = (), dynamic: Any = None
    ) -> "ModelProto":
        from mixbench.export.rewrites.base import rewrite_graph, rewrite_module
        from mixbench.models.reparameterise import reparameterise

        rewritten, _ = rewrite_module(reparameterise(module), keep)
        proto = self.capture(rewritten, args, dynamic)
        rewrite_graph(proto, keep)
        return proto

    def capture(self, module: torch.nn.Module, args: tuple[Any, ...], dynamic: Any = None) -> "ModelProto":
        """The graph as torch writes it, opset 20."""
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")  # the exporter's own, about torch's internals
            program = torch.onnx.export(module, args, dynamo=True, opset_version=20, verbose=False, dynamic_shapes=dynamic)
        assert program is not None
        return program.model_proto

    def run(self, proto: "ModelProto", *inputs: Any) -> list[np.ndarray]:
        """Check the graph, and run it in ONNX Runtime on arrays or tensors, in order."""
        import onnx
        import onnxruntime

        onnx.checker.check_model(proto, full_check=True)
        session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
        arrays = [np.asarray(given) for given in inputs]
        found: list[np.ndarray] = session.run(
            None, {given.name: array for given, array in zip(session.get_inputs(), arrays, strict=True)}
        )
        return found

    def operators(self, proto: "ModelProto") -> Counter[str]:
        """How often each operator stands in the graph."""
        return Counter(node.op_type for node in proto.graph.node)

    def table(self, runtime: str) -> set[str]:
        """Operators in a table that ONNX Runtime's wheel brings: ``nnapi_supported``, ``coreml_supported_mlprogram``."""
        import onnxruntime

        folder = Path(onnxruntime.__file__).parent / "tools" / "mobile_helpers"
        text = (folder / f"{runtime}_ops.md").read_text(encoding="utf-8")
        return set(re.findall(r"^\|ai\.onnx[.:](\w+)\|", text, re.MULTILINE))


@pytest.fixture(scope="session")
def exporter() -> Exporter:
    """Modules to ONNX graphs, and graphs to results."""
    return Exporter()


@pytest.fixture(scope="session")
def nets() -> Any:
    """The small ONNX graphs of ``precision_nets.py``."""
    return _beside("precision_nets")


@pytest.fixture
def tab(tmp_path: Path) -> Iterator[Any]:
    """A tab of ``chromium.py``, in a browser of its own."""
    chromium = _beside("chromium")
    if chromium.PROGRAM is None:
        pytest.skip("needs Chromium")
    with chromium.tab(tmp_path) as found:
        yield found


def _beside(name: str) -> Any:
    """A module of this folder; test files can't import each other."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
