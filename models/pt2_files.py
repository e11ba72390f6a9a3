"""Reading ``.pt2`` files that come from anywhere: nothing in them is unpickled or run as code.

``torch.export.load`` is not made for strangers' files. It falls back to unrestricted pickle for weights, constants and example
inputs, loads compiled libraries, evaluates sizes as Python (through SymPy), takes any function below ``torch`` for an operator
(``torch.os.system`` is one), and compiles names and guards into a module's code. So a file is let through only if all of that
is plain: known files, raw weights, tensors as example inputs, sizes of sums and products, operators of known libraries, names
that are names. Guards are never compiled, see `read_program`.
"""

import ast
import io
import json
import logging
import math
import operator
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import BadInput, first_line

if TYPE_CHECKING:
    from torch.export import ExportedProgram

_FILES = re.compile(
    r"models/model\.json|data/weights/(weight_\d+|model_weights_config\.json)|data/constants/(tensor_\d+|model_constants_config"
    r"\.json)|data/sample_inputs/model\.pt|archive_format|archive_version|byteorder|\.data/\w+|extra/[\w.\-]+"
)
_OPERATOR = re.compile(
    r"torch\.ops\.(?!aten\.(from_file|save)\b)(aten|prims|higher_order|torchvision|quantized_decomposed|torchao)"
    r"(\.[A-Za-z]\w*|\._[a-z]\w*|\.__i?(and|or|xor|lshift|rshift)__)+"
)
"""Those of libraries that compute and nothing else, but for two that open files."""
_SIZES = re.compile(
    r"_operator\.(add|sub|mul|floordiv|truediv|mod|pow|neg|eq|ne|lt|le|gt|ge|and_|or_|getitem)|math\.\w+|torch\.sym_\w+"
)
_INERT = ("metadata", "guards_code", "torch_version", "as_string", "as_strings")
"""Entries that are never run: shown, left aside, or written as a literal."""
_EXPRESSION = (
    ast.Expression,
    ast.Call,
    ast.keyword,
    ast.Name,
    ast.Load,
    ast.Constant,
    ast.UnaryOp,
    ast.USub,
    ast.BinOp,
    ast.Add,
    ast.Sub,
    ast.Mult,
    ast.Div,
    ast.FloorDiv,
    ast.Mod,
    ast.Pow,
    ast.Compare,
    ast.Eq,
    ast.NotEq,
    ast.Lt,
    ast.LtE,
    ast.Gt,
    ast.GtE,
)
_WORDS = frozenset(
    "Symbol Integer Float Rational Add Mul Pow Mod Max Min Eq Ne Lt Le Gt Ge And Or Not FloorDiv CleanDiv CeilDiv "
    "ModularIndexing PythonMod IntTrueDiv FloatTrueDiv TruncToInt FloorToInt CeilToInt RoundToInt ToFloat PowByNatural "
    "Where true false".split()
)


