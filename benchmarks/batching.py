"""Which models are batched: ONNX's node tests with their first dimension freed, converted tables, and files of one's own.

    cargo build --release --package mlserve-ort --example batching
    python -m benchmarks.batching write FOLDER       # writes the node tests, and converted models where converters are
    python -m benchmarks.batching look FOLDER        # what the loader finds of every model below the folder
    python -m benchmarks.batching table FOLDER --before SERVER

`table` asks the `mlserve-server` of another version, too, and writes `results/batched.json`. What only one of the two
batches is run, each row alone and among others: that tells whether it was right. (`make batched` does all of it.)
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from tests.random_graphs.search import Looked, looked
from tests.random_graphs.truth import Model, fault

HERE = Path(__file__).parent
RESULT = HERE / "results" / "batched.json"
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
        from benchmarks import converted_tables  # noqa: PLC0415 -- needs converters, which nothing else does
    except ImportError as error:
        print(f"no converters ({error}): no tables are written", file=sys.stderr)
        return
    (folder / "tables").mkdir(parents=True, exist_ok=True)
    for name, model in converted_tables.models():
        onnx.save(model, folder / "tables" / f"{name}.onnx")


def library() -> str:
    """The ONNX Runtime that is loaded."""
    given = os.environ.get("MLSERVE_ORT_LIB")
    if given is not None:
        return given
    command = [sys.executable, "-m", "mlserve.serving.runtime"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def looked_below(folder: Path, binary: Path) -> Iterator[Looked]:
    """Asks the loader about every model below the folder, in order.

    **Errors:** ends this program if a model ends the loader's process.
    """
    os.environ["MLSERVE_ORT_LIB"] = library()
    for found in looked(sorted(folder.rglob("*.onnx")), binary):
        if found.word == "ended":
            sys.exit(f"the loader's process ended at {found.path}")
        yield found


def inspected(path: Path, server: Path) -> Looked:
    """Asks a server's `inspect`, which is one process for each model."""
    command = [server, "inspect", "--json", "--ort-library", library(), path]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        return Looked("failed", path, done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "")
    said = json.loads(done.stdout)
    return Looked("rows" if said["batching"] else "unsafe", path, said["batching_reason"] or "")


def look(folder: Path, binary: Path) -> None:
    """Prints a line for every model below the folder, then how many there are of each kind."""
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    for found in looked_below(folder, binary):
        name = found.path.relative_to(folder)
        counts[name.parts[0], found.word] += 1
        print("\t".join([found.word, *found.milliseconds, str(name), found.reason]))
    for (group, word), count in sorted(counts.items()):
        print(f"# {group}: {word} {count}")


def runs_say(path: Path) -> str:
    """Whether rows influence each other in runs of the model."""
    try:
        model = Model(path.read_bytes())
        alone = model.run(model.drawn(np.random.default_rng(1), "ordinary", 1))
        if any(not output.ndim or output.shape[0] != 1 for output in alone):
            return "an output has not one row for each"
        return fault(model) or "apart"
    except Exception as error:  # noqa: BLE001 -- whatever the runtime says of the model or its values
        return f"no row could be run: {str(error)[:120]}"


def table(folder: Path, binary: Path, before: Path) -> None:
    """Writes and prints what both versions batch, and what only one of them does."""
    groups: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    changes = []
    for now in looked_below(folder, binary):
        name = now.path.relative_to(folder)
        then = inspected(now.path, before)
        group = groups[name.parts[0]]
        group["there are"] += 1
        group["batched before"] += then.word == "rows"
        group["batched now"] += now.word == "rows"
        if (then.word == "rows") != (now.word == "rows"):
            change = {"model": str(name), "before": then.word, "now": now.word, "reason": now.reason or then.reason}
            changes.append({**change, "runs": runs_say(now.path)})
            group[f"no more, runs say {'apart' if changes[-1]['runs'] == 'apart' else 'otherwise'}"] += (
                now.word != "rows"
            )
    heads = ["there are", "batched before", "batched now", "no more, runs say otherwise", "no more, runs say apart"]
    print("\n".join(["| models | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]))
    for name, counts in groups.items():
        print(f"| {name} | " + " | ".join(f"{counts[head]:,}" for head in heads) + " |")
    report = {"onnx": onnx.__version__, "groups": {name: dict(counts) for name, counts in groups.items()}}
    RESULT.write_text(json.dumps({**report, "changes": changes}, indent=1) + "\n")


def main() -> None:
    """Writes, looks or compares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["write", "look", "table"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--binary", type=Path, default=BINARY, help="the built example")
    parser.add_argument("--before", type=Path, help="the `mlserve-server` of another version")
    given = parser.parse_args()
    if given.what == "write":
        print(f"{write_nodes(given.folder)} node tests")
        write_tables(given.folder)
    elif given.what == "look":
        look(given.folder, given.binary)
    else:
        table(given.folder, given.binary, given.before)


if __name__ == "__main__":
    main()
