"""Repositories as they lie on real disks: odd entries beside good ones, and links as clusters and caches make them."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from onnx import TensorProto, numpy_helper

from tests import graphs
from tests.conftest import eventually
from tests.oracle import metric
from tests.raw_http import ask
from tests.repositories import answer, index, infer, load, put

if TYPE_CHECKING:
    from tests.conftest import ServerProcess, StartServer

pytestmark = [pytest.mark.server, pytest.mark.timeout(60)]

MODES = {
    "none": (),
    "poll": ("--model-control-mode", "poll", "--repository-poll-secs", "1"),
    "explicit": ("--model-control-mode", "explicit", "--load-models", "*"),
}
# Two looks have to agree.
LIMIT_S = 20


def with_data(factor: float, location: str) -> tuple[bytes, bytes]:
    """A model that multiplies by `factor`, and the file beside it that has its weights."""
    made = onnx.load_from_string(graphs.times(factor))
    tensor = made.graph.initializer[0]
    data = numpy_helper.to_array(tensor).tobytes()
    for field in ("raw_data", "float_data"):
        tensor.ClearField(field)
    tensor.data_location = TensorProto.EXTERNAL
    for key, text in (("location", location), ("offset", "0"), ("length", str(len(data)))):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, text
    return bytes(made.SerializeToString()), data


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def link(path: Path, target: str | Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A good model among everything that can go wrong."""
    folder = tmp_path / "models"
    put(folder, "good", 1, 2)
    put(folder, "2024", 1, 3)
    put(folder, "my model", 1, 2)
    write(folder / "bad" / "01" / "model.onnx", graphs.times(1))
    write(folder / "lost+found" / ".keep", b"")
    write(folder / "notes" / "readme.txt", b"nothing")
    write(folder / "-odd.onnx", graphs.times(1))
    write(folder / "README.md", b"# Models")
    write(folder / "7" / ".keep", b"")
    write(folder / "hollow" / "3" / ".keep", b"")
    put(folder, "half", 1, 4)
    write(folder / "half" / "2" / "model.onnx.part", b"half")
    write(folder / "misconfigured" / "config.pbtxt", b"max_batch_size: [")
    put(folder, "misconfigured", 1, 2)
    link(folder / "dangling", "nowhere")
    link(folder / "outside" / "1", put(tmp_path / "elsewhere", "secret", 1, 13).parent)
    return folder


# Names that models could have: failed in the plan too.
FAILED = {
    "bad": "01 is no version",
    "hollow": "no model.onnx in its versions' folders (3)",
    "misconfigured": "config.pbtxt",
    "dangling": "No such file",
    "outside": "leads outside the repository",
}
# Others are in the index only.
ODD = {
    "my model": "is no name for a model",
    "lost+found": "is no name for a model",
    "-odd.onnx": "is no name for a model",
    "notes": "no model here",
    "7": "no model here",
}


@pytest.mark.parametrize("mode", MODES)
def test_odd_entries_are_told_and_the_rest_is_served(
    start_server: StartServer, folder: Path, tmp_path: Path, mode: str
) -> None:
    server = start_server(folder, *MODES[mode])
    assert [answer(server, name) for name in ("good", "2024", "half")] == [(2, "1"), (3, "1"), (4, "1")]
    lines = {name: line for (name, _), line in index(server).items()}
    assert set(lines) == {"good", "2024", "half", *FAILED, *ODD}
    for name, text in {**FAILED, **ODD}.items():
        state, reason = lines[name]
        assert (state, reason.startswith("failed to load: "), text in reason) == ("UNAVAILABLE", True, True), reason
        assert str(tmp_path) not in reason, "paths of the machine are not told to callers"
        assert text in server.log.read_text()
    over_grpc = triton_grpc.InferenceServerClient(server.grpc)
    told = over_grpc.get_model_repository_index(as_json=True)["models"]
    assert {line["name"]: (line.get("state", ""), line.get("reason", "")) for line in told} == lines
    over_http = triton_http.InferenceServerClient(server.http)
    for name in [*FAILED, *ODD]:
        assert not over_grpc.is_model_ready(name)
        assert not over_http.is_model_ready(name)
    assert {name: infer(server, name).status for name in FAILED} == dict.fromkeys(FAILED, 503)
    assert all(metric(server, "mlserve_model_state", model=name, state="failed") == 1 for name in FAILED)
    assert ask(server.http, "GET", "/v2/health/ready").status == 200
    log = server.log.read_text()
    assert "without a model is left out" in log
    assert log.count("README.md") == 1, "what is no model and takes no name is told once"


