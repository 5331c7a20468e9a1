"""RLOO (Ahmadian et al. 2024; docs/formulas.md, 4): REINFORCE whose baseline is the mean return of the group's other members."""

from __future__ import annotations

from torch import Tensor

from lit_agents.algorithm.advantages import leave_one_out
from lit_agents.algorithm.base import AgentModule
from lit_agents.algorithm.experience import Experience


class RLOO(AgentModule):
    """Leave-one-out. The return includes the KL terms when ``kl.reward`` is used; nothing is whitened."""

    compares_group = True

    def credit(self, experience: Experience) -> tuple[Tensor, Tensor]:
        """One advantage per episode, on all tokens of all its turns."""
        advantage_B = leave_one_out(experience.rewards_BA.sum(1), experience.group_B)
        return advantage_B[:, None] * experience.mask_BA, experience.rewards_BA
