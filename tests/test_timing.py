"""The method of timing, on devices whose clocks are scripted; memory and subjects on the real CPU."""

import gc
from collections.abc import Iterator
from itertools import count as counter

import pytest
import torch
from torch import Tensor, nn

import mixbench
from mixbench.models.errors import BadInput, CannotMeasure
from mixbench.models.spec import TensorSpec, Workload
from mixbench.profilers.devices.accelerator import Accelerator
from mixbench.profilers.devices.base import Call, Conditions, Memory, find, names
from mixbench.profilers.devices.cpu import Cpu
from mixbench.profilers.memory import allocator_peak
from mixbench.profilers.roofline import Level, Roof
from mixbench.profilers.runs.timing_run import achieved, judge
from mixbench.profilers.stats import Estimate
from mixbench.profilers.subject import Subject, torch_subject
from mixbench.profilers.timing import MIN_ROUNDS, Timing, measure, overhead_ns, peak_memory

pytestmark = pytest.mark.alone


class Scripted:
    """A device on which time passes as its calls say: a call returns its own duration in ns."""

    kind, clock, flushes = "cpu", "scripted", False

    def describe(self) -> str:
        return "a script"

    def time_ns(self, call: Call) -> float:
        result = call()
        return result if isinstance(result, float) else 0.0

    def time_many_ns(self, call: Call, calls: int) -> float:
        return sum(self.time_ns(call) for _ in range(calls))

    def flush(self) -> None: ...

    def synchronise(self) -> None: ...

    def memory(self, call: Call, held_bytes: int) -> Memory:
        return Memory(held_bytes, 0, "a script")

    def conditions(self) -> Conditions:
        return Conditions()


def playing(durations: Iterator[float], log: list[str] | None = None, name: str = "a") -> Subject:
    """A subject that takes these times."""

    def call() -> float:
        if log is not None:
            log.append(name)
        return next(durations)

    return Subject(name, call)


def steady(duration: float) -> Iterator[float]:
    while True:
        yield duration


def test_the_cold_call_stands_apart_and_warm_up_is_not_sampled() -> None:
    def warming() -> Iterator[float]:
        yield 1e9
        for step in counter():
            yield 1e6 + 5e6 / (1 + step)

    found = measure([playing(warming())], Scripted(), samples=50).timings[0]
    assert found.cold_ns == 1e9
    assert max(found.samples) < 2e6
    assert len(found.samples) == 50
    assert len(found.warm_up) >= 20
    assert found.steady


def test_rounds_take_one_call_of_each_in_random_order() -> None:
    log: list[str] = []
    subjects = [playing(steady(1e6), log, name) for name in "ab"]
    found = measure(subjects, Scripted(), samples=200)
    blocks = max(1, round(50e6 / 1e6)) * 12  # throughput comes last: so many calls of each
    rounds = log[-2 * blocks - 400 : -2 * blocks]
    pairs = [rounds[i : i + 2] for i in range(0, len(rounds), 2)]
    assert all(sorted(pair) == ["a", "b"] for pair in pairs)
    assert 60 < sum(pair[0] == "a" for pair in pairs) < 140
    assert [len(timing.samples) for timing in found.timings] == [200, 200]


def test_drift_that_hits_both_leaves_their_ratio() -> None:
    now = counter()

    def drifting(factor: float) -> Iterator[float]:
        while True:
            yield factor * (1e6 + 1e3 * next(now))

    found = measure([playing(drifting(1.0), name="a"), playing(drifting(1.05), name="b")], Scripted(), samples=400)
    ratio = found.ratio(1)
    assert ratio is not None
    assert ratio.value == pytest.approx(1.05, abs=0.003)


def test_sampling_ends_when_the_interval_is_narrow_and_not_before() -> None:
    noise = iter(lambda: 1e6, None)
    found = measure([playing(noise)], Scripted(), seconds=30.0, precision=0.01)
    assert len(found.timings[0].samples) >= 100
    many = found.timings[0].latency
    assert many.low is not None
    assert many.high is not None
    assert many.high - many.low <= 0.02 * many.value


