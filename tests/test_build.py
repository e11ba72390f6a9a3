"""From the user's words to a built case: names, variants, settings, the user's own files, inputs, and what is refused."""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import mixbench
from mixbench.models.errors import BadInput, CannotMeasure
from mixbench.models.lookup import all_names, resolve
from mixbench.models.spec import INPUT_DTYPES, Published, TensorSpec, Workload

Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a file of a user's own models, torch imported, and give its path."""

    def writer(code: str, name: str = "net.py") -> str:
        (tmp_path / name).write_text(f"import torch\nfrom torch import nn\n{code}", encoding="utf-8")
        return str(tmp_path / name)

    return writer


def refused(*words: Any, **options: Any) -> BadInput:
    """The error of a build that has to fail on what it was given."""
    with pytest.raises(BadInput) as caught:
        mixbench.build(*words, **options)
    assert caught.value.what
    assert caught.value.hint
    assert caught.value.exit_code == 2
    return caught.value


def shapes(case: Any) -> list[tuple[int, ...]]:
    return [tuple(tensor.shape) for tensor in case.args]


# Registered names ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", all_names())
def test_every_listed_name_builds_on_meta(name: str) -> None:
    case = mixbench.build(name)
    assert case.device == "meta"
    assert all(tensor.is_meta for tensor in (*case.module.parameters(), *case.module.buffers(), *case.args))
    assert not case.module.training
    assert case.notes == ()


def test_a_family_names_its_default_variant() -> None:
    spec = resolve("ghostnetv2")
    assert spec.name == "ghostnetv2-1.0x"
    assert (spec.entry, spec.changed, spec.settings) == ("ghostnetv2", False, {"width": 1.0})
    assert spec.variant is resolve("ghostnetv2-1.0x").variant
    assert spec.family is not None
    assert spec.family.title == "GhostNetV2"


def test_the_longest_family_name_wins() -> None:
    assert resolve("ghostnet-1.3x").entry == "ghostnet"
    assert resolve("ghostnetv2-1.3x").entry == "ghostnetv2"


def test_settings_go_over_the_variants_own_and_are_remembered() -> None:
    spec = resolve("ghostnetv2-1.3x", {"num_classes": 10, "width": 0.5})
    assert spec.settings == {"width": 0.5, "num_classes": 10}
    assert spec.changed
    assert mixbench.build(spec).module.get_parameter("classifier.weight").shape == (10, 1280)


@pytest.mark.parametrize(
    ("name", "near"),
    [("ghostnetv3", "ghostnetv2"), ("gostnet", "ghostnet"), ("GhostNetV2", "ghostnet"), ("ghostnetv2_1.3x", "ghostnetv2-1.3x")],
)
def test_an_unknown_name_gets_the_nearest(name: str, near: str) -> None:
    error = refused(name)
    assert repr(name) in error.what
    assert near in error.hint


@pytest.mark.parametrize("name", ["", "zzz", "resnet50", "-", "ghostnetv2 "])
def test_a_name_like_no_other_gets_the_way_to_the_list(name: str) -> None:
    assert "mixbench models" in refused(name).hint


def test_an_unknown_variant_gets_the_list() -> None:
    error = refused("ghostnetv2-2.0x")
    assert "'2.0x'" in error.what
    assert "0.5x, 1.0x, 1.3x, 1.6x" in error.hint


def test_an_unknown_setting_is_named_with_those_that_exist() -> None:
    error = refused("ghostnetv2", widht=0.5)
    assert "'widht'" in error.what
    assert error.hint == "its settings: width, num_classes, dropout, in_channels"


def test_settings_beside_a_spec_are_refused() -> None:
    assert "resolve" in refused(resolve("ghostnetv2"), width=0.5).hint


# Workloads -----------------------------------------------------------------------------------------------------------


def test_the_familys_example_is_the_input() -> None:
    case = mixbench.build("ghostnetv2")
    assert shapes(case) == [(1, 3, 224, 224)]
    assert case.workload.key == "1x3x224x224-float32-eval"


