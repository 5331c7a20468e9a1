"""The sparse reward: did the episode end in a win?"""

from __future__ import annotations

from lit_agents.errors import BadInput
from lit_agents.reward.base import Reward
from lit_agents.types import Episode, TurnRewards


class Outcome(Reward):
    """One number on the last turn, nothing on the others.

    Args:
        win: the reward of an episode the world called won. A full score alone is not a win.
        loss: the reward of every other end: lost, turn limit, truncated.

    Raises:
        BadInput: a win that is not worth more than a loss.
    """

    def __init__(self, win: float = 1.0, loss: float = 0.0) -> None:
        if not win > loss:
            raise BadInput("Outcome", f"win={win} is not more than loss={loss}.", "Give a win the larger reward.")
        self.win, self.loss = win, loss

    def __call__(self, episode: Episode) -> TurnRewards:
        """Part ``outcome``."""
        values = [0.0] * len(episode.turns)
        values[-1:] = [self.win if episode.won else self.loss] if values else []
        return TurnRewards.of({"outcome": values})
