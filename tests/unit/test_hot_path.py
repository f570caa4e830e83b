"""The list of files on the hot path against the marks in the files."""

from __future__ import annotations

import re
from itertools import takewhile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "hot-path.md"
MARK = "Hot path."


def is_marked(path: Path) -> bool:
    """Whether the module comment, which comes first, carries the mark."""
    return any(MARK in line for line in takewhile(lambda line: line.startswith("//!"), path.read_text().splitlines()))


def test_the_page_lists_exactly_the_files_with_the_mark() -> None:
    listed = re.findall(r"^- `(rust/[^`]+)`$", PAGE.read_text(), re.MULTILINE)
    marked = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("rust/*/src/**/*.rs") if is_marked(path))
    assert sorted(listed) == marked
    assert len(set(listed)) == len(listed)
