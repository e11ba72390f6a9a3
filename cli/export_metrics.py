"""What can be kept of an export as metrics: here, since the floors of profilers and of exports don't know each other."""

from ..export.artifact import Artifact, ExportRun
from ..profilers.runs.metrics import metrics_of
from ..profilers.store import Figure


@metrics_of.register
def _(record: ExportRun) -> tuple[Figure, ...]:
    return tuple(figure for made in record.artifacts for figure in _written(record, made))


def _written(record: ExportRun, made: Artifact) -> list[Figure]:
    shapes = [f"{value.name}={'x'.join(map(str, value.shape))}" for value in made.inputs]
    reduced = [record.precision.precision] if record.precision else []
    where = " ".join([*shapes, made.target, *reduced])
    nodes = sum(made.operators.values())
    found = [
        Figure(record.model, where, "file_bytes", made.bytes, "bytes", "counted", "lower", parts=made.files),
        Figure(record.model, where, "nodes", nodes, "nodes", "counted", "lower", parts=made.operators),
    ]
    if made.verification and made.verification.snr_db is not None:
        found.append(Figure(record.model, where, "snr", made.verification.snr_db, "dB", "measured", "higher"))
    if time := made.latency:
        found.append(
            Figure(record.model, where, "latency", time.median_ns, "ns", "measured", "lower", time.low_ns, time.high_ns)
        )
    return found