def test_the_batch_resizes_the_first_dimension() -> None:
    case = mixbench.build("ghostnetv2", Workload(batch=5))
    assert shapes(case) == [(5, 3, 224, 224)]
    assert case.workload == Workload(inputs=(TensorSpec((5, 3, 224, 224)),))
    assert case.request == Workload(batch=5)


def test_given_inputs_go_before_the_example_and_the_batch_over_them() -> None:
    inputs = (TensorSpec.parse("2x3x64x96"),)
    assert shapes(mixbench.build("ghostnetv2", Workload(inputs=inputs))) == [(2, 3, 64, 96)]
    assert shapes(mixbench.build("ghostnetv2", Workload(inputs=inputs, batch=4))) == [(4, 3, 64, 96)]


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_model_and_input_get_the_dtype(dtype: str, device: str) -> None:
    case = mixbench.build("ghostnet", Workload(dtype=dtype), device=device, width=0.25)
    tensors = [*case.module.parameters(), *case.args]
    assert {(tensor.dtype, tensor.device.type) for tensor in tensors} == {(getattr(torch, dtype), device)}


def test_train_mode_is_asked_for() -> None:
    assert mixbench.build("ghostnetv2", Workload(mode="train")).module.training


@pytest.mark.parametrize("dtype", ["int64", "float", "torch.float32", "complex64", ""])
def test_a_model_has_a_floating_dtype(dtype: str) -> None:
    with pytest.raises(BadInput, match="no dtype"):
        Workload(dtype=dtype)


@pytest.mark.parametrize("batch", [0, -1])
def test_a_batch_holds_something(batch: int) -> None:
    with pytest.raises(BadInput, match="batch"):
        Workload(batch=batch)


def test_the_seed_decides_weights_and_inputs() -> None:
    first, again, other = (
        mixbench.build("ghostnet", Workload(seed=seed, inputs=(TensorSpec((1, 3, 32, 32)),)), device="cpu", width=0.25)
        for seed in (3, 3, 4)
    )
    assert torch.equal(first.args[0], again.args[0])
    assert torch.equal(first.module.get_parameter("conv_stem.weight"), again.module.get_parameter("conv_stem.weight"))
    assert not torch.equal(first.args[0], other.args[0])
    assert not torch.equal(first.module.get_parameter("conv_stem.weight"), other.module.get_parameter("conv_stem.weight"))


@pytest.mark.parametrize(("model", "vocabulary"), [("memoryformer", 50), ("graphwindow", 60), ("tokenring", 70)])
def test_token_ids_are_random_over_the_vocabulary_that_was_asked_for(model: str, vocabulary: int) -> None:
    small: dict[str, Any] = {
        "width": 32,
        "vocabulary": vocabulary,
        **({"tables": 8} if model == "memoryformer" else {"hidden": 8}),
    }

    def ids(seed: int = 0, text: str = "", dtype: str = "int64") -> torch.Tensor:
        inputs = (TensorSpec.parse(text),) if text else ()
        made: torch.Tensor = mixbench.build(model, Workload(inputs, seed=seed), device="cpu", **small).args[0]
        assert (str(made.dtype), made.min() >= 0, made.max() < vocabulary) == (f"torch.{dtype}", True, True)
        return made

    assert ids().unique().numel() > vocabulary // 2
    assert torch.equal(ids(3), ids(3))
    assert not torch.equal(ids(3), ids(4))
    assert ids(text="2x177:int32", dtype="int32").unique().numel() > vocabulary // 2, "another shape has the same meaning"


def test_the_default_vocabulary_bounds_the_ids_and_a_batch_has_its_own() -> None:
    rows = mixbench.build("tokenring", Workload(batch=2), device="cpu", layers=1).args[0]
    assert not torch.equal(rows[0], rows[1])
    assert 2048 < rows.max() < 32000
    assert mixbench.build("tokenring").args[0].is_meta


