"""Peaks on a scripted clock, what is kept of them, and the ones that makers publish."""

from collections.abc import Callable
from itertools import count as counter
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from mixbench.models.errors import BadInput
from mixbench.profilers import links, peaks, peaks_kept
from mixbench.profilers.devices.cpu import Cpu
from mixbench.profilers.machine import Machine
from mixbench.profilers.peaks_published import DTYPES, known, published
from mixbench.profilers.roofline import Level, Peaks
from mixbench.profilers.runs.roofline_run import modelled_place

# Peaks on a scripted clock


class Scripted(Cpu):
    """Every call takes a millisecond, and none is made unless asked for."""

    def __init__(self, run: bool = False) -> None:
        self.run = run

    def time_ns(self, call: Callable[[], object]) -> float:
        if self.run:
            call()
        return 1e6


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting: the clock that ends a series of tries leaps."""
    ticks = counter(0, 10**9)
    monkeypatch.setattr(peaks, "perf_counter_ns", lambda: next(ticks))
    monkeypatch.setattr(peaks, "_working_sets", lambda device: [2**18, 2**19])


@pytest.mark.usefixtures("quick")
def test_peaks_are_the_work_over_the_scripted_time() -> None:
    said: list[float] = []
    found = peaks.measure_peaks(Scripted(), ("float32", "int8"), lambda text, share: said.append(share))
    # The largest product that a CPU is given has sides of 2048; overwriting reads and writes each byte.
    assert found.flops_per_s == {"float32": pytest.approx(2 * 2048**3 / 1e-3), "int8": pytest.approx(2 * 2048**3 / 1e-3)}
    (level,) = found.levels
    assert (level.bytes_per_s, level.read_bytes_per_s) == (pytest.approx(2 * 2**19 / 1e-3), pytest.approx(2**19 / 1e-3))
    assert said == sorted(said) and said[0] >= 0 and said[-1] < 1


@pytest.mark.usefixtures("quick")
def test_a_dtype_without_a_kernel_is_missing_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **named: object) -> None:
        raise RuntimeError("not implemented for 'Half'\nand more")

    monkeypatch.setattr(torch, "mm", refuse)
    found = peaks.measure_peaks(Scripted(run=True), ("float16",), levels=False)
    assert (found.flops_per_s, found.levels) == ({}, ())
    assert found.missing == {"float16": "torch has no kernel: RuntimeError: not implemented for 'Half'"}
    monkeypatch.delattr(torch, "_int_mm")
    assert list(peaks.measure_peaks(Scripted(run=True), ("int8",), levels=False).missing) == ["int8"]


def test_what_is_timed_is_a_product_and_a_convolution_of_the_size_that_is_counted() -> None:
    product = peaks._product("cpu", "int8", 32)()
    assert isinstance(product, torch.Tensor) and (product.shape, product.dtype) == ((32, 32), torch.int32)
    for call in peaks._convolutions("cpu", "float32"):
        image = call()
        assert isinstance(image, torch.Tensor) and image.shape == (1, 256, 28, 28)
    assert list(peaks._convolutions("cpu", "int8")) == []


def test_working_sets_reach_well_beyond_the_last_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peaks, "_last_cache_bytes", lambda: 2**27)
    sizes = peaks._working_sets(Cpu())
    assert sizes[0] == 2**18
    assert all(after == 2 * before for before, after in pairwise(sizes))
    assert 2**26 <= sizes[-1] <= 4 * 2**27


# What is kept


MACHINE = Machine("Linux", "a processor", 2, (0, 1), 1, "", 10**9, "a device", "a clock", {"torch": "2"}, "0123456789ab")


class Measurer:
    """In the place of `measure_peaks`: notes what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[tuple[str, ...], bool]] = []

    def __call__(self, device: object, dtypes: list[str], progress: object, levels: bool) -> Peaks:
        self.asked.append((tuple(dtypes), levels))
        known = {name: 10.0 * len(self.asked) for name in dtypes if name != "float16"}
        missing = {name: "no kernel" for name in dtypes if name == "float16"}
        return Peaks(known, (Level(5.0, 8, 4.0), Level(1.0, None, 0.5)) if levels else (), "a script", missing, ("busy",))


