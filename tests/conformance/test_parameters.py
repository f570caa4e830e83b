"""Ids, priorities, timeouts and parameters, as foreign clients send them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from tests.conformance.triton_clients import Asked, Reply

pytestmark = pytest.mark.server

Ask = Callable[[Asked], Reply]
X = np.ones((1, 8), np.float32)


def mlp(**options: Any) -> Asked:
    return Asked("mlp", {"x": X}, {"x": "FP32"}, options=options)


def test_an_id_comes_back(ask: Ask) -> None:
    assert ask(mlp(request_id="wagon 7 \u00fc")).id == "wagon 7 \u00fc"


def test_no_id_stays_none(ask: Ask) -> None:
    assert not ask(mlp()).id


def test_the_answer_names_model_and_version(ask: Ask) -> None:
    reply = ask(mlp())
    assert (reply.model_name, reply.model_version) == ("mlp", "1")


def test_a_version_is_chosen_by_number(ask: Ask) -> None:
    assert ask(mlp(model_version="1")).model_version == "1"


@pytest.mark.parametrize(
    "options",
    [
        {"priority": 1},
        {"timeout": 5_000_000},
        {"sequence_id": 7, "sequence_start": True, "sequence_end": True},
        {"parameters": {"whole": 1, "text": "a", "yes": True}},
    ],
    ids=str,
)
def test_parameters_that_mean_nothing_here_are_accepted(ask: Ask, options: dict[str, Any]) -> None:
    assert ask(mlp(**options)).arrays["probabilities"].shape == (1, 3)


@pytest.mark.parametrize("ask", ["grpc", "grpc_aio", "http", "http_aio"], indirect=True)
@pytest.mark.parametrize(
    ("asked", "status", "text"),
    [
        (mlp(model_version="9"), {"404", "StatusCode.NOT_FOUND"}, "'mlp' version 9 is not found"),
        (
            Asked("mlp", {"x": X[:, :7]}, {"x": "FP32"}),
            {"400", "StatusCode.INVALID_ARGUMENT"},
            r"unexpected shape for input 'x' for model 'mlp'. Expected \[-1,8\], got \[1,7\]",
        ),
        (
            Asked("mlp", {"x": X.astype(np.int32)}, {"x": "INT32"}),
            {"400", "StatusCode.INVALID_ARGUMENT"},
            "inference input 'x' data-type is 'INT32', but model 'mlp' expects 'FP32'",
        ),
        (
            Asked("mlp", {"z": X}, {"z": "FP32"}),
            {"400", "StatusCode.INVALID_ARGUMENT"},
            "unexpected inference input 'z' for model 'mlp'",
        ),
        (
            Asked("mlp", {"x": X}, {"x": "FP32"}, outputs=["zz"]),
            {"400", "StatusCode.INVALID_ARGUMENT"},
            "unexpected inference output 'zz' for model 'mlp'",
        ),
    ],
    ids=["version", "shape", "datatype", "input", "output"],
)
def test_refusals_have_the_texts_that_clients_know(ask: Ask, asked: Asked, status: set[str], text: str) -> None:
    with pytest.raises(InferenceServerException, match=text) as caught:
        ask(asked)
    assert caught.value.status() in status
