"""Several rewards at once, each with its weight."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from lit_agents.errors import BadInput
from lit_agents.reward.base import Reward
from lit_agents.reward.checked import worth
from lit_agents.types import Episode, Task, TurnRewards


@dataclass(frozen=True)
class Weighted:
    """One part of a mixture."""

    reward: Reward
    weight: float
    """What its values are multiplied by."""
    name: str = ""
    """What it is called in logs and files; by default the name of its class."""

    @property
    def title(self) -> str:
        """The name it goes by."""
        return self.name or type(self.reward).__name__


class Mixture(Reward):
    """The weighted sum, turn by turn. Weights are used as they are; nothing is rescaled.

    Args:
        parts: the rewards, their weights and their names, which must differ.

    Raises:
        BadInput: no parts, or two parts of one name.
    """

    def __init__(self, parts: list[Weighted]) -> None:
        if not parts:
            raise BadInput("Mixture", "parts is empty.", "Name at least one reward.")
        twice = [name for name, count in Counter(part.title for part in parts).items() if count > 1]
        if twice:
            raise BadInput("Mixture", f"two parts are called {twice[0]}.", "Give each a `name` of its own.")
        self.parts = tuple(parts)

    def __call__(self, episode: Episode) -> TurnRewards:
        """One named part per reward, weighted; ``name/part`` where a reward has several parts itself."""
        columns: dict[str, list[float]] = {}
        for part in self.parts:
            inner = worth(part.reward, episode).parts
            for key, values in inner.items():
                name = part.title if len(inner) == 1 else f"{part.title}/{key}"
                columns[name] = [part.weight * value for value in values]
        return TurnRewards.of(columns)

    def check(self, tasks: Sequence[Task]) -> None:
        """Every part checks the tasks."""
        for part in self.parts:
            part.reward.check(tasks)
