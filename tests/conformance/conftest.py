"""What conformance tests ask with: a foreign client, and the port that it expects."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.conformance.triton_clients import CLIENTS, MODULES, Asked, Reply, manage
from tests.conftest import serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from tests.conftest import ServerProcess

# Models may be loaded and unloaded, shared memory registered, requests traced.
MANAGED_FLAGS = ("--model-control-mode", "explicit", "--load-models", "*", "--allow-client-shm")
LABELS = ("low", "middle", "high")
# As a Triton repository has it: only what the graph does not tell.
LABELLED_CONFIG = """
backend: "onnxruntime"
max_batch_size: 8
output [ { name: "probabilities" data_type: TYPE_FP32 dims: [ 3 ] label_filename: "labels.txt" } ]
"""


@pytest.fixture(params=list(CLIENTS))
def ask(request: pytest.FixtureRequest, graph_server: ServerProcess) -> Callable[[Asked], Reply]:
    """Asks the server of test graphs through each client in turn."""
    name: str = request.param
    address = graph_server.http if name.startswith("http") else graph_server.grpc
    return lambda asked: CLIENTS[name](address, asked)


@pytest.fixture(scope="module")
def managed_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server of a few graphs that clients may manage; tests of a module leave its models as they were."""
    from tests import graphs  # noqa: PLC0415 -- onnx takes half a second, which most tests do not need

    folder = tmp_path_factory.mktemp("managed")
    repository = graphs.write_all(folder / "models", ["mlp", "identity_FP32", "identity_BYTES"])
    labelled = graphs.write(repository, "labelled", graphs.mlp()).parents[1]
    (labelled / "config.pbtxt").write_text(LABELLED_CONFIG)
    (labelled / "labels.txt").write_text("\n".join(LABELS))
    with serving(folder) as start:
        yield start(repository, *MANAGED_FLAGS, "--trace-file", str(folder / "trace.json"))


@pytest.fixture(params=list(MODULES))
def managed(request: pytest.FixtureRequest, managed_server: ServerProcess) -> Callable[..., Any]:
    """Calls one method of each client of that server in turn: `managed("load_model", "mlp")`; gRPC answers as JSON."""
    name: str = request.param
    address = managed_server.http if name.startswith("http") else managed_server.grpc
    return lambda method, *args, **kwargs: manage(name, address, method, *args, **kwargs)


@pytest.fixture(params=list(CLIENTS))
def ask_managed(request: pytest.FixtureRequest, managed_server: ServerProcess) -> Callable[[Asked], Reply]:
    """Asks that server through each client in turn."""
    name: str = request.param
    address = managed_server.http if name.startswith("http") else managed_server.grpc
    return lambda asked: CLIENTS[name](address, asked)
