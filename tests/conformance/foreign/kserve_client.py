"""KServe's unmodified client over REST (V1 and V2) and gRPC; `make kserve` installs it and runs this.

Not part of `make test`: the package brings a web framework, pandas and the Kubernetes client with it.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.reference import Reference

if TYPE_CHECKING:
    from tests.conftest import ServerProcess

pytestmark = [pytest.mark.server, pytest.mark.timeout(120)]

PYTHON = ROOT / ".venv-kserve" / "bin" / "python"
ROWS = np.arange(24, dtype=np.float32).reshape(3, 8)
# JSON has the digits of doubles.
TOLERANCE = 1e-6


@pytest.fixture(scope="module")
def found(graph_server: ServerProcess) -> dict[str, Any]:
    """What each call answered."""
    if not PYTHON.exists():
        pytest.skip("KServe's client is not installed: run `make kserve`")
    script = Path(__file__).with_name("kserve_calls.py")
    command = [str(PYTHON), str(script), graph_server.http, graph_server.grpc]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answers: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answers


@pytest.fixture
def expected(graph_folder: Path) -> np.ndarray[Any, Any]:
    answer: np.ndarray[Any, Any] = Reference(graph_folder / "mlp" / "1" / "model.onnx").run({"x": ROWS})[
        "probabilities"
    ]
    return answer


@pytest.mark.parametrize("protocol", ["v2", "grpc"])
def test_health_is_understood(found: dict[str, Any], protocol: str) -> None:
    answers = found[protocol]
    assert (answers["live"], answers["ready"], answers["model_ready"]) == (True, True, True)
    assert answers["unknown_ready"] is False


@pytest.mark.parametrize("form", [("v2", "binary"), ("v2", "json"), ("grpc", "infer")])
def test_answers_of_version_two_are_understood(
    found: dict[str, Any], expected: np.ndarray[Any, Any], form: tuple[str, str]
) -> None:
    answer = found[form[0]][form[1]]
    assert (answer["model"], answer["id"], answer["shape"]) == ("mlp", "wagon 7", [3, 3])
    np.testing.assert_allclose(np.reshape(answer["data"], (3, 3)), expected, atol=TOLERANCE)


def test_health_of_version_one_is_understood(found: dict[str, Any]) -> None:
    assert found["v1"]["live"] is True
    assert str(found["v1"]["ready"]) == "True"
    assert "404" in found["v1"]["unknown_ready"]


@pytest.mark.parametrize(("form", "member"), [("instances", "predictions"), ("inputs", "outputs")])
def test_answers_of_version_one_are_understood(
    found: dict[str, Any], expected: np.ndarray[Any, Any], form: str, member: str
) -> None:
    np.testing.assert_allclose(np.array(found["v1"][form][member]), expected, atol=TOLERANCE)


@pytest.mark.parametrize(("protocol", "status"), [("v1", "404"), ("v2", "404"), ("grpc", "NOT_FOUND")])
def test_an_unknown_model_is_an_error_with_our_text(found: dict[str, Any], protocol: str, status: str) -> None:
    assert status in found[protocol]["unknown"]
    assert "Request for unknown model: 'nobody' is not found" in found[protocol]["unknown"]