def test_files_that_are_no_models_are_told_once_unless_they_may_be_a_models_data(
    start_server: StartServer, tmp_path: Path
) -> None:
    folder, flat = tmp_path / "models", tmp_path / "flat"
    put(folder, "good", 1, 2)
    write(folder / ".hidden", b"")
    server = start_server(folder, *MODES["poll"])
    assert "left alone" not in server.log.read_text()
    write(folder / "model.pt", b"of another kind")
    eventually(lambda: "model.pt" in server.log.read_text(), limit_s=LIMIT_S, what="the file to be told")
    put(folder, "next", 1, 3)
    eventually(lambda: infer(server, "next").status == 200, limit_s=LIMIT_S, what="two more looks")
    assert server.log.read_text().count("left alone") == 1
    assert "model.pt" not in {name for name, _ in index(server)}
    write(flat / "good.onnx", graphs.times(2))
    write(flat / "weights.bin", b"")
    assert "left alone" not in start_server(flat).log.read_text()


def test_odd_entries_that_come_and_go_are_followed(start_server: StartServer, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    put(folder, "good", 1, 2)
    server = start_server(folder, *MODES["poll"])
    put(folder, "my model", 1, 2)
    write(folder / "bad" / "01" / "model.onnx", graphs.times(5))
    eventually(lambda: ("my model", "") in index(server), limit_s=LIMIT_S, what="the odd entry to be told")
    eventually(lambda: ("bad", "1") in index(server), limit_s=LIMIT_S, what="the bad model to be told")
    assert index(server)["bad", "1"][0] == "UNAVAILABLE"
    shutil.rmtree(folder / "my model")
    (folder / "bad" / "01").rename(folder / "bad" / "1")
    eventually(lambda: infer(server, "bad").status == 200, limit_s=LIMIT_S, what="the mended model to serve")
    eventually(lambda: ("my model", "") not in index(server), limit_s=LIMIT_S, what="the odd entry to be forgotten")
    assert answer(server, "bad") == (5, "1")
    assert server.log.read_text().count("'my model' is no name for a model") == 1


def test_a_load_of_an_odd_entry_says_what_is_wrong(start_server: StartServer, folder: Path) -> None:
    server = start_server(folder, "--model-control-mode", "explicit")
    assert index(server)["bad", ""][0] == "UNAVAILABLE"
    for name, text in FAILED.items():
        refused = load(server, name)
        assert (refused.status, text in refused.text) == (500, True), refused
    assert "no model here" in load(server, "notes").text


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_entry_is_told(start_server: StartServer, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    put(folder, "good", 1, 2)
    put(folder, "locked", 1, 2)
    (folder / "locked").chmod(0)
    server = start_server(folder)
    try:
        assert answer(server, "good") == (2, "1")
        assert "Permission denied" in index(server)["locked", "1"][1]
    finally:
        (folder / "locked").chmod(0o755)


def test_links_of_a_volume_claim_are_followed_where_they_are_trusted(start_server: StartServer, tmp_path: Path) -> None:
    """As KServe mounts pvc://: the folder has one link for each entry of the claim."""
    claim = tmp_path / "pvc"
    model, weights = with_data(5, "weights.bin")
    write(claim / "a" / "1" / "model.onnx", model)
    write(claim / "a" / "1" / "weights.bin", weights)
    folder = tmp_path / "models"
    link(folder / "a", claim / "a")
    put(folder, "own", 1, 2)
    server = start_server(folder, "--trusted-roots", f"/mnt/pvc,{claim}")
    assert answer(server, "a") == (5, "1")
    refusing = start_server(folder)
    assert answer(refusing, "own") == (2, "1")
    assert "server.trusted_roots" in index(refusing)["a", "1"][1]


def hub(root: Path, factor: float) -> Path:
    """A model as Hugging Face's cache has it: names are links to contents, those of weights too."""
    cache = root / "models--org--times"
    model, weights = with_data(factor, "model.onnx_data")
    write(cache / "blobs" / "0a", model)
    write(cache / "blobs" / "0b", weights)
    snapshot = cache / "snapshots" / "f00d" / "onnx"
    link(snapshot / "model.onnx", "../../../blobs/0a")
    link(snapshot / "model.onnx_data", "../../../blobs/0b")
    return snapshot


@pytest.mark.parametrize("named", ["file", "folder", "model"])
def test_a_model_in_the_hub_cache_is_served(start_server: StartServer, tmp_path: Path, named: str) -> None:
    snapshot = hub(tmp_path / "hub", 6)
    if named == "model":
        put(tmp_path / "models", "other", 1, 2)
        server = start_server(tmp_path / "models", "--set", f"models.times.path={snapshot / 'model.onnx'}")
        assert answer(server, "times") == (6, "1")
    else:
        server = start_server(snapshot / "model.onnx" if named == "file" else snapshot)
        assert answer(server, "model") == (6, "1")


def test_versions_share_weights_by_links_of_both_kinds(start_server: StartServer, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    model, weights = with_data(7, "weights.bin")
    for version in (1, 2, 3):
        write(folder / "a" / str(version) / "model.onnx", model)
    write(folder / "a" / "1" / "weights.bin", weights)
    link(folder / "a" / "2" / "weights.bin", "../1/weights.bin")
    (folder / "a" / "3" / "weights.bin").hardlink_to(folder / "a" / "1" / "weights.bin")
    server = start_server(folder, "--set", "models.a.versions=all")
    assert [answer(server, "a", version) for version in (1, 2, 3)] == [(7, "1"), (7, "2"), (7, "3")]


def test_weights_and_labels_outside_are_not_reached_by_links(start_server: StartServer, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    model, weights = with_data(7, "weights.bin")
    secret = write(tmp_path / "secret" / "weights.bin", weights)
    write(folder / "weights" / "1" / "model.onnx", model)
    link(folder / "weights" / "1" / "weights.bin", secret)
    put(folder, "labels", 1, 2)
    link(folder / "labels" / "labels.txt", secret)
    config = b'output [ { name: "y" data_type: TYPE_FP32 dims: [ 2 ] label_filename: "labels.txt" } ]'
    write(folder / "labels" / "config.pbtxt", config)
    put(folder, "good", 1, 2)
    server = start_server(folder)
    assert answer(server, "good") == (2, "1")
    for name in ("weights", "labels"):
        assert infer(server, name).status == 503
        assert "server.trusted_roots" in index(server)[name, "1"][1]


def test_a_moved_link_is_followed(start_server: StartServer, tmp_path: Path) -> None:
    """What the operator names is trusted to where it leads, also later."""
    for version, factor in ((1, 2.0), (2, 4.0)):
        put(tmp_path / f"release-{version}", "a", 1, factor)
    current = tmp_path / "current"
    current.symlink_to("release-1")
    server = start_server(current, *MODES["poll"])
    assert answer(server, "a") == (2, "1")
    (tmp_path / "next").symlink_to("release-2")
    (tmp_path / "next").rename(current)
    eventually(lambda: answer(server, "a") == (4, "1"), limit_s=LIMIT_S, what="the new release to serve")


def looks(server: ServerProcess, folder: Path, name: str) -> None:
    """Waits until the server has looked at the repository twice more."""
    put(folder, name, 1, 3)
    eventually(lambda: infer(server, name).status == 200, limit_s=LIMIT_S, what="two more looks")


def test_a_repository_that_is_emptied_serves_on(start_server: StartServer, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    put(folder, "a", 1, 2)
    put(folder, "b", 1, 3)
    own = put(tmp_path / "own", "c", 1, 4).parents[2]
    # A model beside the repository is no sign that the repository is there.
    server = start_server(folder, *MODES["poll"], "--set", f"models.c.path={own / 'c'}")
    kept = folder.rename(tmp_path / "away")
    folder.mkdir()
    eventually(lambda: "all models are gone at once" in server.log.read_text(), limit_s=LIMIT_S, what="a warning")
    log = server.log.read_text().count("the repository has an entry")
    put(own, "c", 1, 5)
    eventually(lambda: answer(server, "c") == (5, "1"), limit_s=LIMIT_S, what="two more looks")
    assert [answer(server, name) for name in ("a", "b")] == [(2, "1"), (3, "1")]
    assert server.log.read_text().count("the repository has an entry") == log, "told once"
    folder.rmdir()
    kept.rename(folder)
    looks(server, folder, "d")
    assert answer(server, "a") == (2, "1")
    assert "gone from the repository" not in server.log.read_text()


def test_a_repository_that_is_emptied_is_followed_if_that_is_wanted(start_server: StartServer, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    put(folder, "a", 1, 2)
    server = start_server(folder, *MODES["poll"], "--repository-follow-empty")
    shutil.rmtree(folder / "a")
    eventually(lambda: infer(server, "a").status == 404, limit_s=LIMIT_S, what="the model to be gone")
    assert json.dumps(sorted(index(server))) == "[]"
    assert "unloaded" in server.log.read_text()


def test_a_replaced_signature_is_told(start_server: StartServer, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    put(folder, "a", 1, 2)
    server = start_server(folder, "--model-control-mode", "explicit", "--load-models", "a")
    put(folder, "a", 1, 3)
    assert load(server, "a").status == 200
    assert "other inputs or outputs" not in server.log.read_text()
    write(folder / "a" / "1" / "model.onnx", graphs.identity("FP32"))
    assert load(server, "a").status == 200
    log = server.log.read_text()
    assert log.count("replaced by a model with other inputs or outputs") == 1
    assert "FP32[-1,2]" in log
