"""A model repository that changes under a server, and who asks it: which file answers, and what the index says."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tests import graphs
from tests.raw_http import ask

if TYPE_CHECKING:
    from tests.conftest import ServerProcess
    from tests.raw_http import HttpAnswer

BODY = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1.0, 1.0]}]}


def put(folder: Path, name: str, version: int, factor: float, *, ballast: int = 0) -> Path:
    """Puts a version that multiplies by `factor` into the repository, whole or not at all."""
    file = folder / name / str(version) / "model.onnx"
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    partial.write_bytes(graphs.times(factor, ballast))
    partial.rename(file)
    return file


def damage(folder: Path, name: str, version: int) -> Path:
    """Puts a file there that is no model."""
    file = folder / name / str(version) / "model.onnx"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"this is no model")
    return file


def post(server: ServerProcess, path: str, body: Any = None) -> HttpAnswer:
    """A request with a JSON body."""
    return ask(server.http, "POST", path, b"" if body is None else json.dumps(body).encode())


def load(server: ServerProcess, name: str, **parameters: Any) -> HttpAnswer:
    """Asks to load a model."""
    return post(server, f"/v2/repository/models/{name}/load", {"parameters": parameters} if parameters else None)


def unload(server: ServerProcess, name: str) -> HttpAnswer:
    """Asks to unload a model."""
    return post(server, f"/v2/repository/models/{name}/unload")


def index(server: ServerProcess) -> dict[tuple[str, str], tuple[str, str]]:
    """State and reason by model and version."""
    found = post(server, "/v2/repository/index")
    assert found.status == 200, found
    return {
        (line["name"], line.get("version", "")): (line.get("state", ""), line.get("reason", ""))
        for line in json.loads(found.body)
    }


def infer(server: ServerProcess, name: str, version: int | None = None) -> HttpAnswer:
    """One inference on ones."""
    versions = f"/versions/{version}" if version else ""
    return post(server, f"/v2/models/{name}{versions}/infer", BODY)


def answer(server: ServerProcess, name: str, version: int | None = None) -> tuple[float, str]:
    """The factor that answers, and the version that it says it is."""
    found = infer(server, name, version)
    assert found.status == 200, found
    body = json.loads(found.body)
    values = np.array(body["outputs"][0]["data"])
    assert (values == values[0]).all()
    return float(values[0]), str(body["model_version"])


def age(path: Path) -> None:
    """Gives a file another time of change, as `touch` does."""
    os.utime(path, ns=(1, 1))