def test_an_input_that_names_no_bound_is_zeros_and_one_that_does_stays_equal() -> None:
    inputs = (TensorSpec.parse("2x7:int64"), TensorSpec.parse("1x4x4:bool"))
    case = mixbench.build("tokenring", Workload((*inputs, TensorSpec((3,), "uint8"))), device="cpu", layers=1, vocabulary=1000)
    assert case.args[0].any()
    assert not case.args[1].any()
    assert not case.args[2].any()
    assert TensorSpec((1, 2), "int64", below="vocabulary") == TensorSpec((1, 2), "int64")


def test_a_case_moves_from_meta_to_a_device_with_all_that_was_asked() -> None:
    case = mixbench.build("ghostnetv2", Workload(batch=2, dtype="float64"), width=0.25).on("cpu")
    assert case.device == "cpu"
    assert (shapes(case), case.args[0].dtype) == ([(2, 3, 224, 224)], torch.float64)
    with torch.no_grad():
        assert case.module(*case.args, **case.kwargs).isfinite().all()


@pytest.mark.parametrize(("available", "fits"), [(10**6, False), (10**9, True)])
def test_a_model_larger_than_the_free_memory_is_not_allocated(
    available: int, fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = mixbench.build("ghostnetv2")  # 25 MB in float32
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=available))
    if fits:
        assert case.on("cpu").device == "cpu"
        return
    with pytest.raises(CannotMeasure, match="memory") as caught:
        case.on("cpu")
    assert caught.value.exit_code == 3
    assert caught.value.hint
    assert case.on("meta").device == "meta"


# Tensor specs --------------------------------------------------------------------------------------------------------

SPECS = st.builds(
    TensorSpec,
    st.lists(st.integers(1, 10**6), min_size=1, max_size=6).map(tuple),
    st.sampled_from(["", *INPUT_DTYPES]),
    st.from_regex("[A-Za-z_][A-Za-z0-9_]*", fullmatch=True) | st.just(""),
)


@given(SPECS)
def test_what_a_tensor_spec_prints_it_reads(spec: TensorSpec) -> None:
    assert TensorSpec.parse(str(spec)) == spec


@given(st.text("x=:×0123456789a int64-.", max_size=12))
def test_any_text_is_a_tensor_spec_or_bad_input(text: str) -> None:
    try:
        spec = TensorSpec.parse(text)
    except BadInput as error:
        assert error.hint
    else:
        assert min(spec.shape) >= 1
        assert TensorSpec.parse(str(spec)) == spec


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("1x3x224x224", TensorSpec((1, 3, 224, 224))),
        ("1×3×8×8", TensorSpec((1, 3, 8, 8))),
        ("7", TensorSpec((7,))),
        ("ids=1x128:int64", TensorSpec((1, 128), "int64", "ids")),
        ("2x2:float16", TensorSpec((2, 2), "float16")),
    ],
)
def test_tensor_specs_that_are_read(text: str, spec: TensorSpec) -> None:
    assert TensorSpec.parse(text) == spec


@pytest.mark.parametrize(
    "text",
    "|x|1x|x1|1xx2|1x-3|1x3.0|1,3,8|1x3x8:|1x3:int65|1x3:|0x3|1x0|ids=|=|:int64|1x3=ids|²x3|a b=1x3|1x3 |=1x3".split("|"),
)
def test_tensor_specs_that_are_refused(text: str) -> None:
    with pytest.raises(BadInput, match="input") as caught:
        TensorSpec.parse(text)
    assert caught.value.hint


