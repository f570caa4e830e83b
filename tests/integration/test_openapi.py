"""The OpenAPI document and the page: valid, true to what is loaded, and safe whatever models are called."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from tests import graphs
from tests.raw_http import ask
from tests.raw_http2 import http_call

if TYPE_CHECKING:
    from tests.conftest import ServerProcess, StartServer

pytestmark = pytest.mark.server

HTML = '<img src=x onerror="alert(1)">'
JSON = "application/json"


@pytest.fixture(scope="module")
def document(graph_server: ServerProcess) -> dict[str, Any]:
    return ask(graph_server.http, "GET", "/openapi.json").json


def examples(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], Any]]:
    """Path, operation and example body of what has one."""
    for path, methods in document["paths"].items():
        content = methods.get("post", {}).get("requestBody", {}).get("content", {}).get(JSON, {})
        if "example" in content:
            yield path, methods["post"], content["example"]


def test_the_document_is_valid(document: dict[str, Any]) -> None:
    assert not list(OpenAPIV31SpecValidator(document).iter_errors())


def test_every_example_works_as_it_is(graph_server: ServerProcess, document: dict[str, Any]) -> None:
    found = list(examples(document))
    assert {"/v2/models/mlp/infer", "/v1/models/mlp:predict", "/predict/mlp", "/v2/models/mlp/generate"} <= {
        path for path, _, _ in found
    }
    for path, operation, example in found:
        Draft202012Validator(operation["requestBody"]["content"][JSON]["schema"]).validate(example)
        answer = ask(graph_server.http, "POST", path, json.dumps(example).encode())
        assert answer.status == 200, (path, answer.body)
        Draft202012Validator(operation["responses"]["200"]["content"][JSON]["schema"]).validate(answer.json)


def test_schemas_refuse_what_the_server_refuses(graph_server: ServerProcess, document: dict[str, Any]) -> None:
    content = document["paths"]["/predict/mlp"]["post"]["requestBody"]["content"][JSON]
    for body in [{}, {"features": [1] * 7}, {"features": ["1"] * 8}, {"features": [[1] * 9]}]:
        assert not Draft202012Validator(content["schema"]).is_valid(body)
        assert ask(graph_server.http, "POST", "/predict/mlp", json.dumps(body).encode()).status == 400


def test_each_version_has_its_own_paths_and_what_failed_has_none(start_server: StartServer, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    shape: list[int | str] = ["rows", 2]
    odd = graphs.model(
        [graphs.node("Identity", [HTML], ["y"])],
        [graphs.value(HTML, "FP32", shape)],
        [graphs.value("y", "FP32", shape)],
    )
    for name, version, content in [
        ("odd", 1, odd),
        ("mlp", 1, graphs.mlp()),
        ("mlp", 2, graphs.mlp()),
        ("bad", 1, b"nonsense"),
    ]:
        file = folder / name / str(version) / "model.onnx"
        file.parent.mkdir(parents=True)
        file.write_bytes(content)
    server = start_server(folder, "--set", "models.mlp.versions=all")
    document = ask(server.http, "GET", "/openapi.json").json
    assert not list(OpenAPIV31SpecValidator(document).iter_errors())
    paths = [path for path, _, _ in examples(document)]
    assert "/v2/models/odd/infer" in paths
    assert "/v2/models/mlp/versions/1/infer" in paths
    assert "/v1/models/mlp/versions/2:predict" in paths
    assert not any("bad" in path for path in paths)
    for path, _, example in examples(document):
        assert ask(server.http, "POST", path, json.dumps(example).encode()).status == 200, path
    bad = next(model for model in ask(server.http, "GET", "/model/status").json["models"] if model["name"] == "bad")
    assert not bad["ready"]
    assert bad["versions"][0]["state"] == "failed"
    assert bad["versions"][0]["reason"].startswith("bad/1/model.onnx is no ONNX model")
    shutil.rmtree(folder)


def test_status_tells_every_model(graph_server: ServerProcess) -> None:
    for call in (ask, http_call):
        status = call(graph_server.http, "GET", "/model/status").json
        models = {model["name"]: model for model in status["models"]}
        assert status["ready"]
        assert list(models) == sorted(models)
        (version,) = models["mlp"]["versions"]
        assert (version["version"], version["state"], version["reason"]) == ("1", "ready", None)
        assert version["batching"]["shares_runs"]
        assert version["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 8]}]
        assert "fixed" in models["fixed"]["versions"][0]["batching"]["reason"]


def test_the_page_runs_only_what_stands_in_it(graph_server: ServerProcess) -> None:
    page = ask(graph_server.http, "GET", "/docs")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    text = page.body.decode()
    policy = page.headers["content-security-policy"]
    for tag in ("style", "script"):
        (inner,) = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inner.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    # Nothing from elsewhere, and names of models never as markup.
    assert "http://" not in text
    assert "https://" not in text
    assert "innerHTML" not in text
    assert "insertAdjacentHTML" not in text
    assert " style=" not in text


def test_browsers_are_led_to_the_page_and_clients_learn_that_the_server_lives(graph_server: ServerProcess) -> None:
    browser = ask(graph_server.http, "GET", "/", headers={"accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    assert (browser.status, browser.headers["location"], browser.body) == (302, "/docs", b"")
    for headers in ({}, {"accept": "*/*"}, {"accept": JSON}):
        client = ask(graph_server.http, "GET", "/", headers=headers)
        assert (client.status, client.json) == (200, {"status": "alive"})
        assert client.headers["vary"] == "accept"


def test_probes_agree_with_those_of_the_metrics_port(graph_server: ServerProcess) -> None:
    for path in ("/livez", "/readyz", "/startupz"):
        for call in (ask, http_call):
            found = call(graph_server.http, "GET", path)
            other = ask(graph_server.metrics, "GET", path)
            assert (found.status, found.body) == (other.status, other.body)
    assert ask(graph_server.http, "GET", "/ready").json == {"ready": True}
    assert ask(graph_server.http, "GET", "/health").json == {"live": True, "ready": True}
