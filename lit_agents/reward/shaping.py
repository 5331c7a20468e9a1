"""Costs: small negative rewards for what an agent should do without. Meant as parts of a `Mixture`."""

from __future__ import annotations

import re

from lit_agents.errors import BadInput
from lit_agents.reward.base import Reward
from lit_agents.types import Episode, StopReason, TurnRewards


class TurnCost(Reward):
    """Every turn costs the same, played or not: shorter is better.

    Args:
        cost: subtracted on each turn, at least 0.

    Raises:
        BadInput: a negative cost.
    """

    def __init__(self, cost: float) -> None:
        self.cost = _checked(cost, "TurnCost")

    def __call__(self, episode: Episode) -> TurnRewards:
        """Part ``turn_cost``."""
        return TurnRewards.of({"turn_cost": [-self.cost for _ in episode.turns]})


class InvalidCommand(Reward):
    """An action that was played and that the world did not understand costs something, on its turn.

    Args:
        cost: subtracted on each such turn, at least 0.

    Raises:
        BadInput: a negative cost.
    """

    def __init__(self, cost: float) -> None:
        self.cost = _checked(cost, "InvalidCommand")

    def __call__(self, episode: Episode) -> TurnRewards:
        """Part ``invalid_command``; an action that was not played has no signals and costs nothing here."""
        values = [-self.cost if turn.signals.get("valid") is False else 0.0 for turn in episode.turns]
        return TurnRewards.of({"invalid_command": values})


class Format(Reward):
    """An action that is not written as it should be costs something, on its turn, whether the world understood it or not.

    Args:
        cost: subtracted on each such turn, at least 0.
        pattern: regular expression the whole text of an action must match; by default it is one line that is not empty.

    Raises:
        BadInput: a negative cost, or what is no regular expression.
    """

    def __init__(self, cost: float, pattern: str = r"[^\n]*\S[^\n]*") -> None:
        self.cost = _checked(cost, "Format")
        try:
            self.pattern = re.compile(pattern)
        except re.error as error:
            raise BadInput("Format", f"pattern={pattern!r} is no regular expression ({error}).", "Mend it.") from error

    def __call__(self, episode: Episode) -> TurnRewards:
        """Part ``format``."""
        values = [0.0 if self.pattern.fullmatch(turn.action) else -self.cost for turn in episode.turns]
        return TurnRewards.of({"format": values})


class UnfinishedAction(Reward):
    """An action that reached its token limit without an end-of-turn token costs something, on its turn, the last one.

    It also ends the episode, so beside a cost per turn it should cost no less than the turns it saves.

    Args:
        cost: subtracted on the last turn of such an episode, at least 0.

    Raises:
        BadInput: a negative cost.
    """

    def __init__(self, cost: float) -> None:
        self.cost = _checked(cost, "UnfinishedAction")

    def __call__(self, episode: Episode) -> TurnRewards:
        """Part ``unfinished_action``."""
        values = [0.0] * len(episode.turns)
        if episode.stop is StopReason.UNFINISHED_ACTION:
            values[-1] = -self.cost
        return TurnRewards.of({"unfinished_action": values})


def _checked(cost: float, where: str) -> float:
    if not cost >= 0:
        raise BadInput(
            where, f"cost={cost} is not a number of at least 0.", "A cost is subtracted: give it as positive."
        )
    return cost
