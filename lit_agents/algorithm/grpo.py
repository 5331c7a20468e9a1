"""GRPO (Shao et al. 2024; docs/formulas.md, 5): returns compared within a group, in units of the group's standard deviation."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lit_agents.algorithm.advantages import group_normalised
from lit_agents.algorithm.base import AgentModule
from lit_agents.algorithm.experience import Experience
from lit_agents.errors import BadInput


class GRPO(AgentModule):
    """Group-relative policy optimisation.

    Args:
        divide_by_std: divide by the group's standard deviation; without it GRPO is (G - 1) / G times RLOO.
    """

    compares_group = True

    def __init__(self, *args: Any, divide_by_std: bool = True, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.kl.reward:
            reason = "GRPO compares returns without KL; a KL in the reward would be divided by the group's deviation."
            raise BadInput("model.kl.reward", reason, "Set kl.reward to 0 and kl.loss instead, or use RLOO.")
        self.divide_by_std = divide_by_std

    def credit(self, experience: Experience) -> tuple[Tensor, Tensor]:
        """One advantage per episode, on all tokens of all its turns."""
        returns_B = experience.rewards_BA.sum(1)
        advantage_B = group_normalised(returns_B, experience.group_B, self.divide_by_std)
        return advantage_B[:, None] * experience.mask_BA, experience.rewards_BA
