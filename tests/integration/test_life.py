"""The life of a `Server` in a program: whoever starts, stops, drops, interrupts or forks it, and when."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests import graphs
from tests.conftest import START_LIMIT_S, STOP_LIMIT_S

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.server, pytest.mark.timeout(120)]

# Signals are as a shell in the foreground has them, whatever the test run was started with.
PRELUDE = """
import atexit, gc, json, os, signal, sys, threading, time
import numpy as np
from mlserve import Client, Server
from mlserve.errors import LifecycleError

signal.signal(signal.SIGINT, signal.default_int_handler)
QUICK, SLOW, STARTER = sys.argv[1:4]
ROW = {"x": np.ones((1, 6), np.float32)}
# As many turns as the model makes at most: seconds.
LONG = {"turns": np.array([10_000_000])}
TABLES = {"slow": {"path": SLOW, "instances": 1, "inline": False}}

def quick(**settings):
    return Server(models={"quick": QUICK}, **settings)

def eventually(condition):
    while not condition():
        time.sleep(0.01)

def is_busy(server):
    versions = server.snapshot()["models"]["slow"].values()
    return any(version["runs"] for version in versions)

def ask_for_long(server, inputs=LONG):
    # The outcome of a call that takes seconds, unless it is cut off.
    outcome = []
    def ask():
        try:
            server.infer("slow", inputs)
            outcome.append("answered")
        except Exception as error:
            outcome.append(type(error).__name__)
    thread = threading.Thread(target=ask)
    before = server.snapshot()["models"]["slow"]["1"]["runs"]
    thread.start()
    eventually(lambda: server.snapshot()["models"]["slow"]["1"]["runs"] > before)
    return thread, outcome

def state_of(server):
    try:
        return server.http_url
    except LifecycleError as error:
        return str(error)

def once(state, server, then):
    # Does something as soon as the server is in a state.
    def watch():
        eventually(lambda: state_of(server) == state)
        then()
    threading.Thread(target=watch).start()

def interrupt():
    os.kill(os.getpid(), signal.SIGINT)

def say(**facts):
    print(json.dumps(facts), flush=True)
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A quick model, one that takes as long as it is asked to, and one that starts slowly."""
    folder = tmp_path_factory.mktemp("life")
    slow_to_start = graphs.slow_starter(10_000_000)
    return [
        str(graphs.write(folder, "quick", graphs.identity("FP32"))),
        str(graphs.write(folder, "slow", graphs.slow())),
        str(graphs.write(folder, "starter", slow_to_start)),
    ]


def started(models: list[str], script: str) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", PRELUDE + script, *models]
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def facts(models: list[str], script: str) -> dict[str, Any]:
    """What a script says, after it has ended well."""
    with started(models, script) as process:
        try:
            output, errors = process.communicate(timeout=START_LIMIT_S + STOP_LIMIT_S)
        finally:
            process.kill()
    assert process.returncode == 0, errors
    found: dict[str, Any] = json.loads(output)
    return found


def test_two_servers_live_and_end_apart(models: list[str]) -> None:
    script = """
with quick() as one:
    other = quick()
    other.start()
    answers = [server.infer("quick", ROW)["y"].tolist() == ROW["x"].tolist() for server in (one, other)]
    other.stop()
    with Client(one.grpc_url) as client:
        answers.append(client.infer("quick", ROW)["y"].tolist() == ROW["x"].tolist())
    with quick() as third:
        answers.append(third.infer("quick", ROW)["y"].tolist() == ROW["x"].tolist())
say(answers=answers)
"""
    assert facts(models, script) == {"answers": [True] * 4}


def test_a_server_starts_once_even_if_two_threads_ask(models: list[str]) -> None:
    script = """
server, outcomes = quick(), []
def start():
    try:
        server.start()
        outcomes.append("started")
    except LifecycleError as error:
        outcomes.append(str(error))
