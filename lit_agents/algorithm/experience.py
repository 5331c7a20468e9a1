"""Between collection and training: the episodes of an iteration as columns, and what is computed of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor


@dataclass(frozen=True)
class Experience:
    """The episodes of one iteration as columns; what an algorithm credits."""

    mask_BA: Tensor
    """True on action tokens."""
    rewards_BA: Tensor
    """Each turn's reward on the turn's last action token, 0 elsewhere; KL penalty included if it is in the reward."""
    values_BA: Tensor
    """The critic's values; zeros without one."""
    after_B: Tensor
    """Value of what would have followed; 0 unless `lit_agents.types.StopReason.has_continuation`."""
    group_B: Tensor
    """Number of the episode's group, from 0."""


class Assessment(NamedTuple):
    """What is computed with the collecting weights before anything is trained; zeros for what the algorithm does not use."""

    own_BA: Tensor
    """Log-probabilities as the trainer computes them."""
    reference_BA: Tensor
    """Log-probabilities under the reference policy."""
    values_BA: Tensor
    """The critic's, before each action token."""
    after_B: Tensor
    """The critic's, after the last one."""
