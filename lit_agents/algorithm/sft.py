"""SFT: the negative log-likelihood of demonstrated actions (docs/formulas.md, 7), every turn of a demonstration in one pass."""

from __future__ import annotations

from torch import Tensor

from lit_agents.algorithm import losses
from lit_agents.algorithm.base import AgentModule
from lit_agents.algorithm.experience import Experience
from lit_agents.policy.causal_lm import ActionScores
from lit_agents.types import TokenBatch


class SFT(AgentModule):
    """Supervised fine-tuning. Rewards, KL and clipping play no part in it."""

    demonstrated = True
    skips_zero_advantage = False
    refuses = ("kl", "importance_cap")

    def credit(self, experience: Experience) -> tuple[Tensor, Tensor]:
        """Every demonstrated token counts the same."""
        return experience.mask_BA.to(experience.rewards_BA.dtype), experience.rewards_BA

    def loss(self, scores: ActionScores, batch: TokenBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """See the module."""
        nll = losses.negative_log_likelihood(scores.logprobs_BA, batch.weights_BA)
        return nll, {"nll": nll}
