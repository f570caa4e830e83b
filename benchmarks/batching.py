"""Which models are batched: ONNX's node tests with their first dimension freed, converted tables, and files of one's own.

    cargo build --release --package mlserve-ort --example batching
    python benchmarks/batching.py write FOLDER       # writes the node tests, and converted models where converters are
    python benchmarks/batching.py look FOLDER > out  # what the loader finds of every model below the folder

Two versions are compared by looking at one folder with the examples of both (`--binary`).
"""

from __future__ import annotations

import argparse
import collections
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

HERE = Path(__file__).parent
BINARY = HERE.parent / "target" / "release" / "examples" / "batching"


def freed(case: Any) -> onnx.ModelProto | None:
    """A node test of which the first dimension is free; what has another one is a constant. None: it has no such."""
    model, (values, _) = case.model, case.data_sets[0]
    graph = model.graph
    sizes = [size(info) for info in graph.output]
    if not sizes or None in sizes or len(set(sizes)) != 1:
        return None
    kept, constants = [], []
    for info, value in zip(graph.input, values, strict=False):
        if size(info) == sizes[0] and (not kept or not is_weight(info)):
            kept.append(info)
        elif isinstance(value, np.ndarray) or np.isscalar(value):
            constants.append(numpy_helper.from_array(np.asarray(value), info.name))
        else:
            return None
    if not kept:
        return None
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.input[:]
    copy.graph.input.extend(kept)
    copy.graph.initializer.extend(constants)
    for info in [*copy.graph.input, *copy.graph.output]:
        info.type.tensor_type.shape.dim[0].dim_param = "rows"
    return copy


def size(info: Any) -> int | None:
    """The first dimension of a tensor that has one."""
    if not info.type.HasField("tensor_type"):
        return None
    dims = info.type.tensor_type.shape.dim
    return dims[0].dim_value if len(dims) and dims[0].dim_value > 0 else None


def is_weight(info: Any) -> bool:
    """Whether an input after the first is a parameter by its name, as ONNX's tests have them."""
    name = info.name.lower()
    return name in {"w", "b", "c", "bias", "scale", "slope", "axes", "k", "pads", "mean", "var", "r", "shape"}


def write_nodes(folder: Path) -> int:
    """Writes ONNX's node tests; returns how many there are."""
    from onnx.backend.test.case.node import collect_testcases  # noqa: PLC0415 -- takes seconds

    warnings.simplefilter("ignore")
    cases = collect_testcases(None)
    for case in cases:
        model = freed(case)
        if model is not None:
            (folder / "nodes").mkdir(parents=True, exist_ok=True)
            onnx.save(model, folder / "nodes" / f"{case.name}.onnx")
    return len(cases)


def write_tables(folder: Path) -> None:
    """Writes what converters usually make of scikit-learn's, XGBoost's and LightGBM's models."""
    try:
        import converted_tables  # noqa: PLC0415 -- needs converters, which nothing else does
    except ImportError as error:
        print(f"no converters ({error}): no tables are written", file=sys.stderr)
        return
    (folder / "tables").mkdir(parents=True, exist_ok=True)
    for name, model in converted_tables.models():
        onnx.save(model, folder / "tables" / f"{name}.onnx")


def look(folder: Path, binary: Path) -> None:
    """Prints a line for every model below the folder, then how many there are of each kind."""
    paths = sorted(str(path) for path in folder.rglob("*.onnx"))
    library = os.environ.get("MLSERVE_ORT_LIB")
    if library is None:
        command = [sys.executable, "-m", "mlserve.serving.runtime"]
        library = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    environment = {**os.environ, "MLSERVE_ORT_LIB": library}
    done = subprocess.run(
        [binary], input="\n".join(paths), check=True, stdout=subprocess.PIPE, text=True, env=environment
    )
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    for line in done.stdout.splitlines():
        word, check, session, proof, path, reason = line.split("\t")
        group = Path(path).relative_to(folder).parts[0]
        counts[group, word] += 1
        print(f"{word}\t{check}\t{session}\t{proof}\t{Path(path).relative_to(folder)}\t{reason}")
    for (group, word), count in sorted(counts.items()):
        print(f"# {group}: {word} {count}")


def main() -> None:
    """Writes or looks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["write", "look"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--binary", type=Path, default=BINARY, help="the built example")
    given = parser.parse_args()
    if given.what == "write":
        print(f"{write_nodes(given.folder)} node tests")
        write_tables(given.folder)
    else:
        look(given.folder, given.binary)


if __name__ == "__main__":
    main()
