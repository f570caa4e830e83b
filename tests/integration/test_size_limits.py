"""Bodies, messages, bombs, headers, answers and connections above their limits: refused early, at the price of the limit."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests import graphs
from tests.conftest import eventually, serving
from tests.oracle import Oracle, metric, resident_bytes
from tests.raw_http import HttpAnswer, ask, connected, exchange, head, read_answer
from tests.raw_http2 import Ended, Http2Answer, Http2Connection, framed, grpc_call, grpc_headers
from tests.requests_by_hand import Inference, Tensor

if TYPE_CHECKING:
    from tests.conftest import ServerProcess

pytestmark = [pytest.mark.server, pytest.mark.timeout(60)]

LIMIT = 1 << 20
TARGET = "/v2/models/identity_FP32/infer"
# What all bombs at once may cost beyond what the server had before: the limit for each, twice, and some pages.
BOMBS = 30
BOMB_BYTES = 200 << 20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = graphs.write_all(tmp_path_factory.mktemp("models"), ("identity_FP32", "identity_BYTES", "large", "slow"))
    limits = ["--max-body-bytes", str(LIMIT), "--max-response-bytes", "500000", "--max-string-bytes", "1000"]
    limits += ["--max-streams", "8", "--max-headers", "50"]
    with serving(tmp_path_factory.mktemp("servers")) as start:
        found = start(folder, *limits)
        oracle = Oracle(found)
        yield found
        oracle.check()


@pytest.fixture(scope="module")
def bomb() -> bytes:
    """Megabytes of zeros as kilobytes of gzip."""
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as file:
        for _ in range(BOMB_BYTES >> 20):
            file.write(bytes(1 << 20))
    return packed.getvalue()


def zeros(count: int) -> Inference:
    return Inference("identity_FP32", [Tensor("x", "FP32", (1, count), bytes(4 * count))])


def check(over_http: HttpAnswer | None, over_grpc: Http2Answer | None = None, limit: int = LIMIT) -> None:
    if over_http is not None:
        assert (over_http.status, str(limit) in over_http.text) == (413, True), over_http
    if over_grpc is not None:
        assert (over_grpc.grpc_status, str(limit) in over_grpc.grpc_text) == (8, True), over_grpc


@pytest.mark.parametrize("count", [LIMIT // 4, LIMIT])
def test_a_body_above_the_limit_is_too_large(server: ServerProcess, count: int) -> None:
    inference = zeros(count)
    body, fields = inference.body()
    answer = exchange(server.http, head("POST", TARGET, {**fields, "content-length": str(len(body))}) + body)
    check(answer)
    assert grpc_call(server.grpc, inference.message()).grpc_status == 8


def test_a_length_above_the_limit_is_refused_before_a_byte_of_it_has_come(server: ServerProcess) -> None:
    check(exchange(server.http, head("POST", TARGET, {"content-length": str(1 << 40)})))
    with Http2Connection(server.grpc) as connection:
        check(None, connection.answer(connection.open(grpc_headers(content_length=str(1 << 40)))))


def test_chunks_above_the_limit_are_too_large(server: ServerProcess) -> None:
    chunk = b"10000\r\n" + b"[" * 65_536 + b"\r\n"
    with connected(server.http) as opened:
        opened.sendall(head("POST", TARGET, {"transfer-encoding": "chunked"}))
        try:
            for _ in range(40):
                opened.sendall(chunk)
        except (BrokenPipeError, ConnectionResetError):
            pass
        answer = read_answer(opened)
    # The server may close before the client has stopped sending; then the answer is lost on the way.
    if answer is not None:
        check(answer)


def test_a_body_of_tiny_chunks_costs_no_more_than_its_bytes(server: ServerProcess) -> None:
    before = resident_bytes(server)
    body, fields = zeros(50_000).body()
    chunks = b"".join(b"1\r\n" + body[at : at + 1] + b"\r\n" for at in range(len(body))) + b"0\r\n\r\n"
    answer = exchange(server.http, head("POST", TARGET, {**fields, "transfer-encoding": "chunked"}) + chunks)
    assert answer is not None
    assert answer.status == 200
    assert resident_bytes(server) - before < 16 << 20


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_bomb_over_http_stops_at_the_limit(server: ServerProcess, bomb: bytes, encoding: str) -> None:
    data = bomb if encoding == "gzip" else zlib.compress(bytes(BOMB_BYTES))
    before = resident_bytes(server)
    for _ in range(BOMBS):
        check(ask(server.http, "POST", TARGET, data, {"content-encoding": encoding}))
    assert resident_bytes(server) - before < 4 * LIMIT + (16 << 20)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_bomb_over_grpc_stops_at_the_limit(server: ServerProcess, bomb: bytes, encoding: str) -> None:
    data = bomb if encoding == "gzip" else zlib.compress(bytes(BOMB_BYTES))
    before = resident_bytes(server)
    with Http2Connection(server.grpc) as connection:
        for _ in range(BOMBS):
            stream = connection.open(grpc_headers(grpc_encoding=encoding))
            connection.send(stream, framed(data, is_compressed=True))
            check(None, connection.answer(stream))
    assert resident_bytes(server) - before < 4 * LIMIT + (16 << 20)


def test_a_bomb_within_a_stream_is_an_answer(server: ServerProcess, bomb: bytes) -> None:
    sound = zeros(3).message()
    with Http2Connection(server.grpc) as connection:
        path = "/inference.GRPCInferenceService/ModelStreamInfer"
        stream = connection.open(grpc_headers(path, grpc_encoding="gzip"))
        connection.send(stream, framed(sound) + framed(bomb, is_compressed=True) + framed(sound))
        answer = connection.answer(stream)
    assert answer.grpc_status == 0, answer
    assert len(answer.messages()) == 3


@pytest.mark.parametrize("cut", [1, 10, -1])
def test_compressed_data_that_is_cut_off_is_named(server: ServerProcess, cut: int) -> None:
    packed = gzip.compress(zeros(3).body()[0], mtime=0)[:cut]
    answer = ask(server.http, "POST", TARGET, packed, {"content-encoding": "gzip"})
    assert (answer.status, "gzip" in answer.text) == (400, True)


def test_an_answer_above_the_limit_is_too_large(server: ServerProcess) -> None:
    inference = Inference("large", [Tensor.of("count", np.array([500_000]), "INT64")])
    body, fields = inference.body()
    check(
        ask(server.http, "POST", inference.target, body, fields), grpc_call(server.grpc, inference.message()), 500_000
    )


def test_an_element_above_the_limit_is_too_large_in_json_too(server: ServerProcess) -> None:
    body = b'{"inputs":[{"name":"x","datatype":"BYTES","shape":[1,1],"data":["' + b"a" * 1_001 + b'"]}]}'
    check(ask(server.http, "POST", "/v2/models/identity_BYTES/infer", body), limit=1_000)


def test_header_fields_above_the_limit_are_431(server: ServerProcess) -> None:
    for fields in ({"x-long": "a" * 20_000}, {f"x-{index}": "a" * 500 for index in range(45)}):
        answer = ask(server.http, "GET", "/v2/health/live", headers=fields)
        assert answer.status == 431
        assert answer.text


def test_too_many_header_fields_are_431(server: ServerProcess) -> None:
    answer = ask(server.http, "GET", "/v2/health/live", headers={f"x-{index}": "a" for index in range(80)})
    assert answer.status == 431


def test_a_header_without_end_is_cut_off(server: ServerProcess) -> None:
    before = resident_bytes(server)
    with connected(server.http) as opened:
        opened.sendall(b"GET / HTTP/1.1\r\nx: ")
        try:
            for _ in range(500):
                opened.sendall(b"a" * 65_536)
        except (BrokenPipeError, ConnectionResetError):
            pass
        else:
            pytest.fail("32 MB of header were taken")
    assert resident_bytes(server) - before < 8 << 20


def test_one_stream_too_many_is_refused_and_the_others_go_on(server: ServerProcess) -> None:
    with Http2Connection(server.grpc) as connection:
        while connection.h2.remote_settings.max_concurrent_streams != 8:
            connection.receive()
        streams = [connection.open(grpc_headers()) for _ in range(8)]
        # The client's own library would not: it knows the limit.
        connection.h2.remote_settings.update({3: 100})
        connection.h2.remote_settings.acknowledge()
        extra = connection.open(grpc_headers())
        try:
            answer = connection.answer(extra)
        except Ended:
            pytest.fail("the connection was closed")
        assert answer.reset == 7
        for stream in streams:
            connection.send(stream, framed(zeros(2).message()))
            assert connection.answer(stream).grpc_status == 0


def test_connections_above_the_limit_are_turned_away_and_counted(
    tmp_path_factory: pytest.TempPathFactory, server: ServerProcess
) -> None:
    del server
    folder = graphs.write_all(tmp_path_factory.mktemp("models"), ("identity_FP32",))
    with serving(tmp_path_factory.mktemp("few")) as start:
        few = start(folder, "--max-connections", "4")
        with ExitStack() as stack:
            for address in (few.http, few.http, few.grpc, few.grpc):
                # With a request in flight on each, none can make room. It is in flight once its body is asked for.
                opened = stack.enter_context(connected(address))
                waiting = {"content-length": "2", "expect": "100-continue"}
                opened.sendall(head("POST", "/v2/models/identity_FP32/infer", waiting))
                assert opened.recv(4096).startswith(b"HTTP/1.1 100 ")
            eventually(lambda: metric(few, "mlserve_connections") == 4, limit_s=5, what="four connections")
            with connected(few.http) as fifth:
                fifth.sendall(head("GET", "/v2/health/live"))
                assert read_answer(fifth, "GET") is None
            assert metric(few, "mlserve_connections_refused_total") == 1
            # Health and metrics have a port of their own.
            assert ask(few.metrics, "GET", "/v2/health/ready").status == 200
        eventually(lambda: metric(few, "mlserve_connections") == 0, limit_s=5, what="no connections")
        assert ask(few.http, "GET", "/v2/health/live").status == 200


@pytest.mark.parametrize("protocol", ["silent", "http1", "http2"])
def test_quiet_connections_make_room_for_newcomers(
    tmp_path_factory: pytest.TempPathFactory, server: ServerProcess, protocol: str
) -> None:
    del server
    folder = graphs.write_all(tmp_path_factory.mktemp("models"), ("identity_FP32",))
    with serving(tmp_path_factory.mktemp("few")) as start, ExitStack() as stack:
        few = start(folder, "--max-connections", "32", "--event-loops", "1")
        for _ in range(80):
            if protocol == "http2":
                stack.enter_context(Http2Connection(few.grpc))
            else:
                opened = stack.enter_context(connected(few.http))
                if protocol == "http1":
                    opened.sendall(head("GET", "/v2/health/live"))
                    assert read_answer(opened, "GET") is not None
            assert ask(few.http, "GET", "/v2/health/live").status == 200
        assert metric(few, "mlserve_connections_asked_to_leave_total") > 0
