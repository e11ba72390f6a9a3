"""One side of a comparison of two trees: a process that builds the model of its tree, and takes times when it is told to.

Run as a file, ``python -P side.py``. The clock, the warm-up and the loop are thereby those of the mixbench that compares, also
where the ``mixbench`` that builds the model is that of an older tree. Of that one it needs `resolve`, `build`, `Workload`,
`TensorSpec` and `torch_subject`.

It speaks JSON, one document a line. The job comes first; ``{"ready": ...}`` or ``{"error": [what, hint]}`` is the answer. Then
``"warm"`` is answered by the median ns of a call, and a number by the ns of so many calls on end. It leaves when stdin ends.
"""

import ast
import gc
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter_ns
from typing import Any

_ORPHAN_S = 0.5
_WARM_NS, _WARM_MAX_NS, _WINDOW, _STEADY = 0.3e9, 3e9, 10, 0.02


def main() -> None:
    """The whole life of a side."""
    job = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, args=(job["parent"],), daemon=True).start()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the user's code prints is no answer

    def answer(document: Any) -> None:
        answers.write(json.dumps(document) + "\n")
        answers.flush()

    try:
        subject = _subject(job)
    except Exception as error:  # noqa: BLE001 - whatever the tree's code raises is the answer
        import traceback

        traceback.print_exc()
        first = next(iter(str(error).strip().splitlines()), "")
        what = getattr(error, "what", f"{type(error).__name__}: {first}")
        answer({"error": [what, getattr(error, "hint", "")]})
        return
    _serve(subject, job["cores"], answer)


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_ORPHAN_S)
    os._exit(1)


def _subject(job: dict[str, Any]) -> Any:
    import torch

    torch.set_num_threads(job["threads"])
    from mixbench.models.case import build
    from mixbench.models.lookup import resolve
    from mixbench.models.spec import TensorSpec, Workload
    from mixbench.profilers.subject import torch_subject

    inputs = tuple(map(TensorSpec.parse, job["inputs"]))
    workload = Workload(inputs, job["batch"], job["dtype"], job["mode"], job["seed"])
    weights = Path(job["weights"]) if job["weights"] else None
    spec = resolve(job["model"], ast.literal_eval(job["settings"]))
    return torch_subject(build(spec, workload, "cpu", weights, job["reparameterised"]))


def _serve(subject: Any, cores: list[int], answer: Callable[[Any], None]) -> None:
    import torch

    gc.collect()
    gc.disable()
    with torch.inference_mode(not subject.grad), torch.set_grad_enabled(subject.grad):
        try:
            subject.call()  # so that imports made late are seen too
        except Exception as error:  # noqa: BLE001
            answer({"error": [f"its first call raises {type(error).__name__}: {error}".splitlines()[0], ""]})
            return
        _pin(cores)
        answer({"ready": {"workload": subject.workload, "files": _files()}})
        for line in sys.stdin:
            asked = json.loads(line)
            answer(_warm(subject.call) if asked == "warm" else [_time(subject.call) for _ in range(asked)])
            gc.collect(0)  # the youngest generation only: cycles that models leave would else fill the memory


def _pin(cores: list[int]) -> None:
    """All threads that there are, and with them those to come. Only now: starting may use whatever core is free."""
    if hasattr(os, "sched_setaffinity"):
        tasks = Path("/proc/self/task")
        for thread in [int(path.name) for path in tasks.iterdir()] if tasks.exists() else [0]:
            os.sched_setaffinity(thread, cores)


def _files() -> list[str]:
    """Where this process's modules come from, links followed; without this file, which is not the tree's.

    Some are objects posing as modules: torch.ops has the file "_ops.py" wherever one stands.
    """
    places = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    found = {Path(place).resolve() for place in places if place and Path(place).is_absolute()}
    return sorted(map(str, found - {Path(__file__).resolve()}))


def _time(call: Callable[[], object]) -> int:
    start = perf_counter_ns()
    call()
    return perf_counter_ns() - start


def _warm(call: Callable[[], object]) -> float:
    """Calls until enough time has passed and the last window is no faster than the one before; the last window's median."""
    start, spent = perf_counter_ns(), [_time(call)]
    while (passed := perf_counter_ns() - start) < _WARM_MAX_NS:
        if passed >= _WARM_NS and len(spent) >= 2 * _WINDOW:
            earlier, later = median(spent[-2 * _WINDOW : -_WINDOW]), median(spent[-_WINDOW:])
            if earlier - later <= _STEADY * earlier:
                break
        spent.append(_time(call))
    return median(spent[-_WINDOW:])


if __name__ == "__main__":
    main()
