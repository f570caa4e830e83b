"""`mlserve models`, `load`, `unload` and `stats`: what is asked, and what is shown."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any, Self

import pytest

from mlserve.cli import main
from mlserve.cli.manage import read_config, watch
from mlserve.cli.tables import models_table, rates_table, statistics_table
from mlserve.errors import InvalidArgumentError, MlserveError, NotOfferedError
from mlserve.statistics import InferStatistics, ModelStatistics, StatisticDuration
from mlserve.types import ModelIndex

MODELS = [
    ModelIndex("digits", "1", "READY", ""),
    ModelIndex("tabular", "12", "UNAVAILABLE", "unloaded"),
    ModelIndex("new", "", "", ""),
]


def counted(requests: int, failed: int = 0, rows: int = 0, runs: int = 0, name: str = "digits") -> ModelStatistics:
    """Statistics in which each request waited 3 µs and was computed for 1 + 4 + 2 µs."""

    def lasted(us: int) -> StatisticDuration:
        return StatisticDuration(requests, requests * us * 1000)

    stats = InferStatistics(
        success=lasted(20),
        fail=StatisticDuration(failed, failed),
        queue=lasted(3),
        compute_input=lasted(1),
        compute_infer=lasted(4),
        compute_output=lasted(2),
        cache_hit=StatisticDuration(),
        cache_miss=StatisticDuration(),
    )
    return ModelStatistics(name, "1", 0, rows, runs, stats)


class StandIn:
    """Takes the place of the client; notes what it is asked."""

    asked: list[tuple[Any, ...]]
    error: MlserveError | None = None

    def __init__(self, url: str, *, protocol: str | None, timeout_s: float | None) -> None:
        StandIn.asked = [("connect", url, protocol, timeout_s)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def note(self, *what: Any) -> None:
        self.asked.append(what)
        if self.error:
            raise self.error

    def models(self, *, ready: bool) -> list[ModelIndex]:
        self.note("models", ready)
        return MODELS

    def load_model(self, model: str, *, config: Any, timeout_s: float | None) -> None:
        self.note("load", model, config, timeout_s)

    def unload_model(self, model: str, *, timeout_s: float | None) -> None:
        self.note("unload", model, timeout_s)

    def statistics(self, model: str) -> list[ModelStatistics]:
        self.note("statistics", model)
        return [counted(4, 1, rows=12, runs=3)]


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> type[StandIn]:
    monkeypatch.setattr("mlserve.cli.manage.Client", StandIn)
    monkeypatch.setattr(StandIn, "error", None)
    return StandIn


def test_models_are_listed_in_columns(client: type[StandIn], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "MODEL    VERSION  STATE        REASON",
        "digits   1        READY        -",
        "tabular  12       UNAVAILABLE  unloaded",
        "new      -        -            -",
    ]
    assert client.asked == [("connect", "127.0.0.1:8001", None, 30.0), ("models", False)]


def test_the_server_is_chosen_by_url_and_protocol(client: type[StandIn]) -> None:
    assert main(["models", "--ready", "--url", "h:1", "--protocol", "http", "--timeout-s", "2"]) == 0
    assert client.asked == [("connect", "h:1", "http", 2.0), ("models", True)]


def test_models_are_listed_as_json(client: type[StandIn], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found[1] == {"name": "tabular", "version": "12", "state": "UNAVAILABLE", "reason": "unloaded"}
    assert client.asked[1] == ("models", False)


def test_an_empty_repository_is_a_head_without_lines() -> None:
    assert models_table([]) == "MODEL  VERSION  STATE  REASON"


def test_loading_takes_as_long_as_it_takes(client: type[StandIn], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["load", "digits"]) == 0
    assert client.asked == [("connect", "127.0.0.1:8001", None, None), ("load", "digits", None, None)]
    assert capsys.readouterr().err == "digits is loaded\n"


def test_a_configuration_goes_with_a_load(client: type[StandIn], tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text('{"max_batch_size": 4}')
    assert main(["load", "digits", "--config", str(file), "--timeout-s", "5"]) == 0
    assert client.asked[1] == ("load", "digits", {"max_batch_size": 4}, 5.0)


def test_a_configuration_may_be_in_the_text_form(tmp_path: Path) -> None:
    file = tmp_path / "config.pbtxt"
    file.write_text('name: "m" max_batch_size: 4 dynamic_batching { } input [ { name: "x" data_type: TYPE_FP32 } ]')
    assert read_config(file) == {
        "name": "m",
        "max_batch_size": 4,
        "dynamic_batching": {},
        "input": [{"name": "x", "data_type": "TYPE_FP32"}],
    }


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("c.json", "{", "c.json is not JSON"),
        ("c.json", "[1]", "c.json is JSON, but no object"),
        ("c.pbtxt", "max_batch: 1", "c.pbtxt is no model configuration.*max_batch"),
    ],
)
def test_a_broken_configuration_is_refused_by_its_name(tmp_path: Path, name: str, text: str, message: str) -> None:
    file = tmp_path / name
    file.write_text(text)
    with pytest.raises(InvalidArgumentError, match=message):
        read_config(file)


def test_unloading_says_so(client: type[StandIn], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["unload", "digits"]) == 0
    assert client.asked[1] == ("unload", "digits", None)
    assert capsys.readouterr().err == "digits is unloaded\n"


@pytest.mark.parametrize("arguments", [["models"], ["load", "m"], ["unload", "m"], ["stats"]])
def test_a_refusal_is_a_message_and_a_status(
    client: type[StandIn], capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    client.error = NotOfferedError("not here")
    assert main(arguments) == 1
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "mlserve: not here [not_offered]\n")


@pytest.mark.parametrize("arguments", [["load"], ["unload"], ["stats", "--watch", "0"], ["load", "m", "--config", "?"]])
def test_wrong_usage_asks_nobody(client: type[StandIn], arguments: list[str]) -> None:
    client.asked = []
    assert main(arguments) == 2
    assert client.asked == []


@pytest.mark.parametrize("arguments", [["models"], ["load", "m"], ["unload", "m"], ["stats"]])
@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_an_unreachable_server_is_a_message_and_a_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], protocol: str
) -> None:
    assert main([*arguments, "--url", f"unix://{tmp_path}/none.sock", "--protocol", protocol]) == 1
    assert capsys.readouterr().err.startswith("mlserve: cannot reach")


def test_statistics_are_counts_and_means(client: type[StandIn], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stats", "digits"]) == 0
    head, line = (text.split("  ") for text in capsys.readouterr().out.splitlines())
    assert [cell.strip() for cell in head if cell.strip()] == [
        *("MODEL", "VERSION", "REQUESTS", "FAILED", "ROWS", "RUNS"),
        *("ROWS/RUN", "QUEUE µs", "COMPUTE µs"),
    ]
    assert "".join(f"{cell} " for cell in line).split() == ["digits", "1", "4", "1", "12", "3", "4.0", "3.0", "7.0"]
    assert client.asked[1] == ("statistics", "digits")


def test_what_never_ran_has_no_means() -> None:
    line = statistics_table([counted(0)]).splitlines()[1]
    assert line.split() == ["digits", "1", "0", "0", "0", "0", "-", "-", "-"]


def test_statistics_are_told_as_json(client: type[StandIn], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stats", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["name"], found["inference_stats"]["success"]) == ("digits", {"count": 4, "ns": 80_000})
    assert client.asked[1] == ("statistics", "")


def test_rates_are_what_happened_in_between() -> None:
    earlier = [counted(100, 1, rows=200, runs=50)]
    found = [counted(150, 3, rows=400, runs=75), counted(10, rows=10, runs=10, name="new")]
    _, first, second = rates_table(found, earlier, 2.0).splitlines()
    assert first.split() == ["digits", "1", "25.0", "1.0", "100.0", "12.5", "8.0", "3.0", "7.0"]
    assert second.split() == ["new", "1", "5.0", "0.0", "5.0", "5.0", "1.0", "3.0", "7.0"]


def test_counts_that_began_again_are_rates_from_their_beginning() -> None:
    (_, line) = rates_table([counted(10, rows=10, runs=10)], [counted(100, rows=100, runs=100)], 1.0).splitlines()
    assert line.split()[2] == "10.0"


def test_watching_shows_rates_over_the_time_that_passed(client: type[StandIn], monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    ticks = itertools.chain([0.0], itertools.count(4.0, 4.0))
    opened = client("h", protocol=None, timeout_s=None)
    later = counted(8, rows=8, runs=2)
    answers = iter([[counted(0)], [later], [later]])
    monkeypatch.setattr(opened, "statistics", lambda _model: next(answers))
    shown = watch(opened, "", 3.0, as_json=False, sleep=slept.append, clock=lambda: next(ticks))  # type: ignore[arg-type]
    assert next(shown).splitlines()[1].split()[2] == "2.0"
    assert next(shown).splitlines()[1].split()[2] == "0.0"
    assert slept == [3.0, 3.0]


def test_watching_as_json_is_a_line_each_time(client: type[StandIn]) -> None:
    opened = client("h", protocol=None, timeout_s=None)
    shown = watch(opened, "", 3.0, as_json=True, sleep=lambda _: None)  # type: ignore[arg-type]
    line = next(shown)
    assert "\n" not in line
    assert json.loads(line)[0]["inference_count"] == 12
