"""The command line as a user meets it: the installed script, its output, its exit codes."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch

import mixbench.models as mixbench_models

SCRIPT = Path(sys.executable).with_name("mixbench")


def mixbench(*words: str, env: dict[str, str] | None = None, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the installed script; its terminal is a pipe."""
    plain = {name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "MIXBENCH_DEBUG")}
    return subprocess.run(
        [SCRIPT, *words], capture_output=True, text=True, env=plain | (env or {}), cwd=cwd, timeout=120, encoding="utf-8"
    )


def failure(*words: str, code: int = 2, cwd: Path | None = None) -> tuple[str, str]:
    """What a command that has to fail says: one line on what was wrong, one on what to do, and nothing on stdout."""
    done = mixbench(*words, cwd=cwd)
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    assert done.stdout == ""
    error, hint = done.stderr.splitlines()
    assert error.startswith("error: ")
    assert hint.startswith("hint: ")
    return error, hint


def record(*words: str) -> dict[str, Any]:
    done = mixbench("flops", *words, "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of a user's own models, good and bad."""
    path = tmp_path_factory.mktemp("user") / "net.py"
    path.write_text(
        """
import torch
from torch import nn

torch.library.define("cli_test::opaque", "(Tensor x) -> Tensor")
torch.library.impl("cli_test::opaque", "CompositeExplicitAutograd")(lambda x: x.clone())

class Opaque(nn.Module):
    example_inputs = torch.zeros(2, 8)
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 4)
    def forward(self, x):
        return torch.ops.cli_test.opaque(self.linear(x))

class Names(nn.Module):
    def __init__(self):
        super().__init__()
        self.parts = nn.ModuleDict({"a[x]": nn.Linear(8, 4)})
    def forward(self, x):
        return self.parts["a[x]"](x)

def make(width=16):
    return nn.Linear(8, width), torch.zeros(3, 8)

def broken():
    raise ValueError("no such luck")

def interrupted():
    raise KeyboardInterrupt

def slow():
    import time
    print("ready", flush=True)
    time.sleep(60)

def waits():
    import time
    time.sleep(3)
    return nn.Linear(4, 4), torch.zeros(1, 4)

def headless():
    return nn.Module(), torch.zeros(1)

def number():
    return 7
"""
    )
    return path


def test_the_table_shows_the_exact_figures_and_the_published_ones() -> None:
    done = mixbench("flops", "ghostnetv2")
    assert done.returncode == 0
    assert done.stderr == ""
    for figure in ("6,156,908", "167,048,288", "334,096,576", "100 %", "6.1M", "6,125,716", "167M", "arXiv 2211.12905"):
        assert figure in done.stdout
    assert "\x1b" not in done.stdout, "no colour in a pipe"
    assert all(line == line.rstrip() for line in done.stdout.splitlines())


def test_json_is_one_document_that_keeps_its_shipped_schema() -> None:
    found = record("ghostnetv2", "ghostnet-1.3x", "--verify", "torch")
    schema = json.loads((files("mixbench.profilers.runs") / "flops-2.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(found, schema)
    v2, v1 = found["models"]
    assert v2["totals"] == {
        "params": 6156908,
        "macs": 167048288,
        "flops": 334096576,
        "fft_flops": 0,
        "elementwise_flops": 15232808,
        "activations": 4551068,
        "read_bytes": 111708400,
        "written_bytes": 74297504,
        "compulsory_read_bytes": 25479280,
        "compulsory_written_bytes": 4000,
    }
    assert v2["uncounted"] == []
    assert v1["totals"]["macs"] == 227003256
    assert [opinion["theirs_macs"] for opinion in v2["opinions"]] == [167048288]


def test_the_schema_refuses_a_record_without_totals() -> None:
    found = record("ghostnet")
    del found["models"][0]["totals"]
    schema = json.loads((files("mixbench.profilers.runs") / "flops-2.schema.json").read_text(encoding="utf-8"))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(found, schema)


def test_json_says_the_same_twice() -> None:
    assert mixbench("flops", "ghostnet", "--json").stdout == mixbench("flops", "ghostnet", "--json").stdout


@pytest.mark.parametrize(
    ("model", "macs"),
    [
        ("ghostnetv2-1.0x", 167048288),
        ("ghostnetv2-1.3x", 269322976),
        ("ghostnetv2-1.6x", 398607224),
        ("ghostnet-1.0x", 141150512),
    ],
)
def test_every_named_variant_counts(model: str, macs: int) -> None:
    assert record(model)["models"][0]["totals"]["macs"] == macs


def test_workload_options_reach_the_model() -> None:
    (small,) = record("ghostnetv2", "--input", "1x3x192x192")["models"]
    assert small["totals"]["macs"] == 125351360
    assert small["workload"] == "1x3x192x192-float32-eval"
    (batch,) = record("ghostnetv2", "--batch", "4", "--dtype", "bfloat16")["models"]
    assert batch["totals"]["macs"] == 4 * 167048288
    assert (batch["dtype"], batch["inputs"]) == ("bfloat16", ["4x3x224x224"])
    assert [item["agrees"] for item in batch["published"]] == [True, True], "published figures are per sample"
    assert not any(item["metric"] == "macs" for item in small["published"]), "they hold for the published size only"
    (narrow,) = record("ghostnetv2", "--kwarg", "num_classes=10")["models"]
    assert narrow["totals"]["params"] == 4888718
    assert narrow["published"] == []


def test_train_counts_forward_and_backward_as_executed() -> None:
    (found,) = record("ghostnetv2", "--train", "--batch", "2")["models"]
    forward, backward = found["forward"]["macs"], found["backward"]["macs"]
    assert forward == 2 * 167048288
    # Twice the forward, less the stem's input gradient, which nothing needs.
    assert backward == 2 * forward - 2 * 5419008
    assert found["totals"]["macs"] == forward + backward


def test_csv_has_a_line_for_each_model_module_or_operator() -> None:
    lines = list(csv.DictReader(io.StringIO(mixbench("flops", "ghostnetv2", "ghostnet", "--csv").stdout)))
    assert [line["macs"] for line in lines] == ["167048288", "141150512"]
    modules = list(csv.DictReader(io.StringIO(mixbench("flops", "ghostnet", "--csv", "--depth", "1").stdout)))
    assert sum(int(line["macs"]) for line in modules if line["depth"] == "1") == 141150512
    operators = list(csv.DictReader(io.StringIO(mixbench("flops", "ghostnet", "--csv", "--by-op").stdout)))
    assert sum(int(line["macs"]) for line in operators) == 141150512


def test_module_tree_and_operators_are_shown() -> None:
    text = mixbench("flops", "ghostnetv2", "--depth", "4", "--by-op").stdout
    assert "ghost1" in text
    assert "95.3 %" in text
    assert "aten::native_batch_norm" in text
    assert "free: empty, t, view" in text


def test_fvcore_and_torch_are_asked_and_their_differences_add_up() -> None:
    found = record("ghostnetv2", "--verify", "fvcore", "--verify", "torch")["models"][0]["opinions"]
    fvcore, torch = found
    assert fvcore["theirs_macs"] == 178077200
    assert torch["theirs_macs"] == torch["ours_macs"] == 167048288
    gaps = {item["operators"]: item["theirs_macs"] - item["ours_macs"] for item in fvcore["differences"]}
    assert sum(gaps.values()) == 178077200 - 167048288
    assert (gaps["norm"], gaps["pooling"], gaps["convolution"]) == (9087728, 1390816 + 550368, 0)
    skipped = {item["operators"]: item["skipped_calls"] for item in fvcore["differences"] if item["skipped_calls"]}
    assert skipped["sigmoid"] == 14


def test_a_users_own_model_counts(net: Path) -> None:
    (found,) = record(f"{net}:make", "--kwarg", "width=32")["models"]
    assert found["totals"]["macs"] == 3 * 8 * 32
    done = mixbench("flops", "net:make", cwd=net.parent)
    assert done.returncode == 0
    assert "384" in done.stdout


def test_an_operator_without_a_rule_is_named_in_table_and_json(net: Path) -> None:
    (found,) = record(f"{net}:Opaque")["models"]
    assert found["uncounted"] == [{"operator": "cli_test::opaque", "calls": 1}]
    assert found["coverage"]["calls"] - found["coverage"]["covered_calls"] == 1
    text = mixbench("flops", f"{net}:Opaque", "--by-op").stdout
    assert "cli_test::opaque, 1 calls: no rule" in text
    assert "100 %" not in text.split("\n\n")[0]


def test_brackets_in_module_names_are_no_markup(net: Path) -> None:
    assert "    a[x]" in mixbench("flops", f"{net}:Names", "--input", "1x8", "--depth", "2").stdout


def test_output_is_written_whole_and_its_suffix_says_the_format(tmp_path: Path) -> None:
    target = tmp_path / "cost.json"
    done = mixbench("flops", "ghostnet", "-o", str(target))
    assert (done.returncode, done.stdout) == (0, "")
    assert json.loads(target.read_text())["models"][0]["model"] == "ghostnet-1.0x"
    assert [path.name for path in tmp_path.iterdir()] == ["cost.json"], "no temporary file is left"
    assert mixbench("flops", "ghostnet", "-o", "-", "--csv").stdout.startswith("model,")


@pytest.mark.parametrize(
    ("words", "what", "hint"),
    [
        (["ghostnet2"], "no model named 'ghostnet2'", "did you mean ghostnetv2"),
        (["ghostnetv2-2.0x"], "no variant '2.0x'", "1.0x, 1.3x, 1.6x"),
        (["ghostnetv2", "--input", "1x3xhuge"], "'1x3xhuge' is not a shape", "1x3x224x224"),
        (["ghostnetv2", "--input", "1x0x8x8"], "side of 0", "at least 1"),
        (["ghostnetv2", "--input", "1x3x32x32"], "at least 33x33 pixels, not 32x32", "--input"),
        (["ghostnetv2", "--input", "1x4x64x64"], "fails on 1x4x64x64", "--input"),
        (["ghostnetv2", "--input", "1x3x64x64:int64"], "fails on 1x3x64x64:int64", "--input"),
        (["ghostnetv2", "--batch", "0"], "batch of 0", "--batch"),
        (["ghostnetv2", "--batch", "many"], "--batch", "--help"),
        (["ghostnetv2", "--dtype", "int4"], "--dtype", "--help"),
        (["ghostnetv2", "--kwarg", "size=3"], "no setting 'size'", "width, num_classes"),
        (["ghostnetv2", "--kwarg", "width"], "not NAME=VALUE", "width=0.75"),
        (["ghostnetv2", "--verify", "thop"], "no counter named 'thop'", "fvcore, torch"),
        (["ghostnetv2", "--weights", "none.pth"], "no file 'none.pth'", "--weights"),
        (["ghostnetv2", "--json", "--csv"], "two formats", "one of them"),
        (["ghostnetv2", "-o", "no/such/folder/x.json"], "no folder 'no/such/folder'", "make it"),
        (["ghostnetv2", "-o", "."], "is a folder", "file"),
        (["ghostnetv2", "-o", "cost.pdf"], "does not say its format", ".json"),
        (["ghostnetv2", "--nonsense"], "No such option", "--help"),
        (["net.py"], "names a file", "net.py:FACTORY"),
        (["nowhere.py:make"], "no file 'nowhere.py'", "path"),
        (["no_such_package.module:make"], "no Python module 'no_such_package.module'", "spelling"),
        ([], "MODEL", "mixbench flops --help"),
    ],
)
def test_bad_input_is_explained_in_two_lines(words: list[str], what: str, hint: str) -> None:
    said = failure("flops", *words)
    assert what in said[0]
    assert hint in said[1]


@pytest.mark.parametrize(
    ("factory", "what"),
    [
        ("broken", "raises ValueError: no such luck"),
        ("headless", "has no forward()"),
        ("number", "returns int, not a torch.nn.Module"),
        ("mak", "has no 'mak'"),
    ],
)
def test_a_users_bad_factory_is_explained(net: Path, factory: str, what: str) -> None:
    assert what in failure("flops", f"{net}:{factory}")[0]


def test_a_misspelt_command_is_answered_with_the_nearest() -> None:
    error, hint = failure("flop", "ghostnetv2")
    assert "flop" in error
    assert "flops" in hint


@pytest.mark.parametrize("place", ["before", "after"])
def test_debug_shows_the_traceback_wherever_it_stands(net: Path, place: str) -> None:
    words = ["flops", f"{net}:broken"]
    done = mixbench(*(["--debug", *words] if place == "before" else [*words, "--debug"]))
    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert 'raise ValueError("no such luck")' in done.stderr


def test_an_unwritable_output_is_refused_before_any_work(tmp_path: Path) -> None:
    target = tmp_path / "cost.json"
    target.mkdir()
    assert "is a folder" in failure("flops", "ghostnetv2", "-o", str(target))[0]


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX pipes and signals")
def test_a_closed_pipe_is_quiet() -> None:
    command = f"'{SCRIPT}' flops ghostnetv2 --json | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines() == ["{", "0"]
    assert done.stderr == ""


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX pipes and signals")
def test_ctrl_c_ends_with_130_and_no_traceback(net: Path) -> None:
    process = subprocess.Popen(
        [SCRIPT, "flops", f"{net}:slow"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell starts its background jobs deaf to Ctrl-C, and the tests may be one.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - no threads here
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err


def test_an_interrupt_anywhere_is_130(net: Path) -> None:
    done = mixbench("flops", f"{net}:interrupted")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_colour_follows_the_terminal_and_the_environment() -> None:
    assert "\x1b[" in mixbench("flops", "ghostnet", env={"FORCE_COLOR": "1"}).stdout
    bare = mixbench("flops", "ghostnet", env={"FORCE_COLOR": "1", "NO_COLOR": "1"}).stdout
    assert "\x1b[3" not in bare, "NO_COLOR wins over colours"
    assert mixbench("models", env={"PYTHONIOENCODING": "ascii"}).returncode == 0


def test_help_groups_commands_and_ends_in_examples() -> None:
    text = mixbench("--help").stdout
    assert text.index("Look") < text.index("models") < text.index("Count") < text.index("flops")
    for command in ("models", "info", "doctor", "flops"):
        assert f"mixbench {command}" in mixbench(command, "--help").stdout.partition("Examples")[2]


def test_no_arguments_show_the_help_and_are_wrong_use() -> None:
    done = mixbench()
    assert done.returncode == 2
    assert "Usage" in done.stdout + done.stderr


def test_version_names_what_matters() -> None:
    words = mixbench("--version").stdout
    assert "mixbench 0.1.0" in words
    assert "torch 2." in words
    assert mixbench("-V").stdout == words


def test_models_lists_architectures_with_their_source() -> None:
    text = mixbench("models").stdout
    assert "ghostnetv2" in text
    assert "https://arxiv.org/abs/2211.12905" in text
    found = json.loads(mixbench("models", "--json").stdout)
    entries = {item["name"]: item for item in found["models"]}
    assert entries["ghostnetv2"]["variants"] == ["0.5x", "1.0x", "1.3x", "1.6x"]
    assert entries["ghostnetv2"]["task"] == "image classification"
    assert "ghostnetv2-1.6x" in mixbench("models", "--names").stdout.splitlines()
    assert len(list(csv.DictReader(io.StringIO(mixbench("models", "--csv").stdout)))) == len(entries)


def test_info_tells_the_published_table_and_its_source() -> None:
    text = mixbench("info", "ghostnetv2-1.3x").stdout
    for words in ("NeurIPS 2022", "269M", "76.9", "ghostnetv2-1.0x (default)", "huawei-noah/Efficient-AI-Backbones"):
        assert words in text
    assert json.loads(mixbench("info", "ghostnet", "--json").stdout)["family"]["title"] == "GhostNet"
    assert "none of mixbench's own models" in failure("info", "json:loads")[0]


def test_doctor_tells_machine_and_versions() -> None:
    found = json.loads(mixbench("doctor", "--json").stdout)
    assert found["versions"]["torch"].startswith("2.")
    assert found["memory_bytes"] > found["free_memory_bytes"] > 0
    assert "processor" in mixbench("doctor").stdout


def test_completion_offers_model_names() -> None:
    env = {
        "_MIXBENCH_COMPLETE": "complete_zsh",
        "_TYPER_COMPLETE_ARGS": "mixbench flops ghostnetv2-1",
    }
    text = mixbench(env=env).stdout
    assert "ghostnetv2-1.3x" in text
    assert "ghostnet-1.3x" not in text


def test_python_dash_m_is_the_same_command() -> None:
    done = subprocess.run([sys.executable, "-m", "mixbench", "--version"], capture_output=True, text=True)
    assert done.stdout == mixbench("--version").stdout


def test_weights_of_another_model_are_refused_with_the_keys_that_do_not_fit(tmp_path: Path) -> None:
    torch.save(mixbench_models.GhostNet().state_dict(), tmp_path / "v1.pth")
    error, hint = failure("flops", "ghostnetv2", "--weights", str(tmp_path / "v1.pth"))
    assert "252 of 764 entries: missing blocks.2.0.ghost1.short_conv.0.weight" in error
    assert "width, num_classes" in hint
    assert mixbench("flops", "ghostnet", "--weights", str(tmp_path / "v1.pth")).returncode == 0


def test_a_checkpoint_that_wants_to_run_code_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    class Malicious:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"state_dict": Malicious()}, tmp_path / "bad.pth")
    error, _ = failure("flops", "ghostnetv2", "--weights", str(tmp_path / "bad.pth"))
    assert "would run code" in error
    assert "mkdir" in error
    assert not (tmp_path / "ran").exists()


def test_a_model_too_large_for_memory_is_counted() -> None:
    decoder = Path(__file__).resolve().parent.parent / "benchmarks" / "decoder.py"
    (found,) = record(f"{decoder}:seven_billion")["models"]
    tokens, width, hidden, vocabulary = 2048, 4096, 11008, 32000
    layer = tokens * (4 * width * width + 3 * width * hidden) + 2 * tokens * tokens * width
    assert found["totals"]["macs"] == 32 * layer + tokens * width * vocabulary
    assert found["totals"]["params"] == 6738415616
    assert (found["device"], found["uncounted"]) == ("meta", [])


@pytest.mark.skipif(sys.platform == "win32", reason="a pseudo-terminal")
def test_progress_shows_on_a_terminal_only_and_goes_away(net: Path) -> None:
    import pty

    controller, terminal = pty.openpty()
    command = [str(SCRIPT), "flops", f"{net}:waits"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=terminal, text=True, timeout=120)
    os.close(terminal)
    said = os.read(controller, 100_000).decode()
    os.close(controller)
    assert f"counting {net}:waits" in said.replace("\r\n", "")
    assert "counting" not in done.stdout
    assert mixbench("flops", f"{net}:waits").stderr == ""
