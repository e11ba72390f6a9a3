"""Peak memory: by hand on small nets, and against what torch's allocator gives out."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import mixbench
from mixbench.models.case import build
from mixbench.models.spec import TensorSpec, Workload
from mixbench.profilers.cost import Footprint, Held
from mixbench.profilers.counted_form import run_backward
from mixbench.profilers.memory import allocator_peak
from mixbench.profilers.runs.memory import memory_of
from mixbench.profilers.runs.run import result_of
from mixbench.profilers.subject import torch_subject

HERE = Path(__file__).parent
MODELS = HERE / "memory_nets.py"


def footprint(net: nn.Module, *shape: int, train: bool = False) -> Footprint:
    return mixbench.count_call(net.to("meta").train(train), torch.empty(shape, device="meta"), train=train).footprint


def test_a_chain_holds_a_result_and_the_next() -> None:
    net = nn.Sequential(nn.Linear(4, 10, bias=False), nn.Linear(10, 30, bias=False), nn.Linear(30, 2, bias=False))
    found = footprint(net, 5, 4)
    assert found.activation_bytes == 4 * 5 * (10 + 30 + 2)
    assert (found.peak_activation_bytes, found.peak_module, found.peak_operator) == (4 * 5 * (10 + 30), "1", "aten::mm")
    assert (found.input_bytes, found.output_bytes) == (4 * 5 * 4, 4 * 5 * 2)
    assert found.held == (Held("float32", 4 * (40 + 300 + 60), 0),)
    assert (found.saved_bytes, found.gradient_bytes, found.trained) == (0, 0, ())


def test_working_in_place_takes_nothing() -> None:
    assert footprint(nn.Sequential(nn.Linear(4, 10, bias=False), nn.ReLU(inplace=True)), 5, 4).peak_activation_bytes == 200
    assert footprint(nn.Sequential(nn.Linear(4, 10, bias=False), nn.ReLU()), 5, 4).peak_activation_bytes == 400


def test_a_residual_is_held_until_it_is_added() -> None:
    class Residual(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            kept = x * 2
            return kept + (kept * 3).relu()

    assert footprint(Residual(), 25).peak_activation_bytes == 3 * 100


def test_training_keeps_what_the_backward_pass_needs_and_makes_gradients() -> None:
    net = nn.Sequential(nn.Linear(4, 10, bias=False), nn.Tanh(), nn.Linear(10, 2, bias=False))
    found = footprint(net, 5, 4, train=True)
    # The tanh's result, for its own derivative and for the weight's gradient; the first product is given back; the output.
    assert found.saved_bytes == 4 * 5 * (10 + 2)
    assert found.gradient_bytes == 4 * (40 + 20)
    assert found.trained == (160, 80)


def test_shared_weights_are_held_once_and_dtypes_apart() -> None:
    net = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False), nn.BatchNorm1d(4))
    net[1].weight = net[0].weight
    found = mixbench.count_call(net.eval(), torch.ones(2, 4)).footprint
    assert found.held == (Held("float32", 4 * (16 + 8), 4 * 8), Held("int64", 0, 8))
    assert (found.param_bytes, found.buffer_bytes) == (96, 40)


def test_attentions_scores_are_held_by_nobody_where_torch_has_a_kernel() -> None:
    class Attention(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.scaled_dot_product_attention(x, x, x)

    assert footprint(Attention(), 1, 2, 512, 8).peak_activation_bytes == 2 * 512 * 8 * 4
    assert footprint(Attention(), 2, 512, 8).peak_activation_bytes > 2 * 512 * 512 * 4, "of three dimensions it has none"


def compared(name: str, mode: str, channels_last: bool = False) -> float:
    """The peak by shapes over the measured one: all blocks that torch's CPU allocator gives out in one call, at once."""
    workload = Workload(mode="train" if mode == "train" else "eval")
    peak = mixbench.count(build(name, workload)).footprint.peak_activation_bytes
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        subject = torch_subject(build(name, workload, device="cpu"), channels_last=channels_last)
        with torch.enable_grad() if subject.grad else torch.inference_mode():
            subject.call()
            return peak / allocator_peak(subject.call)
    finally:
        torch.set_num_threads(threads)


# The channels-last layout is the one in which oneDNN makes no copies of its own between layouts: 10 % of the peak at most.
@pytest.mark.parametrize("name", ["ghostnetv2", "affnet-et", f"{MODELS}:resnet"])
def test_peaks_of_convolutional_nets_are_those_of_the_allocator(name: str) -> None:
    assert compared(name, "eval", channels_last=True) == pytest.approx(1, abs=0.03)
    assert compared(name, "eval") == pytest.approx(1, abs=0.12)


