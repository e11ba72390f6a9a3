"""Conversions to fewer bits, the judge that measures them, and their record."""

import io
import json
import logging
import math
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mixbench.cli.console import show
from mixbench.cli.views import precision_view
from mixbench.export.precision.calibration import collect, split
from mixbench.export.precision.judge import Judge, compare, kernel_warning, level, run, saturates
from mixbench.export.precision.kinds.base import find, names
from mixbench.export.precision.records import Fidelity
from mixbench.export.precision.reduce import reduce
from mixbench.models.errors import BadInput, CannotMeasure

IMAGE = (1, 3, 8, 8)


def constants(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}


def entries(model: onnx.ModelProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in model.metadata_props}


def test_the_files_names_are_the_options_values() -> None:
    assert names() == ["fp16", "int8", "w8a16"]
    with pytest.raises(BadInput, match="no precision named 'int7'") as caught:
        find("int7")
    assert "fp32, fp16, int8, w8a16" in caught.value.hint


def test_int8_of_a_matrix_product_is_what_its_definition_gives(nets: Any) -> None:
    generator = np.random.Generator(np.random.PCG64(3))
    weight = generator.standard_normal((16, 5)).astype(np.float32)
    net, data = nets.linear_net(weight), nets.feeds(4, (1, 16))
    converted = find("int8").prepare(net, data).convert(())
    ours = run(converted, data, optimised=False)

    # By hand: ranges that include 0, weights by column over +-127, activations over 0..255 with an offset.
    x = np.concatenate([item["input"] for item in data]).astype(np.float64)
    y = x @ weight

    def rounded(values: np.ndarray, low: float, high: float) -> np.ndarray:
        low, high = min(low, 0.0), max(high, 0.0)
        scale = (high - low) / 255
        offset = round(-low / scale)
        steps = np.clip(np.rint(values / scale) + offset, 0, 255)
        found: np.ndarray = (steps - offset) * scale
        return found

    scales = np.abs(weight).max(0) / 127
    product = rounded(x, x.min(), x.max()) @ (np.rint(weight / scales) * scales)
    wanted = rounded(product, y.min(), y.max())
    step = (max(y.max(), 0) - min(y.min(), 0)) / 255
    found = np.concatenate([outputs[0] for outputs in ours])
    # Within rounding of float32; a value next to the border between two steps may fall to the other side.
    assert np.abs(found - wanted).max() < 1.01 * step
    assert np.mean(np.abs(found - wanted) > 0.01 * step) <= 0.05


@pytest.mark.parametrize(("precision", "activation"), [("int8", TensorProto.UINT8), ("w8a16", TensorProto.UINT16)])
def test_weights_are_signed_bytes_by_channel_and_activations_unsigned(nets: Any, precision: str, activation: int) -> None:
    net = nets.conv_net()
    converted = find(precision).prepare(net, nets.feeds(4, IMAGE)).convert(())
    onnx.checker.check_model(converted, full_check=True)
    held = {item.name: item for item in converted.graph.initializer}
    assert all(f"w{place}" not in held for place in range(3))
    for place, channels in enumerate((8, 16, 24)):
        quantised = held[f"w{place}_quantized"]
        assert quantised.data_type == TensorProto.INT8
        assert list(held[f"w{place}_scale"].dims) == [channels]
        assert np.abs(numpy_helper.to_array(quantised).astype(int)).max() == 127  # all 8 bits: no range is held back
    rounders = [node for node in converted.graph.node if node.op_type == "QuantizeLinear"]
    assert rounders and all(held[node.input[2]].data_type == activation for node in rounders)


def test_sixteen_bits_of_activations_lose_less_than_eight(nets: Any) -> None:
    net = nets.conv_net()
    samples = split(nets.feeds(16, IMAGE), "arrays", "x.npz")
    byte, word = (reduce(net, name, samples)[1] for name in ("int8", "w8a16"))
    assert level(word.exact) > level(byte.exact)

    def pooling_alone(precision: str) -> float:
        """Nothing but activations in fewer bits, so that the weights, the same in both, hide nothing."""
        prepared = find(precision).prepare(net, samples.calibration)
        kept = [name for name in prepared.candidates if name not in ("pool", "flat")]
        return level(Judge.of(net, samples.evaluation).measure(prepared.convert(kept)))

    assert pooling_alone("w8a16") > pooling_alone("int8") + 40  # 8 bits are 48 dB


