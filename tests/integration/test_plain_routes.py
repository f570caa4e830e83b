"""KServe V1, `/predict` and `generate` on a live server: the same answers as by tensors, and a clear refusal else."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests import slow_model
from tests.raw_http import HttpAnswer, ask
from tests.raw_http2 import http_call

if TYPE_CHECKING:
    from tests.conftest import ServerProcess, StartServer

pytestmark = pytest.mark.server

Call = Callable[..., HttpAnswer]
ROW = [0.5, -1.0, 2.0, 0.0, 3.5, -0.25, 1.0, 4.0]
OTHER = [1.0] * 8
ROUTES = [
    "/v1/models/mlp:predict",
    "/v1/models/mlp/versions/1:predict",
    "/predict/mlp",
    "/v2/models/mlp/generate",
    "/v2/models/mlp/versions/1/generate_stream",
]


@pytest.fixture(params=[ask, http_call], ids=["http1", "http2"])
def call(request: pytest.FixtureRequest) -> Call:
    found: Call = request.param
    return found


def post(
    server: ServerProcess, path: str, body: Any, call: Call = ask, headers: dict[str, str] | None = None
) -> HttpAnswer:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return call(server.http, "POST", path, data, headers)


def answered(server: ServerProcess, path: str, body: Any, call: Call = ask) -> dict[str, Any]:
    found = post(server, path, body, call)
    assert found.status == 200, found.body
    assert found.headers["content-type"] == "application/json"
    return found.json


def by_tensors(server: ServerProcess, rows: list[list[float]]) -> list[list[float]]:
    tensor = {"name": "x", "datatype": "FP32", "shape": [len(rows), 8], "data": rows}
    flat = answered(server, "/v2/models/mlp/infer", {"inputs": [tensor]})["outputs"][0]["data"]
    return [flat[3 * row : 3 * row + 3] for row in range(len(rows))]


def test_v1_answers_rows_with_rows_and_columns_with_columns(attacked: ServerProcess, call: Call) -> None:
    path = "/v1/models/mlp:predict"
    expected = by_tensors(attacked, [ROW, OTHER])
    body = {"signature_name": "serving_default", "instances": [ROW, OTHER]}
    assert answered(attacked, path, body, call) == {"predictions": expected}
    assert answered(attacked, path, {"instances": [{"x": ROW}, {"x": OTHER}]}, call) == {"predictions": expected}
    assert answered(attacked, path, {"inputs": [ROW, OTHER]}, call) == {"outputs": expected}
    assert answered(attacked, path, {"inputs": {"x": [ROW, OTHER]}}, call) == {"outputs": expected}
    versioned = "/v1/models/mlp/versions/1:predict"
    assert answered(attacked, versioned, body, call) == {"predictions": expected}


def test_v1_answers_several_outputs_by_name(attacked: ServerProcess, call: Call) -> None:
    rows = [
        {"x": [[1, 2], [3, 4]], "ids": [1, 2, 3], "name": ["a"]},
        {"x": [[0, 0], [0, 1]], "ids": [4, 5, 6], "name": [{"b64": base64.b64encode(b"\xff").decode()}]},
    ]
    assert answered(attacked, "/v1/models/mixed:predict", {"instances": rows}, call) == {
        "predictions": [
            {"doubled": [[2.0, 4.0], [6.0, 8.0]], "total": 6, "marked": ["a!"]},
            {
                "doubled": [[0.0, 0.0], [0.0, 2.0]],
                "total": 15,
                "marked": [{"b64": base64.b64encode(b"\xff!").decode()}],
            },
        ]
    }
    columns = {name: [row[name] for row in rows] for name in ("x", "ids", "name")}
    outputs = answered(attacked, "/v1/models/mixed:predict", {"inputs": columns}, call)["outputs"]
    assert outputs["total"] == [6, 15]


def test_v1_tells_which_models_are_ready(attacked: ServerProcess, call: Call) -> None:
    names = call(attacked.http, "GET", "/v1/models").json["models"]
    assert names == sorted(names)
    assert {"mlp", "mixed"} <= set(names)
    for path in ("/v1/models/mlp", "/v1/models/mlp/versions/1"):
        assert call(attacked.http, "GET", path).json == {"name": "mlp", "ready": True}
    for path in ("/v1/models/none", "/v1/models/mlp/versions/9"):
        assert call(attacked.http, "GET", path).status == 404


def test_predict_answers_one_row_bare_and_several_in_lists(attacked: ServerProcess, call: Call) -> None:
    expected = by_tensors(attacked, [ROW, OTHER])
    best = [max(range(3), key=row.__getitem__) for row in expected]
    one = answered(attacked, "/predict/mlp", {"features": ROW}, call)
    assert (one["prediction"], one["confidence"]) == (best[0], expected[0][best[0]])
    assert (one["model_name"], one["model_version"]) == ("mlp", "1")
    assert one["processing_time"] > 0
    several = answered(attacked, "/predict/mlp", {"features": [ROW, OTHER]}, call)
    assert several["prediction"] == best
    assert several["confidence"] == [row[place] for row, place in zip(expected, best, strict=True)]
    assert answered(attacked, "/predict/mlp", {"features": {"x": ROW}}, call)["prediction"] == best[0]


def test_predict_without_probabilities_has_no_confidence(attacked: ServerProcess) -> None:
    row = {"x": [[1, 2], [3, 4]], "ids": [1, 2, 3], "name": "a"}
    found = answered(attacked, "/predict/mixed", {"features": row})
    assert found["confidence"] is None
    assert found["prediction"] == {"doubled": [[2.0, 4.0], [6.0, 8.0]], "total": 6, "marked": "a!"}
    assert answered(attacked, "/predict/scalar", {"features": 3})["prediction"] == -3.0


def test_generate_takes_inputs_and_parameters_as_members(attacked: ServerProcess, call: Call) -> None:
    expected = {"id": "q", "model_name": "mlp", "model_version": "1", "probabilities": by_tensors(attacked, [ROW])[0]}
    body = {"id": "q", "x": ROW, "temperature": 0.5, "parameters": {"stream": False, "priority": 0}}
    assert answered(attacked, "/v2/models/mlp/generate", body, call) == expected
    found = post(attacked, "/v2/models/mlp/generate_stream", body, call)
    assert found.status == 200
    assert found.headers["content-type"] == "text/event-stream; charset=utf-8"
    start, end = b"data: ", b"\n\n"
    assert found.body.startswith(start)
    assert found.body.endswith(end)
    assert json.loads(found.body.removeprefix(start).removesuffix(end)) == expected
    # A scalar stands for a tensor of one element.
    assert answered(attacked, "/v2/models/parse/generate", {"text": "2.5"}, call)["number"] == 2.5


@pytest.mark.parametrize("route", ROUTES)
def test_what_is_no_request_is_refused(attacked: ServerProcess, call: Call, route: str) -> None:
    for body, status in [
        (b"", 400),
        (b"{", 400),
        (b"[]", 400),
        (b"{}", 400),
        (b"\xff", 400),
        (b'{"instances":' + b"[" * 100 + b"]" * 100 + b"}", 413),
        (b'{"features":' + b"[" * 100 + b"]" * 100 + b"}", 413),
        (b'{"x":' + b"[" * 100 + b"]" * 100 + b"}", 413),
    ]:
        found = post(attacked, route, body, call)
        assert found.status == status, (body[:20], found.body)
        assert found.text
    assert call(attacked.http, "GET", route).status == 405
    unknown = post(attacked, route.replace("mlp", "none"), {"x": ROW}, call)
    assert unknown.status == 404
    assert unknown.text.startswith("Request for unknown model: 'none'")


@pytest.mark.parametrize(
    ("model", "instances", "told"),
    [
        ("mlp", [], "'instances' is empty"),
        ("mlp", 5, "'instances' is a number"),
        ("mlp", [[1, 2], [3]], "the list at [1] has 1 elements"),
        ("mlp", [ROW, 1], "a value at [1]"),
        ("mlp", [["1"] * 8], "element 0 of input 'x' is a string; a number is expected"),
        ("mlp", [[None] * 8], "element 0 of input 'x' is null"),
        ("mlp", [[1, 2]], "unexpected shape for input 'x'"),
        ("mlp", [[[1, 2]]], "a row takes a list of shape [8], got shape [1,2]"),
        ("mlp", [{"y": ROW}], "unexpected inference input 'y'"),
        ("mlp", [{"x": ROW, "y": 1}], "unexpected inference input 'y'"),
        ("mlp", [{"x": ROW}, {}], "row 1 of 'instances': it has no value for input 'x'"),
        ("mixed", [[1]], "takes 3 inputs"),
        ("mixed", [{"x": [[1, 2], [3, 4]]}], "it has no value for input 'ids'"),
        ("identity_UINT8", [[256]], "256"),
        ("identity_INT64", [[1.5]], "1.5"),
        ("identity_BOOL", [[1]], "true or false is expected"),
        ("identity_BYTES", [[1]], "a string or"),
        ("identity_BYTES", [[{"b64": "?"}]], "not base64"),
        ("identity_FP16", [[1]], "FP16"),
        ("fixed", [[[1, 2, 3], [4, 5, 6]], [[1, 2, 3], [4, 5, 6]]], "takes one at a time"),
        ("lookup", [[10, 0]], "Gather"),
    ],
)
def test_a_refusal_says_what_is_wrong_and_where(attacked: ServerProcess, model: str, instances: Any, told: str) -> None:
    found = post(attacked, f"/v1/models/{model}:predict", {"instances": instances})
    assert found.status == 400, found.body
    assert told in found.text


def test_bare_not_a_number_is_told_by_name(attacked: ServerProcess) -> None:
    found = post(attacked, "/predict/mlp", b'{"features":[NaN,1,1,1,1,1,1,1]}')
    assert found.status == 400
    assert "NaN and Infinity are not JSON" in found.text


def test_an_answer_that_json_cannot_carry_is_refused(attacked: ServerProcess) -> None:
    found = post(attacked, "/v1/models/add_FP32:predict", {"inputs": {"a": [[3e38] * 3], "b": [[3e38] * 3]}})
    assert found.status == 400
    assert "NaN or infinite" in found.text


def test_deadlines_count(start_server: StartServer, graph_folder: Path) -> None:
    server = start_server(graph_folder / "slow", *slow_model.FLAGS)
    turns = slow_model.turns_for(graph_folder / "slow" / "1" / "model.onnx", 0.5)
    with slow_model.busy(server, turns):
        for path, body in [
            ("/v1/models/slow:predict", {"instances": [[1]]}),
            ("/predict/slow", {"features": [1]}),
            ("/v2/models/slow/generate", {"turns": 1}),
        ]:
            found = post(server, path, body, headers={"x-request-timeout-ms": "20"})
            assert (found.status, found.headers["mlserve-code"]) == (504, "deadline_exceeded")
        queued = post(server, "/v2/models/slow/generate", {"turns": 1, "timeout": 1_000})
        assert (queued.status, queued.headers["mlserve-code"]) == (503, "queue_timeout")


def test_a_timeout_that_is_none_is_refused(attacked: ServerProcess) -> None:
    found = post(attacked, "/predict/mlp", {"features": ROW}, headers={"x-request-timeout-ms": "soon"})
    assert found.status == 400


def test_large_bodies_are_read_whole(attacked: ServerProcess, call: Call) -> None:
    rows = [[row / 64 + column for column in range(8)] for row in range(4_000)]
    body = json.dumps({"instances": rows}).encode()
    assert len(body) > 1 << 17
    predictions = json.loads(post(attacked, "/v1/models/mlp:predict", body, call).body)["predictions"]
    assert len(predictions) == len(rows)
    assert predictions[-1] == pytest.approx(by_tensors(attacked, rows[-1:])[0], rel=1e-5)
    by_name = answered(attacked, "/v1/models/mlp:predict", {"instances": [{"x": row} for row in rows]}, call)
    assert by_name["predictions"] == predictions


def test_what_is_sent_along_comes_back(attacked: ServerProcess, call: Call) -> None:
    found = post(attacked, "/predict/mlp", {"features": ROW}, call, {"x-request-id": "r-7"})
    assert found.headers["x-request-id"] == "r-7"


numbers = st.floats(width=32, allow_nan=False, allow_infinity=False)
tables = st.integers(1, 6).flatmap(
    lambda width: st.lists(st.lists(numbers, min_size=width, max_size=width), min_size=1)
)


@given(rows=tables)
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_table_comes_back_as_it_was(graph_server: ServerProcess, rows: list[list[float]]) -> None:
    body = json.dumps({"instances": rows}).encode()
    found = ask(graph_server.http, "POST", "/v1/models/identity_FP32:predict", body)
    assert found.status == 200, found.body
    # The same floats to the bit, although the shortest text of a float is not that of the double it equals.
    back = np.array(found.json["predictions"], np.float32)
    assert back.tobytes() == np.array(rows, np.float32).tobytes()


def test_the_access_log_has_their_lines(start_server: StartServer, graph_folder: Path) -> None:
    server = start_server(graph_folder / "mlp", "--access-log")
    assert post(server, "/predict/mlp", {"features": ROW}).status == 200
    assert post(server, "/v2/models/mlp/generate", {"id": "named", "x": [[1]]}).status == 400
    assert server.stop() == 0
    log = server.log.read_text()
    predicted = next(line for line in log.splitlines() if "/predict/{model}" in line)
    assert "mlp" in predicted
    assert "ok" in predicted
    refused = next(line for line in log.splitlines() if "/v2/models/{model}/generate" in line)
    assert "named" in refused
    assert "invalid_argument" in refused
