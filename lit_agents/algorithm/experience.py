"""Between collection and training: the episodes of an iteration as columns, and what is computed of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lit_agents.rng import stream
from lit_agents.types import Episode, EpisodeGroup, TurnRewards


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


@dataclass(frozen=True)
class Iteration:
    """What was collected."""

    groups: tuple[EpisodeGroup, ...]
    rewards: tuple[TurnRewards, ...]
    """Of `episodes`, in their order."""
    failures: tuple[Episode, ...] = ()
    """Attempts the environment broke: in no baseline, no loss, no rate."""
    unused: tuple[Episode, ...] = ()
    """Sound episodes nobody trains on: of groups too small or without signal, demonstrations that did not win. Played, so
    measured, kept and charged."""
    unused_rewards: tuple[TurnRewards, ...] = ()
    groups_played: int = 0
    """All groups, those of which nobody survived and resampled ones counted too."""
    groups_dropped: int = 0
    """Groups with too few survivors, and demonstrations that did not win."""
    groups_without_signal: int = 0
    """Groups all of whose members earned the same, resampled ones counted too."""

    @property
    def episodes(self) -> tuple[Episode, ...]:
        """The episodes of all groups, in order."""
        return tuple(e for group in self.groups for e in group.episodes)

    @property
    def played(self) -> tuple[Episode, ...]:
        """Every sound episode."""
        return self.episodes + self.unused

    @property
    def played_rewards(self) -> tuple[TurnRewards, ...]:
        """Of `played`, in their order."""
        return self.rewards + self.unused_rewards

    @property
    def policy_version(self) -> int:
        """Of the weights that sampled the episodes, as noted in their turns; -1 for demonstrations.

        Raises:
            RuntimeError: several versions played.
        """
        versions = {turn.policy_version for episode in self.episodes for turn in episode.turns} or {-1}
        if len(versions) > 1:
            raise RuntimeError(f"one iteration's episodes were sampled with several versions of the policy: {versions}")
        return versions.pop()

    def group_numbers(self) -> Tensor:
        """(B,) number of each episode's group."""
        return torch.tensor([g for g, group in enumerate(self.groups) for _ in group.episodes], dtype=torch.long)

    def shuffled(self, *key: object) -> list[int]:
        """Episode numbers with the groups in a random order, each kept together."""
        members: list[list[int]] = [[] for _ in self.groups]
        for b, g in enumerate(self.group_numbers().tolist()):
            members[g].append(b)
        return [b for g in stream("order", *key).permutation(len(members)) for b in members[int(g)]]