@pytest.mark.parametrize("name", [f"{MODELS}:decoder", "graphwindow", "tokenring"])
def test_peaks_of_transformers_are_those_of_the_allocator(name: str) -> None:
    assert compared(name, "eval") == pytest.approx(1, abs=0.001)
    assert compared(name, "train") == pytest.approx(1, abs=0.03)


def test_peaks_of_training_are_those_of_the_allocator() -> None:
    assert compared("affnet-et", "train") == pytest.approx(1, abs=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ghostnetv2", "affnet", f"{MODELS}:resnet"])
def test_peaks_of_training_whole_nets_are_those_of_the_allocator(name: str) -> None:
    assert compared(name, "train") == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("name", ["sgd", "sgd with momentum", "adam", "adamw"])
def test_optimisers_keep_and_take_what_their_rules_say(name: str) -> None:
    workload = Workload(mode="train")
    case = build(f"{MODELS}:decoder", workload)
    memory = result_of(case, mixbench.count(case)).memory
    assert memory.training is not None
    rule = next(item for item in memory.training.optimisers if item.name == name)
    real = build(f"{MODELS}:decoder", workload, device="cpu")
    parameters = list(real.module.parameters())
    made: dict[str, torch.optim.Optimizer] = {
        "sgd": torch.optim.SGD(parameters, lr=0.1, foreach=False),
        "sgd with momentum": torch.optim.SGD(parameters, lr=0.1, momentum=0.9, foreach=False),
        "adam": torch.optim.Adam(parameters, foreach=False),
        "adamw": torch.optim.AdamW(parameters, foreach=False),
    }
    optimiser = made[name]

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        run_backward(real.module(*real.args))
        optimiser.step()

    step()
    kept = [item for state in optimiser.state.values() for item in state.values() if isinstance(item, Tensor)]
    assert rule.state_bytes == sum(item.untyped_storage().nbytes() for item in kept)
    before = memory.param_bytes + memory.buffer_bytes + memory.input_bytes + rule.state_bytes
    assert rule.peak_bytes == pytest.approx(before + allocator_peak(step), rel=0.03)


def test_a_step_of_adam_may_be_the_peak() -> None:
    """One large parameter and next to no activations: two copies of it beside the gradient."""
    found = memory_of(Footprint(peak_activation_bytes=110, gradient_bytes=100, trained=(100,), output_bytes=0), train=True)
    assert found.training is not None
    peaks = {item.name: item.peak_bytes for item in found.training.optimisers}
    assert peaks == {"sgd": 110, "sgd with momentum": 210, "adam": 100 + 200 + 200 + 4, "adamw": 504}


@pytest.mark.alone
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux tells the high-water mark of resident memory")
def test_a_fresh_process_grows_by_what_is_predicted() -> None:
    """Resident memory of a process that runs a net with large activations, beyond what it had after its first small run."""
    program = f"""
import sys, torch
from pathlib import Path
sys.path.insert(0, {str(HERE)!r})
from memory_nets import wide
torch.set_num_threads(1)
lines = lambda: (line.split() for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("Vm"))
status = lambda: {{words[0][:-1]: int(words[1]) for words in lines()}}
net = wide()
with torch.inference_mode():
    net(torch.ones(1, 64))
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts from here
    before = status()["VmRSS"]
    x = torch.ones(20000, 64)
    net(x)
print(status()["VmHWM"] - before)
"""
    grown = 1024 * int(subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout)
    found = mixbench.count(build(f"{MODELS}:wide", Workload((TensorSpec((20000, 64)),)))).footprint
    assert grown == pytest.approx(found.peak_activation_bytes + found.input_bytes, rel=0.1)


def test_training_seventy_billion_parameters_is_counted_without_the_compiler() -> None:
    """Which would take as long as all the rest; the seconds are for `benchmarks/flops_speed.py`."""
    program = f"""
import sys
from mixbench.models.case import build
from mixbench.models.spec import TensorSpec, Workload
from mixbench.profilers.counter import count
from mixbench.profilers.runs.run import result_of
case = build({f"{MODELS}:seventy_billion"!r}, Workload(mode="train"))
result = result_of(case, count(case))
assert result.totals.params == 70_553_706_496, result.totals.params
assert not {{"sympy", "torch._dynamo"}} & set(sys.modules)
print(result.memory.training.gradient_bytes, result.memory.param_bytes)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    gradients, weights = map(int, done.stdout.split())
    assert gradients == weights
