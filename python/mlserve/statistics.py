"""What a server has counted, as the protocol's statistics tell it: frozen classes with the protocol's names.

Durations are sums, so that the difference of two answers is what happened between them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class StatisticDuration:
    """How often something happened, and how long it took altogether."""

    count: int = 0
    ns: int = 0

    @property
    def mean_us(self) -> float:
        """How long it took on average, in microseconds; 0 if it never happened."""
        return self.ns / self.count / 1e3 if self.count else 0.0

    def __sub__(self, earlier: StatisticDuration) -> StatisticDuration:
        return StatisticDuration(self.count - earlier.count, self.ns - earlier.ns)


@dataclass(frozen=True)
class InferStatistics:
    """Requests, and where their time went.

    Attributes:
        success: Answered, from their arrival to their answer.
        fail: Failed after they were accepted.
        queue: Their time in the queue.
        compute_input: The time for making the batch's input.
        compute_infer: The time of the model's run.
        compute_output: The time for making the answers.
        cache_hit: Answered from a cache.
        cache_miss: Looked up in a cache in vain.
    """

    success: StatisticDuration
    fail: StatisticDuration
    queue: StatisticDuration
    compute_input: StatisticDuration
    compute_infer: StatisticDuration
    compute_output: StatisticDuration
    cache_hit: StatisticDuration
    cache_miss: StatisticDuration


@dataclass(frozen=True)
class BatchStatistics:
    """Runs with one number of rows, `batch_size`."""

    batch_size: int
    compute_input: StatisticDuration
    compute_infer: StatisticDuration
    compute_output: StatisticDuration


@dataclass(frozen=True)
class ResponseStatistics:
    """Responses of models that send several to a request."""

    compute_infer: StatisticDuration
    compute_output: StatisticDuration
    success: StatisticDuration
    fail: StatisticDuration
    empty_response: StatisticDuration
    cancel: StatisticDuration


@dataclass(frozen=True)
class MemoryUsage:
    """Bytes that a version holds in one kind of memory, for example "CPU"."""

    type: str
    id: int
    byte_size: int


@dataclass(frozen=True)
class ModelStatistics:
    """What was counted for one version of a model since it was first loaded.

    Attributes:
        name: Name of the model.
        version: Its version.
        last_inference_ms: When the last inference was, in milliseconds since the epoch; 0 before the first one.
        inference_count: Rows that were run.
        execution_count: Runs of the model; fewer than rows where batches formed.
        inference_stats: Requests and their times.
        batch_stats: Runs by their number of rows.
        memory_usage: What the version holds.
        response_stats: Responses by their index, for models that send several to a request.
    """

    name: str
    version: str
    last_inference_ms: int
    inference_count: int
    execution_count: int
    inference_stats: InferStatistics
    batch_stats: tuple[BatchStatistics, ...] = ()
    memory_usage: tuple[MemoryUsage, ...] = ()
    response_stats: Mapping[str, ResponseStatistics] = field(default_factory=dict)


def read_statistics(document: Mapping[str, Any]) -> list[ModelStatistics]:
    """The versions in a statistics answer, given as its plain document.

    Raises:
        KeyError, TypeError, AttributeError: It is none.
    """
    return [_model(item) for item in document.get("model_stats", ())]


def _model(item: Mapping[str, Any]) -> ModelStatistics:
    return ModelStatistics(
        name=item["name"],
        version=item["version"],
        last_inference_ms=item.get("last_inference", 0),
        inference_count=item.get("inference_count", 0),
        execution_count=item.get("execution_count", 0),
        inference_stats=InferStatistics(**_durations(InferStatistics, item.get("inference_stats", {}))),
        batch_stats=tuple(
            BatchStatistics(batch["batch_size"], **_durations(BatchStatistics, batch))
            for batch in item.get("batch_stats", ())
        ),
        memory_usage=tuple(
            MemoryUsage(usage.get("type", ""), usage.get("id", 0), usage.get("byte_size", 0))
            for usage in item.get("memory_usage", ())
        ),
        response_stats={
            index: ResponseStatistics(**_durations(ResponseStatistics, response))
            for index, response in item.get("response_stats", {}).items()
        },
    )


def _durations(kind: type, document: Mapping[str, Any]) -> dict[str, StatisticDuration]:
    """The durations among the fields of `kind`; one that the answer lacks is zero."""
    names = [name for name, annotation in kind.__annotations__.items() if annotation == "StatisticDuration"]
    found = {name: document.get(name, {}) for name in names}
    return {name: StatisticDuration(item.get("count", 0), item.get("ns", 0)) for name, item in found.items()}
