"""Calls of `Server.infer`: what they take, and how they end before they are answered."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from mlserve import Client
from mlserve.errors import InvalidArgumentError, NotFoundError
from tests import graphs, slow_model
from tests.conftest import STOP_LIMIT_S, ServerProcess, eventually
from tests.oracle import metric

if TYPE_CHECKING:
    from mlserve import Server
    from mlserve.types import Inputs

pytestmark = pytest.mark.server

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
# Long against a look for signals and against what a busy machine takes for it.
BUSY_S = 3.0
START_LIMIT_S = 20.0
# Keeps the only instance busy from a thread, and waits behind it with the main thread, which Ctrl-C interrupts.
SCRIPT = """
import json, signal, sys, threading
import numpy as np
from mlserve import Server

# As in the foreground of a shell; one in the background ignores it, and so would this process.
signal.signal(signal.SIGINT, signal.default_int_handler)

table = {"path": sys.argv[1], "instances": 1, "inline": False}
with Server(models={"slow": table}, log={"log_level": "warn"}) as server:
    ask = lambda turns: server.infer("slow", {"turns": np.array([turns])})
    busy = threading.Thread(target=ask, args=[int(sys.argv[2])])
    busy.start()
    print(server.metrics_url, flush=True)
    sys.stdin.readline()
    try:
        ask(1)
    except KeyboardInterrupt:
        was_busy = busy.is_alive()
        busy.join()
        # In its turn behind the one that was given up.
        ask(1)
        print(json.dumps({"was_busy": was_busy, **server.snapshot()["models"]["slow"]["1"]}), flush=True)
        raise
"""


def test_lists_numbers_and_one_array_take_the_type_that_the_model_expects(in_process_server: Server) -> None:
    row = np.load(EXAMPLES / "requests" / "digits.npz")["pixels"][:1]
    expected = in_process_server.infer("digits", {"pixels": row})
    for inputs in [row, row.tolist(), {"pixels": row.tolist()}]:
        found = in_process_server.infer("digits", inputs, version="1")
        np.testing.assert_array_equal(found["probabilities"], expected["probabilities"])


def test_one_array_for_several_inputs_is_refused_as_by_the_client(graph_folder: Path) -> None:
    from mlserve import Server as InProcess  # noqa: PLC0415 -- needs the extension

    with InProcess(models={"sum": graph_folder / "add_FP32" / "1" / "model.onnx"}) as server:
        texts = []
        with Client(server.grpc_url) as client:
            askers: list[Server | Client] = [server, client]
            for asked in askers:
                with pytest.raises(InvalidArgumentError) as caught:
                    asked.infer("sum", np.ones((1, 4), np.float32))
                texts.append(str(caught.value))
    assert texts[0] == texts[1]
    assert texts[0].startswith("model 'sum' has 2 inputs")


@pytest.mark.parametrize("inputs", [[[1.0]], {"pixels": [[1.0]]}, {"pixels": np.ones((1, 1), np.float32)}])
def test_an_unknown_model_is_not_found_whatever_is_given(in_process_server: Server, inputs: Any) -> None:
    with pytest.raises(NotFoundError, match="'nope'"):
        in_process_server.infer("nope", inputs)


def test_a_version_that_is_no_number_is_told(in_process_server: Server) -> None:
    given: list[Inputs] = [[[1.0]], {"pixels": np.ones((1, 1), np.float32)}]
    for inputs in given:
        with pytest.raises(InvalidArgumentError, match="version string 'x'"):
            in_process_server.infer("digits", inputs, version="x")


@contextmanager
def waiting_process(path: Path) -> Iterator[ServerProcess]:
    """A process whose main thread waits in `Server.infer` for a model that is busy."""
    command = [sys.executable, "-c", SCRIPT, str(path), str(slow_model.turns_for(path, BUSY_S))]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            url = process.stdout.readline().decode().strip()
            assert url, process.communicate()[1].decode()
            metrics = url.removeprefix("http://").removesuffix("/metrics")
            server = ServerProcess(process, "", "", metrics, Path())
            eventually(
                lambda: metric(server, "mlserve_runs_total", model="slow") == 1,
                limit_s=START_LIMIT_S,
                what="a slow run",
            )
            process.stdin.write(b"\n")
            process.stdin.flush()
            eventually(
                lambda: metric(server, "mlserve_queue_depth", model="slow") == 1, limit_s=BUSY_S, what="one that waits"
            )
            yield server
        finally:
            process.kill()


def test_ctrl_c_ends_the_wait_and_gives_the_request_up(tmp_path: Path) -> None:
    path = graphs.write(tmp_path, "slow", graphs.slow())
    with waiting_process(path) as server:
        server.process.send_signal(signal.SIGINT)
        output, errors = server.process.communicate(timeout=STOP_LIMIT_S)
    found = json.loads(output)
    assert found["was_busy"], "the wait ended before the answer could come"
    assert found["runs"] == 2, "the one before and the one after"
    assert errors.decode().splitlines()[-1] == "KeyboardInterrupt"
    assert server.process.returncode == -signal.SIGINT