def test_a_slow_model_gets_the_fewest_rounds_that_have_an_interval() -> None:
    found = measure([playing(steady(1e6))], Scripted(), seconds=1e-9)
    assert len(found.timings[0].samples) == MIN_ROUNDS
    assert found.timings[0].latency.low is not None


def test_tails_are_shown_only_where_ten_samples_lie_beyond() -> None:
    timing = Timing(playing(steady(1.0)), samples=[float(i) for i in range(999)])
    assert timing.percentile(0.99) is None
    assert timing.percentile(0.9) is not None
    timing.samples.append(999.0)
    tail = timing.percentile(0.99)
    assert tail is not None
    assert tail.value == pytest.approx(989.01)


def test_stopping_keeps_whole_rounds_and_says_so() -> None:
    log: list[str] = []

    def call() -> float:
        log.append("a")
        if min(log[-30:].count(name) for name in "ab") > 10:  # rounds are under way
            raise KeyboardInterrupt
        return 1e6

    found = measure([Subject("a", call), playing(steady(1e6), log, "b")], Scripted(), samples=1_000_000)
    assert found.partial
    assert len(found.timings[0].samples) == len(found.timings[1].samples) > 0


def test_stopping_before_the_first_round_is_no_result() -> None:
    def stopped() -> float:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure([Subject("a", stopped)], Scripted())


def test_the_collector_rests_within_samples_and_works_again_afterwards() -> None:
    seen = []

    def call() -> float:
        seen.append(gc.isenabled())
        return 1e6

    gc.enable()
    measure([Subject("a", call)], Scripted(), samples=10)
    assert not any(seen)
    assert gc.isenabled()


def test_a_model_that_fails_is_named() -> None:
    def broken() -> float:
        raise ValueError("no such luck")

    gc.enable()
    with pytest.raises(CannotMeasure, match="net fails while it is timed: ValueError: no such luck"):
        measure([Subject("net", broken)], Scripted())
    assert gc.isenabled()


def test_noise_and_a_heavy_method_are_told() -> None:
    every_fifth = (3e6 if i % 5 == 0 else 1e6 for i in counter())
    found = measure([playing(steady(1e6), name="calm"), playing(every_fifth, name="wild")], Scripted(), samples=200)
    assert any("wild took over 3.0 x its median" in warning for warning in found.warnings)
    assert not any("calm" in warning for warning in found.warnings)


class Queue:
    """A stand-in for ``torch.accelerator`` and its events: work is queued, and its clock moves only when somebody waits."""

    def __init__(self, elapsed_ms: float = 2.0) -> None:
        self.log: list[str] = []
        self.elapsed_ms = elapsed_ms
        self.held = 0
        self.peak = 0

    def event(self) -> "Queue.Event":
        return Queue.Event(self)

    def synchronize(self) -> None:
        self.log.append("synchronize")

    def memory_allocated(self) -> int:
        return self.held

    def max_memory_allocated(self) -> int:
        return self.peak

    def reset_peak_memory_stats(self) -> None:
        self.peak = self.held

    class Event:
        def __init__(self, queue: "Queue") -> None:
            self.queue = queue

        def record(self) -> None:
            self.queue.log.append("record")

        def synchronize(self) -> None:
            self.queue.log.append("wait")

        def elapsed_time(self, end: "Queue.Event") -> float:
            assert self.queue.log[-1] == "wait", "asked for the time before the work was done"
            return self.queue.elapsed_ms


class Buffer:
    def __init__(self, log: list[str]) -> None:
        self.log = log

    def zero_(self) -> None:
        self.log.append("flush")


def accelerator(queue: Queue) -> Accelerator:
    return Accelerator(torch.device("cuda"), queue, queue.event, lambda: Buffer(queue.log))  # type: ignore[arg-type, return-value]


