"""File systems that fail: whoever is served notices nothing, what fails says why, and it ends when the fault does."""

from __future__ import annotations

import base64
import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import graphs, shims
from tests.attacks.harness.aim import probe
from tests.attacks.harness.good import GoodClient
from tests.conftest import eventually
from tests.disks import mounted
from tests.oracle import metric
from tests.raw_http import head, open_socket, read_answer
from tests.repositories import age, answer, index, load, put, unload

if TYPE_CHECKING:
    from tests.conftest import ServerProcess, StartServer

pytestmark = [pytest.mark.server, pytest.mark.timeout(120)]

POLL = ("--model-control-mode", "poll", "--repository-poll-secs", "1")
EXPLICIT = ("--model-control-mode", "explicit", "--load-models", "identity_FP32,a")
LIMIT_S = 20
# What a permission that was lost, a broken disk and a network file system that was away say.
ERRORS = [errno.EACCES, errno.EIO, errno.ESTALE]
# What fails, how, and where: the start of a path is enough, so a folder is meant with all that it holds.
FAULTS = {
    "stat-model": ("stat", errno.EIO, ""),
    "stat-version": ("stat", errno.ESTALE, "/2"),
    "stat-file": ("stat", errno.EACCES, "/2/model.onnx"),
    "open-model": ("open", errno.EACCES, ""),
    "open-version": ("open", errno.ESTALE, "/2"),
    "open-file": ("open", errno.EIO, "/2/model.onnx"),
    "list-model": ("list", errno.EIO, ""),
    "read-file": ("read", errno.EIO, "/2/model.onnx"),
}


class Disk:
    """A repository on a disk that fails on order, and a server of it."""

    def __init__(self, start_server: StartServer, folder: Path, *flags: str, models: tuple[str, ...] = ("a",)) -> None:
        self.names = models
        self.models = graphs.write_all(folder / "models", ("identity_FP32",))
        for name in models:
            put(self.models, name, 1, 2)
            put(self.models, name, 2, 3)
        self._faults = folder / "faults"
        library = shims.build("files", folder)
        # Each look at the repository leaves a line.
        env = {"LD_PRELOAD": str(library), "FAULTS_FILE": str(self._faults), "FAILPOINTS": "poll sleep 0"}
        self.server: ServerProcess = start_server(self.models, *flags, "--set", "models.a.versions=all", env=env)

    def check_served(self) -> None:
        """What was loaded is there, over both transports, and probes say so."""
        good = GoodClient(self.server.http, self.server.grpc)
        try:
            asked = good.ask_while(lambda: False, 20)
        finally:
            good.close()
        assert not asked.failures, asked.failures
        for name in self.names:
            assert (answer(self.server, name), answer(self.server, name, 1)) == ((3, "2"), (2, "1")), name
        assert probe(self.server.metrics, "/readyz", 10.0) == 200
        assert "panicked" not in self.server.log.read_text()

    @contextmanager
    def faults(self, *lines: tuple[str, int, str]) -> Iterator[None]:
        """Lets calls fail: which one, how, and for which paths below the repository."""
        partial = self._faults.with_suffix(".partial")
        partial.write_text("".join(f"{call} {number} {self.models}{path}\n" for call, number, path in lines))
        partial.rename(self._faults)
        try:
            yield
        finally:
            self._faults.unlink()

    def wait_for_looks(self, count: int = 4) -> None:
        """Waits until the repository has been looked at so often: two have to agree."""

        def looks() -> int:
            return self.server.log.read_text().count("failpoint")

        wanted = looks() + count
        eventually(lambda: looks() >= wanted, limit_s=LIMIT_S, what="looks at the repository")


def test_what_cannot_be_looked_at_serves_on(start_server: StartServer, tmp_path: Path) -> None:
    settings = [part for name in FAULTS for part in ("--set", f"models.{name}.versions=all")]
    disk = Disk(start_server, tmp_path, *POLL, *settings, models=("a", *FAULTS))
    disk.check_served()
    with disk.faults(*((call, number, f"/{name}{path}") for name, (call, number, path) in FAULTS.items())):
        # These two are to be loaded again.
        for name in ("open-file", "read-file"):
            age(disk.models / name / "2" / "model.onnx")
        disk.wait_for_looks()
        disk.check_served()
    disk.wait_for_looks()
    disk.check_served()
    eventually(
        lambda: all(found == ("READY", "") for found in index(disk.server).values()),
        limit_s=LIMIT_S,
        what=f"nothing is left of the faults: {index(disk.server)}",
    )
    for call in ("list", "stat", "open"):
        with disk.faults((call, errno.EIO, "")):
            disk.wait_for_looks(3)
            disk.check_served()


@pytest.mark.parametrize("number", ERRORS)
def test_a_version_that_could_not_be_read_is_loaded_once_it_can_be(
    start_server: StartServer, tmp_path: Path, number: int
) -> None:
    disk = Disk(start_server, tmp_path, *POLL)
    with disk.faults(("read", number, "/a/3/model.onnx")):
        put(disk.models, "a", 3, 7)
        reason = os.strerror(number)
        eventually(lambda: reason in index(disk.server).get(("a", "3"), ("", ""))[1], limit_s=LIMIT_S, what="the fault")
        disk.wait_for_looks(2)
        assert answer(disk.server, "a") == (3, "2")
    eventually(lambda: answer(disk.server, "a") == (7, "3"), limit_s=LIMIT_S, what="the version serves")