# Published figures ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("figure", "value", "agreeing", "differing"),
    [
        ("167M", 167e6, (166_500_000, 167_048_288, 167_500_000), (166_499_999, 167_500_001)),
        ("6.1M", 6.1e6, (6_050_000, 6_125_716, 6_150_000), (6_156_908, 6_049_999)),
        ("0.8G", 0.8e9, (750_000_000, 850_000_000), (749_999_999, 850_000_001)),
        ("120k", 120e3, (119_500, 120_500), (119_499, 120_501)),
        ("6.10M", 6.1e6, (6_095_000, 6_105_000), (6_094_999, 6_125_716)),
        ("12", 12.0, (12,), (11, 13)),
    ],
)
def test_a_figure_agrees_to_the_digits_that_were_printed(
    figure: str, value: float, agreeing: tuple[int, ...], differing: tuple[int, ...]
) -> None:
    published = Published("macs", figure, "a table")
    assert published.value == value
    assert all(published.agrees(ours) for ours in agreeing)
    assert not any(published.agrees(ours) for ours in differing)


# The user's own files ------------------------------------------------------------------------------------------------


def test_a_function_is_a_factory_and_gets_its_settings(write: Write) -> None:
    path = write("def make(width=4, bias=True):\n    return nn.Linear(width, 2, bias=bias)\n")
    case = mixbench.build(f"{path}:make", Workload(inputs=(TensorSpec((3, 8)),)), width=8, bias=False)
    assert case.spec.settings == {"width": 8, "bias": False}
    assert case.spec.changed
    assert mixbench.count(case).totals.macs == 3 * 8 * 2
    assert mixbench.count(case).params == 16


def test_a_class_is_a_factory(write: Write) -> None:
    path = write(
        "class Net(nn.Module):\n"
        "    def __init__(self, width=3):\n        super().__init__()\n        self.f = nn.Linear(width, 2)\n"
        "    def forward(self, x):\n        return self.f(x)\n"
    )
    case = mixbench.build(f"{path}:Net", Workload(inputs=(TensorSpec((1, 5)),)), width=5)
    assert mixbench.count(case).totals.macs == 10


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_a_module_that_is_built_already_will_do(device: str, write: Write) -> None:
    path = write("net = nn.Sequential(nn.Linear(3, 2))\n")
    case = mixbench.build(f"{path}:net", Workload(inputs=(TensorSpec((4, 3)),)), device=device)
    assert mixbench.count(case).totals.macs == 24
    assert {parameter.device.type for parameter in case.module.parameters()} == {device}


def test_building_on_meta_leaves_a_users_own_module_its_values(write: Write) -> None:
    path = write("net = nn.Linear(3, 2)\nnet.weight.data.fill_(7)\n")
    spec = resolve(f"{path}:net")
    workload = Workload(inputs=(TensorSpec((1, 3)),))
    mixbench.build(spec, workload)
    real = mixbench.build(spec, workload, device="cpu").module
    assert torch.equal(real.get_parameter("weight"), torch.full((2, 3), 7.0))


def test_a_module_without_values_does_not_reach_a_device(write: Write) -> None:
    path = write("def make():\n    return nn.Linear(3, 2, device='meta'), torch.zeros(1, 3)\n")
    assert mixbench.count(mixbench.build(f"{path}:make")).totals.macs == 6
    assert "parameters on meta" in refused(f"{path}:make", device="cpu").what


def test_an_instance_takes_no_settings(write: Write) -> None:
    path = write("net = nn.Linear(3, 2)\n")
    error = refused(f"{path}:net", Workload(inputs=(TensorSpec((1, 3)),)), width=5)
    assert "'width'" in error.what


def test_a_factory_may_return_its_inputs_too(write: Write) -> None:
    path = write("def make():\n    return nn.Linear(3, 2), torch.zeros(6, 3)\n")
    case = mixbench.build(f"{path}:make")
    assert shapes(case) == [(6, 3)]
    assert case.workload.key == "6x3-float32-eval"
    assert shapes(mixbench.build(f"{path}:make", Workload(batch=9))) == [(9, 3)]