def test_an_accelerator_is_timed_by_events_and_waited_for_once() -> None:
    queue = Queue(elapsed_ms=2.5)
    device = accelerator(queue)
    assert device.time_ns(lambda: queue.log.append("call")) == 2.5e6
    assert queue.log == ["record", "call", "record", "wait"]
    queue.log.clear()
    assert device.time_many_ns(lambda: queue.log.append("call"), 3) == 2.5e6
    assert queue.log == ["record", "call", "call", "call", "record", "wait"]


def test_its_cache_is_flushed_before_each_sample_and_outside_of_its_time() -> None:
    queue = Queue()
    found = measure([Subject("a", lambda: queue.log.append("call"))], accelerator(queue), samples=20)
    assert found.timings[0].samples == [2e6] * 20
    assert queue.log.count("flush") == 20
    for place, word in enumerate(queue.log):
        if word == "flush":
            assert queue.log[place + 1 : place + 5] == ["record", "call", "record", "wait"]


def test_an_accelerator_that_lies_about_time_is_not_believed() -> None:
    with pytest.raises(CannotMeasure, match="took -1000000 ns"):
        accelerator(Queue(elapsed_ms=-1.0)).time_ns(lambda: None)


def test_an_accelerators_peak_is_what_the_call_added() -> None:
    queue = Queue()
    queue.held = 1000

    def call() -> None:
        queue.peak = 1700

    found = accelerator(queue).memory(call, held_bytes=900)
    assert (found.peak_bytes, found.working_bytes) == (1600, 700)


def test_devices_have_names_and_wrong_ones_are_refused() -> None:
    assert names() == ["cpu", "cuda"]
    assert isinstance(find("cpu"), Cpu)
    with pytest.raises(BadInput, match="no device named 'gpu'"):
        find("gpu")


@pytest.mark.skipif(torch.accelerator.is_available(), reason="this machine has an accelerator")
@pytest.mark.parametrize("name", ["cuda", "cuda:7", "mps", "xpu"])
def test_a_device_that_is_not_there_is_said_to_be_missing(name: str) -> None:
    with pytest.raises(CannotMeasure, match=f"no device '{name}'"):
        find(name)


def test_the_allocators_peak_is_exact() -> None:
    x = torch.zeros(1000)  # 4,000 bytes

    def call() -> Tensor:
        a = torch.relu(x)  # one block
        b = torch.relu(a)  # two
        del a
        return torch.relu(b)  # two again

    assert allocator_peak(call) == 8000
    assert allocator_peak(lambda: x.view(10, 100)) == 0


def test_peak_memory_of_a_model_is_weights_inputs_and_what_the_call_takes() -> None:
    model = nn.Sequential(nn.Linear(100, 300, bias=False), nn.ReLU(inplace=True), nn.Linear(300, 10, bias=False)).eval()
    call_input = torch.zeros(7, 100)
    subject = Subject("net", lambda: model(call_input), held_bytes=4 * (100 * 300 + 300 * 10 + 7 * 100))
    found = peak_memory(subject, Cpu())
    assert found.working_bytes == 4 * (7 * 300 + 7 * 10)
    assert found.peak_bytes == subject.held_bytes + found.working_bytes


