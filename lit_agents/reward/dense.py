"""The dense reward: each turn is worth the score it gained (arXiv 2510.01132, section on reward density)."""

from __future__ import annotations

from collections.abc import Sequence

from lit_agents.errors import BadInput
from lit_agents.reward.base import Reward
from lit_agents.types import Episode, Task, TurnRewards


class ScoreGain(Reward):
    """The increment of the score, on the turn that earned it, on one scale for won and lost episodes.

    A won episode totals exactly the worth of a win, at any density: its last turn gets what is missing. Every other
    episode totals less, and at least 0: it keeps what it earned (a lost game too), but the increment that would
    complete the score is paid by a win alone, and a score below 0 counts as 0. A turn whose action was not played gains
    nothing.

    Args:
        normalise: True divides by the maximum score, so a win totals 1 whatever the game; False keeps the world's
            points, so a win totals the maximum score.
    """

    def __init__(self, normalise: bool = True) -> None:
        self.normalise = normalise

    def __call__(self, episode: Episode) -> TurnRewards:
        """Part ``score_gain``."""
        unit = episode.max_score if self.normalise else 1.0
        values: list[float] = []
        before = 0.0
        for turn in episode.turns:
            score = max(0.0, float(turn.signals.get("score", before)))
            after = before if score >= episode.max_score and not episode.won else score
            values.append((after - before) / unit)
            before = after
        if episode.won:
            values[-1] = episode.max_score / unit - sum(values[:-1])  # a difference, so that the sum is exact
        return TurnRewards.of({"score_gain": values})

    def check(self, tasks: Sequence[Task]) -> None:
        """Refuse tasks without an intermediate score, on which this would be the sparse reward under another name."""
        bare = [task for task in tasks if task.rewards <= 1]
        if bare:
            reason = (
                f"{len(bare)} of {len(tasks)} tasks have no intermediate score (first: {bare[0].family} {bare[0].id})."
            )
            way_out = "Use lit_agents.reward.outcome.Outcome, or tasks whose win is made of several score increments."
            raise BadInput("reward ScoreGain", reason, way_out)
