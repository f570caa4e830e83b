"""The calls that manage a server: what is sent and what is made of the answer, the same over both transports."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from mlserve import AsyncClient, Client, ModelIndex
from mlserve.client._proto import inference_pb2 as pb
from mlserve.client._proto import model_config_pb2 as config_pb
from mlserve.errors import InternalError, InvalidArgumentError, MlserveError, NotReadyError
from mlserve.types import CudaSharedMemoryRegion, SystemSharedMemoryRegion

if TYPE_CHECKING:
    from tests.unit.client.conftest import Fake

Manage = Callable[..., Any]


@dataclass(frozen=True)
class Case:
    """One call: its arguments, what travels over each transport, what comes back, and what the caller gets."""

    method: str
    arguments: tuple[Any, ...] = ()
    named: dict[str, Any] = field(default_factory=dict)
    sent: Any = None
    answered: Any = None
    route: tuple[str, str] = ("GET", "")
    body: Any = None
    document: Any = b""
    result: Any = None

    def __str__(self) -> str:
        return "-".join([self.method, *map(str, self.arguments), *self.named])


CONFIG = {
    "name": "m",
    "platform": "onnxruntime_onnx",
    "max_batch_size": 8,
    "input": [{"name": "x", "data_type": "TYPE_FP32", "format": "FORMAT_NONE", "dims": [-1, 8]}],
    "dynamic_batching": {"preferred_batch_size": [4], "priority_queue_policy": {"1": {"max_queue_size": 7}}},
    "parameters": {"threads": {"string_value": "2"}},
}

CASES = [
    Case(
        "models",
        sent=pb.RepositoryIndexRequest(),
        answered=pb.RepositoryIndexResponse(
            models=[
                pb.RepositoryIndexResponse.ModelIndex(name="m", version="1", state="READY"),
                pb.RepositoryIndexResponse.ModelIndex(name="n"),
            ]
        ),
        route=("POST", "/v2/repository/index"),
        body={"ready": False},
        document=[{"name": "m", "version": "1", "state": "READY"}, {"name": "n"}],
        result=[ModelIndex("m", "1", "READY", ""), ModelIndex("n", "", "", "")],
    ),
    Case(
        "models",
        named={"ready": True},
        sent=pb.RepositoryIndexRequest(ready=True),
        answered=pb.RepositoryIndexResponse(),
        route=("POST", "/v2/repository/index"),
        body={"ready": True},
        document=[],
        result=[],
    ),
    Case(
        "load_model",
        ("a/b",),
        sent=pb.RepositoryModelLoadRequest(model_name="a/b"),
        answered=pb.RepositoryModelLoadResponse(),
        route=("POST", "/v2/repository/models/a%2Fb/load"),
        body={},
    ),
    Case(
        "load_model",
        ("m",),
        {"config": {"max_batch_size": 4}, "files": {"1/model.onnx": b"\x00\xff", "file:labels.txt": b"a"}},
        sent=pb.RepositoryModelLoadRequest(
            model_name="m",
            parameters={
                "config": pb.ModelRepositoryParameter(string_param='{"max_batch_size": 4}'),
                "file:1/model.onnx": pb.ModelRepositoryParameter(bytes_param=b"\x00\xff"),
                "file:labels.txt": pb.ModelRepositoryParameter(bytes_param=b"a"),
            },
        ),
        answered=pb.RepositoryModelLoadResponse(),
        route=("POST", "/v2/repository/models/m/load"),
        body={
            "parameters": {
                "config": '{"max_batch_size": 4}',
                "file:1/model.onnx": "AP8=",
                "file:labels.txt": "YQ==",
            }
        },
    ),
    Case(
        "unload_model",
        ("m",),
        {"unload_dependents": True},
        sent=pb.RepositoryModelUnloadRequest(
            model_name="m", parameters={"unload_dependents": pb.ModelRepositoryParameter(bool_param=True)}
        ),
        answered=pb.RepositoryModelUnloadResponse(),
        route=("POST", "/v2/repository/models/m/unload"),
        body={"parameters": {"unload_dependents": True}},
    ),
    Case(
        "model_config",
        ("m",),
        {"version": "2"},
        sent=pb.ModelConfigRequest(name="m", version="2"),
        route=("GET", "/v2/models/m/versions/2/config"),
    ),
    Case(
        "register_system_shared_memory",
        ("r/1", "/key", 64),
        {"offset": 8},
        sent=pb.SystemSharedMemoryRegisterRequest(name="r/1", key="/key", offset=8, byte_size=64),
        answered=pb.SystemSharedMemoryRegisterResponse(),
        route=("POST", "/v2/systemsharedmemory/region/r%2F1/register"),
        body={"key": "/key", "offset": 8, "byte_size": 64},
    ),
    Case(
        "system_shared_memory",
        sent=pb.SystemSharedMemoryStatusRequest(),
        answered=pb.SystemSharedMemoryStatusResponse(
            regions={
                "r": pb.SystemSharedMemoryStatusResponse.RegionStatus(name="r", key="/k", offset=0, byte_size=1 << 40)
            }
        ),
        route=("GET", "/v2/systemsharedmemory/status"),
        document=[{"name": "r", "key": "/k", "offset": 0, "byte_size": 1 << 40}],
        result={"r": SystemSharedMemoryRegion("r", "/k", 0, 1 << 40)},
    ),
    Case(
        "unregister_system_shared_memory",
        ("r",),
        sent=pb.SystemSharedMemoryUnregisterRequest(name="r"),
        answered=pb.SystemSharedMemoryUnregisterResponse(),
        route=("POST", "/v2/systemsharedmemory/region/r/unregister"),
        body={},
    ),
    Case(
        "unregister_system_shared_memory",
        sent=pb.SystemSharedMemoryUnregisterRequest(),
        answered=pb.SystemSharedMemoryUnregisterResponse(),
        route=("POST", "/v2/systemsharedmemory/unregister"),
        body={},
    ),
    Case(
        "register_cuda_shared_memory",
        ("r", b"\x00\xff", 64),
        {"device_id": 1},
        sent=pb.CudaSharedMemoryRegisterRequest(name="r", raw_handle=b"\x00\xff", device_id=1, byte_size=64),
        answered=pb.CudaSharedMemoryRegisterResponse(),
        route=("POST", "/v2/cudasharedmemory/region/r/register"),
        body={"raw_handle": {"b64": "AP8="}, "device_id": 1, "byte_size": 64},
    ),
    Case(
        "cuda_shared_memory",
        ("r",),
        sent=pb.CudaSharedMemoryStatusRequest(name="r"),
        answered=pb.CudaSharedMemoryStatusResponse(
            regions={"r": pb.CudaSharedMemoryStatusResponse.RegionStatus(name="r", device_id=1, byte_size=64)}
        ),
        route=("GET", "/v2/cudasharedmemory/region/r/status"),
        document=[{"name": "r", "device_id": 1, "byte_size": 64}],
        result={"r": CudaSharedMemoryRegion("r", 1, 64)},
    ),
    Case(
        "unregister_cuda_shared_memory",
        sent=pb.CudaSharedMemoryUnregisterRequest(),
        answered=pb.CudaSharedMemoryUnregisterResponse(),
        route=("POST", "/v2/cudasharedmemory/unregister"),
        body={},
    ),
    Case(
        "trace_settings",
        sent=pb.TraceSettingRequest(),
        answered=pb.TraceSettingResponse(
            settings={
                "trace_level": pb.TraceSettingResponse.SettingValue(value=["OFF"]),
                "trace_rate": pb.TraceSettingResponse.SettingValue(value=["1000"]),
                "trace_file": pb.TraceSettingResponse.SettingValue(),
            }
        ),
        route=("GET", "/v2/trace/setting"),
        document={"trace_level": ["OFF"], "trace_rate": "1000", "trace_file": ""},
        result={"trace_level": ["OFF"], "trace_rate": "1000", "trace_file": ""},
    ),
    Case(
        "trace_settings",
        ({"trace_level": "TIMESTAMPS", "trace_rate": 5, "log_frequency": None},),
        {"model": "m"},
        sent=pb.TraceSettingRequest(
            model_name="m",
            settings={
                "trace_level": pb.TraceSettingRequest.SettingValue(value=["TIMESTAMPS"]),
                "trace_rate": pb.TraceSettingRequest.SettingValue(value=["5"]),
                "log_frequency": pb.TraceSettingRequest.SettingValue(),
            },
        ),
        answered=pb.TraceSettingResponse(settings={"trace_rate": pb.TraceSettingResponse.SettingValue(value=["5"])}),
        route=("POST", "/v2/models/m/trace/setting"),
        body={"trace_level": ["TIMESTAMPS"], "trace_rate": "5", "log_frequency": None},
        document={"trace_rate": "5"},
        result={"trace_rate": "5"},
    ),
    Case(
        "log_settings",
        sent=pb.LogSettingsRequest(),
        answered=pb.LogSettingsResponse(
            settings={
                "log_info": pb.LogSettingsResponse.SettingValue(bool_param=True),
                "log_verbose_level": pb.LogSettingsResponse.SettingValue(uint32_param=0),
                "log_file": pb.LogSettingsResponse.SettingValue(string_param=""),
            }
        ),
        route=("GET", "/v2/logging"),
        document={"log_info": True, "log_verbose_level": 0, "log_file": ""},
        result={"log_info": True, "log_verbose_level": 0, "log_file": ""},
    ),
    Case(
        "log_settings",
        ({"log_info": False, "log_verbose_level": 1, "log_format": "ISO8601"},),
        sent=pb.LogSettingsRequest(
            settings={
                "log_info": pb.LogSettingsRequest.SettingValue(bool_param=False),
                "log_verbose_level": pb.LogSettingsRequest.SettingValue(uint32_param=1),
                "log_format": pb.LogSettingsRequest.SettingValue(string_param="ISO8601"),
            }
        ),
        answered=pb.LogSettingsResponse(settings={"log_info": pb.LogSettingsResponse.SettingValue(bool_param=False)}),
        route=("POST", "/v2/logging"),
        body={"log_info": False, "log_verbose_level": 1, "log_format": "ISO8601"},
        document={"log_info": False},
        result={"log_info": False},
    ),
]


def config_answer() -> Any:
    config = config_pb.ModelConfig(name="m", platform="onnxruntime_onnx", max_batch_size=8)
    config.input.add(name="x", data_type="TYPE_FP32", dims=[-1, 8])
    config.dynamic_batching.preferred_batch_size.append(4)
    config.dynamic_batching.priority_queue_policy[1].max_queue_size = 7
    config.parameters["threads"].string_value = "2"
    return pb.ModelConfigResponse(config=config)


@pytest.fixture(params=["sync", "async"])
def manage(request: pytest.FixtureRequest) -> Manage:
    """Calls one method of a fresh client."""

    def blocking(url: str, method: str, *args: Any, **kwargs: Any) -> Any:
        with Client(url) as client:
            return getattr(client, method)(*args, **kwargs)

    def asynchronous(url: str, method: str, *args: Any, **kwargs: Any) -> Any:
        async def call() -> Any:
            async with AsyncClient(url) as client:
                return await getattr(client, method)(*args, **kwargs)

        return asyncio.run(call())

    return blocking if request.param == "sync" else asynchronous


@pytest.mark.parametrize("case", [case for case in CASES if case.method != "model_config"], ids=str)
def test_grpc_sends_the_protocols_message(fake: Fake, manage: Manage, case: Case) -> None:
    rpc = type(case.sent).DESCRIPTOR.name.removesuffix("Request")
    fake.rpc_answers[rpc] = case.answered
    assert manage(fake.grpc, case.method, *case.arguments, **case.named) == case.result
    (seen,) = fake.seen
    assert (seen["rpc"], seen["message"]) == (rpc, case.sent)


@pytest.mark.parametrize("case", [case for case in CASES if case.method != "model_config"], ids=str)
def test_http_sends_the_protocols_body(fake: Fake, manage: Manage, case: Case) -> None:
    fake.route_answers[case.route] = (200, case.document, "")
    assert manage(fake.http, case.method, *case.arguments, **case.named) == case.result
    (seen,) = fake.seen
    assert (json.loads(seen["body"]) if seen["body"] else None) == case.body


def test_the_configuration_has_the_protocols_names(fake: Fake, manage: Manage) -> None:
    fake.rpc_answers["ModelConfig"] = config_answer()
    fake.route_answers["GET", "/v2/models/m/versions/2/config"] = (200, CONFIG, "")
    assert manage(fake.http, "model_config", "m", version="2") == CONFIG
    found = manage(fake.grpc, "model_config", "m", version="2")
    assert fake.seen[-1]["message"] == pb.ModelConfigRequest(name="m", version="2")
    tensor = {key: found["input"][0][key] for key in ("name", "data_type", "format", "dims")}
    assert tensor == CONFIG["input"][0]  # type: ignore[index]
    assert found["dynamic_batching"]["preferred_batch_size"] == [4]
    assert found["dynamic_batching"]["priority_queue_policy"]["1"]["max_queue_size"] == 7
    assert found["parameters"] == CONFIG["parameters"]
    # Members with their default value are there; what was not chosen is not.
    assert (found["runtime"], found["model_warmup"], found["metric_tags"]) == ("", [], {})
    assert "sequence_batching" not in found


STATISTICS = {
    "name": "m",
    "version": "1",
    "last_inference": 1 << 40,
    "inference_count": 6,
    "execution_count": 2,
    "inference_stats": {
        "success": {"count": 3, "ns": 9_000},
        "fail": {"count": 1, "ns": 5},
        "queue": {"count": 3, "ns": 3_000},
        "compute_input": {"count": 3, "ns": 1},
        "compute_infer": {"count": 3, "ns": 2},
        "compute_output": {"count": 3, "ns": 3},
        "cache_hit": {"count": 0, "ns": 0},
        "cache_miss": {"count": 0, "ns": 0},
    },
    "response_stats": {"0": {"success": {"count": 1, "ns": 4}}},
    "batch_stats": [{"batch_size": 3, "compute_infer": {"count": 2, "ns": 8}}],
    "memory_usage": [{"type": "CPU", "id": 0, "byte_size": 77}],
}


@pytest.mark.parametrize("protocol", ["grpc", "http"])
@pytest.mark.parametrize(
    ("arguments", "version", "path"),
    [
        ((), "", "/v2/models/stats"),
        (("m",), "", "/v2/models/m/stats"),
        (("m",), "1", "/v2/models/m/versions/1/stats"),
    ],
)
def test_statistics_are_read_whole(
    fake: Fake, manage: Manage, protocol: str, arguments: tuple[str, ...], version: str, path: str
) -> None:
    document = {"model_stats": [STATISTICS]}
    from google.protobuf.json_format import ParseDict  # noqa: PLC0415 -- fills the message as a server would

    fake.rpc_answers["ModelStatistics"] = ParseDict(document, pb.ModelStatisticsResponse())
    fake.route_answers["GET", path] = (200, document, "")
    (found,) = manage(fake.grpc if protocol == "grpc" else fake.http, "statistics", *arguments, version=version)
    if protocol == "grpc":
        assert fake.seen[-1]["message"] == pb.ModelStatisticsRequest(name="".join(arguments), version=version)
    assert (found.name, found.version, found.last_inference_ms) == ("m", "1", 1 << 40)
    assert (found.inference_count, found.execution_count) == (6, 2)
    assert (found.inference_stats.success.count, found.inference_stats.success.mean_us) == (3, 3.0)
    assert (found.inference_stats.fail.count, found.inference_stats.cache_hit.mean_us) == (1, 0.0)
    (batch,) = found.batch_stats
    assert (batch.batch_size, batch.compute_infer.count, batch.compute_input.count) == (3, 2, 0)
    assert found.response_stats["0"].success.ns == 4
    assert found.memory_usage[0].byte_size == 77


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_refusal_is_our_class_with_the_servers_text(fake: Fake, manage: Manage, protocol: str) -> None:
    fake.rpc_answers["RepositoryModelLoad"] = (grpc.StatusCode.UNAVAILABLE, "not now", "not_ready")
    fake.route_answers["POST", "/v2/repository/models/m/load"] = (503, {"error": "not now"}, "not_ready")
    with pytest.raises(NotReadyError, match=r"^not now$"):
        manage(fake.grpc if protocol == "grpc" else fake.http, "load_model", "m")


@pytest.mark.parametrize("method", ["load_model", "unload_model"])
def test_loading_has_a_deadline_only_if_one_is_given(fake: Fake, manage: Manage, method: str) -> None:
    tail = method.removesuffix("_model")
    fake.rpc_answers[f"RepositoryModel{tail.title()}"] = getattr(pb, f"RepositoryModel{tail.title()}Response")()
    fake.route_answers["POST", f"/v2/repository/models/m/{tail}"] = (200, b"", "")
    for url in (fake.grpc, fake.http):
        manage(url, method, "m")
        manage(url, method, "m", timeout_s=9.0)
    endless_rpc, short_rpc, endless, short = fake.seen
    # Without a deadline gRPC tells centuries.
    assert endless_rpc["left_s"] is None or endless_rpc["left_s"] > 1e6
    assert short_rpc["left_s"] < 10.0
    assert "x-request-timeout-ms" not in endless["headers"]
    assert short["headers"]["x-request-timeout-ms"] == "9000"


@pytest.mark.parametrize(
    ("route", "document", "method", "arguments"),
    [
        (("POST", "/v2/repository/index"), {"error": "?"}, "models", ()),
        (("POST", "/v2/repository/index"), [{"version": "1"}], "models", ()),
        (("POST", "/v2/repository/index"), b"no json", "models", ()),
        (("GET", "/v2/models/stats"), [1], "statistics", ()),
        (("GET", "/v2/models/stats"), {"model_stats": [{"name": "m"}]}, "statistics", ()),
        (("GET", "/v2/models/m/config"), [1], "model_config", ("m",)),
        (("GET", "/v2/systemsharedmemory/status"), [{"name": "r"}], "system_shared_memory", ()),
        (("GET", "/v2/logging"), [1], "log_settings", ()),
    ],
)
def test_broken_answers_are_the_servers_fault(
    fake: Fake, manage: Manage, route: tuple[str, str], document: Any, method: str, arguments: tuple[Any, ...]
) -> None:
    fake.route_answers[route] = (200, document, "")
    with pytest.raises(InternalError):
        manage(fake.http, method, *arguments)


@pytest.mark.parametrize(
    ("method", "arguments", "named", "text"),
    [
        ("load_model", ("",), {}, "name is empty"),
        ("load_model", ("m",), {"config": {"x": {1}}}, "cannot be written as JSON"),
        ("register_system_shared_memory", ("", "k", 1), {}, "region's name is empty"),
        ("register_system_shared_memory", ("r", "k", -1), {}, "byte_size is -1"),
        ("register_cuda_shared_memory", ("r", b"h", 1 << 64), {}, "cannot be sent in CudaSharedMemoryRegister"),
        ("statistics", (), {"version": "2"}, "version '2' is given without a model"),
        ("log_settings", ({"log_info": None},), {}, "log setting 'log_info' is of type NoneType"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_it_is_sent(
    fake: Fake, manage: Manage, method: str, arguments: tuple[Any, ...], named: dict[str, Any], text: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=text):
        manage(fake.grpc, method, *arguments, **named)
    assert not fake.seen


def test_every_management_call_is_tried_here() -> None:
    public = {name for name in dir(Client) if not name.startswith("_")}
    others = {"infer", "stream_infer", "is_live", "is_ready", "is_model_ready", "server_metadata", "model_metadata"}
    assert public - others - {"close"} == {case.method for case in CASES} | {"statistics"}
    assert public == {name for name in dir(AsyncClient) if not name.startswith("_")}


def test_an_unknown_refusal_is_still_ours(fake: Fake, manage: Manage) -> None:
    fake.rpc_answers["LogSettings"] = (grpc.StatusCode.DATA_LOSS, "odd", "odd")
    with pytest.raises(MlserveError, match="odd"):
        manage(fake.grpc, "log_settings")
