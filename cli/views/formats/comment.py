"""Markdown for a comment on a pull request: the summary page cut to what a comment may hold, with a mark to find it again."""

from . import Format
from .markdown import page

MARK = "<!-- mixbench check -->"
"""The comment's first line, by which a later run finds it and writes it anew."""
_LIMIT = 64_000
"""GitHub takes 65,536 characters; bytes are never fewer."""

FORMAT = Format(".comment.md", "a comment on a pull request; at most 64 kB", lambda run: page(run, _LIMIT, MARK))
