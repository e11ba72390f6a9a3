"""From a source and its graph to a verified file: written beside the target, compared with torch, then put in its place."""

import errno
import hashlib
import math
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
from onnx import ModelProto

from ..models.errors import BadInput, CheckFailed, MixbenchError, first_line
from .artifact import Artifact, Value, Verification
from .axes import open_results
from .departure import first_departure
from .graph import Graph, nodes, set_metadata
from .quiet import quiet
from .source import Source
from .targets.base import Runner, Target, check_installed
from .verify import Expectation, compare, depends, verify, why

Stage = Callable[[str], None]
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def deliver(
    name: str,
    target: Target,
    source: Source,
    graph: Graph,
    expectation: Expectation,
    output: Path,
    stage: Stage = lambda what: None,
    min_snr_db: float | None = None,
) -> Artifact:
    """Convert a model, run the result beside torch, and put it where the user wants it: whole after that, or not at all.

    All work is done in a folder beside the output, so that the last step is a rename; whatever ends it before leaves what was
    there. For a graph that no runtime here can open the record says that nothing was verified.

    Args:
        name: the target's.
        expectation: from `verify.expect`; one serves all targets.
        stage: is told what is being done.
        min_snr_db: see `verify.verify`.

    Raises:
        BadInput: when the disk is full, the folder may not be written, or the model can't be converted.
        CannotMeasure: when a package is missing.
        CheckFailed: when the file is not the model.
    """
    check_installed(name, target)
    if source.dynamic and not target.dynamic:
        raise BadInput(f"--to {name} fixes all sizes", "leave --dynamic out; one file serves one size")
    if source.dynamic:
        shapes = [(source.sizes | s.sizes, [array.shape for array in s.expected]) for s in expectation.samples]
        open_results(graph.model, shapes)
    with _beside(output) as folder:
        stage(f"writing {target.title}")
        set_metadata(graph.model, dict(source.metadata))
        main = _converted(name, target, source, graph.model, folder)
        verification = None
        if target.open is not None:
            stage(f"verifying {target.title}")
            runner = _opened(name, target, main)
            verification = _verified(name, target, runner, source, graph, expectation, min_snr_db)
            if name == "onnx":  # what was reached goes into the file, and nothing else of it changes
                set_metadata(graph.model, dict(source.metadata) | _reached(verification))
                main = _converted(name, target, source, graph.model, folder)
                inputs = expectation.samples[0].inputs
                pairs = zip(runner(inputs), _opened(name, target, main)(inputs), strict=True)
                assert all(compare(before, after)[0] == 0 for before, after in pairs), "metadata changed the graph"
        stage(f"writing {output.name}")
        files = _place(main, folder, output)
    return _artifact(name, target, source, graph, output, files, verification)


def _converted(name: str, target: Target, source: Source, model: ModelProto, folder: Path) -> Path:
    """The target's file in a folder of its own; a converter that writes nothing has failed, whatever it says."""
    made = folder / "made"
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir()
    try:
        with quiet():
            main = target.convert(source, model, made)
    except MixbenchError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _FULL:
            raise
        raise BadInput(f"{source.name} can't be converted to {name}: {first_line(error)}", "--debug shows all of it") from error
    if not (any(main.iterdir()) if main.is_dir() else main.is_file() and main.stat().st_size):
        raise CheckFailed(f"the converter to {name} ended without an error and wrote nothing", "take another target")
    return main


def _opened(name: str, target: Target, main: Path) -> Runner:
    assert target.open is not None
    try:
        with quiet():
            return target.open(main, 1)
    except MixbenchError:
        raise
    except Exception as error:
        what = f"the {name} file is written, and {target.runtime()} does not open it: {first_line(error)}"
        raise CheckFailed(what, "nothing is kept of it; try another --opset or target") from error


def _verified(
    name: str,
    target: Target,
    runner: Runner,
    source: Source,
    graph: Graph,
    expectation: Expectation,
    min_snr_db: float | None,
) -> Verification:
    try:
        with quiet():
            verification = verify(runner, expectation, min_snr_db, target.slack)
    except Exception as error:
        what = f"the {name} file opens, and {target.runtime()} fails to run it: {first_line(error)}"
        raise CheckFailed(what, "nothing is kept of it; try another --opset or target") from error
    if verification.passed:
        return verification
    hint = "nothing is kept of it; a file that was there before still is"
    if depends(verification.dependence) and min_snr_db is None:
        worst = max(range(len(verification.checks)), key=lambda place: verification.checks[place].max_abs_error)
        blameless = "no single operator is to blame" if name == "onnx" else f"its ONNX graph is right, {target.title}'s is not"
        try:
            with quiet():
                found = first_departure(graph, source, expectation.samples[worst].inputs) or blameless
        except Exception as error:  # noqa: BLE001 - the search must not hide what it was to explain
            found = f"where it departs could not be found: {first_line(error)}"
        if source.mutated:
            found = f"{_remembers(source)}; take the state as an input and return the new one"
        hint = f"{found}; --keep NAME leaves a rewrite out; {hint}"
    elif min_snr_db is None:
        hint = f"export trained weights, or mend the model; {hint}"
    raise CheckFailed(f"the {name} file is not the model: {why(verification)}", hint)