@pytest.mark.parametrize(
    ("inputs", "args", "kwargs"),
    [
        ("torch.zeros(2, 3)", [(2, 3)], {}),
        ("(torch.zeros(2, 3), torch.zeros(2, 1))", [(2, 3), (2, 1)], {}),
        ("[torch.zeros(2, 3)]", [(2, 3)], {}),
        ("{'x': torch.zeros(2, 3), 'y': torch.zeros(2, 1)}", [], {"x": (2, 3), "y": (2, 1)}),
        ("lambda: torch.zeros(2, 3)", [(2, 3)], {}),
    ],
)
def test_inputs_come_as_a_tensor_a_tuple_a_dict_or_a_function(
    inputs: str, args: list[tuple[int, ...]], kwargs: dict[str, tuple[int, ...]], write: Write
) -> None:
    path = write(
        "class Net(nn.Module):\n    def forward(self, x, y=None):\n        return x if y is None else x * y\n"
        f"def make():\n    return Net(), {inputs}\n"
    )
    case = mixbench.build(f"{path}:make")
    assert shapes(case) == args
    assert {name: tuple(tensor.shape) for name, tensor in case.kwargs.items()} == kwargs
    assert [spec.name for spec in case.workload.inputs] == [""] * len(args) + list(kwargs)
    mixbench.count(case)


def test_a_companion_function_gives_the_inputs(write: Write) -> None:
    path = write(
        "def make():\n    return nn.Embedding(9, 4)\ndef make_inputs():\n    return torch.zeros(2, 7, dtype=torch.int64)\n"
    )
    case = mixbench.build(f"{path}:make", Workload(dtype="float16"))
    assert [str(spec) for spec in case.workload.inputs] == ["2x7:int64"]
    assert case.args[0].dtype == torch.int64


def test_a_modules_example_inputs_are_used(write: Write) -> None:
    path = write("class Net(nn.Linear):\n    example_inputs = torch.zeros(5, 3)\ndef make():\n    return Net(3, 2)\n")
    assert shapes(mixbench.build(f"{path}:make")) == [(5, 3)]


def test_the_nearest_source_of_inputs_wins(write: Write) -> None:
    code = "class Net(nn.Linear):\n    example_inputs = torch.zeros(1, 3)\n"
    code += "def make():\n    return Net(3, 2)\ndef make_inputs():\n    return torch.zeros(2, 3)\n"
    code += "def pair():\n    return Net(3, 2), torch.zeros(3, 3)\ndef pair_inputs():\n    return torch.zeros(2, 3)\n"
    path = write(code)
    assert shapes(mixbench.build(f"{path}:make")) == [(2, 3)]
    assert shapes(mixbench.build(f"{path}:pair")) == [(3, 3)]
    assert shapes(mixbench.build(f"{path}:pair", Workload(inputs=(TensorSpec((4, 3)),)))) == [(4, 3)]


def test_example_inputs_may_be_described_instead_of_made(write: Write) -> None:
    code = "from mixbench.models.spec import TensorSpec\n"
    code += "class Net(nn.Module):\n    def forward(self, pair, *, ids):\n        return pair[0] * pair[1] + ids\n"
    code += "    example_inputs = {'pair': (TensorSpec((1, 3)),) * 2, 'ids': TensorSpec((1, 1), 'int64')}\n"
    path = write(code)
    workload = Workload(batch=4, dtype="float64", seed=3)
    case = mixbench.build(f"{path}:Net", workload, device="cpu")
    assert [str(item) for item in case.workload.inputs] == ["pair=4x3", "pair=4x3", "ids=4x1:int64"]
    (a, b), ids = case.kwargs["pair"], case.kwargs["ids"]
    assert a.dtype == torch.float64 and not torch.equal(a, b) and not ids.any()
    again = mixbench.build(f"{path}:Net", workload, device="cpu").kwargs["pair"]
    assert torch.equal(a, again[0]) and torch.equal(b, again[1])
    assert mixbench.build(f"{path}:Net").kwargs["ids"].is_meta


