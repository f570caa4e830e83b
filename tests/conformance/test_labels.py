"""Outputs as their best classes with the labels of the repository, through every foreign client."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from tests.conformance.conftest import LABELS
from tests.conformance.triton_clients import Asked, Reply

pytestmark = pytest.mark.server

Ask = Callable[[Asked], Reply]
X = np.random.default_rng(9).standard_normal((4, 8)).astype(np.float32)


def mlp(model: str = "mlp", **named: Any) -> Asked:
    return Asked(model, {"x": X}, {"x": "FP32"}, outputs=["probabilities"], **named)


@pytest.mark.parametrize("classes", [1, 2, 3])
def test_an_output_is_returned_as_its_best_classes(ask_managed: Ask, classes: int) -> None:
    values = ask_managed(mlp()).arrays["probabilities"]
    best = np.argsort(-values, axis=1, kind="stable")[:, :classes]
    expected = [
        [f"{row[index]:f}:{index}".encode() for index in order] for row, order in zip(values, best, strict=True)
    ]
    reply = ask_managed(mlp(classes=classes))
    assert reply.arrays["probabilities"].tolist() == expected


def test_more_classes_than_there_are_are_all_classes(ask_managed: Ask) -> None:
    assert ask_managed(mlp(classes=99)).arrays["probabilities"].shape == (4, 3)


def test_labels_of_the_repository_stand_behind_the_index(ask_managed: Ask) -> None:
    found = ask_managed(mlp("labelled", classes=3)).arrays["probabilities"]
    for element in found.ravel():
        _, index, label = element.decode().split(":")
        assert label == LABELS[int(index)]


@pytest.mark.parametrize("ask_managed", ["http", "http_aio"], indirect=True)
def test_classes_are_strings_in_json(ask_managed: Ask) -> None:
    plain = ask_managed(mlp(classes=2)).arrays["probabilities"]
    assert ask_managed(mlp(classes=2, binary=False)).arrays["probabilities"].tolist() == plain.tolist()


def test_text_has_no_classes(ask_managed: Ask) -> None:
    texts = np.array([[b"a", b"b"]], np.object_)
    with pytest.raises(InferenceServerException):
        ask_managed(Asked("identity_BYTES", {"x": texts}, {"x": "BYTES"}, outputs=["y"], classes=1))
