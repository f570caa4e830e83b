"""What is generated or measured, against what it came from."""

from __future__ import annotations

import ast
import json
import re
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROTO_MODULES = ROOT / "python" / "mlserve" / "client" / "_proto"
ACCURACY = json.loads((ROOT / "examples" / "models" / "accuracy.json").read_text())


def load(path: Path) -> ModuleType:
    """A script as a module."""
    spec = spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rows_between(path: Path, start: str) -> list[list[str]]:
    """Cells of the Markdown table after a marker."""
    text = path.read_text().split(f"<!-- {start}", 1)[1].split("<!-- end -->", 1)[0]
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_protocol_modules_are_those_of_the_protos() -> None:
    # Another release of the compiler may word its stubs otherwise; what they declare has to be the same.
    written: dict[str, str] = load(ROOT / "protos" / "generate.py").written()
    committed = {path.name: path.read_text() for path in PROTO_MODULES.glob("*_pb2.py*")}
    assert set(written) == set(committed)
    for name, text in written.items():
        assert ast.dump(ast.parse(text)) == ast.dump(ast.parse(committed[name])), f"{name}: run `make protos`"


def test_readme_of_the_models_has_the_measured_accuracies() -> None:
    found: dict[tuple[str, str], tuple[Any, int]] = {
        (model, weights): (float(share.rstrip("%")), int(rows))
        for model, weights, share, rows, _ in rows_between(ROOT / "examples" / "models" / "README.md", "accuracy")
    }
    names = {("digits", "fp32"): "digits_fp32", ("digits", "int8_static"): "digits", ("tabular", "fp32"): "tabular"}
    expected = {
        (name, weights): (pytest.approx(ACCURACY[model]["accuracy"][weights] * 100), ACCURACY[model]["test_rows"])
        for (model, weights), name in names.items()
    }
    assert found == expected


def test_file_sizes_are_those_of_the_committed_models() -> None:
    for weights, folder in (("fp32", "digits_fp32"), ("int8_static", "digits")):
        path = ROOT / "examples" / "models" / folder / "1" / "model.onnx"
        assert path.stat().st_size == ACCURACY["digits"]["file_bytes"][weights]


def test_guide_to_quantisation_has_the_measured_changes() -> None:
    measured: dict[str, Any] = ACCURACY["digits"]["beside_a_neighbour_of_first_pixel"]
    rows = rows_between(ROOT / "docs" / "guides" / "quantisation.md", "neighbours")
    assert [row[0] for row in rows] == list(measured["fp32"])
    for pixel, safe, change, accuracy in rows:
        for kind in ("fp32", "int8_static"):
            assert float(safe) == measured[kind][pixel]["largest_probability_change"]
        assert float(change) == measured["int8_dynamic"][pixel]["largest_probability_change"]
        assert float(accuracy.rstrip("%")) == pytest.approx(measured["int8_dynamic"][pixel]["accuracy"] * 100)


def test_python_and_rust_have_one_version() -> None:
    def version_of(path: str) -> str:
        found = re.search(r'^version = "([^"]+)"', (ROOT / path).read_text(), re.MULTILINE)
        assert found
        return found[1]

    assert version_of("pyproject.toml") == version_of("Cargo.toml")


def test_nothing_unpickles() -> None:
    # Unpickling runs whatever the bytes say; arrays and messages have formats of their own.
    banned = re.compile(r"\b(import (pickle|cloudpickle|dill|joblib)\b|allow_pickle=True|torch\.load|recv_pyobj)")
    sources = [
        path for folder in ("python", "examples", "benchmarks", "protos") for path in (ROOT / folder).rglob("*.py")
    ]
    assert sources
    assert [path for path in sources if banned.search(path.read_text())] == []
