"""Trains the example models, quantises one, and writes requests, expected answers and accuracies: `make models`.

Everything is seeded and runs on one thread, so a second run writes the same files. The data comes with scikit-learn.
Rows that were not trained on are split off first: requests, answers and accuracies use only those; calibration of the
quantised model uses only training rows.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

EXAMPLES = Path(__file__).resolve().parent
MODELS = EXAMPLES / "models"
REQUESTS = EXAMPLES / "requests"

SEED = 7
OPSET = 17
IR_VERSION = 10
DIGIT_PIXEL_MAX = 16.0
HIDDEN = (128, 64)
CALIBRATION_ROWS = 256
REQUEST_ROWS = 4
# First pixel of a neighbour in the batch; the model was trained on 0 to 1.
NEIGHBOUR_PIXELS = (2.0, 10.0, 100.0, 1000.0)


TABLE_START = "<!-- accuracy: written by examples/train_models.py -->"
TABLE_END = "<!-- end -->"
MODEL_NAMES = {
    ("digits", "fp32"): "`digits_fp32`",
    ("digits", "int8_static"): "`digits`",
    ("tabular", "fp32"): "`tabular`",
}


class Rows(CalibrationDataReader):
    """Feeds training rows to the calibration."""

    def __init__(self, name: str, rows: np.ndarray) -> None:
        self._batches = iter([{name: batch} for batch in np.array_split(rows, max(1, len(rows) // 32))])

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next batch, or `None` at the end."""
        return next(self._batches, None)


def main() -> None:
    measured = {"digits": train_digits(), "tabular": train_tabular()}
    (MODELS / "accuracy.json").write_text(json.dumps(measured, indent=2) + "\n")
    readme = MODELS / "README.md"
    readme.write_text(filled(readme.read_text(), measured))
    print((MODELS / "accuracy.json").read_text())


def filled(text: str, measured: dict[str, Any]) -> str:
    """The README with its table of accuracies made from what was measured."""
    head, _, rest = text.partition(TABLE_START)
    _, end, tail = rest.partition(TABLE_END)
    return f"{head}{TABLE_START}\n{table(measured)}\n{end}{tail}"


def table(measured: dict[str, Any]) -> str:
    """Accuracies as a Markdown table."""
    lines = ["| model | weights | accuracy on held-out rows | rows | file |", "|---|---|---|---|---|"]
    lines += [
        f"| {MODEL_NAMES[model, weights]} | {weights} | {found['accuracy'][weights]:.2%} | {found['test_rows']} "
        f"| {size / 1024:.0f} KiB |"
        for model, found in measured.items()
        for weights, size in found["file_bytes"].items()
    ]
    return "\n".join(lines)


def train_digits() -> dict[str, Any]:
    """The digits classifier in fp32 and in int8; returns what was measured."""
    pixels, labels = load_digits(return_X_y=True)
    rows = pixels.astype(np.float32) / np.float32(DIGIT_PIXEL_MAX)
    train, test, train_labels, test_labels = train_test_split(
        rows, labels, test_size=0.25, random_state=SEED, stratify=labels
    )
    network = MLPClassifier(HIDDEN, alpha=1e-3, max_iter=200, random_state=SEED).fit(train, train_labels)

    full = save(digits_graph(network), MODELS / "digits_fp32")
    quantised = MODELS / "digits" / "1" / "model.onnx"
    quantised.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        # Batch normalisations and the like would be fused here; shapes are written down for the quantiser.
        quant_pre_process(full, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            quantised,
            Rows("pixels", train[:CALIBRATION_ROWS]),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            op_types_to_quantize=["Gemm", "MatMul", "Relu"],
            extra_options={"ActivationSymmetric": False, "WeightSymmetric": True},
        )
        finish(quantised)
        dynamic = Path(folder) / "dynamic.onnx"
        quantize_dynamic(prepared, dynamic, weight_type=QuantType.QInt8)
        kinds = {"fp32": full, "int8_static": quantised, "int8_dynamic": dynamic}
        leak = {name: neighbour_leak(path, test, test_labels) for name, path in kinds.items()}
        dynamic_accuracy = accuracy(dynamic, "pixels", test, test_labels)

    write_requests("digits", "pixels", test[:REQUEST_ROWS], quantised, test_labels[:REQUEST_ROWS])
    return {
        "test_rows": len(test),
        "accuracy": {
            "fp32": accuracy(full, "pixels", test, test_labels),
            "int8_static": accuracy(quantised, "pixels", test, test_labels),
            "int8_dynamic_row_alone": dynamic_accuracy,
        },
        "int8_static_against_fp32": difference(full, quantised, test),
        "file_bytes": {"fp32": full.stat().st_size, "int8_static": quantised.stat().st_size},
        "beside_a_neighbour_of_first_pixel": leak,
    }


def digits_graph(network: MLPClassifier) -> onnx.ModelProto:
    """The trained network as Gemm and Relu with a label and probabilities, batch first."""
    nodes, initializers, value = [], [], "pixels"
    for index, (weight, bias) in enumerate(zip(network.coefs_, network.intercepts_, strict=True)):
        initializers.append(numpy_helper.from_array(weight.astype(np.float32), f"weight{index}"))
        initializers.append(numpy_helper.from_array(bias.astype(np.float32), f"bias{index}"))
        nodes.append(helper.make_node("Gemm", [value, f"weight{index}", f"bias{index}"], [f"sum{index}"]))
        value = f"sum{index}"
        if index < len(network.coefs_) - 1:
            nodes.append(helper.make_node("Relu", [value], [f"hidden{index}"]))
            value = f"hidden{index}"
    nodes.append(helper.make_node("Softmax", [value], ["probabilities"], axis=-1))
    nodes.append(helper.make_node("ArgMax", ["probabilities"], ["label"], axis=1, keepdims=0))
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["batch", 64])],
        [
            helper.make_tensor_value_info("label", TensorProto.INT64, ["batch"]),
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 10]),
        ],
        initializers,
        doc_string="Digits of 8 by 8 pixels, 0 (white) to 1 (black), row by row",
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


