"""AFFNet in ONNX Runtime: exported with constant matrices, with DFT operators, and as its authors wrote it, side by side.

Three files of each variant, with the same weights, batch norms folded:

  rewritten      what `mixbench export` writes
  DFT            the same with --keep fft: only the transforms differ
  as written     the authors' formulation (`affnet_speed.PlainMixer`), nothing rewritten: DFT, four einsums a layer

They have to agree before anything is timed. A round runs each once, in random order; ratios are of the same round, with the
99 % interval of their median. Below them stand the operators that ONNX Runtime's own tables (`tools/mobile_helpers` in the
installed wheel) lack, and in how many pieces the supported nodes fall when they are walked in the file's order.

Run: ./dev bench, or python benchmarks/export_speed.py [--variant et] [--quick] [--threads N].
"""

import argparse
import contextlib
import io
import logging
import re
from collections import Counter
from functools import partial
from itertools import groupby
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from onnx import ModelProto
from torch import nn

import mixbench
from affnet_speed import PlainMixer, enliven
from mixbench.export.rewrites.base import names, rewrite_graph, rewrite_module
from mixbench.models.architectures.affnet import AFFTokenMixer
from mixbench.models.reparameterise import reparameterise
from mixbench.profilers.stats import median, ratio
from side_by_side import interval, times

VARIANTS = ("et", "t", "small")
TABLES = {"NNAPI": "nnapi_supported_ops.md", "CoreML MLProgram": "coreml_supported_mlprogram_ops.md"}
OPSET = 20


def exported(module: nn.Module, args: tuple[torch.Tensor, ...], keep: tuple[str, ...]) -> ModelProto:
    """A module's inference form as an ONNX graph, rewritten but for what is kept."""
    module, _ = rewrite_module(reparameterise(module), keep)
    with contextlib.redirect_stdout(io.StringIO()):
        program = torch.onnx.export(module, args, dynamo=True, opset_version=OPSET, verbose=False)
    assert program is not None
    proto = program.model_proto
    rewrite_graph(proto, keep)
    return proto


def as_written(module: nn.Module) -> nn.Module:
    """Swap every mixer for the authors' formulation, with the same weights."""
    for name, mixer in list(module.named_modules()):
        if isinstance(mixer, AFFTokenMixer):
            plain = PlainMixer(mixer.groups * mixer.w1.shape[-1])
            plain.load_state_dict(mixer.state_dict())
            module.set_submodule(name, plain)
    return module


def session(proto: ModelProto, threads: int) -> onnxruntime.InferenceSession:
    """ONNX Runtime on the CPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    return onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])


def supported(table: str) -> set[str]:
    """Operators that a table in the installed wheel lists."""
    path = Path(onnxruntime.__file__).parent / "tools" / "mobile_helpers" / TABLES[table]
    return set(re.findall(r"^\|ai\.onnx[.:](\w+)\|", path.read_text(encoding="utf-8"), re.MULTILINE))


def describe(proto: ModelProto) -> str:
    """Nodes, and by table what it lacks and the pieces that remain."""
    operators = [node.op_type for node in proto.graph.node]
    found = [f"{len(operators)} nodes"]
    for table in TABLES:
        known = supported(table)
        pieces = sum(inside for inside, _ in groupby(operators, known.__contains__))
        lacking = ", ".join(f"{name} {count}" for name, count in Counter(operators).items() if name not in known)
        found.append(f"{table}: {pieces} piece{'s' * (pieces != 1)}, lacks {lacking or 'nothing'}")
    return "; ".join(found)


def compare(variant: str, rounds: int, threads: int) -> None:
    """Export, check and time one variant, and print its rows."""
    case = mixbench.build(f"affnet-{variant}", device="cpu")
    enliven(case.module)
    everything = tuple(names())
    protos = {
        "rewritten": exported(case.module, case.args, ()),
        "DFT": exported(case.module, case.args, ("fft",)),
        "as written": exported(as_written(case.module), case.args, everything),
    }
    image = np.random.default_rng(0).random((1, 3, 256, 256), dtype=np.float32)
    runs = {}
    for name, proto in protos.items():
        opened = session(proto, threads)
        runs[name] = partial(opened.run, None, {opened.get_inputs()[0].name: image})
    outputs = {name: run()[0] for name, run in runs.items()}
    scale = np.abs(outputs["as written"]).max()
    for name, output in outputs.items():
        worst = np.abs(output - outputs["as written"]).max() / scale
        assert worst < 1e-4, f"affnet-{variant}, {name}: off by {worst:.1e} of the logits' scale"
    taken = dict(zip(runs, times(rounds, *runs.values()), strict=True))
    for name, proto in protos.items():
        print(f"affnet-{variant:<5} {name:<10} {1000 * median(taken[name]):8.2f} ms   {describe(proto)}", flush=True)
    for name in ("DFT", "as written"):
        found = ratio(taken["rewritten"], taken[name])
        print(f"affnet-{variant:<5} {name} / rewritten: {found.value:.2f} ({interval(found)})", flush=True)


def main() -> None:
    """Print the rows of the variants asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", choices=VARIANTS, action="append", help="may be given several times; by default all")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, for a first impression")
    parser.add_argument("--threads", type=int, default=1, help="threads of ONNX Runtime")
    options = parser.parse_args()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    torch.manual_seed(0)
    print(f"onnxruntime {onnxruntime.__version__}, torch {torch.__version__}, {options.threads} thread(s), opset {OPSET}")
    for variant in options.variant or VARIANTS:
        compare(variant, 21 if options.quick else 101, options.threads)


if __name__ == "__main__":
    main()
