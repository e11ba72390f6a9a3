"""Every export format of some models: size, seconds to convert and verify, error against PyTorch, and if asked for the latency.

Run in the environment of `./dev nightly`: .venv-targets/bin/python benchmarks/export_targets.py [MODEL ...] [--time]
It prints a Markdown table, the one of docs/targets.md. Latencies are of one thread, and good on an idle machine only.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from mixbench.export.artifact import Artifact
from mixbench.export.capture import capture
from mixbench.export.deliver import deliver
from mixbench.export.graph import to_graph
from mixbench.export.graph_checks import decides
from mixbench.export.quiet import quiet
from mixbench.export.source import Source
from mixbench.export.targets import base
from mixbench.export.verify import expect
from mixbench.models.case import build
from mixbench.models.errors import MixbenchError
from mixbench.profilers.devices.base import find as find_device
from mixbench.profilers.subject import Subject
from mixbench.profilers.timing import measure

HEADINGS = ("model", "format", "size, MB", "seconds", "largest error", "allowed", "median, ms", "run by")


def rows(model: str, timed: bool) -> Iterator[tuple[str, ...]]:
    """One row for each format, also for those that fail."""
    source = capture(build(model, device="cpu"))
    begin = time.perf_counter()
    graph = to_graph(source)
    captured_s = time.perf_counter() - begin
    expectation = expect(source, decides(graph.model))
    with tempfile.TemporaryDirectory() as folder:
        for name in base.names():
            target = base.find(name)
            path = Path(folder) / f"net{target.suffix}"
            begin = time.perf_counter()
            try:
                made = deliver(name, target, source, graph, expectation, path)
            except MixbenchError as error:
                yield (source.name, name, "–", "–", error.what, "", "", "")
                continue
            seconds = time.perf_counter() - begin + (captured_s if name == "onnx" else 0.0)
            yield (source.name, name, f"{made.bytes / 1e6:.1f}", f"{seconds:.0f}", *_compared(made, source, path, timed))


def _compared(made: Artifact, source: Source, path: Path, timed: bool) -> tuple[str, str, str, str]:
    if made.verification is None:
        return ("not verified", "", "", "nobody here")
    milliseconds = f"{_median_ms(made.target, source, path):.1f}" if timed else "–"
    return (f"{made.verification.max_abs_error:.1e}", f"{made.verification.tolerance:.1e}", milliseconds, made.runtime)


def _median_ms(name: str, source: Source, path: Path) -> float:
    """One call, by the method of `mixbench time`."""
    opener = base.find(name).open
    assert opener is not None
    with quiet():
        runner = opener(path, 1)
    feeds = {word: tensor.numpy() for word, tensor in source.inputs.items()}
    subject = Subject(name, lambda: runner(feeds))
    return measure([subject], find_device("cpu"), seconds=3.0).timings[0].latency.value / 1e6


def main() -> None:
    """Print the table as it grows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="*", default=["ghostnetv2", "affnet"], metavar="MODEL")
    parser.add_argument("--time", action="store_true")
    arguments = parser.parse_args()
    print(f"| {' | '.join(HEADINGS)} |")
    print("|---" * len(HEADINGS) + "|")
    for model in arguments.models:
        for row in rows(model, arguments.time):
            print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
