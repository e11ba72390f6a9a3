"""What an exporter's exception means: the operator, the module and the user's line, and what to do about it."""

import re
import sysconfig
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch

from ..models.errors import BadInput, MixbenchError, first_line

_PLACES = [*(sysconfig.get_paths()[name] for name in ("stdlib", "purelib", "platlib")), str(Path(str(torch.__file__)).parent)]
_FOREIGN = tuple(str(Path(place).resolve()) for place in _PLACES)
_OURS = str(Path(__file__).resolve().parent)
_CASE = str(Path(__file__).resolve().parent.parent / "models" / "case.py")
_STACK_LINE = re.compile(r'File "([^"]+)", line (\d+)')
_CAUSED_BY = re.compile(r"\(([^()\s]+\.py):(\d+) in \w+\)")
_NO_FAKE = re.compile(r"(\w+::\w+): attempted to run this operator with Meta tensors")
_NO_FUNCTION = re.compile(r"OpOverload\(op='([^']+)', overload='([^']*)'\)")


def explained(error: BaseException, name: str) -> MixbenchError:
    """The error of an exporter in our words; the long text stays in its cause, for ``--debug``.

    Args:
        error: from ``torch.export`` or ``torch.onnx.export``; what caused it is looked at too.
        name: the model's.
    """
    chain = list(_chain(error))
    root = chain[-1]
    text = "\n".join(str(link) for link in chain)
    at = place_of(error)
    kinds = {type(link).__name__ for link in chain}
    if "GuardOnDataDependentSymNode" in kinds or "data-dependent" in text:
        what = f"{name} can't be exported: a branch or a size depends on a tensor's values{at}"
        return BadInput(what, "write the branch as torch.where or torch.cond, so that both sides are in the graph")
    if operator := _NO_FUNCTION.search(text):
        op = operator[1].replace("::", ".")
        what = f"{name} can't be exported: there is no ONNX form of {op}{at}"
        return BadInput(what, "take another operator there, or write a rewrite for it in export/rewrites")
    if "ConstraintViolation" in " ".join(kinds) or "Constraints violated" in text or "user-specified ranges" in text:
        what = f"{name} can't be exported with these open dimensions: forward turns one of them into a number{at}"
        return BadInput(what, "such as in a loop over int(x.shape[0]); leave that dimension out of --dynamic")
    if own := _NO_FAKE.search(text):
        what = f"{name} can't be exported: the operator {own[1].replace('::', '.')} has no fake (meta) form{at}"
        return BadInput(what, "register one with torch.library.register_fake, or write it with torch's operators")
    if "DynamicOutputShapeException" in kinds:
        what = f"{name} can't be exported: the size of a result depends on values{at}"
        return BadInput(what, "use a mask of a fixed size instead of picking out elements")
    what = f"{name} can't be exported: {type(root).__name__}: {_sentence(root)}{at}"
    return BadInput(what, "--debug shows all that the exporter says")


def place_of(error: BaseException) -> str:
    """Where in the user's code and in which module an error arose, as `` (in layers.0, net.py:12: y = x.svd())``, or ""."""
    node = _node(error)
    found = (
        _frame(error) or _quoted([str(node.meta.get("stack_trace", ""))] if node else []) or _quoted(map(str, _chain(error)))
    )
    stack = node.meta.get("nn_module_stack") if node else None
    module = str(list(stack.values())[-1][0]).removeprefix("L['self'].") if stack else ""
    words = ([f"in {module}"] if module else []) + ([found] if found else [])
    return f" ({', '.join(words)})" if words else ""


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what it says caused it, down to the root."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def _sentence(error: BaseException) -> str:
    return first_line(error).partition(": ")[2][:200] or type(error).__name__


def _frame(error: BaseException) -> str:
    """The innermost line of the user's, or of one of our architectures, in any of the tracebacks."""
    for link in reversed(list(_chain(error))):
        for frame in reversed(traceback.extract_tb(link.__traceback__)):
            if _is_users(frame.filename) and frame.lineno:
                return f"{_short(frame.filename)}:{frame.lineno}: {frame.line}"
    return ""


def _quoted(texts: Iterable[str]) -> str:
    """The innermost line of the user's that texts quote, the last text first."""
    for text in reversed(list(texts)):
        for place, number in reversed([*_STACK_LINE.findall(text), *_CAUSED_BY.findall(text)]):
            if _is_users(place):
                lines = Path(place).read_text(encoding="utf-8", errors="replace").splitlines() if Path(place).is_file() else []
                line = lines[int(number) - 1].strip() if int(number) <= len(lines) else ""
                return f"{_short(place)}:{number}: {line}"
    return ""


def _is_users(place: str) -> bool:
    path = str(Path(place).resolve()) if not place.startswith("<") else ""
    return bool(path) and not path.startswith((*_FOREIGN, _OURS)) and path != _CASE and "/mixbench/cli/" not in path


def _short(place: str) -> str:
    path = Path(place)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else path.name


def _node(error: BaseException) -> torch.fx.Node | None:
    """The graph's node that was being translated, a local variable of the exporter's."""
    for link in reversed(list(_chain(error))):
        for frame, _ in traceback.walk_tb(link.__traceback__):
            node = frame.f_locals.get("node")
            if isinstance(node, torch.fx.Node) and node.meta:
                return node
    return None
