"""What the paper measured where a study asks the same question, kept in the study's file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lit_agents.errors import BadInput


@dataclass(frozen=True)
class Paper:
    """A table of the paper, to stand beside ours."""

    source: str
    """Which table, and what of it."""
    rows: dict[str, list[float | None]]
    """By the setting as a report names it (``split 0.6``): success at each objective, null where there is none."""
    differences: list[str]
    """In what its set-up is another one."""

    def check(self, labels: Iterable[str], objectives: int) -> None:
        """Refuse rows that no setting has.

        Raises:
            BadInput: by the name of the row.
        """
        known = list(labels)
        for label, row in self.rows.items():
            if label not in known:
                reason = f"the study has no such setting; it has {'; '.join(known)}."
                raise BadInput(f"paper.rows ({label})", reason, "Name rows as the report does, or set paper to null.")
            if len(row) != objectives:
                reason = f"it has {len(row)} numbers for {objectives} objectives."
                raise BadInput(f"paper.rows ({label})", reason, "Give one for each, or null.")
