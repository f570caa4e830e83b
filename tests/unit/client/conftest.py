"""A server in a few lines for the clients: both protocols, answers that tell what was received."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
import pytest

from mlserve.client._proto import inference_pb2 as pb

METADATA = {
    "name": "m",
    "versions": ["1"],
    "platform": "p",
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1]}],
}


@dataclass
class Fake:
    """Two servers that answer each input "x" with an output "y" of the same bytes.

    The model "bad" is refused, "slow" waits until `release` is set or the fixture ends. Calls that manage a server get
    the answers that the test puts down: by RPC over gRPC, by method and path over HTTP (bytes, or JSON's values).
    """

    grpc: str = ""
    http: str = ""
    seen: list[dict[str, Any]] = field(default_factory=list)
    rpc_answers: dict[str, Any] = field(default_factory=dict)
    route_answers: dict[tuple[str, str], Any] = field(default_factory=dict)
    metadata_calls: int = 0
    connections: int = 0
    close_after_answer: bool = False
    arrived: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(default_factory=threading.Event)


def answer_of(request: Any) -> Any:
    (tensor,) = request.inputs
    answer = pb.ModelInferResponse(model_name=request.model_name, model_version="1", id=request.id)
    answer.outputs.add(name="y", datatype=tensor.datatype, shape=tensor.shape)
    answer.raw_output_contents.append(request.raw_input_contents[0])
    return answer


class Handlers(grpc.GenericRpcHandler):
    def __init__(self, fake: Fake) -> None:
        self._fake = fake

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        name = details.method.rsplit("/", 1)[1]
        handle = getattr(self, name, lambda request, context: self.manage(name, request, context))
        request = getattr(pb, "ModelInferRequest" if "Infer" in name else f"{name}Request")
        build = (
            grpc.stream_stream_rpc_method_handler if name == "ModelStreamInfer" else grpc.unary_unary_rpc_method_handler
        )
        return build(handle, request.FromString, lambda message: message.SerializeToString())

    def manage(self, rpc: str, request: Any, context: Any) -> Any:
        self._fake.seen.append({"rpc": rpc, "message": request, "left_s": context.time_remaining()})
        answer = self._fake.rpc_answers[rpc]
        if isinstance(answer, tuple):
            status, text, code = answer
            context.set_trailing_metadata((("mlserve-code", code),))
            context.abort(status, text)
        return answer

    def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802 -- the protocol's name
        self._fake.seen.append(
            {"headers": dict(context.invocation_metadata()), "left_s": context.time_remaining(), "message": request}
        )
        if request.model_name == "bad":
            context.set_trailing_metadata((("mlserve-code", "queue_full"),))
            context.abort(grpc.StatusCode.UNAVAILABLE, "the queue is full")
        if request.model_name == "slow":
            self._fake.arrived.set()
            self._fake.release.wait()
        return answer_of(request)

    def ModelStreamInfer(self, requests: Iterator[Any], _: Any) -> Iterator[Any]:  # noqa: N802 -- the protocol's name
        for request in requests:
            if request.model_name == "bad":
                yield pb.ModelStreamInferResponse(
                    error_message="wrong", infer_response=pb.ModelInferResponse(id=request.id)
                )
            else:
                yield pb.ModelStreamInferResponse(infer_response=answer_of(request))

    def ModelMetadata(self, request: Any, _: Any) -> Any:  # noqa: N802 -- the protocol's name
        self._fake.metadata_calls += 1
        tensor = pb.ModelMetadataResponse.TensorMetadata
        return pb.ModelMetadataResponse(
            name=request.name,
            versions=["1"],
            platform="p",
            inputs=[tensor(name="x", datatype="FP32", shape=[-1])],
            outputs=[tensor(name="y", datatype="FP32", shape=[-1])],
        )

    def ServerMetadata(self, _request: Any, _: Any) -> Any:  # noqa: N802 -- the protocol's name
        return pb.ServerMetadataResponse(name="fake", version="1", extensions=["binary_tensor_data"])

    def ServerLive(self, _request: Any, _: Any) -> Any:  # noqa: N802 -- the protocol's name
        return pb.ServerLiveResponse(live=True)

    def ServerReady(self, _request: Any, _: Any) -> Any:  # noqa: N802 -- the protocol's name
        return pb.ServerReadyResponse(ready=True)

    def ModelReady(self, request: Any, _: Any) -> Any:  # noqa: N802 -- the protocol's name
        return pb.ModelReadyResponse(ready=request.name == "m")


def http_handler(fake: Fake) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            fake.connections += 1
            super().setup()

        def log_message(self, *_: object) -> None:
            pass

        def manage(self) -> bool:
            """Answers a call that manages the server, if it is one."""
            given = fake.route_answers.get((self.command, self.path))
            if given is None:
                return False
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            fake.seen.append({"headers": {k.lower(): v for k, v in self.headers.items()}, "body": body})
            status, answer, code = given
            self.reply(status, answer, code=code)
            return True

        def do_GET(self) -> None:
            if self.manage():
                return
            if self.path == "/v2":
                self.reply(200, {"name": "fake", "version": "1", "extensions": ["binary_tensor_data"]})
            elif self.path in {"/v2/health/live", "/v2/health/ready", "/v2/models/m/ready"}:
                self.reply(200, {})
            elif self.path.endswith("/ready"):
                self.reply(400, {"error": "not ready"})
            else:
                fake.metadata_calls += 1
                self.reply(200, METADATA)

        def do_POST(self) -> None:
            if self.manage():
                return
            body = self.rfile.read(int(self.headers["content-length"]))
            cut = int(self.headers["inference-header-content-length"])
            document = json.loads(body[:cut])
            fake.seen.append({"headers": {k.lower(): v for k, v in self.headers.items()}, "document": document})
            model = self.path.split("/")[3]
            if model == "bad":
                self.reply(503, {"error": "the queue is full"}, code="queue_full")
                return
            if model == "slow":
                fake.release.wait()
            (tensor,) = document["inputs"]
            output = {**tensor, "name": "y"}
            head = {"id": document.get("id", ""), "model_name": model, "model_version": "1", "outputs": [output]}
            self.reply(200, head, blob=body[cut:])

        def reply(self, status: int, document: Any, *, blob: bytes = b"", code: str = "") -> None:
            head = document if isinstance(document, bytes) else json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(head) + len(blob)))
            if blob:
                self.send_header("Inference-Header-Content-Length", str(len(head)))
            if code:
                self.send_header("mlserve-code", code)
            self.end_headers()
            self.wfile.write(head + blob)
            # Without a word of it in the header, as a server that stops does.
            self.close_connection = fake.close_after_answer

    return Handler


class Web(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that gave up waiting closes its connection before the answer: expected here."""


@pytest.fixture
def fake() -> Iterator[Fake]:
    found = Fake()
    rpc = grpc.server(ThreadPoolExecutor(4), handlers=[Handlers(found)])
    found.grpc = f"127.0.0.1:{rpc.add_insecure_port('127.0.0.1:0')}"
    rpc.start()
    web = Web(("127.0.0.1", 0), http_handler(found))
    found.http = f"http://127.0.0.1:{web.server_address[1]}"
    thread = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield found
    found.release.set()
    web.shutdown()
    thread.join()
    web.server_close()
    rpc.stop(None).wait()
