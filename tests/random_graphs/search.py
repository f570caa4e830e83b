"""Searches for graphs of random operations that are batched although their rows influence each other.

    python -m tests.random_graphs.search COUNT SEED [--lost]

Writes graphs a thousand at a time, asks the loader about all of them in one process, and runs those that are batched.
Exits with 1 if rows of one of them influence each other; its file stays. With `--lost` those that are not batched are run,
too, and the operations are counted that stood in the way of rows that are independent as far as runs tell.
"""

from __future__ import annotations

import argparse
import collections
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.random_graphs.graph import made
from tests.random_graphs.steps import STEPS
from tests.random_graphs.truth import Model, fault

ROOT = Path(__file__).resolve().parents[2]
BINARY = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "examples" / "batching"
AT_ONCE = 1000
# Seeds of graphs that belong to one seed of the search.
SEEDS = 10_000_000


@dataclass(frozen=True)
class Looked:
    """What the loader says of a model: `rows`, `unsafe`, `fixed` or `failed`, why, and how long its steps took.

    `ended`: the runtime ended the process.
    """

    word: str
    path: Path
    reason: str = ""
    milliseconds: tuple[str, ...] = ()


def write(folder: Path, seeds: Iterator[int], count: int) -> None:
    """Writes so many graphs, each named by its seed."""
    written = 0
    while written < count:
        seed = next(seeds)
        model = made(seed, STEPS)
        if model is not None:
            (folder / f"{seed}.onnx").write_bytes(model.SerializeToString())
            written += 1


def looked(paths: Sequence[Path], binary: Path) -> Iterator[Looked]:
    """Asks the loader about all models, as many as may be in one process."""
    while paths:
        lines_in = "\n".join(str(path) for path in paths)
        done = subprocess.run([binary], input=lines_in, check=False, capture_output=True, text=True)
        lines = done.stdout.splitlines()
        for line in lines:
            word, *milliseconds, path, reason = line.split("\t")
            yield Looked(word, Path(path), reason, tuple(milliseconds))
        if done.returncode == 0:
            break
        yield Looked("ended", paths[len(lines)])
        paths = paths[len(lines) + 1 :]


def searched(folder: Path, binary: Path, counts: collections.Counter[str], *, counts_lost: bool) -> Iterator[str]:
    """Looks at a folder of graphs; yields a line for each that is batched and should not be."""
    for found in looked(sorted(folder.glob("*.onnx")), binary):
        counts[found.word] += 1
        if "beside" in found.reason:
            yield f"a trial had to find it: {found.path}: {found.reason}"
            continue
        if found.word == "rows":
            wrong = fault(Model(found.path.read_bytes()))
            if wrong is not None:
                yield f"wrong: {found.path}: {wrong}"
                continue
        elif found.word == "unsafe" and counts_lost:
            counts["lost: " + found.reason] += fault(Model(found.path.read_bytes())) is None
        found.path.unlink()


def main() -> int:
    """Searches; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", type=int)
    parser.add_argument("seed", type=int)
    parser.add_argument("--lost", action="store_true")
    parser.add_argument("--binary", type=Path, default=BINARY, help="the built example `batching`")
    given = parser.parse_args()
    seeds = iter(range(given.seed * SEEDS, (given.seed + 1) * SEEDS))
    counts: collections.Counter[str] = collections.Counter()
    wrong = 0
    for start in range(0, given.count, AT_ONCE):
        folder = Path(tempfile.mkdtemp(prefix="random_graphs_"))
        write(folder, seeds, min(AT_ONCE, given.count - start))
        for line in searched(folder, given.binary, counts, counts_lost=given.lost):
            wrong += 1
            print(line, flush=True)  # noqa: T201
        if not any(folder.iterdir()):
            folder.rmdir()
    for word, count in counts.most_common():
        print(f"{count:7} {word}")  # noqa: T201
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
