"""The pages: links lead somewhere, and the examples on them run.

A block of code under `<!-- runnable -->` is run against the example models, at the addresses of the test's own server.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mlserve import errors

if TYPE_CHECKING:
    from tests.conftest import ServerProcess

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")])
MAX_LINES = 400
FENCED = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
EXAMPLE = re.compile(r"^<!-- runnable -->\n```(bash|python)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Example:
    """A block of code on a page."""

    page: Path
    number: int
    language: str
    code: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}-{self.number}"


def examples() -> list[Example]:
    return [
        Example(page, number, language, code)
        for page in PAGES
        for number, (language, code) in enumerate(EXAMPLE.findall(page.read_text()), start=1)
    ]


def anchors(page: Path) -> set[str]:
    """What headings are called in links: lower case, spaces as dashes, no punctuation."""
    headings = HEADING.findall(FENCED.sub("", page.read_text()))
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(FENCED.sub("", page.read_text())):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_are_short(page: Path) -> None:
    assert len(page.read_text().splitlines()) <= MAX_LINES


def test_every_error_of_python_is_on_the_page() -> None:
    text = (ROOT / "docs" / "reference" / "errors.md").read_text()
    lines = text.splitlines()
    for row in errors.ROWS:
        assert any(line.startswith(f"| `{row.code}` |") and f"`{row.__name__}`" in line for line in lines), row
    for value in vars(errors).values():
        if isinstance(value, type) and issubclass(value, errors.MlserveError):
            assert f"`{value.__name__}`" in text


@pytest.mark.server
@pytest.mark.parametrize("example", examples(), ids=str)
def test_examples_run(example: Example, example_server: ServerProcess) -> None:
    addresses = {
        "127.0.0.1:8000": example_server.http,
        "127.0.0.1:8001": example_server.grpc,
        "127.0.0.1:8002": example_server.metrics,
    }
    code = re.sub("|".join(map(re.escape, addresses)), lambda found: addresses[found[0]], example.code)
    command = [sys.executable, "-c", code]
    if example.language == "bash":
        command = [shutil.which("bash") or "/bin/bash", "-euo", "pipefail", "-c", code]
    env = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout
    # curl ends well whatever the server says.
    assert '"error"' not in done.stdout