@pytest.mark.parametrize("name", all_names())
def test_a_factorys_example_inputs_are_its_familys_where_no_setting_is_changed(name: str) -> None:
    assert mixbench.build(name).workload.inputs == resolve(name).example_inputs


def test_named_inputs_reach_keyword_arguments(write: Write) -> None:
    path = write("class Net(nn.Module):\n    def forward(self, x, *, scale):\n        return x * scale\n")
    inputs = (TensorSpec.parse("2x3"), TensorSpec.parse("scale=2x1"))
    case = mixbench.build(f"{path}:Net", Workload(inputs=inputs), device="cpu")
    assert case.module(*case.args, **case.kwargs).shape == (2, 3)
    assert list(case.kwargs) == ["scale"]


def test_the_batch_repeats_the_rows_of_an_example(write: Write) -> None:
    path = write("def make():\n    return nn.Linear(1, 1), torch.arange(3.0)[:, None]\n")
    case = mixbench.build(f"{path}:make", Workload(batch=5), device="cpu")
    assert case.args[0].flatten().tolist() == [0, 1, 2, 0, 1]


def test_integer_inputs_index_every_table() -> None:
    inputs = (TensorSpec.parse("2x7:int64"), TensorSpec.parse("2x7:bool"), TensorSpec.parse("3:complex64"))
    case = mixbench.build("torch.nn:Identity", Workload(inputs=inputs), device="cpu")
    assert [tensor.dtype for tensor in case.args] == [torch.int64, torch.bool, torch.complex64]
    assert case.args[0].max() == 0


def test_a_sibling_file_can_be_imported(write: Write) -> None:
    write("WIDTH = 6\n", name="mixbench_test_sibling.py")
    path = write(
        "from mixbench_test_sibling import WIDTH\n"
        "def make():\n    return nn.Linear(WIDTH, 2)\n"
        "def late():\n    import mixbench_test_sibling\n    return nn.Linear(mixbench_test_sibling.WIDTH, 2)\n"
    )
    before = list(sys.path)
    try:
        for factory in ("make", "late"):
            assert mixbench.build(f"{path}:{factory}", Workload(inputs=(TensorSpec((1, 6)),))).module.in_features == 6
    finally:
        sys.modules.pop("mixbench_test_sibling", None)
    assert sys.path == before


def test_a_path_relative_to_the_folder_will_do(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write("def make():\n    return nn.Linear(3, 2), torch.zeros(1, 3)\n")
    monkeypatch.chdir(tmp_path)
    assert shapes(mixbench.build("net.py:make")) == [(1, 3)]
    assert shapes(mixbench.build("./net.py:make")) == [(1, 3)]


def test_two_files_of_the_same_name_are_two(write: Write, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    code = "def make():\n    return nn.Linear({0}, 2), torch.zeros(1, {0})\n"
    paths = [write(code.format(3)), write(code.format(4), name="other/net.py")]
    assert [shapes(mixbench.build(f"{path}:make")) for path in paths] == [[(1, 3)], [(1, 4)]]


def test_a_factory_that_refuses_meta_is_built_on_the_cpu_and_said(write: Write) -> None:
    path = write("def make():\n    width = int(torch.tensor(3.0).item())\n    return nn.Linear(width, 2), torch.zeros(1, 3)\n")
    case = mixbench.build(f"{path}:make")
    assert any("built on the CPU" in note for note in case.notes)
    assert all(parameter.is_meta for parameter in case.module.parameters())
    assert mixbench.count(case).totals.macs == 6


def test_a_factory_of_another_package_is_named_by_its_module() -> None:
    case = mixbench.build("torch.nn:Linear", Workload(inputs=(TensorSpec((2, 3)),)), in_features=3, out_features=5)
    assert mixbench.count(case).totals.macs == 30
    assert case.spec.name == "torch.nn:Linear"


# What is refused -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("def make():\n    raise ValueError('width has to be even')\n", "raises ValueError: width has to be even"),
        ("def make():\n    return 3\n", "returns int, not a torch.nn.Module"),
        ("def make():\n    pass\n", "returns NoneType"),
        ("def make():\n    return nn.Linear\n", "returns type"),
        ("def make():\n    return 3, torch.zeros(1)\n", "returns int"),
        ("class make(nn.Module):\n    pass\n", "which has no forward()"),
        ("def make():\n    return nn.Linear(3, 2)\n", "no example inputs are known"),
        ("def make():\n    return nn.Linear(3, 2)\ndef make_inputs():\n    return 1 / 0\n", "ZeroDivisionError"),
        ("def make():\n    import no_such_package_at_all\n", "no_such_package_at_all"),
        ("make = 3\n", "is a int"),
        ("def make(width):\n    return nn.Linear(width, 2)\n", "width"),
        ("1 / 0\n", "fails to import: ZeroDivisionError"),
        ("def make(:\n", "fails to import: SyntaxError"),
        ("import no_such_package_at_all\n", "no_such_package_at_all"),
        ("def meke():\n    pass\n", "has no 'make'"),
    ],
)
def test_what_is_wrong_with_a_users_file_is_said(code: str, words: str, write: Write) -> None:
    path = write(code)
    assert words in refused(f"{path}:make").what


