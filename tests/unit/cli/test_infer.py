"""`mlserve infer`: forms of a request file, and the printed answer."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from mlserve.cli import main
from mlserve.cli.infer import answer_text, question_of, read_question, write_npz
from mlserve.errors import InvalidArgumentError
from mlserve.types import InferResult, Tensor

RESULT = InferResult(
    "m",
    "3",
    {
        "y": np.array([[0.5], [1.5]], np.float32),
        "t": np.array([b"a\xff", b"b"], np.object_),
        "h": np.array([2.0], ml_dtypes.bfloat16),
    },
    id="i",
)


def test_the_protocols_body_is_understood() -> None:
    question = question_of(
        {
            "id": "i",
            "inputs": [
                {"name": "x", "shape": [2, 1], "datatype": "INT8", "data": [[1], [2]]},
                {"name": "s", "shape": [1], "datatype": "BYTES", "data": ["ä"]},
            ],
            "outputs": [{"name": "y"}],
            "parameters": {"p": 1, "binary_data_output": True},
        }
    )
    assert isinstance(question.inputs, dict)
    x, s = question.inputs["x"], question.inputs["s"]
    assert isinstance(x, Tensor)
    assert isinstance(s, Tensor)
    assert (x.data.tolist(), x.data.dtype.name, x.datatype) == ([[1], [2]], "int8", "INT8")
    assert s.data.tolist() == ["ä".encode()]
    assert (question.outputs, question.parameters, question.request_id) == (("y",), {"p": 1}, "i")


@pytest.mark.parametrize("document", [[[1, 2]], 3, {"x": [1]}, {"inputs": [1, 2]}])
def test_plain_values_are_left_to_the_models_metadata(document: Any) -> None:
    assert question_of(document).inputs == document


@pytest.mark.parametrize(
    ("tensor", "text"),
    [
        ({"name": "x", "datatype": "FP32", "data": [1]}, "lacks 'shape'"),
        ({"name": "x", "shape": [2], "datatype": "FP32", "data": [1]}, "input 'x' is no FP32 of shape"),
        ({"name": "x", "shape": [1], "datatype": "INT8", "data": [300]}, "input 'x' is no INT8 of shape"),
        ({"name": "x", "shape": [1], "datatype": "FP32", "data": ["a"]}, "input 'x' is no FP32 of shape"),
    ],
)
def test_a_wrong_body_is_refused(tensor: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidArgumentError, match=text):
        question_of({"inputs": [tensor]})


def test_npz_has_an_array_for_each_input(tmp_path: Path) -> None:
    path = tmp_path / "r.npz"
    np.savez(path, x=np.arange(3), y=np.zeros((1, 2), np.float32))
    found = read_question(path).inputs
    assert isinstance(found, dict)
    assert {name: array.shape for name, array in found.items()} == {"x": (3,), "y": (1, 2)}


@pytest.mark.parametrize(("name", "data"), [("r.npz", b"no zip"), ("r.json", b"{")])
def test_a_broken_file_is_refused_by_its_name(tmp_path: Path, name: str, data: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(InvalidArgumentError, match=name):
        read_question(path)


def test_standard_input_is_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("[1]"))
    assert read_question(Path("-")).inputs == [1]


def test_the_answer_is_the_protocols_body() -> None:
    assert json.loads(answer_text(RESULT)) == {
        "id": "i",
        "model_name": "m",
        "model_version": "3",
        "outputs": [
            {"name": "y", "datatype": "FP32", "shape": [2, 1], "data": [0.5, 1.5]},
            {"name": "t", "datatype": "BYTES", "shape": [2], "data": ["a\ufffd", "b"]},
            {"name": "h", "datatype": "BF16", "shape": [1], "data": [2.0]},
        ],
    }


def test_the_answer_as_npz_can_be_read_without_objects(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    write_npz(path, RESULT)
    with np.load(path, allow_pickle=False) as arrays:
        assert arrays["y"].tolist() == [[0.5], [1.5]]
        assert arrays["t"].tolist() == [b"a\xff", b"b"]
        assert arrays["h"].view(ml_dtypes.bfloat16).tolist() == [2.0]


def test_an_unreachable_server_is_a_message_and_a_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "r.json"
    path.write_text('{"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}]}')
    assert main(["infer", "m", str(path), "--url", f"unix://{tmp_path}/none.sock", "--protocol", "http"]) == 1
    assert capsys.readouterr().err.startswith("mlserve: cannot reach")


def test_npz_output_needs_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "r.json"
    path.write_text("[1]")
    assert main(["infer", "m", str(path), "--output", "npz"]) == 2
    assert "--output npz needs --out FILE" in capsys.readouterr().err
