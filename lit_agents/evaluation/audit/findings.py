"""What an audit looked at, what was wrong with it, and what it could not look at."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Findings:
    """Of all checks together."""

    checked: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    unchecked: Counter[str] = field(default_factory=Counter)
    """What was not checked and why, and how often that came up."""

    def expect(self, good: bool, what: str, fault: str) -> None:
        """Count a check; note what it found."""
        self.checked[what] += 1
        if not good:
            self.faults.append(fault)