def train_tabular() -> dict[str, Any]:
    """A classifier of measurements with a label and probabilities; returns what was measured."""
    features, labels = load_breast_cancer(return_X_y=True)
    rows = features.astype(np.float32)
    train, test, train_labels, test_labels = train_test_split(
        rows, labels, test_size=0.25, random_state=SEED, stratify=labels
    )
    trees = GradientBoostingClassifier(n_estimators=60, max_depth=3, random_state=SEED).fit(train, train_labels)
    model = to_onnx(
        trees,
        initial_types=[("measurements", FloatTensorType([None, rows.shape[1]]))],
        # zipmap makes a sequence of maps of the probabilities, which no tensor protocol can carry.
        options={id(trees): {"zipmap": False}},
        target_opset={"": OPSET, "ai.onnx.ml": 3},
    )
    model.graph.name = "tabular"
    for tensor in (*model.graph.input, *model.graph.output):
        tensor.type.tensor_type.shape.dim[0].dim_param = "batch"
    path = save(model, MODELS / "tabular")
    write_requests("tabular", "measurements", test[:REQUEST_ROWS], path, test_labels[:REQUEST_ROWS])
    return {
        "test_rows": len(test),
        "accuracy": {"fp32": accuracy(path, "measurements", test, test_labels)},
        "file_bytes": {"fp32": path.stat().st_size},
    }


def save(model: onnx.ModelProto, folder: Path) -> Path:
    """Writes version 1 of a model."""
    path = folder / "1" / "model.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    finish(path)
    return path


def finish(path: Path) -> None:
    """Sets what all our files have in common, and checks the graph."""
    model = onnx.load(path)
    model.ir_version = min(model.ir_version, IR_VERSION)
    # The quantiser declares every domain that its runtime knows.
    used = [opset for opset in model.opset_import if opset.domain in {node.domain for node in model.graph.node}]
    del model.opset_import[:]
    model.opset_import.extend(sorted(used, key=lambda opset: opset.domain))
    # The converter's order of attributes comes from a set and differs from run to run.
    for node in model.graph.node:
        node.attribute.sort(key=lambda attribute: attribute.name)
    model.producer_name, model.producer_version = "examples/train_models.py", ""
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def session(path: Path) -> ort.InferenceSession:
    """The model on one thread, so that answers do not depend on the machine."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def run(path: Path, name: str, rows: np.ndarray) -> dict[str, np.ndarray]:
    """All outputs by name."""
    opened = session(path)
    outputs = [output.name for output in opened.get_outputs()]
    return dict(zip(outputs, opened.run(outputs, {name: rows}), strict=True))


def accuracy(path: Path, name: str, rows: np.ndarray, labels: np.ndarray) -> float:
    """Share of right labels, each row run alone, as the server does with a model that must not batch."""
    opened = session(path)
    found = np.concatenate([opened.run(["label"], {name: row[None]})[0] for row in rows])
    return round(float((found == labels).mean()), 4)


def difference(first: Path, second: Path, rows: np.ndarray) -> dict[str, float]:
    """How far two digits models are apart: share of equal labels, and the largest change of a probability."""
    one, other = run(first, "pixels", rows), run(second, "pixels", rows)
    return {
        "same_label": round(float((one["label"] == other["label"]).mean()), 4),
        "largest_probability_change": round(float(np.abs(one["probabilities"] - other["probabilities"]).max()), 6),
    }


def neighbour_leak(path: Path, rows: np.ndarray, labels: np.ndarray) -> dict[str, dict[str, float]]:
    """What happens to all rows when one more, whose first pixel is out of range, joins their batch."""
    alone = run(path, "pixels", rows)
    found = {}
    for pixel in NEIGHBOUR_PIXELS:
        neighbour = rows[0].copy()
        neighbour[0] = pixel
        beside = run(path, "pixels", np.concatenate([rows, neighbour[None]]))
        change = np.abs(alone["probabilities"] - beside["probabilities"][:-1]).max()
        found[f"{pixel:g}"] = {
            "largest_probability_change": round(float(change), 6),
            "accuracy": round(float((beside["label"][:-1] == labels).mean()), 4),
        }
    return found


def write_requests(model: str, name: str, rows: np.ndarray, path: Path, labels: np.ndarray) -> None:
    """Held-out rows as requests, JSON and .npz, with the runtime's answers and the true labels."""
    REQUESTS.mkdir(exist_ok=True)
    body = {"inputs": [{"name": name, "shape": list(rows.shape), "datatype": "FP32", "data": rows.ravel().tolist()}]}
    (REQUESTS / f"{model}.json").write_text(json.dumps(body) + "\n")
    np.savez(REQUESTS / f"{model}.npz", allow_pickle=False, **{name: rows})
    answers = run(path, name, rows)
    expected = {
        "model": model,
        "outputs": {key: value.tolist() for key, value in answers.items()},
        "true_label": labels.tolist(),
    }
    (REQUESTS / f"{model}.expected.json").write_text(json.dumps(expected, indent=2) + "\n")


if __name__ == "__main__":
    main()
