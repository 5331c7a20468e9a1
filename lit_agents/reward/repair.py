"""Rewards of a repair, by what its tests said on ``submit``. Made for `lit_agents.environment.swe`, whose signals they read.

The sparse one, resolved or not, is `lit_agents.reward.outcome.Outcome`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from lit_agents.errors import BadInput
from lit_agents.reward.base import Reward
from lit_agents.types import Episode, Signal, Task, TurnRewards

TESTED = "failing"
"""The label that tasks with tests have."""


class _OnSubmit(Reward):
    """Something on the turn whose action was tested; nothing on the others, and nothing at all without one."""

    @property
    @abstractmethod
    def part(self) -> str:
        """What it is called."""

    @abstractmethod
    def worth(self, signals: dict[str, Signal]) -> float:
        """By the signals of that turn."""

    def __call__(self, episode: Episode) -> TurnRewards:
        """One part."""
        values = [self.worth(dict(turn.signals)) if "passed" in turn.signals else 0.0 for turn in episode.turns]
        return TurnRewards.of({self.part: values})

    def check(self, tasks: Sequence[Task]) -> None:
        """Refuse tasks without tests, on which this would always be 0."""
        if bare := [task for task in tasks if TESTED not in task.labels]:
            name = type(self).__name__
            reason = f"{len(bare)} of {len(tasks)} tasks have no tests (first: {bare[0].family} {bare[0].id})."
            raise BadInput(f"reward {name}", reason, "Use it with lit_agents.environment.swe, or take another reward.")


class TestsGained(_OnSubmit):
    """How much of what was missing the repair has brought: max(0, (p - p0) / (1 - p0)).

    p is the share of the tests that count that pass, p0 the same before. The plain share of arXiv 2510.01132 (table 12) pays
    for doing nothing, since most tests pass untouched. A repair that resolves is worth 1, whatever p0.
    """

    part = "tests_gained"

    def worth(self, signals: dict[str, Signal]) -> float:
        """0 to 1."""
        passed, before = float(signals["passed"]), float(signals["passed_before"])
        return max(0.0, (passed - before) / (1.0 - before))


class TestsPassed(_OnSubmit):
    """The share of the tests that count that pass: the paper's "verified ratio", for comparison; see `TestsGained`.

    As there, a submission without any change is worth 0.
    """

    part = "tests_passed"

    def worth(self, signals: dict[str, Signal]) -> float:
        """0 to 1."""
        return float(signals["passed"]) if signals["changed"] else 0.0


class Applies(_OnSubmit):
    """Something was changed, and nothing that worked was broken by it: a small part for those who resolve nothing yet."""

    part = "applies"

    def worth(self, signals: dict[str, Signal]) -> float:
        """0 or 1."""
        return float(bool(signals["changed"]) and signals["kept"] == 1.0)


class WrittenTestsPassed(_OnSubmit):
    """The share of the tests that ``written_tests`` of the environment has written that pass; 0 where it had none to write."""

    part = "written_tests_passed"

    def worth(self, signals: dict[str, Signal]) -> float:
        """0 to 1."""
        return float(signals.get("written_passed", 0.0))