def _remembers(source: Source) -> str:
    kept = ", ".join(source.mutated)
    return f"forward changes the model's own buffers ({kept}), and a file begins each call anew"


def _reached(verification: Verification) -> dict[str, str]:
    """What the comparison reached, in round figures: the last digits differ from machine to machine, and bytes may not."""
    bound = f"1e{_exponent(verification.max_abs_error)}" if verification.max_abs_error else "0"
    return {"verified_max_abs_error_below": bound, "verified_against": "PyTorch float32"}


def _exponent(error: float) -> int:
    """The least power of ten above a number."""
    return math.floor(math.log10(error)) + 1


@contextmanager
def _beside(output: Path) -> Iterator[Path]:
    """A folder next to the output, gone afterwards; what the disk refuses is said in our words."""
    try:
        with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as folder:
            yield Path(folder)
    except OSError as error:
        full = error.errno in _FULL
        reason = "the disk is full" if full else error.strerror or str(error)
        hint = "make room, or choose another place" if full else "choose another place for --output"
        raise BadInput(f"cannot write {str(output)!r}: {reason}", f"{hint}; what was there before still is") from error


def _place(main: Path, folder: Path, output: Path) -> list[Path]:
    """Make all that was written last, then put it into place, the main file at the very end."""
    others = sorted(path for path in main.parent.iterdir() if path != main)
    mask = os.umask(0)
    os.umask(mask)
    for path in (*others, main):
        for file in [path] if path.is_file() else [inner for inner in path.rglob("*") if inner.is_file()]:
            file.chmod(0o666 & ~mask)
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
    placed = [path.replace(output.parent / _renamed(path.name, main.stem, output.stem)) for path in others]
    if output.is_dir():  # a folder can't be replaced by a rename; the old one waits aside until the new one is there
        output.rename(folder / "old")
    placed.insert(0, main.replace(output))
    return placed


def _renamed(name: str, stem: str, new: str) -> str:
    """A file that bears the main one's stem is found by it, and goes on bearing it."""
    return new + name.removeprefix(stem) if name.startswith(f"{stem}.") else name


def _artifact(
    name: str,
    target: Target,
    source: Source,
    graph: Graph,
    output: Path,
    files: list[Path],
    verification: Verification | None,
) -> Artifact:
    sizes: dict[str, int] = {}
    digest = hashlib.sha256()
    for path in files:
        inner = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
        for file in inner:
            sizes[str(file.relative_to(output.parent))] = file.stat().st_size
            if path == files[0]:
                if path.is_dir():
                    digest.update(f"{file.relative_to(path).as_posix()}\n".encode())
                digest.update(file.read_bytes())
    model = graph.model
    notes = [*source.notes, *graph.notes, *(verification.notes if verification else ())]
    if verification is None:
        notes.append(f"not verified: nothing on this machine runs {target.title}")
    return Artifact(
        path=str(output),
        target=name,
        title=target.title,
        files=sizes,
        bytes=sum(sizes.values()),
        sha256=digest.hexdigest(),
        opset=next(entry.version for entry in model.opset_import if entry.domain == ""),
        ir=model.ir_version,
        operators=dict(sorted(Counter(node.op_type for node in nodes(model)).items(), key=lambda item: (-item[1], item[0]))),
        inputs=tuple(_value(value) for value in model.graph.input),
        outputs=tuple(_value(value) for value in model.graph.output),
        dynamic=tuple(dict.fromkeys(size for v in model.graph.input for size in _value(v).shape if isinstance(size, str))),
        metadata={entry.key: entry.value for entry in model.metadata_props},
        rewrites=graph.rewrites,
        runtime=target.runtime() if verification else "",
        verification=verification,
        latency=None,
        portable=target.portable,
        notes=tuple(dict.fromkeys(notes)),
    )


def _value(value: onnx.ValueInfoProto) -> Value:
    kind = value.type.tensor_type
    shape = tuple(size.dim_param or size.dim_value for size in kind.shape.dim)
    return Value(value.name, shape, onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name)
