"""A pair of processes, one from each tree, that live at the same time and are timed in turn.

Both keep to the same cores and only one of them runs at a time, so that drift of the machine hits both alike. Where a process's
stack, heap and libraries happen to lie moves its times by a percent or two for as long as it lives; that is what further pairs
are for. The size of the environment is among those things (Mytkowicz et al., Producing wrong data without doing anything
obviously wrong, ASPLOS 2009) and would differ between trees by the length of their paths, so each process draws its own.

Another is whether glibc gives memory back to the system after a call and has to fault it in again at the next, page by page:
that hangs on which block happens to lie at the end of the heap, and made one process of a small convolutional network a third
slower than the next. Sides keep what they have, as a program that serves for long does in effect.
"""

import json
import math
import os
import random
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ...models.errors import BadInput, CannotMeasure, MixbenchError
from ..stats import median

TIMEOUT_S = 300.0
"""What one answer of a side may take: its start, its warm-up, or one burst of calls."""
PAIR_S = 2.5
"""Of sampling in a pair; `MIN_ROUNDS` are made in any case."""
MIN_ROUNDS = 8
_BURST_NS, _BURST_CALLS, _BURST_MAX = 20e6, 2, 1000
"""How long a burst is, and how many calls it has at least: the first finds the other side's data in the caches."""
_PADDING_BYTES = 4096
KEEPING = {"MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2**40), "MALLOC_TOP_PAD_": str(2**26)}
"""glibc's variables, of mallopt(3); 2^25 is the most that it takes for the first. Other allocators don't read them."""
_SIDE = Path(__file__).with_name("side.py")


@dataclass(frozen=True, slots=True)
class Job:
    """What both sides build and run, in plain data.

    Attributes:
        model: as the user names it; for a side in its tree's own words, see `trees.Trees.words`.
        settings: for the factory, as a Python literal.
        weights: a checkpoint's path, the same file for both sides; "" for none.
        cores: that the sides keep to.
    """

    model: str
    settings: str = "{}"
    inputs: tuple[str, ...] = ()
    batch: int | None = None
    dtype: str = "float32"
    mode: str = "eval"
    seed: int = 0
    weights: str = ""
    reparameterised: bool = False
    threads: int = 1
    cores: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Place:
    """Where a side lives.

    Attributes:
        label: what errors call it.
        folder: the current one of the process.
        path: of Python, before what the interpreter has by itself.
        failure: the exit of a side whose model does not build.
    """

    label: str
    folder: Path
    path: tuple[str, ...]
    failure: type[MixbenchError] = BadInput


@dataclass(frozen=True, slots=True)
class PairTimes:
    """What one pair found.

    A burst counts as the fastest of its few calls: interruptions only ever add, and hit calls as they come. Bursts of a round
    are compared with each other and with no other, since a machine can run at half its speed for a second.

    Attributes:
        log_ratio: the median over rounds of the logarithm of new over old.
        old_ns, new_ns: medians over bursts.
    """

    log_ratio: float
    old_ns: float
    new_ns: float
    rounds: int


@dataclass
class Side:
    """A started process. Enter it once it is ready to be asked, leave it and it is gone."""

    place: Place
    job: Job
    padding: int
    ready: dict[str, Any] = field(default_factory=dict)

    def __enter__(self) -> "Side":
        self._log = tempfile.TemporaryFile()
        env = {
            **KEEPING,
            **os.environ,
            "PYTHONPATH": os.pathsep.join(self.place.path),
            "OMP_NUM_THREADS": str(self.job.threads),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(_SIDE)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            cwd=self.place.folder,
            env={**env, "MIXBENCH_PADDING": "x" * self.padding},
            start_new_session=True,  # Ctrl-C is this process's, which ends the sides
        )
        self._tell({**asdict(self.job), "parent": os.getpid()})
        return self

    def __exit__(self, *failure: object) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._log):
            with suppress(OSError):  # what was still to be written has no reader any more
                pipe.close()  # type: ignore[union-attr]

    def wait(self) -> None:
        """Until the model is built and has run once.

        Raises:
            BadInput, CannotMeasure: as `Place.failure` says, when it can't be built.
        """
        found = self._answer("starting")
        if "error" in found:
            what, hint = found["error"]
            error = self.place.failure(f"{self.job.model} fails in {self.place.label}: {what}", hint or "--debug shows more")
            error.add_note(self._last_words())
            raise error
        self.ready = found["ready"]

    def warm(self) -> float:
        """Warm up; the median ns of a call after that."""
        self._tell("warm")
        return float(self._answer("warming up"))

    def times(self, calls: int) -> list[int]:
        """The ns of so many calls on end."""
        self._tell(calls)
        return list(self._answer(f"taking {calls} times"))

    def _tell(self, document: Any) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended, and its answer is to say why
            self._process.stdin.write((json.dumps(document) + "\n").encode())
            self._process.stdin.flush()

    def _answer(self, doing: str) -> Any:
        pipe = self._process.stdout
        assert pipe is not None
        line, until = b"", time.monotonic() + TIMEOUT_S
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, selectors.EVENT_READ)
            while not line.endswith(b"\n"):
                if not selector.select(max(0.0, until - time.monotonic())):
                    raise self._lost(f"hangs: no answer in {TIMEOUT_S:g} s, {doing}")
                part = os.read(pipe.fileno(), 1 << 16)
                if not part:
                    raise self._lost(f"ended while {doing}, {self._how()}")
                line += part
        return json.loads(line)

    def _how(self) -> str:
        code = self._process.wait(10)
        if code < 0:
            return f"killed by {signal.Signals(-code).name}"
        return f"with exit code {code}"

    def _lost(self, cause: str) -> CannotMeasure:
        error = CannotMeasure(f"the process of {self.place.label} {cause}", "--debug shows the last that it wrote")
        error.add_note(self._last_words())
        return error

    def _last_words(self) -> str:
        self._log.seek(0)
        return "\n".join(self._log.read().decode(errors="replace").splitlines()[-20:])


def time_pair(
    old: tuple[Place, Job],
    new: tuple[Place, Job],
    draw: random.Random,
    check: Callable[[Side, Side], None],
    seconds: float = PAIR_S,
) -> PairTimes:
    """Start a process for each side, and time them in turn.

    Args:
        draw: decides who starts first, in each round anew, and how large the environments are.
        check: gets both sides when they are ready, old first, and raises if they can't be compared.

    Raises:
        BadInput, CannotMeasure: when a side fails, see `Side`.
    """
    sides = [Side(place, job, draw.randrange(_PADDING_BYTES)) for place, job in (old, new)]
    order = draw.sample(sides, 2)
    with ExitStack() as started:
        for side in order:
            started.enter_context(side)
        for side in sides:
            side.wait()
        check(*sides)
        calls = _calls(max(side.warm() for side in order))
        bursts: tuple[list[float], list[float]] = ([], [])
        begin = time.monotonic()
        while len(bursts[0]) < MIN_ROUNDS or time.monotonic() - begin < seconds:
            for which in draw.sample((0, 1), 2):
                bursts[which].append(min(sides[which].times(calls)))
    return _paired(*bursts)


def _calls(call_ns: float) -> int:
    """Of one burst."""
    return min(_BURST_MAX, max(_BURST_CALLS, math.ceil(_BURST_NS / call_ns)))


def _paired(old: Sequence[float], new: Sequence[float]) -> PairTimes:
    logs = [math.log(after / before) for before, after in zip(old, new, strict=True)]
    return PairTimes(median(logs), median(old), median(new), len(logs))
