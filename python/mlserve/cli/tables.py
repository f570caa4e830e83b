"""Lists and figures as tables for the terminal: text in, text out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlserve.statistics import ModelStatistics, StatisticDuration
    from mlserve.types import ModelIndex

# Stands where there is nothing to show.
_NOTHING = "-"
_GAP = "  "


def models_table(models: Sequence[ModelIndex]) -> str:
    """The repository's index: one line for each version."""
    rows = [[model.name, model.version, model.state, model.reason] for model in models]
    return _table(["MODEL", "VERSION", "STATE", "REASON"], rows, numbers_from=4)


def statistics_table(found: Sequence[ModelStatistics]) -> str:
    """Counts since the versions were loaded, and means over them."""
    head = ["MODEL", "VERSION", "REQUESTS", "FAILED", "ROWS", "RUNS", *_MEANS]
    rows = [
        [
            item.name,
            item.version,
            str(item.inference_stats.success.count),
            str(item.inference_stats.fail.count),
            str(item.inference_count),
            str(item.execution_count),
            *_means(item, None),
        ]
        for item in found
    ]
    return _table(head, rows, numbers_from=2)


def rates_table(found: Sequence[ModelStatistics], earlier: Sequence[ModelStatistics], seconds: float) -> str:
    """What happened per second since `earlier`, `seconds` ago, and means over what happened.

    A version that was not there before, or whose counts began again, is shown from its beginning.
    """
    known = {(item.name, item.version): item for item in earlier}
    head = ["MODEL", "VERSION", "REQUESTS/s", "FAILED/s", "ROWS/s", "RUNS/s", *_MEANS]
    rows = []
    for item in found:
        before = known.get((item.name, item.version))
        if before is not None and before.inference_stats.success.count > item.inference_stats.success.count:
            before = None
        counts = _counts(item)
        past = _counts(before) if before else [0] * len(counts)
        rates = [f"{(count - base) / seconds:.1f}" for count, base in zip(counts, past, strict=True)]
        rows.append([item.name, item.version, *rates, *_means(item, before)])
    return _table(head, rows, numbers_from=2)


_MEANS = ["ROWS/RUN", "QUEUE µs", "COMPUTE µs"]


def _counts(item: ModelStatistics) -> list[int]:
    stats = item.inference_stats
    return [stats.success.count, stats.fail.count, item.inference_count, item.execution_count]


def _means(item: ModelStatistics, before: ModelStatistics | None) -> list[str]:
    """Rows in a run, and what a request took on average, since `before`."""
    rows = item.inference_count - (before.inference_count if before else 0)
    runs = item.execution_count - (before.execution_count if before else 0)
    durations = _durations(item)
    if before:
        durations = {name: value - _durations(before)[name] for name, value in durations.items()}
    compute_us = sum(durations[name].mean_us for name in ("compute_input", "compute_infer", "compute_output"))
    return [
        f"{rows / runs:.1f}" if runs else _NOTHING,
        f"{durations['queue'].mean_us:.1f}" if durations["queue"].count else _NOTHING,
        f"{compute_us:.1f}" if durations["compute_infer"].count else _NOTHING,
    ]


def _durations(item: ModelStatistics) -> Mapping[str, StatisticDuration]:
    stats = item.inference_stats
    return {
        "queue": stats.queue,
        "compute_input": stats.compute_input,
        "compute_infer": stats.compute_infer,
        "compute_output": stats.compute_output,
    }


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], *, numbers_from: int) -> str:
    """Aligned columns; those from `numbers_from` on to the right."""
    lines = [head, *([cell or _NOTHING for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]

    def written(line: Sequence[str]) -> str:
        cells = [
            cell.rjust(width) if column >= numbers_from else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        return _GAP.join(cells).rstrip()

    return "\n".join(map(written, lines))
