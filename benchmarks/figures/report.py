"""What a scenario gives back: a table for people, rows for a file, and the bounds it is held against."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from figures.spread import Target, table


@dataclass
class Report:
    """The figures of one scenario."""

    name: str
    title: str
    head: list[str]
    rows: list[list[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    measurements: list[dict[str, Any]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def text(self) -> str:
        """For a terminal, and for Markdown."""
        lines = [f"## {self.title}", "", table(self.head, self.rows), ""]
        lines += [f"- {note}" for note in self.notes]
        lines += [f"- {target.text()}" for target in self.targets]
        lines += [f"- FAILED: {failure}" for failure in self.failures]
        return "\n".join(lines) + "\n"

    def write(self, folder: Path, described: dict[str, Any]) -> Path:
        """One file for each scenario; the next run replaces it."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.name}.json"
        document = {
            "scenario": self.name,
            "title": self.title,
            **described,
            "targets": [target.to_json() for target in self.targets],
            "notes": self.notes,
            "failures": self.failures,
            "table": {"head": self.head, "rows": self.rows},
            "measurements": self.measurements,
        }
        path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        return path