def read_program(path: Path) -> "ExportedProgram":
    """The program in a file.

    Make its module with ``check_guards=False``: guards are Python in a text, and nobody has read them.

    Raises:
        BadInput: when there is no such file, it is no program of ``torch.export.save``, or holds what would have to be trusted.
    """
    import torch
    from torch.export.pt2_archive._package import PT2ArchiveReader

    if not path.is_file():
        raise BadInput(f"there is no file {str(path)!r}", "check the path; it is relative to the folder you are in")
    whole = "write it by torch.export.save(torch.export.export(model, inputs), 'model.pt2')"
    content = path.read_bytes()  # what is checked has to be what is loaded
    if not zipfile.is_zipfile(io.BytesIO(content)):
        raise BadInput(f"{str(path)!r} is no program of torch.export", whole)
    try:
        # The reader that the loader uses: another one might see other files in a zip made to be read in two ways.
        with PT2ArchiveReader(io.BytesIO(content)) as archive:
            _check(path, archive.get_file_names(), archive.read_bytes)
    except (RuntimeError, AssertionError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise BadInput(f"{str(path)!r} is no program of torch.export: {first_line(error)}", whole) from error
    loud = logging.getLogger("torch.export")
    level = loud.level
    loud.setLevel(logging.CRITICAL)  # what goes wrong is raised
    try:
        return torch.export.load(io.BytesIO(content))
    except Exception as error:
        what = f"torch {torch.__version__} can't load {str(path)!r}: {first_line(error)}"
        raise BadInput(what, "export it again with the torch that is installed") from error
    finally:
        loud.setLevel(level)


def _check(path: Path, names: list[str], read: Callable[[str], bytes]) -> None:
    import torch

    if "models/model.json" not in names:
        raise ValueError("it has no models/model.json")
    if strange := next((name for name in names if not _FILES.fullmatch(name)), ""):
        raise _unsafe(path, f"the file {strange!r}, which no exported program needs")
    for config in (name for name in names if name.endswith("_config.json")):
        for weight, entry in json.loads(read(config))["config"].items():
            if entry["use_pickle"] or f"{Path(config).parent.as_posix()}/{entry['path_name']}" not in names:
                raise _unsafe(path, f"{weight!r}, which is no plain tensor")
    if "data/sample_inputs/model.pt" in names and (examples := read("data/sample_inputs/model.pt")):
        try:
            torch.load(io.BytesIO(examples), weights_only=True)
        except Exception as error:
            raise _unsafe(path, "example inputs that are more than tensors") from error
    for key, text in _texts(json.loads(read("models/model.json"))):
        if not _plain(key, text):
            raise _unsafe(path, f"{text[:60]!r} as its {key.replace('_', ' ')}")


def _unsafe(path: Path, what: str) -> BadInput:
    hint = "it could run code of whoever made it; export the model again, or name its Python code as file.py:factory"
    return BadInput(f"{str(path)!r} holds {what}", hint)


def _texts(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every text of a program that could become code, with the key that it stands under."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item, key)
    elif isinstance(value, dict):
        for word, item in value.items():
            if word in _INERT and _is_text(item):
                continue
            if word in ("in_spec", "out_spec", "context") and isinstance(item, str) and item:
                yield from _texts(json.loads(item), "structure")
            else:
                yield from _texts(item, word)
                yield ("expr_str" if key == "range_constraints" else "name"), word


def _is_text(value: Any) -> bool:
    """Whether a value is one text or several: a tensor may be called like an inert entry, and what describes it is more."""
    several = value.values() if isinstance(value, dict) and "expr_str" not in value else value
    return isinstance(value, str) or (not isinstance(several, dict) and all(isinstance(item, str) for item in several or ()))


def _plain(key: str, text: str) -> bool:
    if key == "expr_str":
        return _is_size(text)
    if key in ("target", "as_operator"):
        return bool(_OPERATOR.fullmatch(text) or _SIZES.fullmatch(text))
    # Whatever becomes of a name in generated code: without brackets, commas, colons and = it calls nothing.
    return bool(re.fullmatch(r"[\w.\-/ ]*", text))


def _is_size(text: str) -> bool:
    """Whether a text is arithmetic on symbols, numbers and functions of sizes, and nothing else."""
    try:
        nodes = list(ast.walk(ast.parse(text, mode="eval")))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    calls = [node.func for node in nodes if isinstance(node, ast.Call)]
    named = {node.id for node in nodes if isinstance(node, ast.Name)}
    inside = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return (
        all(isinstance(node, _EXPRESSION) for node in nodes)
        and all(isinstance(function, ast.Name) and function.id in _WORDS for function in calls)
        and all(name in _WORDS or re.fullmatch(r"[su]\d+|True|False", name) for name in named)
        and all(re.fullmatch(r"\w{1,40}", text) for text in inside)
    )


def check_targets(program: "ExportedProgram", path: Path) -> None:
    """Refuse a graph that calls anything but operators and arithmetic: the last word, on what was really found by the names."""
    import torch
    from torch._ops import HigherOrderOperator, OpOverload

    arithmetic = (operator.add.__module__, math.sqrt.__module__, torch.sym_max.__module__)
    graphs = [part.graph for part in program.graph_module.modules() if isinstance(part, torch.fx.GraphModule)]
    for node in (node for graph in graphs for node in graph.nodes if node.op == "call_function"):
        known = isinstance(node.target, OpOverload | HigherOrderOperator)
        if not known and getattr(node.target, "__module__", "") not in arithmetic:
            raise _unsafe(path, f"{node.target!r} as an operator")
