"""A user's first steps: serve the example models, ask over every road, stop."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from mlserve import Client

if TYPE_CHECKING:
    from mlserve import Server
    from tests.conftest import ServerProcess, StartServer

pytestmark = pytest.mark.server

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
# The runtime may add up in another order on another machine; on one machine answers are equal bit for bit.
TOLERANCE = 1e-5
MODELS = ["digits", "tabular"]


def rows_of(model: str) -> dict[str, np.ndarray]:
    with np.load(EXAMPLES / "requests" / f"{model}.npz") as arrays:
        return dict(arrays)


def expected_of(model: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((EXAMPLES / "requests" / f"{model}.expected.json").read_text())["outputs"]
    return found


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("protocol", ["grpc", "http"])
@pytest.mark.parametrize("port", ["grpc", "http"])
def test_every_port_answers_both_protocols(example_server: ServerProcess, model: str, protocol: str, port: str) -> None:
    with Client(f"{protocol}://{getattr(example_server, port)}") as client:
        result = client.infer(model, rows_of(model))
    for name, expected in expected_of(model).items():
        np.testing.assert_allclose(result[name], expected, atol=TOLERANCE)


@pytest.mark.parametrize("file", ["digits.json", "digits.npz"])
def test_the_command_line_asks(example_server: ServerProcess, file: str) -> None:
    command = [sys.executable, "-m", "mlserve", "infer", "digits", str(EXAMPLES / "requests" / file)]
    done = subprocess.run([*command, "--url", example_server.grpc], check=True, capture_output=True)
    outputs = {output["name"]: output for output in json.loads(done.stdout)["outputs"]}
    assert outputs["label"]["data"] == expected_of("digits")["label"]


def test_sigterm_ends_the_server_with_status_0(start_server: StartServer) -> None:
    assert start_server(EXAMPLES / "models" / "digits" / "1" / "model.onnx").stop() == 0


def test_the_server_in_ones_own_process_gives_the_same_answer(in_process_server: Server) -> None:
    rows = rows_of("digits")
    inside = in_process_server.infer("digits", rows)
    with Client(in_process_server.grpc_url) as client:
        outside = client.infer("digits", rows)
    assert list(inside) == list(outside)
    for name in inside:
        np.testing.assert_array_equal(inside[name], outside[name])


def test_two_servers_live_in_one_process(in_process_server: Server) -> None:
    from mlserve import Server as Another  # noqa: PLC0415 -- needs the extension

    with Another(models={"mine": EXAMPLES / "models" / "tabular" / "1" / "model.onnx"}) as other:
        with Client(other.http_url) as client:
            assert client.is_model_ready("mine")
            assert not client.is_model_ready("digits")
        assert other.grpc_url != in_process_server.grpc_url
