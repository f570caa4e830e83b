"""Parameters of requests, of every kind that the protocol has, over both transports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.raw_http import ask
from tests.raw_http2 import grpc_call
from tests.requests_by_hand import Inference, Tensor

if TYPE_CHECKING:
    from tests.conftest import ServerProcess

pytestmark = pytest.mark.server

X = Tensor.of("x", np.ones((1, 8), np.float32), "FP32")


@pytest.mark.parametrize(
    "parameters",
    [
        {"text": "größe", "yes": True, "no": False, "whole": -(2**63), "real": 0.25},
        {"sequence_id": 7, "sequence_start": True, "sequence_end": False},
        {"sequence_id": "wagon"},
        {"sequence_id": 0},
    ],
    ids=str,
)
def test_every_kind_is_accepted(graph_server: ServerProcess, parameters: dict[str, Any]) -> None:
    asked = Inference("mlp", [X], parameters=parameters)
    body, fields = asked.body()
    assert ask(graph_server.http, "POST", asked.target, body, fields).status == 200
    assert grpc_call(graph_server.grpc, asked.message()).grpc_status == 0


def test_an_empty_final_answer_may_be_asked_for_over_grpc_only(graph_server: ServerProcess) -> None:
    asked = Inference("mlp", [X], parameters={"triton_enable_empty_final_response": True})
    assert grpc_call(graph_server.grpc, asked.message()).grpc_status == 0
    body, fields = asked.body()
    refused = ask(graph_server.http, "POST", asked.target, body, fields)
    assert (refused.status, "'triton_' are reserved" in refused.text) == (400, True)
