"""Graphs of random operations: those that are batched answer each row as if it were alone.

The proof of batching has a rule for each operation; this looks for rules that are wrong, alone and together. `make search`
tries as many graphs as one wants.
"""

from __future__ import annotations

from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import graphs
from tests.random_graphs.graph import made
from tests.random_graphs.steps import STEPS
from tests.random_graphs.truth import Model, fault
from tests.raw_http import ask

if TYPE_CHECKING:
    from tests.conftest import StartServer

pytestmark = pytest.mark.server

GRAPHS = 300
# The seed of the first one.
FIRST = 100


def write(folder: Path) -> dict[str, Path]:
    found = ((seed, made(seed, STEPS)) for seed in count(FIRST))
    models = islice(((seed, model) for seed, model in found if model is not None), GRAPHS)
    names = ((f"graph{seed}", model.SerializeToString()) for seed, model in models)
    return {name: graphs.write(folder, name, content) for name, content in names}


def test_graphs_that_are_batched_keep_rows_apart(start_server: StartServer, tmp_path: Path) -> None:
    paths = write(tmp_path / "models")
    server = start_server(tmp_path / "models")
    # A graph that fits for seven rows may fit for no other number, and not load.
    found = {name: ask(server.http, "GET", f"/v2/models/{name}").json for name in paths}
    properties = {name: answer.get("properties", {}) for name, answer in found.items()}
    batched = [name for name, said in properties.items() if said.get("batching") == "rows"]
    faults = {name: fault(Model(paths[name].read_bytes()), draws=1) for name in batched}
    assert {name: what for name, what in faults.items() if what is not None} == {}
    # A rule that is wrong may show by a trial, too.
    assert [name for name, said in properties.items() if "beside rows with" in str(said)] == []
    # Neither all nor none: otherwise this shows nothing.
    assert GRAPHS / 5 < len(batched) < GRAPHS * 4 / 5
