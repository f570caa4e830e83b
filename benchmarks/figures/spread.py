"""Medians with their spread, and the table that shows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Spread:
    """The median of repeated measurements, the least and the greatest."""

    median: float
    least: float
    most: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Summarises at least one value."""
        return cls(median(values), min(values), max(values), len(values))

    def to_json(self) -> dict[str, Any]:
        """For a result file."""
        return asdict(self)

    def text(self, digits: int = 1) -> str:
        """`median (least-most)`."""
        return f"{self.median:,.{digits}f} ({self.least:,.{digits}f}-{self.most:,.{digits}f})"


def shown(spread: Spread | None, digits: int = 1) -> str:
    """A cell of a table."""
    return NOT_MEASURED if spread is None else spread.text(digits)


def ratio_of(ours: Sequence[float], theirs: Sequence[float]) -> Spread | None:
    """Ours over theirs, round by round: neighbours in time met the same machine."""
    pairs = [mine / other for mine, other in zip(ours, theirs, strict=False) if other > 0]
    return Spread.of(pairs) if pairs else None


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value that `share` of the ordered values do not exceed (nearest rank)."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


@dataclass(frozen=True)
class Target:
    """A bound that a figure is held against."""

    what: str
    found: float
    bound: float
    unit: str

    @property
    def is_met(self) -> bool:
        """Whether the figure is at most its bound."""
        return self.found <= self.bound

    def text(self) -> str:
        """One line."""
        verdict = "met" if self.is_met else "MISSED"
        return f"target {verdict}: {self.what} {self.found:,.2f} {self.unit}, bound {self.bound:,.2f} {self.unit}"

    def to_json(self) -> dict[str, Any]:
        """For a result file."""
        return {**asdict(self), "is_met": self.is_met}


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns are aligned for a terminal, too."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"

    return "\n".join([line(head), line(["-" * width for width in widths]), *map(line, rows)])
