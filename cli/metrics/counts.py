"""What `mixbench flops` counts, exactly, with the modules and operators that it belongs to."""

from collections.abc import Callable

from ...profilers.budget import Budget
from . import Entry, Figure, Specimen


def _cost(name: str) -> Callable[[Specimen, Budget | None], Figure]:
    """A metric that is a field of `Cost`."""

    def take(specimen: Specimen, budget: Budget | None) -> Figure:
        parts = {
            f"{module.name} {operator.operator}": int(getattr(operator.cost, name))
            for module in specimen.count.tree.walk()
            for operator in module.operators
            if getattr(operator.cost, name)
        }
        return Figure(getattr(specimen.count.totals, name), parts=parts)

    return take


def _params(specimen: Specimen, budget: Budget | None) -> Figure:
    return Figure(specimen.count.params, parts={m.name: m.params for m in specimen.count.tree.walk() if m.params})


def _uncounted(specimen: Specimen, budget: Budget | None) -> Figure:
    parts = {
        f"{module.name} {operator.operator}": operator.calls
        for module in specimen.count.tree.walk()
        for operator in module.operators
        if not operator.family
    }
    return Figure(sum(parts.values()), parts=parts)


def _peak_activations(specimen: Specimen, budget: Budget | None) -> Figure:
    return Figure(specimen.count.footprint.peak_activation_bytes)


METRICS = (
    Entry("params", "parameters", "counted", "parameters, each tensor once", _params, always=True),
    Entry("macs", "MACs", "counted", "multiply-accumulates of contractions", _cost("macs"), always=True),
    Entry("flops", "FLOPs", "counted", "2 x MACs", _cost("flops")),
    Entry("fft_flops", "FLOPs", "counted", "of Fourier transforms, idealised 5 N log2 N", _cost("fft_flops"), always=True),
    Entry("elementwise_flops", "FLOPs", "counted", "everything else", _cost("elementwise_flops"), always=True),
    Entry("activations", "elements", "counted", "elements that contractions write", _cost("activations"), always=True),
    Entry("read_bytes", "bytes", "counted", "read by operators that share nothing", _cost("read_bytes")),
    Entry("written_bytes", "bytes", "counted", "written by operators that share nothing", _cost("written_bytes")),
    Entry("peak_activations", "bytes", "counted", "most that is alive at once, by shapes", _peak_activations),
    Entry("uncounted", "calls", "counted", "operator calls without a rule", _uncounted, always=True),
)
