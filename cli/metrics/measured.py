"""What depends on the machine: never in the baseline, but held to budgets, or compared between revisions on one machine."""

from ...profilers.budget import Budget
from . import Entry, Figure, Specimen

_CALLS = 3


def _peak_memory(specimen: Specimen, budget: Budget | None) -> Figure:
    """The median of some calls, with the smallest and the largest as interval.

    torch's allocator reports every block exactly, but which blocks a call takes depends on the threads, on the processor's
    kernels and on torch's version: so it is measured, not counted. The first call, which makes caches, is left out.
    """
    from ...profilers.memory import allocator_peak
    from ...profilers.subject import torch_subject

    import torch  # isort: skip

    subject = torch_subject(specimen.build("cpu"))
    with torch.enable_grad() if subject.grad else torch.inference_mode():
        subject.call()
        peaks = sorted(allocator_peak(subject.call) for _ in range(_CALLS))
    return Figure(peaks[_CALLS // 2], peaks[0], peaks[-1])


METRICS = (
    Entry("peak_memory", "bytes", "measured", "most that torch's CPU allocator holds in a call", _peak_memory),
    Entry("latency_ratio", "ratio", "measured", "time over that of another revision, by --against", None),
)
