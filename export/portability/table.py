"""Lists of operators that runtimes take: Markdown tables inside the installed ONNX Runtime, and lists copied from documents."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from ...models.errors import CannotMeasure
from ...models.versions import versions

_ROW = re.compile(r"\|\s*(?P<domain>ai\.onnx|com\.microsoft)[:.](?P<operator>\w+)\s*\|(?P<remark>[^|]*)\|")


@dataclass(frozen=True, slots=True)
class Table:
    """Remarks by operator, full names in small letters, since the tables themselves vary; and where all this is written."""

    remarks: Mapping[str, str]
    source: str


def bundled(name: str, what: str) -> Table:
    """A table that comes with ONNX Runtime's Python package, as it is installed here.

    Raises:
        CannotMeasure: when the installed package has no such table any more.
    """
    spec = find_spec("onnxruntime")
    version = versions("onnxruntime").get("onnxruntime", "?")
    folder = Path(spec.origin).parent if spec is not None and spec.origin else Path()
    path = folder / "tools" / "mobile_helpers" / name
    remarks = parsed(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if not remarks:
        what = f"ONNX Runtime {version} has no table {name} of the operators that {what} takes"
        raise CannotMeasure(what, "install a version of onnxruntime that has it, such as 1.32")
    return Table(remarks, f"{name} in the installed ONNX Runtime {version}")


def parsed(text: str) -> dict[str, str]:
    """The rows ``|domain:operator|remark|`` of a Markdown page; one table writes a dot for the colon."""
    found = {}
    for row in _ROW.finditer(text):
        domain = "" if row["domain"] == "ai.onnx" else f"{row['domain']}::"
        found[f"{domain}{row['operator']}".lower()] = row["remark"].strip()
    return found


def documented(runtime: str) -> Table:
    """A list from a runtime's documentation, from ``documented.toml``."""
    page = tomllib.loads(Path(__file__).with_name("documented.toml").read_text(encoding="utf-8"))[runtime]
    plain = {name.lower(): "" for name in page["operators"].split()}
    remarks = plain | {name.lower(): remark for name, remark in page.get("remarks", {}).items()}
    return Table(remarks, f"{page['source']}, {page['version']}")
