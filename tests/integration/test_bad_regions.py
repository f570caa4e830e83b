"""Shared memory that is asked for wrongly, or is off: refused in clear words that name no region."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from tests.raw_http import ask
from tests.raw_http2 import grpc_call
from tests.regions import FOLDER, MODULES, MakeRegion, module, place_input, place_output, status
from tests.requests_by_hand import Inference, Tensor

if TYPE_CHECKING:
    from tests.conftest import ServerProcess

pytestmark = pytest.mark.server

X = np.arange(8, dtype=np.float32).reshape(2, 4)


@pytest.mark.parametrize(
    ("key", "offset", "byte_size"),
    [
        ("{key}", 0, 65),
        ("{key}", 64, 1),
        ("{key}", 1, 2**64 - 1),
        ("{key}", 2**64 - 1, 2**64 - 1),
        ("{key}", 0, 0),
        ("/../etc/hostname", 0, 1),
        ("../../etc/hostname", 0, 1),
        ("/..", 0, 1),
        ("/", 0, 1),
        ("", 0, 1),
        ("{key}/x", 0, 1),
        ("{key}\n", 0, 1),
        ("/nobody-has-this", 0, 1),
        ("/triton_python_backend_shm_region_1", 0, 1),
        ("{link}", 0, 1),
    ],
)
def test_what_is_no_region_is_not_registered(
    region_client: Any, make_region: MakeRegion, key: str, offset: int, byte_size: int
) -> None:
    made = make_region(64)
    link = FOLDER / f"mlserve-test-link-{os.getpid()}"
    link.unlink(missing_ok=True)
    link.symlink_to("/etc/hostname")
    try:
        with pytest.raises(InferenceServerException) as refused:
            region_client.register_system_shared_memory(
                "secret", key.format(key=made.key, link=link.name), byte_size, offset=offset
            )
    finally:
        link.unlink()
    assert refused.value.status() in {"400", "StatusCode.INVALID_ARGUMENT"}
    assert "secret" not in str(refused.value)
    assert made.key not in str(refused.value)
    assert "hostname" not in str(refused.value)
    assert status(region_client) == {}


@pytest.mark.parametrize(
    ("name", "offset", "byte_size", "statuses"),
    [
        ("nobody", 0, 32, {"404", "StatusCode.NOT_FOUND"}),
        ("small", 64, 32, {"400", "StatusCode.INVALID_ARGUMENT"}),
        ("small", 0, 65, {"400", "StatusCode.INVALID_ARGUMENT"}),
        ("small", 2**63 - 1, 2**63 - 1, {"400", "StatusCode.INVALID_ARGUMENT"}),
        ("small", 0, 31, {"400", "StatusCode.INVALID_ARGUMENT"}),
    ],
)
def test_a_tensor_outside_its_region_is_refused(
    region_client: Any, make_region: MakeRegion, name: str, offset: int, byte_size: int, statuses: set[str]
) -> None:
    made = make_region(64)
    region_client.register_system_shared_memory("small", made.key, 64)
    x = module(region_client).InferInput("x", [2, 4], "FP32")
    x.set_data_from_numpy(X)
    for inputs, outputs in [
        ([place_input(region_client, "x", X, "FP32", name, byte_size, offset)], None),
        ([x], [place_output(region_client, "y", name, byte_size, offset)]),
    ]:
        with pytest.raises(InferenceServerException) as refused:
            region_client.infer("identity_FP32", inputs, outputs=outputs)
        assert refused.value.status() in statuses, refused.value
        assert name not in str(refused.value)
    assert not made.get(np.uint8, (64,)).any(), "nothing was written"


def test_classification_and_shared_memory_do_not_go_together(region_client: Any, make_region: MakeRegion) -> None:
    made = make_region(64)
    region_client.register_system_shared_memory("r", made.key, 64)
    x = module(region_client).InferInput("x", [2, 4], "FP32")
    x.set_data_from_numpy(X)
    output = module(region_client).InferRequestedOutput("y", class_count=2)
    # The region_client lets neither be set after the other.
    twin = module(region_client).InferRequestedOutput("y")
    twin.set_shared_memory("r", 64)
    with pytest.raises(InferenceServerException, match="can't set both 'shared_memory_region' and 'classification'"):
        region_client.infer("identity_FP32", [x], outputs=[output, twin])


class TestOff:
    """Without the flag nothing of it works, but clients that begin by asking and forgetting are not turned away."""

    @pytest.fixture(params=list(MODULES))
    def off(self, request: pytest.FixtureRequest, graph_server: ServerProcess) -> Iterator[Any]:
        """A client of a server without the flag."""
        with MODULES[request.param].InferenceServerClient(getattr(graph_server, request.param)) as made:
            yield made

    def test_asking_and_forgetting_everything_is_answered(self, off: Any) -> None:
        assert status(off) == {}
        off.unregister_system_shared_memory()

    def test_everything_else_is_refused(self, off: Any, make_region: MakeRegion) -> None:
        made = make_region(64)
        x = module(off).InferInput("x", [2, 4], "FP32")
        x.set_data_from_numpy(X)
        attempts: list[Callable[[], Any]] = [
            lambda: off.register_system_shared_memory("r", made.key, 64),
            lambda: off.unregister_system_shared_memory("r"),
            lambda: off.infer("identity_FP32", [place_input(off, "x", X, "FP32", "r", 32)]),
            lambda: off.infer("identity_FP32", [x], outputs=[place_output(off, "y", "r", 32)]),
        ]
        for refused in attempts:
            with pytest.raises(InferenceServerException, match="Client shared memory is disabled") as caught:
                refused()
            assert caught.value.status() in {"501", "StatusCode.UNIMPLEMENTED"}


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"{}", "has no 'key' field"),
        (b'{"key": 7, "byte_size": 8}', "'key'"),
        (b'{"key": "/k"}', "has no 'byte_size' field"),
        (b'{"key": "/k", "byte_size": "8"}', "'byte_size'"),
        (b'{"key": "/k", "byte_size": -8}', "'byte_size'"),
        (b'{"key": "/k", "byte_size": 8, "offset": 1.5}', "'offset'"),
        (b"[]", "must be an object"),
        (b"{", "failed to parse"),
    ],
)
def test_a_body_that_registers_nothing_says_why(region_server: ServerProcess, body: bytes, says: str) -> None:
    found = ask(region_server.http, "POST", "/v2/systemsharedmemory/region/r/register", body)
    assert (found.status, says in found.text) == (400, True), found.text


def test_both_transports_refuse_in_the_same_words(region_server: ServerProcess) -> None:
    sound = {"shared_memory_region": "r", "shared_memory_byte_size": 32}
    places: list[dict[str, Any]] = [
        sound,
        {**sound, "shared_memory_offset": -1},
        {**sound, "shared_memory_byte_size": "32"},
        {**sound, "shared_memory_region": True},
        {"shared_memory_offset": 4},
        {"shared_memory_region": "r"},
    ]
    for wrong in places:
        tensor = Tensor.of("x", X, "FP32")
        for asked in [
            Inference("identity_FP32", [tensor], {"y": wrong}),
            Inference("identity_FP32", [Tensor("x", "FP32", (2, 4), tensor.data, wrong)]),
        ]:
            sent, fields = asked.body()
            over_http = ask(region_server.http, "POST", asked.target, sent, fields)
            over_grpc = grpc_call(region_server.grpc, asked.message())
            assert over_http.status in {400, 404}
            assert over_http.text == over_grpc.grpc_text
