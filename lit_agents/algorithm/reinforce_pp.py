"""REINFORCE++ (Hu 2025; docs/formulas.md, 6): no critic, no group; whitened returns.

Only action tokens are in the list, so a return crosses observations unchanged. verl multiplied the running return by the
action mask, which lost all turns but the last, until August 2026 (docs/formulas.md, 6).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lit_agents.algorithm.advantages import returns_to_go, whitened
from lit_agents.algorithm.base import AgentModule
from lit_agents.algorithm.experience import Experience
from lit_agents.errors import refuse_outside


class ReinforcePP(AgentModule):
    """REINFORCE++.

    Args:
        gamma: discount per token.
    """

    skips_zero_advantage = False

    def __init__(self, *args: Any, gamma: float = 1.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        refuse_outside("model", gamma=(gamma, 1))
        self.gamma = gamma

    def credit(self, experience: Experience) -> tuple[Tensor, Tensor]:
        """Return from each token on, whitened over all action tokens of all ranks."""
        returns_BA = returns_to_go(experience.rewards_BA, experience.mask_BA, self.gamma)
        return whitened(returns_BA, experience.mask_BA, self.sum_over_ranks), returns_BA
