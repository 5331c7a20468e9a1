"""``metrics.csv`` of a run."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from lit_agents.system.files import write_whole


class MetricsFile:
    """``metrics.csv``: a row per iteration, with its stage; new columns are added on the right.

    Numbers are what they are bit for bit; those that depend on the clock have names that end in ``_seconds`` or ``/s``.
    """

    def __init__(self, path: Path, writes: bool = True) -> None:
        self._path, self._writes = path, writes
        self.changes = 0
        """How often the run went on under other conditions; see `lit_agents.run.resuming`. 0 is not written down."""
        self.rows: list[dict[str, str]] = []
        if path.exists():
            with path.open(newline="") as file:
                self.rows = [{k: v for k, v in row.items() if v} for row in csv.DictReader(file)]
        self._columns = list(dict.fromkeys(name for row in self.rows for name in row))

    def add(self, stage: str, iteration: int, step: int, numbers: Mapping[str, float]) -> None:
        """Add a row."""
        row = {"stage": stage, "iteration": str(iteration), "step": str(step)}
        row |= {"changed": str(self.changes)} if self.changes else {}
        row |= {k: repr(float(v)) for k, v in sorted(numbers.items())}
        self.rows.append(row)
        if not set(row) <= set(self._columns):
            self._rewrite()
        elif self._writes:
            with self._path.open("a", newline="") as file:
                csv.DictWriter(file, self._columns).writerow(row)

    def cut(self, count: int) -> None:
        """Forget later rows."""
        if count < len(self.rows):
            del self.rows[count:]
            self._rewrite()

    def _rewrite(self) -> None:
        self._columns = list(dict.fromkeys(name for row in self.rows for name in row))
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self._columns)
        writer.writeheader()
        writer.writerows(self.rows)
        if self._writes:
            write_whole(self._path, text.getvalue())
