"""Model files that cannot be served: that model is failed and says why, the others serve; alone it ends the start."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import pytest
from onnx import TensorProto, helper

from tests import graphs
from tests.conftest import serving
from tests.oracle import Oracle, metric
from tests.raw_http import ask
from tests.raw_http2 import grpc_call
from tests.requests_by_hand import Inference, Tensor

if TYPE_CHECKING:
    from tests.conftest import ServerProcess

pytestmark = pytest.mark.server

# A command that fails does so at once.
COMMAND_LIMIT_S = 90.0
X = Tensor("x", "FP32", (1, 8), bytes(32))


def external(location: str) -> bytes:
    """A model whose weights lie in another file."""
    made = onnx.load_from_string(graphs.mlp())
    tensor = made.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", str(8 * 16 * 4))):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    return bytes(made.SerializeToString())


def other_domain() -> bytes:
    made = onnx.load_from_string(graphs.identity("FP32"))
    made.graph.node[0].domain = "my.company"
    made.opset_import.append(helper.make_opsetid("my.company", 1))
    return bytes(made.SerializeToString())


def wrong_type() -> bytes:
    """Adds text to a number."""
    made = onnx.load_from_string(graphs.add("FP32"))
    made.graph.input[1].type.tensor_type.elem_type = TensorProto.STRING
    return bytes(made.SerializeToString())


def flipped() -> bytes:
    file = bytearray(graphs.mlp())
    file[len(file) // 2 : len(file) // 2 + 4] = b"\xff\xff\xff\xff"
    return bytes(file)


# A file, and what its reason must say.
BROKEN: dict[str, tuple[Callable[[], bytes], list[str]]] = {
    "empty": (lambda: b"", ["empty"]),
    "text": (lambda: b"import onnx\n", ["no ONNX model"]),
    "cut": (lambda: graphs.mlp()[:-300], ["no ONNX model"]),
    "zeros": (lambda: bytes(1_000), ["no ONNX model"]),
    "outside": (lambda: external("../../secret.bin"), ["leaves the model's directory"]),
    "absolute": (lambda: external("/etc/hostname"), ["leaves the model's directory"]),
    "without-data": (lambda: external("weights.bin"), ["weights.bin"]),
    "sequence": (graphs.sequence, ["sequence", "the protocol cannot carry"]),
    "domain": (other_domain, ["my.company"]),
    "types": (wrong_type, ["Type"]),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = graphs.write_all(tmp_path_factory.mktemp("models"), ("identity_FP32",))
    for name, (file, _) in BROKEN.items():
        graphs.write(folder, name, file())
    (folder / "no-file" / "1").mkdir(parents=True)
    (folder.parent / "secret.bin").write_bytes(bytes(8 * 16 * 4))
    return folder


@pytest.fixture(scope="module")
def server(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("server")) as start:
        yield start(folder)


def test_the_good_model_beside_broken_ones_serves(server: ServerProcess) -> None:
    oracle = Oracle(server)
    oracle.check_alive()
    assert ask(server.http, "GET", "/v2/health/ready").status == 200


@pytest.mark.parametrize("name", [*BROKEN, "no-file"])
def test_a_broken_model_is_not_ready_and_says_so(server: ServerProcess, name: str) -> None:
    assert ask(server.http, "GET", f"/v2/models/{name}/ready").status == 400
    assert ask(server.http, "GET", f"/v2/models/{name}").status == 503
    body, fields = Inference(name, [X]).body()
    over_http = ask(server.http, "POST", f"/v2/models/{name}/infer", body, fields)
    over_grpc = grpc_call(server.grpc, Inference(name, [X]).message())
    assert (over_http.status, over_grpc.grpc_status) == (503, 14)
    assert f"model '{name}' version 1 is not at ready state" in over_http.text
    assert over_grpc.grpc_text == over_http.text


@pytest.mark.parametrize("name", BROKEN)
def test_the_reason_is_in_the_log_and_not_told_to_callers(server: ServerProcess, name: str) -> None:
    lines = [line for line in server.log.read_text().splitlines() if f'"{name}"' in line or line.startswith(f"{name} ")]
    assert any(all(part in line for part in BROKEN[name][1]) for line in lines), lines
    assert "/" not in ask(server.http, "GET", f"/v2/models/{name}").text


@pytest.mark.parametrize("name", [*BROKEN, "no-file"])
def test_a_broken_model_is_failed_in_the_metrics(server: ServerProcess, name: str) -> None:
    assert metric(server, "mlserve_model_state", model=name, state="failed") == 1
    assert metric(server, "mlserve_model_state", model=name, state="ready") == 0


def test_strict_readiness_wants_every_model(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    with serving(tmp_path_factory.mktemp("strict")) as start:
        strict = start(folder, "--strict-readiness")
        assert ask(strict.http, "GET", "/v2/health/live").status == 200
        assert ask(strict.http, "GET", "/v2/health/ready").status == 400
        assert ask(strict.http, "GET", "/v2/models/identity_FP32/ready").status == 200


def serve(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Runs `mlserve serve` that is expected to end by itself."""
    ports = [part for name in ("http", "grpc", "metrics") for part in (f"--{name}-port", "0")]
    command = [sys.executable, "-m", "mlserve", "serve", *arguments, *ports]
    return subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=COMMAND_LIMIT_S, env=env or None
    )


