"""PPO with token-level GAE across turns (Schulman et al. 2017; docs/formulas.md, 3)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, zeros_like

from lit_agents.algorithm import losses
from lit_agents.algorithm.advantages import generalised, whitened
from lit_agents.algorithm.base import AgentModule
from lit_agents.algorithm.experience import Experience
from lit_agents.errors import refuse_outside
from lit_agents.policy.causal_lm import ActionScores
from lit_agents.policy.value_head import ValueHead
from lit_agents.types import TokenBatch


class PPO(AgentModule):
    """Proximal policy optimisation with a value head on the policy's last hidden state.

    Args:
        gamma: discount per token.
        lam: GAE's lambda; 1 is the return minus the value, without bootstrapping.
        critic_lr: learning rate of the value head.
        value_clip: hold the value near its old prediction; None for plain squared error.
        value_coef: weight of the critic's loss; without ``share_trunk`` it matters only where gradients are clipped.
        share_trunk: let the critic's gradient into the policy's weights.
        bootstrap_truncated: take the critic's value for what a cut-off after a played action lost, not 0 (docs/formulas.md, 3).
    """

    skips_zero_advantage, has_critic = False, True

    def __init__(
        self,
        *args: Any,
        gamma: float = 1.0,
        lam: float = 1.0,
        critic_lr: float = 1e-4,
        value_clip: float | None = 0.5,
        value_coef: float = 1.0,
        share_trunk: bool = False,
        bootstrap_truncated: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        refuse_outside("model", gamma=(gamma, 1), lam=(lam, 1), value_clip=(value_clip, None))
        self.gamma, self.lam, self.critic_lr, self.value_clip = gamma, lam, critic_lr, value_clip
        self.value_coef, self.share_trunk, self.bootstrap_truncated = value_coef, share_trunk, bootstrap_truncated
        self.value_head: ValueHead | None = None  # made with the model, whose width it needs

    def configure_model(self) -> None:
        """See `AgentModule`."""
        super().configure_model()
        self.value_head = self.value_head or ValueHead(self.policy.config.hidden_size).to(self.policy.device)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Actor and critic."""
        assert self.value_head is not None
        return [*super().parameter_groups(), {"params": list(self.value_head.parameters()), "lr": self.critic_lr}]

    def values(self, scores: ActionScores) -> tuple[Tensor, Tensor]:
        """See `AgentModule`."""
        assert self.value_head is not None
        hidden = (h if self.share_trunk else h.detach() for h in (scores.hidden_BAH, scores.last_BH))
        values_BA, after_B = map(self.value_head, hidden)
        return values_BA, after_B if self.bootstrap_truncated else zeros_like(after_B)

    def credit(self, experience: Experience) -> tuple[Tensor, Tensor]:
        """Whitened GAE."""
        columns = (experience.rewards_BA, experience.values_BA, experience.after_B, experience.mask_BA)
        advantages, returns = generalised(*columns, self.gamma, self.lam)
        return whitened(advantages, experience.mask_BA, self.sum_over_ranks), returns

    def loss(self, scores: ActionScores, batch: TokenBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Policy loss plus critic loss."""
        policy_loss, numbers = super().loss(scores, batch)
        columns = (self.values(scores)[0], batch.values_BA, batch.returns_BA, batch.weights_BA)
        value_loss = losses.clipped_value(*columns, self.value_clip)
        return policy_loss + self.value_coef * value_loss, numbers | {"value_loss": value_loss}