threads = [threading.Thread(target=start) for _ in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
server.stop()
server.stop()
start()
say(outcomes=sorted(outcomes))
"""
    again = "the server was started before; make a new one"
    assert facts(models, script) == {"outcomes": ["started", *[again] * 4]}


def test_all_who_stop_wait_for_the_same_end(models: list[str]) -> None:
    script = """
server = Server(models=TABLES)
server.start()
url = server.http_url.removeprefix("http://")
call, outcome = ask_for_long(server)
def is_open():
    import socket
    host, port = url.split(":")
    try:
        socket.create_connection((host, int(port))).close()
        return True
    except OSError:
        return False
found = []
def stop():
    server.stop(drain=False)
    found.append(is_open())
threads = [threading.Thread(target=stop) for _ in range(4)]
[thread.start() for thread in threads]
stop()
[thread.join() for thread in threads]
call.join()
say(open=found, outcome=outcome)
"""
    found = facts(models, script)
    assert found["open"] == [False] * 5
    assert len(found["outcome"]) == 1


def test_other_threads_go_on_while_one_waits_for_the_start_and_the_end(models: list[str]) -> None:
    script = """
ticks, ended = [0], threading.Event()
def tick():
    while not ended.wait(0.001):
        ticks[0] += 1
threading.Thread(target=tick).start()
server = Server(models={"starter": STARTER})
before = ticks[0]
once("the server is starting", server, lambda: [eventually(lambda: ticks[0] > before + 1), server.stop(drain=False)])
try:
    server.start()
    outcome = "started"
except LifecycleError as error:
    outcome = str(error)
ended.set()
say(ticked=ticks[0] > before + 1, outcome=outcome)
"""
    assert facts(models, script) == {"ticked": True, "outcome": "the server was stopped while it started"}


def test_a_signal_handler_may_stop_the_server_that_the_program_waits_for(models: list[str]) -> None:
    script = """
server = Server(models=TABLES)
server.start()
def handle(number, frame):
    server.stop(drain=False)
signal.signal(signal.SIGTERM, handle)
threading.Timer(0.2, os.kill, [os.getpid(), signal.SIGTERM]).start()
try:
    server.infer("slow", LONG)
    outcome = "answered"
except Exception as error:
    outcome = type(error).__name__
server.stop()
say(outcome=outcome)
"""
    assert facts(models, script)["outcome"] in {"answered", "DrainingError", "UnavailableError", "CancelledError"}


def test_ctrl_c_while_it_starts_ends_the_start(models: list[str]) -> None:
    script = """
server = Server(models={"starter": STARTER})
once("the server is starting", server, interrupt)
try:
    server.start()
    outcome = "started"
except KeyboardInterrupt:
    outcome = "interrupted"
state = state_of(server)
with quick() as other:
    other.infer("quick", ROW)
say(outcome=outcome, state=state)
"""
    found = facts(models, script)
    assert found["outcome"] == "interrupted"
    assert found["state"] in {"the server is stopped", "the server is starting"}


def test_ctrl_c_while_it_drains_ends_the_wait_and_a_second_stop_hastens(models: list[str]) -> None:
    script = """
server = Server(models=TABLES)
server.start()
call, outcome = ask_for_long(server)
once("the server is stopped", server, interrupt)
try:
    server.stop()
    waited = "ended"
except KeyboardInterrupt:
    waited = "interrupted"
server.stop(drain=False)
call.join()
say(waited=waited)
"""
    assert facts(models, script)["waited"] == "interrupted"


def test_a_drain_waits_for_the_calls_of_its_own_process(models: list[str]) -> None:
    script = """
server = Server(models=TABLES)
server.start()
# Long enough to be in flight, and far from the drain timeout.
call, outcome = ask_for_long(server, {"turns": np.array([200_000])})
server.stop()
call.join()
say(outcome=outcome)
"""
    assert facts(models, script) == {"outcome": ["answered"]}


def test_a_server_that_is_dropped_ends_and_holds_up_nobody(models: list[str]) -> None:
    script = """
import socket
server = Server(models=TABLES)
server.start()
host, port = server.http_url.removeprefix("http://").split(":")
del server
gc.collect()
def is_closed():
    try:
        socket.create_connection((host, int(port))).close()
        return False
    except OSError:
        return True
eventually(is_closed)
say(closed=True)
"""
    assert facts(models, script) == {"closed": True}


@pytest.mark.parametrize("ending", ["", "sys.exit(0)", "del server"])
def test_an_interpreter_that_ends_takes_its_servers_along(models: list[str], ending: str) -> None:
    script = f"""
server = Server(models=TABLES)
server.start()
thread = threading.Thread(target=lambda: server and server.infer("slow", LONG), daemon=True)
thread.start()
eventually(lambda: is_busy(server))
say(busy=True)
{ending}
"""
    assert facts(models, script) == {"busy": True}


def test_a_fork_is_refused_with_what_to_do_and_ends_by_itself(models: list[str]) -> None:
    script = """
import io, warnings
warnings.simplefilter("ignore", DeprecationWarning)
server = quick()
server.start()
reader, writer = os.pipe()
child = os.fork()
if child == 0:
    texts = []
    for use in (lambda: server.infer("quick", ROW), server.stop, server.snapshot, lambda: quick()):
        try:
            use()
        except LifecycleError as error:
            texts.append(str(error))
    os.write(writer, json.dumps(texts).encode())
    os.close(writer)
    # Runs what is registered for the end of an interpreter, and drops the server.
    del server
    sys.exit(0)
os.close(writer)
with os.fdopen(reader) as opened:
    texts = json.loads(opened.read())
_, status = os.waitpid(child, 0)
answer = server.infer("quick", ROW)["y"].tolist() == ROW["x"].tolist()
server.stop()
say(texts=texts, status=status, answer=answer)
"""
    found = facts(models, script)
    assert (len(found["texts"]), found["status"], found["answer"]) == (4, 0, True)
    assert all("'spawn' method" in text for text in found["texts"])


def test_a_start_that_fails_says_why_and_leaves_nothing_behind(models: list[str], tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"\x00")
    script = """
from mlserve.errors import ModelLoadError
server = Server(models={"broken": sys.argv[4]})
try:
    server.start()
    why = "started"
except ModelLoadError as error:
    why = str(error)
try:
    server.infer("broken", ROW)
    state = "runs"
except LifecycleError as error:
    state = str(error)
server.stop()
def name_of(task):
    try:
        return open(f"/proc/self/task/{task}/comm").read().strip()
    except OSError:
        # It has ended meanwhile.
        return ""
threads = [name_of(task) for task in os.listdir("/proc/self/task")]
say(why=why, state=state, loops=[name for name in threads if name.startswith(("loop-", "front"))])
"""
    found = facts([*models, str(tmp_path / "broken.onnx")], script)
    assert found["why"] != "started"
    assert (found["state"], found["loops"]) == ("the server did not start", [])


def test_ctrl_c_ends_a_program_that_waits_in_a_with_block(models: list[str]) -> None:
    script = """
with Server(models=TABLES) as server:
    say(serving=True)
    threading.Event().wait()
"""
    with started(models, script) as process:
        try:
            assert process.stdout is not None
            assert json.loads(process.stdout.readline()) == {"serving": True}
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=STOP_LIMIT_S)
        finally:
            process.kill()
    assert process.returncode == -signal.SIGINT
    assert errors.splitlines()[-1] == "KeyboardInterrupt"
