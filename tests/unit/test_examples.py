"""The committed models and requests: what they promise to every other test and to the first try of a user."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

ROOT = Path(__file__).resolve().parents[2]
REQUESTS = ROOT / "examples" / "requests"
MODELS = sorted(ROOT.glob("examples/models/*/1/model.onnx")) + sorted(ROOT.glob("benchmarks/models/*/1/model.onnx"))
KNOWN_DOMAINS = {"", "ai.onnx.ml", "com.microsoft"}
# Another build of the runtime may add up in another order.
TOLERANCE = 1e-5


def name_of(path: Path) -> str:
    return f"{path.parts[-5]}-{path.parts[-3]}"


@pytest.mark.parametrize("path", MODELS, ids=name_of)
def test_model_is_one_that_many_runtimes_can_read(path: Path) -> None:
    model = onnx.load(path)
    assert model.ir_version <= 10
    opsets = {opset.domain: opset.version for opset in model.opset_import}
    assert set(opsets) <= KNOWN_DOMAINS
    assert 17 <= opsets[""] <= 21


@pytest.mark.parametrize("path", MODELS, ids=name_of)
def test_batch_is_the_only_open_dimension(path: Path) -> None:
    graph = onnx.load(path).graph
    for tensor in (*graph.input, *graph.output):
        first, *rest = tensor.type.tensor_type.shape.dim
        assert first.dim_param == "batch"
        assert all(dim.dim_value > 0 for dim in rest)


@pytest.mark.parametrize("model", ["digits", "tabular"])
def test_requests_get_the_expected_answers(model: str) -> None:
    body = json.loads((REQUESTS / f"{model}.json").read_text())
    (tensor,) = body["inputs"]
    rows = np.array(tensor["data"], np.float32).reshape(tensor["shape"])
    with np.load(REQUESTS / f"{model}.npz") as arrays:
        np.testing.assert_array_equal(arrays[tensor["name"]], rows)
    session = ort.InferenceSession(ROOT / "examples" / "models" / model / "1" / "model.onnx")
    expected: dict[str, Any] = json.loads((REQUESTS / f"{model}.expected.json").read_text())
    found = session.run(list(expected["outputs"]), {tensor["name"]: rows})
    for answer, wanted in zip(found, expected["outputs"].values(), strict=True):
        np.testing.assert_allclose(answer, wanted, atol=TOLERANCE)
    # Held-out rows as they come, so a row may be one that the model gets wrong.
    assert len(expected["true_label"]) == len(rows)
    assert np.argmax(expected["outputs"]["probabilities"], axis=1).tolist() == expected["outputs"]["label"]