@pytest.fixture
def measurer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Measurer:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made = Measurer()
    monkeypatch.setattr(peaks_kept, "measure_peaks", made)
    monkeypatch.setattr(peaks_kept, "look", lambda *words: MACHINE)
    return made


def kept_file(tmp_path: Path) -> Path:
    return tmp_path / "mixbench" / "peaks" / "0123456789ab.json"


def test_peaks_are_measured_once_and_only_what_is_missing_later(measurer: Measurer, tmp_path: Path) -> None:
    first = peaks_kept.peaks_here(Cpu(), ["float32"])
    assert peaks_kept.peaks_here(Cpu(), ["float32"]) == first
    both = peaks_kept.peaks_here(Cpu(), ["float32", "float16", "float64"])
    assert both.flops_per_s == {"float32": 10.0, "float64": 20.0}
    assert (both.levels, both.missing, both.warnings) == (first.levels, {"float16": "no kernel"}, ("busy",))
    assert both.doubts == ("while the peaks were measured, which are kept until `mixbench roofline --measure-again`: busy",)
    assert peaks_kept.peaks_here(Cpu(), ["float16"]) == both  # that there is no kernel is known
    assert measurer.asked == [(("float32",), True), (("float16", "float64"), False)]
    again = peaks_kept.peaks_here(Cpu(), ["float32"], again=True)
    assert again.flops_per_s == {"float32": 30.0}
    assert [path.name for path in kept_file(tmp_path).parent.iterdir()] == ["0123456789ab.json"]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda text: "", "are damaged"),
        (lambda text: text[: len(text) // 2], "are damaged"),
        (lambda text: "[]", "are damaged"),
        (lambda text: text.replace("10.0", '"fast"'), "are damaged"),
        (lambda text: text.replace("10.0", "-1"), "are damaged"),
        (lambda text: text.replace("10.0", "Infinity"), "are damaged"),
        (lambda text: text.replace("10.0", "true"), "are damaged"),
        (lambda text: text.replace('"up_to_bytes": 8', '"up_to_bytes": null'), "are damaged"),
        (lambda text: text.replace('"read_bytes_per_s": 4.0', '"read_bytes_per_s": null'), "are damaged"),
        (lambda text: text.replace('"schema": 1', '"schema": 2'), "another machine or version"),
        (lambda text: text.replace("a processor", "another"), "another machine or version"),
        (lambda text: text.replace('"threads": 1', '"threads": 2'), "another machine or version"),
    ],
)
def test_a_damaged_or_foreign_file_is_measured_again_and_said(
    measurer: Measurer, tmp_path: Path, spoil: Callable[[str], str], said: str
) -> None:
    first = peaks_kept.peaks_here(Cpu(), ["float32"])
    file = kept_file(tmp_path)
    whole = file.read_text()
    assert spoil(whole) != whole
    file.write_text(spoil(whole))
    heard: list[str] = []
    second = peaks_kept.peaks_here(Cpu(), ["float32"], tell=heard.append)
    assert len(measurer.asked) == 2
    assert len(heard) == 1 and said in heard[0] and file.name in heard[0]
    assert second.flops_per_s == {"float32": 20.0} and second.levels == first.levels
    assert peaks_kept.peaks_here(Cpu(), ["float32"], tell=heard.append) == second
    assert len(heard) == 1


