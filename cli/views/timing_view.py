"""A `TimeRun` as tables, sentences, histograms, CSV rows and pictures."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...profilers.runs.timing_run import TimedModel, TimeRun
from ...profilers.stats import Estimate
from .table import add, exactly, has_unicode, ns, table_of

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

_BARS = " ▁▂▃▄▅▆▇█"
_PLAIN_BARS = " .:-=+*#@"
_BINS = 60


def tables(run: TimeRun) -> Iterator["RenderableType"]:
    """One model in full, or several as rows; then comparisons, histograms, and what speaks against the figures."""
    from rich.text import Text

    if run.partial:
        yield Text("PARTIAL: stopped before its end", style="bold yellow")
    if len(run.models) == 1:
        yield _whole(run.models[0], run)
    else:
        yield _rows(run)
    for item in run.comparisons:
        style = {"faster": "green", "slower": "red"}.get(item.verdict, "")
        yield Text(item.sentence, style=style)
    yield from _histograms(run)
    yield Text(f"\n{_setting(run)}", style="dim")
    for warning in run.warnings:
        yield Text(f"warning: {warning}", style="yellow")


def _setting(run: TimeRun) -> str:
    """Under which conditions times were taken, in a line."""
    machine = run.machine
    threads = f"{machine.threads} thread{'s' if machine.threads > 1 else ''}"
    cores = f" on core {','.join(map(str, machine.affinity))}" if machine.affinity else ""
    return f"{machine.device}, {threads}{cores}; {machine.clock}; the method adds {ns(run.overhead_ns)} a call"


def rows(run: TimeRun) -> Iterator[Mapping[str, Any]]:
    """A line for each model and batch."""
    for item in run.models:
        latency = item.latency_ns
        yield {
            "model": item.model,
            "workload": item.workload,
            "runtime": item.runtime,
            "how": item.how,
            "samples": len(item.samples_ns),
            "latency_ns": latency.value if latency else "",
            "low_ns": _cell(latency and latency.low),
            "high_ns": _cell(latency and latency.high),
            "p90_ns": item.p90_ns.value if item.p90_ns else "",
            "p99_ns": item.p99_ns.value if item.p99_ns else "",
            "cold_ns": item.cold_ns,
            "samples_per_s": item.samples_per_s.value if item.samples_per_s else "",
            "peak_bytes": item.memory.peak_bytes if item.memory else "",
            "roof_share": item.achieved.share if item.achieved else "",
            "partial": run.partial,
        }


def _cell(value: Any) -> Any:
    return "" if value is None else value


def _interval(found: Estimate) -> str:
    if found.low is None or found.high is None:
        return f"no interval from {found.samples}"
    return f"[{ns(found.low)}, {ns(found.high)}]"


def _whole(item: TimedModel, run: TimeRun) -> "Table":
    table = table_of(f"{_head(item)}", ("", "left"), ("", "right"), ("", "left"))
    if item.latency_ns:
        level = f"{100 * item.latency_ns.level:.0f} % interval {_interval(item.latency_ns)}, {item.latency_ns.samples} calls"
        add(table, "latency, median", ns(item.latency_ns.value), level)
    for name, tail in (("p90", item.p90_ns), ("p99", item.p99_ns)):
        words = _interval(tail) if tail else "fewer than ten calls beyond it"
        add(table, f"latency, {name}", ns(tail.value) if tail else "n/a", words)
    note = f"then {item.warm_up_calls} calls of warm-up{'' if item.steady else ', not steady yet'}"
    add(table, "first call, cold", ns(item.cold_ns), note)
    for name, rate in (("samples/s", item.samples_per_s), ("tokens/s", item.tokens_per_s)):
        if rate:
            span = f"[{rate.low:.4g}, {rate.high:.4g}]" if rate.low is not None and rate.high is not None else ""
            add(table, f"throughput, {name}", f"{rate.value:.4g}", f"{span} calls on end".strip())
    if item.memory:
        memory = item.memory
        part = f"{memory.working_bytes / 1e6:.1f} MB of it during the call; {memory.source}"
        add(table, "peak memory", f"{memory.peak_bytes / 1e6:.1f} MB", part)
    if item.achieved:
        reached = item.achieved
        add(table, "achieved", f"{reached.flops_per_s / 1e9:.4g} GFLOP/s", f"{reached.flops:,} FLOPs of contractions")
        roof = (
            f"{reached.roof_flops_per_s / 1e9:.4g} GFLOP/s"
            if reached.bound == "compute"
            else f"{reached.roof_bytes_per_s / 1e9:.4g} GB/s"
        )
        add(
            table,
            "share of the roof",
            f"{100 * reached.share:.1f} %",
            f"of {roof}, {reached.bound}-bound; {reached.roof_source}",
        )
    energy = item.energy_mj_per_call
    add(table, "energy", "n/a" if energy is None else f"{energy:.4g} mJ", "no counter" if energy is None else "a call")
    for text in item.notes:
        add(table, "note", "", text)
    return table


def _head(item: TimedModel) -> str:
    words = [", ".join(item.inputs), item.dtype, item.mode, *([item.how] if item.how else []), item.runtime]
    return f"{item.model}  {', '.join(word for word in words if word)}"


def _rows(run: TimeRun) -> "Table":
    several = len({item.group for item in run.models}) > 1
    tokens = any(item.tokens_per_s for item in run.models)
    table = table_of(
        "",
        ("model", "left"),
        *([("batch", "right")] if several else []),
        ("median", "right"),
        ("99 % interval", "left"),
        ("p90", "right"),
        ("cold", "right"),
        ("samples/s", "right"),
        *([("tokens/s", "right")] if tokens else []),
        ("peak", "right"),
        ("GFLOP/s", "right"),
        ("of roof", "right"),
    )
    for item in run.models:
        how = f" ({item.how})" if item.how else ""
        runtime = "" if item.runtime == "torch" else f" [{item.runtime}]"
        cells = [f"{item.model}{how}{runtime}", *([item.samples_per_call] if several else [])]
        cells += [ns(item.latency_ns.value), _interval(item.latency_ns)] if item.latency_ns else ["n/a", ""]
        cells += [ns(item.p90_ns.value) if item.p90_ns else "n/a", ns(item.cold_ns)]
        cells.append(f"{item.samples_per_s.value:.4g}" if item.samples_per_s else "n/a")
        if tokens:
            cells.append(f"{item.tokens_per_s.value:.4g}" if item.tokens_per_s else "n/a")
        cells.append(f"{item.memory.peak_bytes / 1e6:.1f} MB" if item.memory else "n/a")
        cells.append(f"{item.achieved.flops_per_s / 1e9:.4g}" if item.achieved else "n/a")
        cells.append(f"{100 * item.achieved.share:.1f} %" if item.achieved else "n/a")
        add(table, *cells)
    return table


def _histograms(run: TimeRun) -> Iterator["RenderableType"]:
    """A line for each model, all of a group on one axis, from the fastest call to the slowest but half a percent."""
    for group in dict.fromkeys(item.group for item in run.models):
        members = [item for item in run.models if item.group == group and item.samples_ns]
        if not members:
            continue
        low = min(min(item.samples_ns) for item in members)
        high = max(_most(item.samples_ns) for item in members)
        yield exactly(f"\n{'distribution of calls':24}{ns(low):<{_BINS - 10}}{ns(high):>10}", style="dim")
        for item in members:
            beyond = sum(sample > high for sample in item.samples_ns)
            yield exactly(f"{item.model[-23:]:24}{_bars(item.samples_ns, low, high)}" + (f" +{beyond}" if beyond else ""))


def _most(samples: Sequence[float]) -> float:
    ordered = sorted(samples)
    return ordered[max(0, min(len(ordered) - 1, round(0.995 * len(ordered)) - 1))]


def _bars(samples: Sequence[float], low: float, high: float) -> str:
    counts = [0] * _BINS
    width = (high - low) / _BINS or 1.0
    for sample in samples:
        if sample <= high:
            counts[min(_BINS - 1, int((sample - low) / width))] += 1
    most, bars = max(counts) or 1, _BARS if has_unicode() else _PLAIN_BARS
    # Ceiling division: a bin that holds anything shows something.
    return "".join(bars[-(-8 * number // most)] for number in counts)


def draw(run: TimeRun, kind: str) -> bytes:
    """A violin of each model's calls with its median and interval, as PNG or SVG."""
    from . import picture

    with picture.page(kind, width=7, height=1.2 + 0.7 * len(run.models)) as (_, axes, result):
        for place, item in enumerate(reversed(run.models), 1):
            times = [sample / 1e6 for sample in item.samples_ns if sample <= _most(item.samples_ns)]
            axes.violinplot(times, [place], orientation="horizontal", showextrema=False, widths=0.9)
            if item.latency_ns:
                axes.plot([item.latency_ns.value / 1e6], [place], "|", color="black", markersize=14)
                if item.latency_ns.low is not None and item.latency_ns.high is not None:
                    axes.plot([item.latency_ns.low / 1e6, item.latency_ns.high / 1e6], [place] * 2, color="black")
        labels = [f"{item.model}, batch {item.samples_per_call}" for item in reversed(run.models)]
        axes.set_yticks(range(1, len(labels) + 1), labels)
        axes.set_xlabel("one call, ms; median and its 99 % interval in black; the slowest 0.5 % not drawn")
        axes.set_title("PARTIAL" if run.partial else f"{run.machine.device}, {run.machine.threads} threads", fontsize=9)
    return result.getvalue()