class Net(nn.Module):
    """A convolution and a head, for subjects."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 8, 3)
        self.head = nn.Linear(8, 2)
        self.formats: list[bool] = []

    def forward(self, x: Tensor) -> Tensor:
        self.formats.append(x.is_contiguous(memory_format=torch.channels_last))
        return self.head(self.convolution(x).mean((2, 3)))


def case_of(module: nn.Module, workload: Workload) -> mixbench.models.case.Case:
    from mixbench.models.spec import ModelSpec

    spec = ModelSpec(name="net", factory=lambda: lambda: module)
    return mixbench.build(spec, workload, "cpu")


def test_a_subject_knows_its_samples_bytes_and_tokens() -> None:
    case = case_of(Net(), Workload((TensorSpec((4, 3, 8, 8)),)))
    subject = torch_subject(case)
    assert (subject.samples, subject.tokens) == (4, 0)
    weights = 8 * 3 * 9 + 8 + 2 * 8 + 2
    assert subject.held_bytes == 4 * (weights + 4 * 3 * 8 * 8)
    ids = case_of(nn.Embedding(10, 4), Workload((TensorSpec((2, 7), "int64"),)))
    assert torch_subject(ids).tokens == 14


def test_channels_last_reaches_weights_and_inputs() -> None:
    net = Net()
    case = case_of(net, Workload((TensorSpec((4, 3, 8, 8)),)))
    torch_subject(case).call()
    torch_subject(case, channels_last=True).call()
    assert net.formats == [False, True]
    assert net.convolution.weight.is_contiguous(memory_format=torch.channels_last)


def test_a_training_step_does_all_the_work_and_leaves_the_weights() -> None:
    net = Net()
    before = [parameter.detach().clone() for parameter in net.parameters()]
    subject = torch_subject(case_of(net, Workload((TensorSpec((4, 3, 8, 8)),), mode="train")))
    for _ in range(2):
        subject.call()
    for parameter, old in zip(net.parameters(), before, strict=True):
        assert torch.equal(parameter, old)
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() > 0
    once = net.head.bias.grad
    assert once is not None
    assert torch.equal(once, torch.full((2,), 4.0))  # from ones, of one step and not of two


def test_graphs_are_for_inference_on_cuda() -> None:
    workload = Workload((TensorSpec((1, 3, 8, 8)),))
    with pytest.raises(CannotMeasure, match="no CUDA graphs"):
        torch_subject(case_of(Net(), workload), cuda_graph=True)
    with pytest.raises(BadInput, match="replays inferences"):
        torch_subject(case_of(Net(), Workload(workload.inputs, mode="train")), cuda_graph=True)


def test_a_share_is_of_the_least_time_and_names_the_bandwidth_for_so_many_bytes() -> None:
    timing = Timing(playing(steady(1.0)), samples=[2e9] * 10)
    roof = Roof(100.0, (Level(20.0, 10), Level(10.0)), "a script")
    found = achieved(timing, flops=100, read_bytes=30, written_bytes=10, roof=roof)
    # 10 of the 30 at 20 a second and the rest at 10; the 10 written at 20.
    assert (found.bound, found.share, found.flops_per_s) == ("memory", (0.5 + 2 + 0.5) / 2, 50.0)
    assert (found.moved_bytes, found.roof_bytes_per_s) == (40, 40 / 3)
    assert achieved(timing, 100, 0, 0, roof).share == 0.5
    assert achieved(timing, 100, 0, 0, roof).roof_bytes_per_s == 10.0


@pytest.mark.parametrize(
    ("value", "low", "high", "base_ns", "verdict"),
    [
        (1.05, 1.04, 1.06, 1e6, "slower"),
        (0.90, 0.88, 0.92, 1e6, "faster"),
        (1.015, 1.01, 1.02, 1e6, "same"),  # a difference, but within what two copies of one model show
        (1.03, 0.99, 1.07, 1e6, "cannot tell"),
        (1.019, 1.005, 1.033, 1e6, "cannot tell"),
        (1.05, 1.04, 1.06, 1e4, "same"),  # 500 ns
        (1.05, None, None, 1e6, "cannot tell"),
    ],
)
def test_a_verdict_needs_the_interval_and_the_floor(
    value: float, low: float | None, high: float | None, base_ns: float, verdict: str
) -> None:
    assert judge(Estimate(value, low, high, 0.99, 100), base_ns) == verdict


def test_the_method_itself_takes_some_time() -> None:
    assert 0 < overhead_ns(Cpu()) < 1e6
