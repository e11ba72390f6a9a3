"""A folder that TensorBoard's PyTorch profiler plugin shows, and a TensorBoard on loopback that shows it.

The plugin (torch-tb-profiler) finds ``RUN/WORKER.SPAN.pt.trace.json.gz``; its views of modules and memory need Python stacks
and allocations, which slow the traced model down: this recording is for looking, the tables come from another one.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

from ..models.errors import BadInput, CannotMeasure
from .devices.base import Device
from .kineto import recording
from .subject import Subject
from .tracing import WARM_CALLS, ready, run_steps

LOOPBACK = "127.0.0.1"
_PATIENCE_S = 60.0


def write_folder(subject: Subject, device: Device, folder: Path, number: int = 5) -> Path:
    """Record a subject for TensorBoard, in a subfolder with the model's name; further recordings lie beside it.

    Args:
        folder: made if missing.
        number: steps to record.

    Returns:
        The trace's path.

    Raises:
        BadInput: when it can't be written.
        CannotMeasure: when the model fails.
    """
    run = folder / re.sub(r"[^\w.-]+", "_", subject.name)
    try:
        run.mkdir(parents=True, exist_ok=True)
        with ready(subject):
            for _ in range(WARM_CALLS):
                subject.call()
            with recording(record_shapes=True, profile_memory=True, with_stack=True) as profiler:
                run_steps(subject, device, number)
        path = run / f"mixbench.{time.time_ns()}.pt.trace.json.gz"
        with TemporaryDirectory(prefix=".writing-", dir=run) as hidden:
            whole = Path(hidden) / "trace.json.gz"
            profiler.export_chrome_trace(str(whole))
            whole.replace(path)
    except OSError as error:
        raise BadInput(f"cannot write into {str(folder)!r}: {error.strerror}", "choose another --tensorboard-dir") from error
    return path


@contextmanager
def serving(folder: Path, port: int | None = None) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """TensorBoard on loopback while the block runs; it answers when the block begins, and is gone when it ends.

    Args:
        port: a free one if None.

    Yields:
        Its address, and its process.

    Raises:
        CannotMeasure: when it does not start, or does not answer within a minute.
    """
    port = _free_port() if port is None else port
    if _answers(port):
        raise BadInput(f"port {port} is taken", "name another --port, or leave it out for a free one")
    log = Path(gettempdir()) / f"mixbench-tensorboard-{os.getpid()}.log"
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder), "--host", LOOPBACK, "--port", str(port)]
    with log.open("wb") as stream:
        # In a session of its own: Ctrl-C reaches us alone, and we end it with everything that it started.
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, start_new_session=True)
    try:
        _await(process, port, log)
        yield f"http://{LOOPBACK}:{port}/#pytorch_profiler", process
    finally:
        _end(process)
        log.unlink(missing_ok=True)


def _await(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not _answers(port):
        if process.poll() is not None or time.monotonic() > deadline:
            said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["nothing"]
            state = "did not answer in a minute" if process.poll() is None else f"ended with code {process.returncode}"
            raise CannotMeasure(f"TensorBoard {state}; its last words: {said[-1]}", "`tensorboard --logdir FOLDER` shows more")
        time.sleep(0.1)


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://{LOOPBACK}:{port}/data/plugins_listing", timeout=5) as reply:
            return bool(reply.status == 200)
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        return int(listener.getsockname()[1])


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and what it started: politely, then at once."""
    if os.name == "nt":
        process.terminate()
        process.wait()
        return
    for word, patience in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
        try:
            os.killpg(process.pid, word)
            process.wait(patience)
        except ProcessLookupError:
            break
        except subprocess.TimeoutExpired:
            continue
    process.wait()


@contextmanager
def ended_like_ctrl_c() -> Iterator[None]:
    """Within this block a polite request to end (SIGTERM) unwinds as Ctrl-C does, so that no server is left behind."""

    def unwind(*_: object) -> None:
        raise KeyboardInterrupt

    before = {word: signal.signal(word, unwind) for word in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for word, handler in before.items():
            signal.signal(word, handler)