def test_float16_halves_the_file_and_leaves_inputs_and_outputs_alone(nets: Any) -> None:
    net = nets.conv_net(width=32)
    converted, record = reduce(net, "fp16", split(nets.feeds(8, IMAGE), "arrays", "x.npz"))
    onnx.checker.check_model(converted, full_check=True)
    kinds = {item.type.tensor_type.elem_type for item in (*converted.graph.input, *converted.graph.output)}
    assert kinds == {TensorProto.FLOAT}
    assert [item.name for item in converted.graph.output] == ["logits"]
    assert {item.dtype for item in constants(converted).values()} == {np.dtype(np.float16)}
    assert 0.5 < record.bytes / record.float32_bytes < 0.55
    assert record.exact.snr_db is not None and record.exact.snr_db > 50
    assert record.kept == ()


def chain(nets: Any, *nodes: tuple[str, list[str], dict[str, Any]], **held: np.ndarray) -> onnx.ModelProto:
    """Operators one after the other, (1, 4, 3) to the same."""
    made, last = [], "input"
    for place, (operator, others, attributes) in enumerate(nodes):
        to = "logits" if place == len(nodes) - 1 else f"t{place}"
        made.append(helper.make_node(operator, [last, *others], [to], f"n{place}", **attributes))
        last = to
    found: onnx.ModelProto = nets.model(made, held, (1, 4, 3), ("a", "b", "c"))
    return found


def test_float16_leaves_what_would_overflow_in_float32(nets: Any) -> None:
    big = np.full((1,), 1e5, np.float32)
    net = chain(nets, ("Mul", ["big"], {}), ("Div", ["big"], {}), big=big)
    data = nets.feeds(8, (1, 4, 3))
    prepared = find("fp16").prepare(net, data)
    bare = prepared.convert(())
    assert level(Judge.of(net, data).measure(prepared.exact(bare))) < 20  # 1e5 is no float16
    _, record = reduce(net, "fp16", split(data, "arrays", "x.npz"))
    assert record.kept == ("n0", "n1")
    assert level(record.exact) == math.inf  # nothing is left to round: neighbours in float32 meet in float32
    assert any("float16 ends at 65504" in note for note in record.notes)


def test_float16_is_judged_as_if_this_processor_had_it(nets: Any) -> None:
    net = chain(
        nets, ("Mul", ["up"], {}), ("Mul", ["down"], {}), up=np.array([300], np.float32), down=np.array([1 / 300], np.float32)
    )
    data = [{"input": np.full((1, 4, 3), 300, np.float32)}]
    prepared = find("fp16").prepare(net, [])  # nothing learnt, nothing kept
    converted = prepared.convert(())
    judge = Judge.of(net, data)
    assert judge.measure(prepared.exact(converted)).broken == 12  # 90,000 is no float16


def test_every_tensor_of_float16_is_rounded_as_numpy_rounds(nets: Any) -> None:
    generator = np.random.Generator(np.random.PCG64(5))
    weight = generator.standard_normal((16, 5)).astype(np.float32)
    net, data = nets.linear_net(weight), nets.feeds(3, (1, 16))
    prepared = find("fp16").prepare(net, data)
    found = run(prepared.exact(prepared.convert(())), data, optimised=False)
    for item, outputs in zip(data, found, strict=True):
        product = item["input"].astype(np.float16).astype(np.float32) @ weight.astype(np.float16).astype(np.float32)
        assert np.array_equal(outputs[0], outputs[0].astype(np.float16))
        np.testing.assert_allclose(outputs[0], product, rtol=2**-10)  # a sum in another order may round the other way


def test_float16_leaves_norms_whose_squares_overflow_in_float32(nets: Any) -> None:
    ones, zeros = np.ones(4, np.float32), np.zeros(4, np.float32)
    net = chain(nets, ("InstanceNormalization", ["g", "b"], {"epsilon": 1e-5}), g=ones, b=zeros)
    small, large = ([{"input": item["input"] * size} for item in nets.feeds(8, (1, 4, 3))] for size in (1, 1000))
    assert find("fp16").prepare(net, small).must_keep == {}
    assert "squares up to" in find("fp16").prepare(net, large).must_keep["n0"]


def test_float16_leaves_an_epsilon_that_would_vanish_in_float32(nets: Any) -> None:
    net = chain(nets, ("Add", ["eps"], {}), eps=np.float32(1e-9).reshape(1))
    assert "float16 begins at" in find("fp16").prepare(net, nets.feeds(2, (1, 4, 3))).must_keep["n0"]


def test_float16_leaves_sums_that_become_indices_in_float32(nets: Any) -> None:
    bits = np.array([2.0**power for power in range(12)], np.float32).reshape(4, 3)
    as_index, back = {"to": TensorProto.INT64}, {"to": TensorProto.FLOAT}
    sums: list[Any] = [("Mul", ["bits"], {}), ("ReduceSum", ["axes"], {})]
    net = chain(nets, *sums, ("Cast", [], as_index), ("Cast", [], back), bits=bits, axes=np.array([1, 2]))
    data = [{"input": np.ones((1, 4, 3), np.float32)}]  # 4095, which is no float16
    prepared = find("fp16").prepare(net, data)
    assert list(prepared.must_keep) == ["n1"] and "float16 counts to 2048" in prepared.must_keep["n1"]


