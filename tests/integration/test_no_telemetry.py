"""ONNX Runtime's own telemetry is off however a server is started: nothing is written, nobody is called.

Its Linux wheels since 1.29 write a device id into the user's cache folder and connect to a collector when they start.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import EXAMPLE_MODELS, ROOT

pytestmark = pytest.mark.server

IN_PROCESS = "from mlserve import Server; server = Server(sys.argv[1]); server.start(); server.stop()"
# What the tests that run the runtime themselves do: see tests/conftest.py.
BY_ITSELF = "import tests.conftest, onnxruntime; onnxruntime.InferenceSession(sys.argv[1] + '/digits/1/model.onnx')"


def commands() -> dict[str, list[str]]:
    """Every way to start the runtime; all of them end by themselves."""
    python = [sys.executable, "-c"]
    inspect = [sys.executable, "-m", "mlserve", "inspect", str(EXAMPLE_MODELS / "digits" / "1" / "model.onnx")]
    return {
        "command": inspect,
        "Server": [*python, f"import sys; {IN_PROCESS}", str(EXAMPLE_MODELS)],
        "tests": [*python, f"import sys; {BY_ITSELF}", str(EXAMPLE_MODELS)],
    }


def home(folder: Path) -> dict[str, str]:
    """An environment in which nothing has been switched off, with a home of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ORT_")}
    # The runtime keeps still in the usual CI services, which would hide that it talks elsewhere.
    for name in ("CI", "GITHUB_ACTIONS", "TF_BUILD", "BUILD_ID", "JENKINS_URL", "GITLAB_CI", "TRAVIS", "CIRCLECI"):
        kept.pop(name, None)
    return kept | {"HOME": str(folder), "XDG_CACHE_HOME": str(folder / "cache"), "PYTHONPATH": str(ROOT)}


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def binary() -> list[str] | None:
    """The plain binary, if a Rust build has made it."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    found = [path for profile in ("debug", "release") if (path := target / profile / "mlserve-server").is_file()]
    model = str(EXAMPLE_MODELS / "digits" / "1" / "model.onnx")
    return [str(found[0]), "inspect", model] if found else None


@pytest.mark.parametrize("way", ["command", "Server", "tests", "binary"])
def test_nothing_is_written_into_a_home(tmp_path: Path, way: str) -> None:
    command = binary() if way == "binary" else commands()[way]
    if command is None:
        pytest.skip("the plain binary has not been built")
    environment = home(tmp_path)
    if way == "binary":
        from mlserve.serving.runtime import find_ort_library  # noqa: PLC0415 -- sets variables in this process

        environment["MLSERVE_ORT_LIB"] = find_ort_library() or ""
    subprocess.run(command, check=True, capture_output=True, env=environment, cwd=ROOT)
    assert files(tmp_path) == []


@pytest.mark.parametrize("way", ["command", "Server"])
def test_nobody_is_called(tmp_path: Path, way: str) -> None:
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    trace = tmp_path / "trace.txt"
    tracing = [strace, "-f", "-qq", "-e", "trace=connect", "-o", str(trace)]
    if subprocess.run([*tracing, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine does not allow tracing")
    folder = tmp_path / "home"
    folder.mkdir()
    subprocess.run([*tracing, *commands()[way]], check=True, capture_output=True, env=home(folder), cwd=ROOT)
    called = re.findall(r"connect\(\d+, \{sa_family=AF_INET6?[^}]*\}", trace.read_text())
    assert [call for call in called if "127.0.0.1" not in call and '"::1"' not in call] == []
