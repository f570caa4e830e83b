"""`grpc.health.v1` and reflection through their own foreign clients, in agreement with HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from tests.conftest import STOP_LIMIT_S
from tests.raw_http import ask

if TYPE_CHECKING:
    from tests.conftest import ServerProcess, StartServer

pytestmark = pytest.mark.server

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
SERVICES = ["inference.GRPCInferenceService", "grpc.health.v1.Health"]
RPCS = ["ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer", "ModelStreamInfer"]


@pytest.fixture
def channel(graph_server: ServerProcess) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(graph_server.grpc) as found:
        yield found


@pytest.mark.parametrize("service", ["", "inference.GRPCInferenceService", "mlserve.model/mlp"])
def test_what_serves_is_serving(channel: grpc.Channel, service: str) -> None:
    answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=service))
    assert answer.status == SERVING


@pytest.mark.parametrize("service", ["nobody", "mlserve.model/nobody", "mlserve.model/"])
def test_an_unknown_service_is_not_found(channel: grpc.Channel, service: str) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    with pytest.raises(grpc.RpcError) as caught:
        stub.Check(health_pb2.HealthCheckRequest(service=service))
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    watched = stub.Watch(health_pb2.HealthCheckRequest(service=service))
    assert next(watched).status == SERVICE_UNKNOWN
    watched.cancel()


def test_a_watcher_sees_the_end_before_anything_is_refused(start_server: StartServer, graph_folder: Path) -> None:
    server = start_server(graph_folder / "mlp", "--drain-notice-ms", "1000")
    with grpc.insecure_channel(server.grpc) as channel:
        watched = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=""))
        assert next(watched).status == SERVING
        server.process.terminate()
        assert next(watched).status == NOT_SERVING
        # Still within the notice: whoever has not looked is served all the same.
        assert ask(server.http, "GET", "/v2/models/mlp").status == 200
        assert ask(server.http, "GET", "/v2/health/ready").status == 400
        with pytest.raises(grpc.RpcError) as caught:
            next(watched)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    assert server.process.wait(STOP_LIMIT_S) == 0


def test_reflection_lists_the_services(channel: grpc.Channel) -> None:
    found = ProtoReflectionDescriptorDatabase(channel).get_services()
    assert set(SERVICES) <= set(found)


def test_reflection_describes_what_is_served(channel: grpc.Channel) -> None:
    pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
    service = pool.FindServiceByName("inference.GRPCInferenceService")
    assert set(RPCS) <= {method.name for method in service.methods}
    request = pool.FindMessageTypeByName("inference.ModelInferRequest")
    assert request.fields_by_name["raw_input_contents"].number == 7
