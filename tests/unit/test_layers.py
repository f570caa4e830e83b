"""The layers of the Rust side, read off cargo's own dependency graph.

`deny.toml` says the same to cargo-deny; this test needs nothing but cargo, so it runs wherever the tests do.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
CRATES = {"mlserve-core", "mlserve-ort", "mlserve-server", "mlserve-py"}
# What each crate may know of the others.
ALLOWED_CRATES = {
    "mlserve-core": set(),
    "mlserve-ort": {"mlserve-core"},
    "mlserve-server": {"mlserve-core", "mlserve-ort"},
    "mlserve-py": {"mlserve-core", "mlserve-ort", "mlserve-server"},
}
# No Python, no socket, no runtime of its own, no foreign code.
BANNED_IN_CORE = {"pyo3", "pyo3-ffi", "tokio", "mio", "hyper", "h2", "tonic", "socket2", "ort", "ort-sys", "libloading"}
BANNED_OUTSIDE_PY = {"pyo3", "pyo3-ffi"}

pytestmark = pytest.mark.skipif(shutil.which("cargo") is None, reason="reads the graph with cargo")


@cache
def metadata() -> dict[str, Any]:
    command = [
        "cargo",
        "metadata",
        "--format-version",
        "1",
        "--locked",
        "--filter-platform",
        "x86_64-unknown-linux-gnu",
    ]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def names() -> dict[str, str]:
    return {package["id"]: package["name"] for package in metadata()["packages"]}


def built_into(crate: str) -> set[str]:
    """Names of all that is linked into a crate: normal dependencies, and theirs."""
    known = names()
    nodes = {node["id"]: node for node in metadata()["resolve"]["nodes"]}
    todo = [identifier for identifier in metadata()["workspace_members"] if known[identifier] == crate]
    seen: set[str] = set()
    while todo:
        for dependency in nodes[todo.pop()]["deps"]:
            linked = any(kind["kind"] is None for kind in dependency["dep_kinds"])
            if linked and dependency["pkg"] not in seen:
                seen.add(dependency["pkg"])
                todo.append(dependency["pkg"])
    return {known[identifier] for identifier in seen}


def test_workspace_has_the_four_crates() -> None:
    known = names()
    assert {known[identifier] for identifier in metadata()["workspace_members"]} == CRATES


@pytest.mark.parametrize("crate", sorted(CRATES))
def test_crate_knows_only_the_layers_below(crate: str) -> None:
    assert built_into(crate) & CRATES <= ALLOWED_CRATES[crate]


def test_core_is_pure() -> None:
    assert not built_into("mlserve-core") & BANNED_IN_CORE


@pytest.mark.parametrize("crate", sorted(CRATES - {"mlserve-py"}))
def test_only_the_extension_knows_python(crate: str) -> None:
    assert not built_into(crate) & BANNED_OUTSIDE_PY


def test_core_reads_no_clock_of_its_own() -> None:
    # The clock is an argument, so that tests can stop it; `clock.rs` is where it comes from.
    sources = (ROOT / "rust" / "core" / "src").rglob("*.rs")
    assert {path.name for path in sources if "Instant::now()" in path.read_text()} <= {"clock.rs", "tests.rs"}
