"""Giving up trials that fall behind when equally much of the budget is spent."""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from pathlib import Path

import optuna

from lit_agents.rollout.budget import Budget

PARTS = 8
"""Of one run's budget: at the end of each of them a trial is compared."""


@dataclass
class Progress:
    """What one trial has reported; a watch over its runs, one after the other.

    A value is the mean of the latest validation of the run under way and the last ones of the runs before it.
    """

    trial: optuna.Trial
    budget: Budget
    """Of each run."""
    episodes: int
    """Of a whole iteration."""
    before: list[float] = field(default_factory=list)
    """The last validation of each run that has ended."""
    latest: float | None = None
    reported: set[int] = field(default_factory=set)

    def __call__(self, folder: Path) -> bool:
        """Report what is new in a run's ``metrics.csv``; True if the trial should be given up."""
        for spent, value in _validations(folder / "metrics.csv", self.budget, self.episodes):
            self.latest = value
            part = int(PARTS * spent / self.budget.total)
            step = PARTS * len(self.before) + part
            if part and step not in self.reported:
                self.reported.add(step)
                self.trial.report(sum([*self.before, value]) / (len(self.before) + 1), step)
        return bool(self.trial.should_prune())

    def next_run(self, folder: Path) -> None:
        """The run under way has ended, or was found finished."""
        self(folder)
        if self.latest is not None:
            self.before.append(self.latest)
        self.latest = None


def _validations(path: Path, budget: Budget, episodes: int) -> list[tuple[float, float]]:
    """Units spent and success, of every validation in a file that may be growing."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = []
    for row in rows:
        if row["stage"] == "rl" and row.get("validation/success"):
            played = min(int(row["iteration"]) * episodes * budget.prices.episode, float(budget.for_rl))
            found.append(
                (budget.demonstrations * budget.prices.demonstration + played, float(row["validation/success"]))
            )
    return found