def test_a_misspelt_factory_gets_the_nearest(write: Write) -> None:
    path = write("def make_net():\n    return nn.Linear(3, 2)\n")
    assert "make_net" in refused(f"{path}:makenet").hint


def test_a_setting_that_a_users_factory_lacks_is_named(write: Write) -> None:
    path = write(
        "def make(width=3):\n    return nn.Linear(width, 2), torch.zeros(1, width)\ndef none():\n    return nn.Identity()\n"
    )
    assert refused(f"{path}:make", depth=3).hint == "its settings: width"
    assert refused(f"{path}:none", depth=3).hint == "its factory takes no settings"


def test_a_factory_with_free_keyword_arguments_gets_them_all(write: Write) -> None:
    path = write("def make(**settings):\n    return nn.Linear(settings['n'], 2), torch.zeros(1, settings['n'])\n")
    assert shapes(mixbench.build(f"{path}:make", n=4)) == [(1, 4)]


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ("nowhere/net.py:make", "there is no file 'nowhere/net.py'"),
        ("no_such_package.models:make", "there is no Python module 'no_such_package.models'"),
        ("torch.nn.no_such_part:make", "there is no Python module"),
        ("torch.nn:Linnear", "has no 'Linnear'"),
        (":make", "is not PLACE:FACTORY"),
        ("net.py:", "is not PLACE:FACTORY"),
        (":", "is not PLACE:FACTORY"),
        ("a..b:make", "a..b"),
        (".:make", "."),
        ("../net:make", "../net"),
    ],
)
def test_a_place_that_is_not_there_is_said(words: str, what: str) -> None:
    assert what in refused(words).what


def test_a_file_without_a_factory_is_told_how_to_go_on(write: Write) -> None:
    path = write("")
    assert refused(path).hint.endswith(f"{path}:FACTORY")


def test_a_factory_may_refuse_in_mixbenchs_own_words(write: Write) -> None:
    path = write(
        "from mixbench.models.errors import BadInput\ndef make():\n    raise BadInput('odd width', 'give an even one')\n"
    )
    error = refused(f"{path}:make")
    assert (error.what, error.hint) == ("odd width", "give an even one")


def test_a_model_that_fails_on_its_inputs_says_which(write: Write) -> None:
    case = mixbench.build("torch.nn:Linear", Workload(inputs=(TensorSpec((2, 4)),)), in_features=3, out_features=5)
    with pytest.raises(BadInput, match=re.escape("torch.nn:Linear fails on 2x4: RuntimeError")):
        mixbench.count(case)
    assert isinstance(case.module, nn.Module)
    assert isinstance(case.args[0], Tensor)
