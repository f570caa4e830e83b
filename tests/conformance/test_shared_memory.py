"""Shared memory through the unmodified foreign clients: tensors that do not travel."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tritonclient.utils.shared_memory as shm
from tritonclient.utils import InferenceServerException

from tests.conformance.triton_clients import MODULES, manage

if TYPE_CHECKING:
    from tests.conftest import ServerProcess

pytestmark = pytest.mark.server

Managed = Callable[..., Any]
NOT_OFFERED = {"501", "StatusCode.UNIMPLEMENTED"}
INPUT = np.arange(24, dtype=np.float32).reshape(3, 8)
# Three rows of eight FP32 in, three of three out.
BYTES_IN, BYTES_OUT = 96, 36
# A key of its own for each test: an object that is gone may still be open in the server.
COUNTER = itertools.count()


@pytest.fixture
def region() -> Iterator[tuple[str, Any]]:
    """A shared memory object with the input at its beginning and room for the output behind it."""
    key = f"mlserve_conformance_{os.getpid()}_{next(COUNTER)}"
    handle = shm.create_shared_memory_region("region", key, BYTES_IN + BYTES_OUT, create_only=True)
    shm.set_shared_memory_region(handle, [INPUT])
    yield f"/{key}", handle
    shm.destroy_shared_memory_region(handle)


def regions_of(managed: Managed, *arguments: str) -> dict[str, dict[str, Any]]:
    """Registered regions by name; gRPC leaves out what is zero and writes 64-bit numbers as strings."""
    found = managed("get_system_shared_memory_status", *arguments)
    listed = list(found.get("regions", {}).values()) if isinstance(found, dict) else found
    return {
        item["name"]: {"key": item["key"], **{name: int(item.get(name, 0)) for name in ("offset", "byte_size")}}
        for item in listed
    }


def test_regions_are_registered_told_and_forgotten(managed: Managed, region: tuple[str, Any]) -> None:
    key, _ = region
    managed("unregister_system_shared_memory")
    assert regions_of(managed) == {}
    managed("register_system_shared_memory", "in", key, BYTES_IN)
    managed("register_system_shared_memory", "out", key, BYTES_OUT, offset=BYTES_IN)
    expected = {
        "in": {"key": key, "offset": 0, "byte_size": BYTES_IN},
        "out": {"key": key, "offset": BYTES_IN, "byte_size": BYTES_OUT},
    }
    assert regions_of(managed) == expected
    assert regions_of(managed, "out") == {"out": expected["out"]}
    managed("unregister_system_shared_memory", "in")
    assert set(regions_of(managed)) == {"out"}
    managed("unregister_system_shared_memory")
    assert regions_of(managed) == {}


@pytest.mark.parametrize("client", list(MODULES))
def test_tensors_are_read_and_written_in_place(
    managed_server: ServerProcess, client: str, region: tuple[str, Any]
) -> None:
    key, handle = region
    address = managed_server.http if client.startswith("http") else managed_server.grpc
    module = MODULES[client]
    sent = module.InferInput("x", [3, 8], "FP32")
    sent.set_data_from_numpy(INPUT)
    plain = manage(client, address, "infer", "mlp", [sent]).as_numpy("probabilities")

    manage(client, address, "register_system_shared_memory", "all", key, BYTES_IN + BYTES_OUT)
    try:
        tensor = module.InferInput("x", [3, 8], "FP32")
        tensor.set_shared_memory("all", BYTES_IN)
        wanted = module.InferRequestedOutput("probabilities")
        wanted.set_shared_memory("all", BYTES_OUT, offset=BYTES_IN)
        result = manage(client, address, "infer", "mlp", [tensor], outputs=[wanted])
    finally:
        manage(client, address, "unregister_system_shared_memory")
    output = result.get_output("probabilities")
    assert list(output["shape"] if isinstance(output, dict) else output.shape) == [3, 3]
    written = shm.get_contents_as_numpy(handle, np.float32, [3, 3], offset=BYTES_IN)
    np.testing.assert_array_equal(written, plain)


def test_memory_that_is_not_there_is_refused(managed: Managed) -> None:
    with pytest.raises(InferenceServerException) as caught:
        managed("register_system_shared_memory", "none", "/mlserve_no_such_object", 8)
    # The text names no key: it may be that of another service.
    assert "mlserve_no_such_object" not in str(caught.value)


def test_cuda_memory_is_told_to_be_missing(managed: Managed) -> None:
    found = managed("get_cuda_shared_memory_status")
    assert (found.get("regions", {}) if isinstance(found, dict) else found) in ({}, [])
    managed("unregister_cuda_shared_memory")
    managed("unregister_cuda_shared_memory", "region")
    with pytest.raises(InferenceServerException, match="not available") as caught:
        managed("register_cuda_shared_memory", "region", b"AAAA", 0, 8)
    assert caught.value.status() in NOT_OFFERED


@pytest.mark.parametrize("client", list(MODULES))
def test_shared_memory_is_off_unless_it_is_turned_on(
    graph_server: ServerProcess, client: str, region: tuple[str, Any]
) -> None:
    key, _ = region
    address = graph_server.http if client.startswith("http") else graph_server.grpc
    with pytest.raises(InferenceServerException) as caught:
        manage(client, address, "register_system_shared_memory", "in", key, BYTES_IN)
    assert caught.value.status() in NOT_OFFERED
    # Clients clean up before they begin.
    manage(client, address, "unregister_system_shared_memory")