@pytest.mark.parametrize("number", ERRORS)
@pytest.mark.parametrize("call", ["stat", "open", "list", "read"])
def test_a_load_that_cannot_read_says_so(start_server: StartServer, tmp_path: Path, call: str, number: int) -> None:
    disk = Disk(start_server, tmp_path, *EXPLICIT)
    age(disk.models / "a" / "2" / "model.onnx")
    with disk.faults((call, number, "/a")):
        refused = load(disk.server, "a")
        assert refused.status == 500, refused
        assert os.strerror(number) in refused.text
        assert str(tmp_path) not in refused.text, "paths of the machine are not for callers"
        index(disk.server)
        disk.check_served()
    with disk.faults((call, number, "")):
        # Its files have not changed, so that nothing has to be read.
        whole = load(disk.server, "identity_FP32")
        if call == "read":
            assert whole.status == 200
        else:
            assert (whole.status, os.strerror(number) in whole.text) == (500, True), whole
        assert str(tmp_path) not in whole.body.decode()
        disk.check_served()
    assert load(disk.server, "a").status == 200
    disk.check_served()
    assert all(found in {("READY", ""), ("", "")} for found in index(disk.server).values()), index(disk.server)


@pytest.mark.parametrize("what", ["unlinked", "truncated", "replaced by another model", "replaced by a folder"])
def test_files_that_change_before_they_are_read_spoil_one_load(
    start_server: StartServer, tmp_path: Path, what: str
) -> None:
    models, held = tmp_path / "models", tmp_path / "held"
    put(models, "a", 1, 2)
    file = put(models, "b", 1, 3)
    flags = ("--model-control-mode", "explicit", "--load-models", "a")
    server = start_server(models, *flags, env={"FAILPOINTS": f"load block while {held}"})
    held.touch()
    with open_socket(server.http) as opened:
        opened.sendall(head("POST", "/v2/repository/models/b/load", {"content-length": "0"}))
        eventually(lambda: index(server).get(("b", "1")) == ("LOADING", ""), limit_s=LIMIT_S, what="the load begins")
        if what == "truncated":
            os.truncate(file, 20)
        elif what == "replaced by another model":
            put(models, "b", 1, 5)
        else:
            file.unlink()
        if what == "replaced by a folder":
            file.mkdir()
        held.unlink()
        done = read_answer(opened)
    assert done is not None
    if what == "replaced by another model":
        assert (done.status, answer(server, "b")) == (200, (5, "1"))
    else:
        assert done.status == 500, done
        assert index(server)["b", "1"][0] == "UNAVAILABLE"
    assert answer(server, "a") == (2, "1")
    if file.is_dir():
        file.rmdir()
    put(models, "b", 1, 6)
    assert load(server, "b").status == 200
    assert answer(server, "b") == (6, "1")


def test_a_repository_that_is_replaced_is_followed(start_server: StartServer, tmp_path: Path) -> None:
    disk = Disk(start_server, tmp_path, *POLL)
    old = disk.models.rename(tmp_path / "old")
    disk.wait_for_looks()
    disk.check_served()
    put(tmp_path / "new", "a", 3, 8)
    (old / "identity_FP32").rename(tmp_path / "new" / "identity_FP32")
    (tmp_path / "new").rename(disk.models)
    eventually(lambda: answer(disk.server, "a") == (8, "3"), limit_s=LIMIT_S, what="the new repository")
    # What lies in the place of a model and cannot be one takes nothing from its callers.
    (disk.models / "a").rename(tmp_path / "away")
    (disk.models / "a").write_text("no folder")
    disk.wait_for_looks()
    assert answer(disk.server, "a") == (8, "3")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of four megabytes and sixty files, for temporary files."""
    with mounted(tmp_path / "disk", "size=4m,nr_inodes=60") as folder:
        yield folder


def remount(folder: Path, how: str) -> None:
    command = ["mount", "-o", f"remount,{how}", str(folder)]
    subprocess.run(command, check=True)


def test_a_disk_that_takes_no_files_refuses_uploads_and_nothing_else(
    start_server: StartServer, tmp_path: Path, small_disk: Path
) -> None:
    models = tmp_path / "models"
    put(models, "a", 1, 2)
    server = start_server(
        models, "--model-control-mode", "explicit", "--load-models", "a", env={"TMPDIR": str(small_disk)}
    )

    def send(ballast: int = 0) -> tuple[int, str]:
        content = base64.b64encode(graphs.times(3, ballast)).decode()
        found = load(server, "sent", config="{}", **{"file:1/model.onnx": content})
        assert answer(server, "a") == (2, "1")
        return found.status, found.headers.get("mlserve-code", "")

    assert send(4 << 20) == (503, "out_of_budget")
    fill = [small_disk / f"filling-{number}" for number in range(60)]
    for path in fill:
        try:
            path.touch()
        except OSError:
            break
    assert send() == (503, "out_of_budget"), "no file can be made although there are bytes"
    for path in fill:
        path.unlink(missing_ok=True)
    assert list(small_disk.iterdir()) == [], "nothing is left of what was refused"
    remount(small_disk, "ro")
    assert send() == (500, "internal")
    remount(small_disk, "rw")
    assert send() == (200, "")
    assert answer(server, "sent") == (3, "1")
    assert unload(server, "sent").status == 200
    assert list(small_disk.iterdir()) == []
    assert metric(server, "mlserve_panics_total") == 0
    assert server.stop() == 0
