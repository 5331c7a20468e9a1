"""Advantage estimators: pure functions of rewards. After arXiv 2510.01132; formulas in docs/formulas.md, 3 to 6.

All work on (B, A): one row per episode, one column per action token, all turns in one list, so that nothing is ever
discounted, reset or masked by an observation. Padding is False in ``mask_BA`` and 0 in every result.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Reduce = Callable[[Tensor], Tensor]
"""Sums a tensor over all ranks."""


def _alone(x: Tensor) -> Tensor:
    return x


def returns_to_go(rewards_BA: Tensor, mask_BA: Tensor, gamma: float) -> Tensor:
    """Discounted sum of this and all later rewards, (B, A). The discount acts per token."""
    out, running = torch.zeros_like(rewards_BA), torch.zeros_like(rewards_BA[:, 0])
    for a in reversed(range(rewards_BA.shape[1])):
        running = torch.where(mask_BA[:, a], rewards_BA[:, a] + gamma * running, running)
        out[:, a] = torch.where(mask_BA[:, a], running, 0.0)
    return out


def generalised(
    rewards_BA: Tensor, values_BA: Tensor, after_B: Tensor, mask_BA: Tensor, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Token-level GAE across turns (Schulman et al. 2016): the end of a turn bootstraps from the next turn's first token.

    Args:
        values_BA: value of the conversation before each action token.
        after_B: value of what follows the last action token: 0 where the episode is over.

    Returns:
        Advantages and the returns the critic is to predict, both (B, A).
    """
    advantages = torch.zeros_like(rewards_BA)
    following, running = after_B.clone(), torch.zeros_like(after_B)
    for a in reversed(range(rewards_BA.shape[1])):
        delta = rewards_BA[:, a] + gamma * following - values_BA[:, a]
        running = torch.where(mask_BA[:, a], delta + gamma * lam * running, running)
        following = torch.where(mask_BA[:, a], values_BA[:, a], following)
        advantages[:, a] = torch.where(mask_BA[:, a], running, 0.0)
    return advantages, torch.where(mask_BA, advantages + values_BA, 0.0)


def whitened(x_BA: Tensor, mask_BA: Tensor, reduce: Reduce = _alone) -> Tensor:
    """Zero mean and unit variance over the action tokens of the whole batch on all ranks; 0 on padding.

    In float64: where all values are equal, float32's error in their mean would be divided by itself.
    """
    x = torch.where(mask_BA, x_BA, 0.0).double()
    count = reduce(mask_BA.sum().double()).clamp(min=1)
    mean = reduce(x.sum()) / count
    centred = torch.where(mask_BA, x - mean, 0.0)
    return (centred / ((reduce(centred.square().sum()) / count).sqrt() + 1e-8)).to(x_BA.dtype)


def leave_one_out(returns_B: Tensor, group_B: Tensor) -> Tensor:
    """RLOO (Ahmadian et al. 2024): the return minus the mean return of the other members of the group, (B,).

    A group with equal returns gets exactly 0.

    Raises:
        ValueError: a group with one member, which has no others.
    """
    centred_B, counts = _centred(returns_B, group_B)
    return centred_B * (counts / (counts - 1))[group_B]


def group_normalised(returns_B: Tensor, group_B: Tensor, divide_by_std: bool) -> Tensor:
    """GRPO (Shao et al. 2024): the return minus the group's mean, over its standard deviation if asked for, (B,).

    The standard deviation has G - 1 in its denominator. A group with equal returns gets exactly 0.
    """
    centred_B, counts = _centred(returns_B, group_B)
    if not divide_by_std:
        return centred_B
    squares, _ = _group_sums(centred_B.square(), group_B)
    return centred_B / ((squares / (counts - 1)).sqrt()[group_B] + 1e-6)


def without_signal(returns_B: Tensor, group_B: Tensor) -> Tensor:
    """(groups,) True where all members have the same return but for rounding, so that comparing them teaches nothing."""
    low, high = (_group_extreme(returns_B, group_B, how) for how in ("amin", "amax"))
    return high - low <= 1e-6 * torch.maximum(low.abs(), high.abs()).clamp(min=1)


def _centred(returns_B: Tensor, group_B: Tensor) -> tuple[Tensor, Tensor]:
    """Returns minus the mean of their group, (B,), and members per group; exactly 0 in a group without signal."""
    sums, counts = _group_sums(returns_B, group_B)
    if bool((counts < 2).any()):
        raise ValueError("a group of one episode has no other members to be compared with")
    centred_B = returns_B - (sums / counts)[group_B]
    return torch.where(without_signal(returns_B, group_B)[group_B], 0.0, centred_B), counts


def _group_sums(x_B: Tensor, group_B: Tensor) -> tuple[Tensor, Tensor]:
    groups = int(group_B.max()) + 1 if len(group_B) else 0
    sums = torch.zeros(groups, dtype=x_B.dtype, device=x_B.device).index_add_(0, group_B, x_B)
    return sums, torch.zeros_like(sums).index_add_(0, group_B, torch.ones_like(x_B))


def _group_extreme(x_B: Tensor, group_B: Tensor, how: str) -> Tensor:
    groups = int(group_B.max()) + 1 if len(group_B) else 0
    out = torch.zeros(groups, dtype=x_B.dtype, device=x_B.device)
    return out.scatter_reduce_(0, group_B, x_B, how, include_self=False)