@pytest.mark.parametrize("name", BROKEN)
def test_only_a_broken_model_ends_the_start_with_the_reason(folder: Path, name: str) -> None:
    done = serve(str(folder / name / "1" / "model.onnx"))
    assert done.returncode != 0
    assert all(part in done.stdout + done.stderr for part in BROKEN[name][1]), done
    assert "error: no model could be loaded" in done.stderr
    assert "panicked" not in done.stderr
    assert "Traceback" not in done.stderr


def test_a_library_that_is_not_there_is_named(graph_folder: Path) -> None:
    done = serve(str(graph_folder / "mlp"), "--ort-library", "/nowhere/libonnxruntime.so")
    assert done.returncode != 0
    assert "/nowhere/libonnxruntime.so" in done.stdout + done.stderr


def test_a_library_that_is_something_else_is_named(graph_folder: Path, tmp_path: Path) -> None:
    library = tmp_path / "libonnxruntime.so"
    library.write_bytes(b"no library")
    done = serve(str(graph_folder / "mlp"), "--ort-library", str(library))
    assert done.returncode != 0
    assert str(library) in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("path", "text"),
    [("nowhere", "nowhere"), ("empty", "NAME/VERSION/model.onnx"), ("https://example.com/m.onnx", "only local paths")],
)
def test_a_path_without_models_is_named(tmp_path: Path, path: str, text: str) -> None:
    (tmp_path / "empty").mkdir()
    done = serve(path if "://" in path else str(tmp_path / path))
    assert done.returncode != 0
    assert text in done.stderr


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (["--set", "server.http_port=70000"], ["server.http_port", "70000"]),
        (["--set", "limits.max_rnk=3"], ["max_rnk"]),
        (["--max-rank", "99"], ["limits.max_rank = 99", "1 to 64"]),
        (["--set", "models.mlp.max_batch_rows=0"], ["models.mlp.max_batch_rows = 0"]),
        (["--set", "models.nobody.threads=1"], ["'nobody'"]),
        (["--log-level", "loud"], ["loud"]),
    ],
    ids=str,
)
def test_a_bad_setting_stops_the_start_and_is_named(graph_folder: Path, flags: list[str], parts: list[str]) -> None:
    done = serve(str(graph_folder), *flags)
    assert done.returncode != 0
    assert all(part in done.stderr for part in parts), done.stderr


def test_an_unknown_variable_stops_the_start(graph_folder: Path) -> None:
    done = serve(str(graph_folder), env={**os.environ, "MLSERVE_HTTP_PROT": "1"})
    assert done.returncode != 0
    assert "MLSERVE_HTTP_PORT" in done.stderr


def test_a_port_that_is_taken_is_named(graph_folder: Path, server: ServerProcess) -> None:
    port = server.http.rpartition(":")[2]
    command = [sys.executable, "-m", "mlserve", "serve", str(graph_folder / "mlp"), "--http-port", port]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=COMMAND_LIMIT_S)
    assert done.returncode != 0
    assert f"127.0.0.1:{port}" in done.stderr


def test_in_process_a_broken_model_raises(folder: Path) -> None:
    from mlserve import Server  # noqa: PLC0415 -- needs the extension
    from mlserve.errors import ModelLoadError  # noqa: PLC0415 -- beside it

    with pytest.raises(ModelLoadError, match="no ONNX model"):
        Server(folder / "text" / "1" / "model.onnx").start()