def test_int8_leaves_infinite_values_in_float32(nets: Any) -> None:
    mask = np.zeros((1, 4, 3), np.float32)
    mask[..., 0] = -np.inf
    net = chain(nets, ("Add", ["mask"], {}), ("Softmax", [], {}), mask=mask)
    _, record = reduce(net, "int8", split(nets.feeds(8, (1, 4, 3)), "arrays", "x.npz"))
    assert record.kept[0] == "n0"
    assert record.exact.broken == 0 and level(record.exact) > 20


@pytest.mark.parametrize("precision", names())
def test_every_node_left_in_float32_gives_the_original_outputs(nets: Any, precision: str) -> None:
    net, data = nets.conv_net(), nets.feeds(4, IMAGE)
    prepared = find(precision).prepare(net, data)
    assert level(Judge.of(net, data).measure(prepared.convert(prepared.candidates))) == math.inf


def test_nodes_without_names_can_stay_in_float32(nets: Any) -> None:
    net = nets.conv_net()
    for node in net.graph.node:
        node.name = ""
    prepared = find("int8").prepare(net, nets.feeds(4, IMAGE))
    assert len(set(prepared.candidates)) == len(prepared.candidates) == len(net.graph.node)
    kept = constants(prepared.convert([prepared.candidates[0]]))
    assert "w0" in kept and "w1_quantized" in kept
    assert all(node.name == "" for node in net.graph.node)


def test_the_original_stays_as_it_is(nets: Any) -> None:
    net = nets.conv_net()
    before = net.SerializeToString(deterministic=True)
    for precision in names():
        reduce(net, precision, split(nets.feeds(8, IMAGE), "arrays", "x.npz"), min_snr_db=60)
    assert net.SerializeToString(deterministic=True) == before


def test_metadata_is_kept_and_says_what_was_done(nets: Any) -> None:
    samples = split(nets.feeds(8, IMAGE), "images", "photos")
    converted, record = reduce(nets.conv_net(), "int8", samples)
    said = entries(converted)
    assert said["model"] == "conv_net" and said["paper"] == "none"
    assert said["precision"] == "int8"
    assert said["precision_calibration"] == "images: photos"
    assert said["precision_calibration_sha256"] == record.calibration.sha256 == samples.source.sha256
    assert said["precision_calibration_samples"] == "6"
    assert json.loads(said["precision_kept_float32"]) == []
    assert converted.producer_name == "mixbench"
    assert "onnx.infer" not in said


def test_random_calibration_is_marked_in_file_and_record(nets: Any) -> None:
    net = nets.conv_net()
    converted, record = reduce(net, "int8", collect("random", net, {"input": np.zeros(IMAGE, np.float32)}))
    assert "RANDOM NUMBERS" in entries(converted)["precision_calibration"]
    assert any("RANDOM NUMBERS" in warning for warning in record.warnings)


_MAKE = """
import hashlib, sys, onnx, numpy as np
from mixbench.export.precision.calibration import collect
from mixbench.export.precision.reduce import reduce
net = onnx.load(sys.argv[1])
samples = collect("random", net, {"input": np.zeros((1, 3, 8, 8), np.float32)})
for name in ("fp16", "int8", "w8a16"):
    made, _ = reduce(net, name, samples, 45)
    print(hashlib.sha256(made.SerializeToString(deterministic=True)).hexdigest())
"""


