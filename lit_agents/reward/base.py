"""The reward contract: what each turn of a finished episode was worth. Pure Python; a new reward is one class."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from lit_agents.types import Episode, Task, TurnRewards


class Reward(ABC):
    """Turns a finished episode into one number per turn, with its named parts kept."""

    @abstractmethod
    def __call__(self, episode: Episode) -> TurnRewards:
        """``values`` has one entry per turn. Never called on a failed episode."""

    def check(self, tasks: Sequence[Task]) -> None:
        """Refuse tasks that cannot supply what this reward needs, before anything is loaded.

        Raises:
            BadInput: naming the reward and the way out.
        """
        del tasks