def test_bytes_that_are_no_text_and_a_folder_that_is_a_file_cost_time_only(measurer: Measurer, tmp_path: Path) -> None:
    heard: list[str] = []
    peaks_kept.peaks_here(Cpu(), ["float32"])
    kept_file(tmp_path).write_bytes(b"\xff\xfe")
    peaks_kept.peaks_here(Cpu(), ["float32"], tell=heard.append)
    assert "can't be read" in heard.pop()
    kept_file(tmp_path).unlink()
    kept_file(tmp_path).parent.rmdir()
    kept_file(tmp_path).parent.write_text("in the way")
    assert peaks_kept.peaks_here(Cpu(), ["float32"], tell=heard.append).flops_per_s == {"float32": 30.0}
    assert "can't be kept" in heard[-1]


# What makers publish


def test_the_two_tables_of_hardware_agree() -> None:
    for ours, scaled in (("a100-sxm-80gb", "a100-nvlink"), ("h100-sxm", "h100-nvlink"), ("h200-sxm", "h200-nvlink")):
        one, other = published(ours), links.hardware(scaled)
        assert one.flops_per_s["float16"] == other.flops_per_s
        assert one.memory_bytes_per_s == pytest.approx(other.memory_bytes_per_s, rel=1e-3)


def test_every_published_device_is_plausible() -> None:
    for name, device in known().items():
        rates = device.flops_per_s
        assert "float32" in rates and device.source and device.title, name
        # Fewer bits are never slower, and the ridge of a real device lies between 5 and 1,000 FLOPs per byte.
        ordered = [rates[dtype] for dtype in ("float64", "float32", "float16", "int8") if dtype in rates]
        assert ordered == sorted(ordered), name
        assert all(5 < rate / device.memory_bytes_per_s < 1000 for dtype, rate in rates.items() if dtype != "float64"), name
        assert 1e9 <= device.memory_bytes < 1e12 and not set(rates) - set(DTYPES), name


GOOD = """
[mine]
title = "Mine"
flops_per_s = { float32 = 1e12 }
memory_bytes_per_s = 1e11
memory_bytes = 8e9
source = "me"
"""


def test_a_table_of_the_users_own_adds_to_ours_and_covers_it(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(GOOD + GOOD.replace("[mine]", "[t4]"))
    assert published("mine", path).flops_per_s == {"float32": 1e12}
    assert published("t4", path).title == "Mine"
    assert "l4" in known(path)
    place = modelled_place(published("mine", path))
    assert (place.levels, place.kind, place.threads, place.verified) == ((Level(1e11),), "modelled", None, False)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[mine", "can't be read as TOML"),
        ("mine = 3", "mine] is no table"),
        (GOOD.replace("source", "sauce"), "unknown key 'sauce'"),
        (GOOD.replace('source = "me"', ""), "lacks source"),
        (GOOD.replace("{ float32 = 1e12 }", "1e12"), "flops_per_s is not one figure for each dtype"),
        (GOOD.replace("{ float32 = 1e12 }", "{}"), "flops_per_s is not one figure for each dtype"),
        (GOOD.replace("float32", "fp32"), "unknown dtype 'fp32'"),
        (GOOD.replace("1e12", "0"), "flops_per_s.float32 is 0, not a number above 0"),
        (GOOD.replace("1e12", '"1e12"'), "not a number above 0"),
        (GOOD.replace("1e11", "inf"), "memory_bytes_per_s is inf"),
        (GOOD.replace("8e9", "true"), "memory_bytes is True"),
        (GOOD.replace('"Mine"', "3"), "title is 3, not a text"),
        (GOOD + 'verified = "yes"', "verified is 'yes', not true or false"),
    ],
)
def test_a_wrong_table_is_refused_by_what_is_wrong_with_it(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(BadInput) as refusal:
        known(path)
    assert said in refusal.value.what and refusal.value.hint
    with pytest.raises(BadInput, match="can't be read"):
        known(tmp_path / "missing.toml")


def test_an_unknown_name_is_answered_with_near_ones() -> None:
    with pytest.raises(BadInput) as refusal:
        published("h100sxm")
    assert "h100-sxm" in refusal.value.hint
