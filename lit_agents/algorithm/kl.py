"""How the policy is held near the reference policy (docs/formulas.md, 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lit_agents.errors import BadInput

HORIZON = 1000.0


@dataclass(frozen=True)
class KL:
    """How the policy is held near the reference policy. In the reward or in the loss, never both."""

    reward: float = 0.0
    """Coefficient of -log(policy / reference) added to the reward of every token (k1)."""
    loss: float = 0.0
    """Coefficient of the k3 estimate added to the loss."""
    target: float | None = None
    """Adapt the coefficient so that the KL per token stays near this many nats (Ziegler et al. 2019)."""
    horizon: float = HORIZON
    """Episodes over which an adaptive coefficient moves by a fifth of itself at most."""
    reference: Literal["start", "base"] = "start"
    """The weights at the start of RL, after any supervised stage, or the untouched model."""

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if self.reward and self.loss:
            raise BadInput("model.kl", "reward and loss both have a coefficient.", "Set one of them to 0.")
        for name in ("reward", "loss"):
            if getattr(self, name) < 0:
                raise BadInput(f"model.kl.{name}", "below 0 it would drive the policy away.", "Set it to 0 or more.")
        for name, value in (("target", self.target), ("horizon", self.horizon)):
            if value is not None and value <= 0:
                raise BadInput(f"model.kl.{name}", f"{value} is not above 0.", "Give it a positive value.")
        if self.target is not None and not (self.reward or self.loss):
            raise BadInput("model.kl.target", "there is no coefficient to adapt.", "Set kl.reward or kl.loss as well.")
        if self.target is None and self.horizon != HORIZON:
            raise BadInput(
                "model.kl.horizon", "there is no target to adapt to.", "Set kl.target as well, or leave it out."
            )
        if self.reference == "base" and not self.used:
            raise BadInput("model.kl.reference", "no coefficient uses it.", "Set kl.reward or kl.loss as well.")

    @property
    def used(self) -> bool:
        """Whether the reference policy is needed."""
        return bool(self.reward or self.loss)

    def adapted(self, coefficient: float, kl_per_token: float, episodes: int) -> float:
        """The next coefficient after so many episodes of this KL; the same one without a target."""
        if self.target is None:
            return coefficient
        error = min(max(kl_per_token / self.target - 1, -0.2), 0.2)
        return coefficient * (1 + error * min(1.0, episodes / self.horizon))
