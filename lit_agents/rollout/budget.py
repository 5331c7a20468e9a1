"""One budget for both stages: what demonstrations and episodes cost, and how much of each a run may have.

The paper (section 4, table 9) pays 10 units for a demonstration and 1 for an "RL episode", by which it means a distinct game,
however often that is replayed. Here an episode is one that was collected; `Prices` can count games too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from lit_agents.errors import BadInput
from lit_agents.rollout.schedule import Schedule


@dataclass(frozen=True)
class Prices:
    """In units of the budget. An episode that the environment broke costs nothing, and is played again."""

    demonstration: float = 10.0
    """An expert episode for the supervised stage."""
    episode: float = 1.0
    """An episode the policy plays for training."""
    game: float = 0.0
    """A distinct training task, however often it is played: the paper's unit. With it, ``episode`` is 0, data.train_tasks is
    what RL can buy, and trainer.max_epochs how many iterations of data.schedule.tasks are played."""

    def __post_init__(self) -> None:
        """Refuse what nothing can be planned with."""
        for name in ("demonstration", "episode", "game"):
            if not 0 <= (price := getattr(self, name)) < math.inf:
                raise BadInput(f"budget.prices.{name}", f"{price} is no price.", "Set it to 0 or more.")
        if self.demonstration == 0:
            raise BadInput("budget.prices.demonstration", "it is 0, so any number could be bought.", "Set a price.")
        if (self.episode > 0) == (self.game > 0):
            reason = f"episode={self.episode:g} and game={self.game:g}: one of them is what RL is paid by."
            raise BadInput("budget.prices", reason, "Set one to a price and the other to 0.")


@dataclass(frozen=True)
class Budget:
    """How much a run may spend, and how it is split."""

    total: float
    """Units."""
    sft_share: float
    """Of the total, for demonstrations; what they cannot spend is RL's. 0 is RL alone, 1 is SFT alone."""
    prices: Prices = field(default_factory=Prices)

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if not 0 < self.total < math.inf:
            reason = f"{self.total:g} is no number above 0."
            raise BadInput("budget.total", reason, "Set it to what a run may spend.")
        if not 0 <= self.sft_share <= 1:
            raise BadInput("budget.sft_share", f"{self.sft_share:g} is not a share.", "Use 0 to 1.")
        if self.sft_share == 1 and not self.demonstrations:
            reason = f"{self.total:g} units buy no demonstration, and the share leaves nothing for RL."
            raise BadInput("budget", reason, "Raise budget.total, or lower budget.sft_share.")

    @property
    def demonstrations(self) -> int:
        """As many as the share buys."""
        return int(_exact(self.total) * _exact(self.sft_share) // _exact(self.prices.demonstration))

    @property
    def for_rl(self) -> Fraction:
        """Units that are left for RL."""
        return _exact(self.total) - self.demonstrations * _exact(self.prices.demonstration)

    def plan(self, schedule: Schedule, ranks: int) -> Plan:
        """How RL spends what it has: iterations as scheduled, the last smaller or larger, so that as little as can be is left.

        Raises:
            BadInput: it cannot pay for one iteration.
        """
        if self.sft_share == 1:
            return Plan(self.demonstrations, 0, 0, 0)
        group = _exact(self.prices.episode) * schedule.group_size
        groups = int(self.for_rl // (group * ranks)) * ranks
        least = schedule.minibatches * ranks
        if groups < least:
            reason = (
                f"of {self.total:g} units {float(self.for_rl):g} are left for RL, which buy {groups} groups of "
                f"{schedule.group_size} episodes; {schedule.minibatches} minibatches of {ranks} processes need {least}."
            )
            way_out = "Raise budget.total, lower budget.sft_share (1 is SFT alone), or lower data.schedule.minibatches."
            raise BadInput("budget", reason, way_out)
        iterations, rest = divmod(groups, schedule.tasks)
        if rest >= least or not iterations:
            return Plan(self.demonstrations, iterations + 1, schedule.tasks, rest)
        return Plan(self.demonstrations, iterations, schedule.tasks, schedule.tasks + rest)

    def games(self) -> int:
        """Distinct training tasks that RL can buy, where games are what is paid for."""
        return int(self.for_rl // _exact(self.prices.game)) if self.sft_share < 1 else 0

    def account(self, ledger: Mapping[str, Any]) -> dict[str, float]:
        """What was spent and what is left; ``sft`` + ``rl`` + ``remainder`` = ``total``.

        Args:
            ledger: `lit_agents.rollout.ledger.Ledger.total`.
        """
        prices = self.prices
        sft = ledger["demonstrations"] * _exact(prices.demonstration)
        rl = ledger["episodes"] * _exact(prices.episode) + ledger["games"] * _exact(prices.game)
        left = _exact(self.total) - sft - rl
        return {"total": float(self.total), "sft": float(sft), "rl": float(rl), "remainder": float(left)}


@dataclass(frozen=True)
class Plan:
    """What a run does with its budget."""

    demonstrations: int
    iterations: int
    """Of RL."""
    tasks: int
    """Groups in every iteration but the last."""
    last: int
    """Groups in the last one."""

    def tasks_in(self, iteration: int) -> int:
        """Groups of an iteration, counted from 0."""
        return self.last if iteration == self.iterations - 1 else self.tasks


def _exact(value: float) -> Fraction:
    """What was written: 0.1 is a tenth."""
    return Fraction(str(value))