def test_two_processes_make_the_same_bytes(nets: Any, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(nets.conv_net(), path)
    found = []
    for seed in ("1", "2"):
        folder = tmp_path / seed
        folder.mkdir()
        env = os.environ | {"PYTHONHASHSEED": seed}
        done = subprocess.run([sys.executable, "-c", _MAKE, path], capture_output=True, text=True, env=env, cwd=folder)
        assert done.returncode == 0, done.stderr
        assert done.stderr == "" and len(done.stdout.split()) == 3  # the converters' talk stays inside
        assert not list(folder.iterdir())
        found.append(done.stdout)
    assert found[0] == found[1]


def test_the_converters_neither_talk_nor_leave_anything_behind(nets: Any, capfd: pytest.CaptureFixture[str]) -> None:
    handlers, path = logging.getLogger().handlers[:], list(sys.path)
    for precision in names():
        reduce(nets.conv_net(), precision, split(nets.feeds(8, IMAGE), "arrays", "x.npz"))
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger().handlers == handlers
    assert sys.path == path


def test_figures_are_those_of_their_definitions() -> None:
    wanted = np.array([[3.0, 4.0], [0.0, 5.0]], np.float32)
    got = np.array([[3.0, 2.0], [0.0, 5.0]], np.float32)
    found = compare([[wanted]], [[got]])
    assert found.snr_db == pytest.approx(10 * math.log10(50 / 4))
    assert found.cosine == pytest.approx((9 + 8 + 25) / math.sqrt(50 * 38))
    assert found.max_error == 2
    assert found.top1 == 0.5


def test_equal_outputs_have_no_finite_snr_and_are_the_best() -> None:
    one = np.ones((1, 3), np.float32)
    found = compare([[one]], [[one]])
    assert found.snr_db is None and level(found) == math.inf


def test_broken_values_are_counted_and_are_the_worst() -> None:
    found = compare([[np.ones((1, 3), np.float32)]], [[np.array([[1, np.nan, np.inf]], np.float32)]])
    assert found.broken == 2 and level(found) == -math.inf
    json.dumps(asdict(found), allow_nan=False)


def test_of_several_outputs_the_worst_counts_and_integers_do_not() -> None:
    a, b = np.ones((1, 4), np.float32), np.arange(3)
    found = compare([[a, a, b]], [[a, a * 1.1, b + 1]])
    assert found.snr_db == pytest.approx(20, abs=0.01)


def test_nothing_is_compared_with_zeros(nets: Any) -> None:
    with pytest.raises(CannotMeasure, match="all zero"):
        Judge.of(nets.linear_net(np.zeros((4, 2), np.float32)), nets.feeds(2, (1, 4)))


def test_outputs_that_ignore_the_input_are_warned_of(nets: Any) -> None:
    net = nets.conv_net()
    data = nets.feeds(8, IMAGE)
    assert not Judge.of(net, data).hardly_depends()
    dead = [{"input": np.ones(IMAGE, np.float32) + 1e-4 * item["input"]} for item in data]
    assert Judge.of(net, dead).hardly_depends()


@pytest.mark.parametrize(
    ("machine", "cpuinfo", "wanted"),
    [
        ("x86_64", "flags\t\t: fpu avx2 avx512f avx512_vnni sha_ni\n", False),
        ("x86_64", "flags\t\t: fpu avx2 avx_vnni\n", False),
        ("AMD64", "flags\t\t: fpu sse4_2 avx2 fma\n", True),
        ("x86_64", "processor : 0\n", None),
        ("aarch64", "Features : fp asimd\n", False),
        ("arm64", "", False),
    ],
)
def test_an_x86_without_vnni_saturates(machine: str, cpuinfo: str, wanted: bool | None) -> None:
    assert saturates(machine, cpuinfo) is wanted


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="no flags to read here")
def test_this_processors_flags_can_be_read() -> None:
    assert saturates() is not None


def test_what_kernels_lose_is_named_after_its_cause() -> None:
    exact = Fidelity(21.3, 0.99, 0.1, 1.0, 0)
    kernels = replace(exact, snr_db=11.7)
    assert "no VNNI" in kernel_warning(exact, kernels, True) and "9.6 dB" in kernel_warning(exact, kernels, True)
    assert "don't saturate" in kernel_warning(exact, kernels, False)
    assert "could not be found out" in kernel_warning(exact, kernels, None)
    assert kernel_warning(exact, replace(exact, snr_db=20.0), True) == ""
    assert kernel_warning(replace(exact, snr_db=None, max_error=0.0), replace(exact, snr_db=None, max_error=0.0), True) == ""


def test_the_table_shows_both_figures_and_the_record_is_json(nets: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    samples = split(nets.feeds(8, IMAGE), "arrays", "x.npz")
    records = [reduce(nets.conv_net(), name, samples, 45.0)[1] for name in names()]
    page = io.StringIO()
    show(page, precision_view.tables(records))
    lines = page.getvalue().splitlines()
    assert "SNR exact, dB" in lines[0] and "SNR kernels, dB" in lines[0]
    int8 = next(line for line in lines if line.startswith("int8 "))
    assert f"{records[1].exact.snr_db:.1f}" in int8 and f"{len(records[1].kept)} of 9" in int8
    assert "most harmful layers" in page.getvalue()
    page = io.StringIO()
    show(page, precision_view.tables([replace(records[0], notes=tuple(f"number {number}" for number in range(25)))]))
    assert "number 9" in page.getvalue() and "number 10" not in page.getvalue() and "15 more" in page.getvalue()
    json.dumps([asdict(record) for record in records], allow_nan=False)
    assert len({tuple(row) for row in precision_view.rows(records)}) == 1
